"""What guests ask at 169.254.169.254, on the host they run on: who asks is known by the port, who he is by the log.

    a guest's request ─▶ its source address, in that network ─▶ its port here ─▶ cache, or `ask` ─▶ documents
    through a router  ─▶ its source address, in one it joins ─▶ its port anywhere ─▶ `ask` as that router

A guest cannot ask for another: the answer travels to the card that the address belongs to. Several requests of one
guest ask the control plane once. What was once answered is told again while the control plane is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

import msgspec

from agents.network.dnsmasq import link_local
from agents.network.driver import AskInstance, Faults, Touched
from agents.network.metadata_server import Listeners, Through
from agents.network.world import World
from bus import clock
from schema.compute.domain import Seed
from schema.network.wiring import Peer, WiredPort

FRESH_SECONDS = 10.0
"""After so long the control plane is asked again: a key or a tag may have changed."""
ASK_AGAIN_SECONDS = 2.0
WAIT_SECONDS = 5.0
STALE_WAIT_SECONDS = 1.0
"""How long a new answer is waited for where an old one will do."""


class Instance(msgspec.Struct, frozen=True):
    """What was answered for a port of that generation, and when."""

    server_id: str
    seed: Seed | None
    generation: int
    at: float


_NOBODY = Instance("", None, 0, 0.0)


class Metadata:
    """A Component. It listens wherever it is told to `serve`."""

    def __init__(self) -> None:
        self._ask: AskInstance = _nobody_hears
        self._world = World({})
        self._ports: dict[str, dict[str, WiredPort]] = {}
        """Network → address → the port here that has it; made when it is looked for."""
        self._peers: dict[str, dict[str, Peer]] = {}
        """The same of the ports elsewhere."""
        self._known: dict[str, Instance] = {}
        self._asked: dict[str, asyncio.Future[Instance]] = {}
        self._questions: dict[str, float] = {}
        """When the control plane was last asked about a port."""
        self._listeners = Listeners(self)

    def start(self, ask: AskInstance) -> None:
        """Before the first request: how the control plane is asked."""
        self._ask = ask

    async def apply(self, world: World, touched: Touched) -> Faults:
        self._world = world
        self._ports, self._peers = {}, {}
        for port_id, known in list(self._known.items()):
            port = world.ports.get(port_id)
            if port is None or port.device_id != known.server_id:  # what another server was told is not for this one
                del self._known[port_id]
        for port_id in [id for id in self._asked if id not in world.ports and id not in world.peers]:
            self._answer(port_id, _NOBODY)
        return {}

    def instance(self, port_id: str, server_id: str, seed: Seed | None) -> None:
        """The control plane's answer."""
        port = self._world.ports.get(port_id)
        if port is None:
            self._answer(port_id, Instance(server_id, seed, 0, clock.monotonic()))  # of a guest elsewhere
            return
        if server_id and server_id != port.device_id:
            return  # it was asked before somebody else got the port
        answered = Instance(server_id, seed, port.generation, clock.monotonic())
        if server_id:
            self._known[port_id] = answered
        self._answer(port_id, answered)

    async def serve(
        self, name: str, network_ids: Iterable[str], *, interface: str = "", through: Through | None = None
    ) -> None:
        """Listen in a named namespace for guests of these networks, until `leave`; nothing happens when it does so.

        At 169.254.169.254, and with an interface at its fe80::a9fe:a9fe. The addresses may come later. `through` a
        router guests of other hosts are answered as well. Raises OSError.
        """
        await self._listeners.serve(name, frozenset(network_ids), interface, through)

    async def leave(self, name: str) -> None:
        await self._listeners.leave(name)

    async def close(self) -> None:
        await self._listeners.close()
        for port_id in list(self._asked):
            self._answer(port_id, _NOBODY)

    def port_at(self, network_ids: Iterable[str], ip: str, *, elsewhere: bool = False) -> WiredPort | Peer | None:
        """The port here (or elsewhere as well) that has an address in one of these networks."""
        for network_id in network_ids:
            if network_id not in self._ports:
                self._ports[network_id] = _by_address(self._world.ports_of.get(network_id, ()))
            if port := self._ports[network_id].get(ip):
                return port
            if elsewhere and network_id not in self._peers:
                peers = self._world.peers_of.get(network_id, ())
                self._peers[network_id] = {ip: it for it in peers for ip in (link_local(it.mac_address), *it.ips)}
            if elsewhere and (peer := self._peers[network_id].get(ip)):
                return peer
        return None

    async def about(self, port: WiredPort | Peer, router_id: str = "") -> Instance:
        """Who is behind a port. Raises TimeoutError: the control plane did not say in time.

        Of a port elsewhere nothing is kept: whose it is may change, and this host is not told.
        """
        if isinstance(port, Peer):
            return await self._learn(port.id, WAIT_SECONDS, router_id)
        known = self._known.get(port.id)
        if known and known.generation == port.generation and clock.monotonic() - known.at < FRESH_SECONDS:
            return known
        try:
            return await self._learn(port.id, WAIT_SECONDS if known is None else STALE_WAIT_SECONDS)
        except TimeoutError:
            if known is None:
                raise
            return known

    async def keep(self, port: WiredPort | Peer, password: str, router_id: str = "") -> Instance:
        """Have the control plane keep a password that a guest posts. Its seed says which one is kept in the end.

        Raises TimeoutError: the control plane did not say in time.
        """
        end = clock.monotonic() + WAIT_SECONDS
        while (left := end - clock.monotonic()) > 0:
            self._questions.pop(port.id, None)
            found = await self._learn(port.id, left, router_id, password)
            # One that was asked for before it was posted may be answered first.
            if found.seed is None or found.seed.posted_password:
                return found
        raise TimeoutError

    async def _learn(self, port_id: str, seconds: float, router_id: str = "", password: str = "") -> Instance:
        """Ask, unless somebody just has; and again, should the question have been lost."""
        end = clock.monotonic() + seconds
        if port_id not in self._asked:
            self._asked[port_id] = asyncio.get_running_loop().create_future()
        future = self._asked[port_id]
        while True:
            now = clock.monotonic()
            if now >= self._questions.get(port_id, 0.0) + ASK_AGAIN_SECONDS:
                self._questions[port_id] = now
                if password:
                    self._ask(port_id, router_id, password)
                else:
                    self._ask(port_id, router_id)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(ASK_AGAIN_SECONDS, max(0.0, end - now))):
                    return await asyncio.shield(future)
            if clock.monotonic() >= end:
                raise TimeoutError

    def _answer(self, port_id: str, answer: Instance) -> None:
        future = self._asked.pop(port_id, None)
        self._questions.pop(port_id, None)
        if future and not future.done():
            future.set_result(answer)


def _by_address(ports: Iterable[WiredPort]) -> dict[str, WiredPort]:
    found = {}
    for port in ports:
        found[link_local(port.mac_address)] = port
        for address in port.addresses:
            found[address.ip] = port
    return found


def _nobody_hears(port_id: str, router_id: str = "", password: str = "") -> None:
    """Before `start`."""
