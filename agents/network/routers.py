"""Routers on a host: for each that lives here a namespace with a foot in every network it joins.

Where a router lives is the control plane's to say, and one lives on one host at most: what another host may have been
given is taken down here when the lease lapses (`fence`), and told to its neighbours anew where it comes up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from agents.network import namespace
from agents.network.advertising import Advertiser
from agents.network.announcing import Announcer
from agents.network.driver import Faults, Touched
from agents.network.nft import NftRefused
from agents.network.router_namespace import RouterNamespace, Serving, Tools, silence
from agents.network.router_rules import networks_of
from agents.network.switch import Switch
from agents.network.vpn import Tunnels
from agents.network.world import World
from schema.network.wiring import RouterSeen, WiredRouter

log = structlog.get_logger()

AT_ONCE = 4
"""Routers that are worked on at the same time."""


class Routers:
    """A Component; after the switch. Without `tunnels` there are no VPN connections on this host."""

    def __init__(
        self, tag: str, switch: Switch, *, metadata: Serving | None = None, tunnels: Tunnels | None = None
    ) -> None:
        self._tag = tag
        self._tunnels = tunnels
        self._advertiser = Advertiser()
        self._announcer = Announcer()
        self._on_change: Callable[[], None] = _nobody
        self._tools = Tools(switch, self._advertiser, self._announcer, self._changed, metadata)
        self._spaces: dict[str, RouterNamespace] = {}
        """By the router's name in its namespace."""
        self._routers: dict[str, WiredRouter] = {}
        """As they were last brought about."""
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._lock = asyncio.Lock()

    async def start(self, on_change: Callable[[], None]) -> None:
        """From now on tell when somebody else changed a router here; in the event loop's own thread."""
        self._on_change = on_change

    async def apply(self, world: World, touched: Touched) -> Faults:
        async with self._lock:
            ids = set(world.routers) | set(self._routers) if touched is None else self._concerned(world, touched)
            results = await asyncio.gather(*(self._bring(world, id) for id in ids))
            if touched is None:
                await self._sweep(world)
        return {key: text for faults in results for key, text in faults.items()}

    async def routers(self) -> Mapping[str, RouterSeen]:
        routers = list(self._routers.values())
        states = await asyncio.gather(*(self._connections(router) for router in routers))
        return {
            it.id: RouterSeen(router_id=it.id, generation=it.generation, up=it.admin_up, connections=connections)
            for it, connections in zip(routers, states, strict=True)
        }

    async def fence(self) -> None:
        """All routers of this host fall silent now; the next `apply` puts up what is to be."""
        self._announcer.close()
        self._advertiser.close()
        for space in self._spaces.values():
            space.doubt()
        names = await asyncio.to_thread(namespace.names, self._prefix)
        await asyncio.gather(*(asyncio.to_thread(silence, name) for name in names))

    async def close(self) -> None:
        """Routers go on without the agent; advertisements pause until the next."""
        for space in self._spaces.values():
            space.let_go()
        self._announcer.close()
        self._advertiser.close()
        if self._tunnels:
            self._tunnels.close()

    def namespace_of(self, router_id: str) -> str:
        return f"{self._prefix}{router_id[:11]}"

    async def _connections(self, router: WiredRouter) -> dict[str, str]:
        if self._tunnels is None or not router.admin_up or not router.connections:
            return {it.id: "ERROR" if it.admin_up and router.admin_up else "DOWN" for it in router.connections}
        return await self._tunnels.states(self.namespace_of(router.id), router)

    def _changed(self) -> None:
        self._on_change()

    @property
    def _prefix(self) -> str:
        return f"cl-{self._tag}-r-"

    def _concerned(self, world: World, touched: frozenset[str]) -> set[str]:
        found = {key.partition("/")[2] for key in touched if key.startswith("router/")}
        networks = {key.partition("/")[2] for key in touched if key.startswith("network/")}
        if networks:
            found |= {id for id, router in world.routers.items() if networks & networks_of(router)}
        return found

    async def _bring(self, world: World, id: str) -> Faults:
        async with self._at_once:
            router = world.routers.get(id)
            name = self.namespace_of(id)
            try:
                if router is None or not router.admin_up:
                    await self._end(name)
                    self._routers.pop(id, None)
                    if router is not None:
                        self._routers[id] = router
                    return {}
                space = self._spaces.setdefault(name, RouterNamespace(name, self._tools))
                fault = await space.apply(router, world)
                if self._tunnels and await self._tunnels.keep(name, router, self._changed):
                    fault = await space.apply(router, world)
                self._routers[id] = router
                return {f"router/{id}": fault} if fault else {}
            except Exception as error:
                if (space_there := self._spaces.pop(name, None)) is not None:
                    space_there.let_go()  # the next look takes nothing for granted
                if not isinstance(error, (OSError, NftRefused)):
                    log.exception("a router failed", router=id)
                return {f"router/{id}": f"router: {error}"}

    async def _end(self, name: str) -> None:
        space = self._spaces.pop(name, None)
        if space is None and not namespace.exists(name):
            return
        if self._tunnels:
            await self._tunnels.leave(name)
        await (space or RouterNamespace(name, self._tools)).end()

    async def _sweep(self, world: World) -> None:
        """Routers of an agent before this one; but one that was told nothing yet knows of no leftovers."""
        wanted = {self.namespace_of(id) for id, router in world.routers.items() if router.admin_up}
        for name in await asyncio.to_thread(namespace.names, self._prefix) if world.pieces else []:
            if name not in wanted:
                try:
                    await self._end(name)
                except OSError as error:
                    log.warning("a router that nobody wants could not be removed", namespace=name, error=str(error))


def _nobody() -> None:
    """Nobody listens yet."""
