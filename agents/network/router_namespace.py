"""One router on one host: its namespace, feet, addresses and routes, its rules, and what it tells its neighbours.

    rules ─▶ feet ─▶ addresses, routes ─▶ neighbours told, advertisements, metadata

Rules stand before there is anything for them to translate, and addresses that go, go before their rules do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Protocol

import msgspec
import structlog

from agents.network import advertising, namespace, netlink, nft, router_connections, router_kernel
from agents.network.advertising import Advertiser
from agents.network.announcing import Announcer
from agents.network.interface import set_neighbours
from agents.network.metadata_server import InnerFoot, Through
from agents.network.namespace import FOLDER, enter
from agents.network.nft import NftRefused
from agents.network.router_kernel import LOOPBACK, Seen, Step
from agents.network.router_rules import SILENCE, Foot, Layout, layout, networks_of
from agents.network.router_watch import Watch
from agents.network.switch import Attachment, CannotWire, Switch
from agents.network.world import World
from bus import clock
from schema.network.wiring import WiredNetwork, WiredRouter

log = structlog.get_logger()

LOOK_SECONDS = 60.0
"""So often everything is looked at, though nobody was heard to have changed anything."""
_ROUNDS = 3
"""Taking one thing away may take another with it, so it is looked at again."""
_SETTINGS: dict[str, int] = {
    "net/ipv4/ip_forward": 1,
    "net/ipv6/conf/all/forwarding": 1,
    "net/ipv6/conf/default/forwarding": 1,
    "net/ipv6/conf/all/accept_dad": 0,
    "net/ipv6/conf/default/accept_dad": 0,
    "net/ipv6/conf/all/accept_ra": 0,
    "net/ipv6/conf/default/accept_ra": 0,
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/conf/default/rp_filter": 0,
    "net/ipv4/conf/all/send_redirects": 0,
    "net/ipv4/conf/default/send_redirects": 0,
    "net/ipv4/conf/all/promote_secondaries": 1,
    "net/ipv4/conf/all/arp_ignore": 1,
    "net/ipv4/conf/all/arp_announce": 2,
}
"""Each foot answers for its own addresses only, and nothing is learned from what comes in."""


_NO_ARP = 8
"""Of `arp_ignore`: no address is answered for."""


class Serving(Protocol):
    """Serves metadata in a namespace; agents/network/metadata.py."""

    async def serve(
        self, name: str, network_ids: Iterable[str], *, interface: str = "", through: Through | None = None
    ) -> None: ...

    async def leave(self, name: str) -> None: ...


class Tools(msgspec.Struct, frozen=True):
    """What all routers of a host share."""

    switch: Switch
    advertiser: Advertiser
    announcer: Announcer
    on_change: Callable[[], None]
    metadata: Serving | None = None


class RouterNamespace:
    """Every method may be repeated. Where one raises, make a new one: it takes nothing for granted."""

    def __init__(self, name: str, tools: Tools) -> None:
        self.name = name
        self._tools = tools
        self._place = 0
        """Inode of the namespace that is known; another one of the same name is not."""
        self._rules = ""
        self._generation = -1
        self._attachments: dict[str, Attachment] = {}
        self._watch: Watch | None = None
        self._met = False
        self._settled: object = None
        """What was found in place, `_looked_at` then."""
        self._did = False
        """Something was done since it was last looked for."""
        self._looked_at = 0.0

    async def apply(self, router: WiredRouter, world: World) -> str:
        """What could not be done, or empty."""
        await self._enter()
        of = router, *(world.networks.get(id) for id in sorted(networks_of(router)))
        if self._is_settled(of):
            return ""
        self._settled, self._did = None, False
        fault, alone = await self._bring(router, world)
        if (
            alone and not fault and not self._did
        ):  # what was done is looked at once more, for others may have been at it
            self._settled, self._looked_at = of, clock.monotonic()
        return fault

    async def _bring(self, router: WiredRouter, world: World) -> tuple[str, bool]:
        """What could not be done, and whether nobody was heard meanwhile."""
        wanted = layout(router, world.networks)
        watch = self._watch
        alone = True
        try:
            if watch:
                watch.turn_away()
            seen, anew = await asyncio.to_thread(self._before, wanted)
            faults = await self._plug(wanted, seen, world)
            await asyncio.to_thread(self._forget_neighbours, wanted, seen)
            added, undone = await asyncio.to_thread(self._after, wanted)
            if anew:
                await asyncio.to_thread(self._cut, router)
            await self._announce(wanted, added)
            await self._advertise(wanted, world.networks, added)
            await self._serve(router, wanted)
        finally:
            if watch:
                alone = watch.listen()
        return "; ".join([*faults, *undone]), alone

    def _is_settled(self, of: object) -> bool:
        """It was looked at not long ago, and neither what is wanted has changed since nor what is there."""
        recent = clock.monotonic() - self._looked_at < LOOK_SECONDS
        return recent and self._settled == of and self._watch is not None and self._watch.quiet

    def doubt(self) -> None:
        """The next `apply` looks at everything."""
        self._settled = None

    async def end(self) -> None:
        """All of it goes."""
        self.let_go()
        if self._tools.metadata:
            await self._tools.metadata.leave(self.name)
        there = await asyncio.to_thread(_feet, self.name)
        ports = {it.inside: it.port_id for it in self._attachments.values()}
        for foot in {*there, *ports}:
            await self._tools.switch.detach(ports.get(foot, foot[1:]))
        await asyncio.to_thread(namespace.remove, self.name)

    def let_go(self) -> None:
        """Of the namespace, which stays as it is."""
        if self._watch:
            self._watch.close()
            self._watch = None
        self._tools.advertiser.forget(self.name)
        self._tools.announcer.forget(self.name)

    async def _enter(self) -> None:
        place = await asyncio.to_thread(_make, self.name)
        if place != self._place:
            self.let_go()
            self._place, self._rules, self._attachments, self._settled = place, "", {}, None
        if self._watch is None:
            self._watch = await Watch.open(self.name, self._tools.on_change)

    def _before(self, wanted: Layout) -> tuple[Seen, bool]:
        """What goes, and the rules; whether they were put in anew."""
        with enter(self.name):
            with netlink.Socket() as kernel:
                seen = router_kernel.observe(kernel)
                going = [step for step in router_kernel.plan(wanted, seen) if step.act.startswith("remove")]
                router_kernel.carry_out(kernel, going, seen.links)
                self._did |= bool(going)
            generation = nft.generation()
            if self._rules == wanted.rules and self._generation == generation:
                return seen, False
            nft.apply(wanted.rules)
            self._did = True
            self._rules, self._generation = wanted.rules, nft.generation()
            return seen, True

    async def _plug(self, wanted: Layout, seen: Seen, world: World) -> list[str]:
        """Have its feet and no others."""
        ports = {it.inside: it.port_id for it in self._attachments.values()}
        for name in {name for name in seen.links if _is_foot(name)} | ports.keys():
            if name not in wanted.feet:
                await self._tools.advertiser.say(self.name, name, "", None)
                await self._tools.switch.detach(ports.get(name, name[1:]))
                self._attachments.pop(name, None)
                self._did = True
        faults = []
        for name, foot in wanted.feet.items():
            attachment = self._attachment(foot)
            if name in seen.links and self._attachments.get(name) == attachment:
                continue
            try:
                await self._tools.switch.attach(attachment, world)
                self._attachments[name] = attachment
                self._did = True
            except CannotWire as error:
                self._attachments.pop(name, None)
                faults.append(str(error))
        return faults

    def _forget_neighbours(self, wanted: Layout, seen: Seen) -> None:
        """Those that an agent before this one nailed, once."""
        if not self._met:
            for name in wanted.feet.keys() & seen.links.keys():
                with suppress(OSError):
                    set_neighbours(self.name, name, {}, no_others=True)
        self._met = True

    def _attachment(self, foot: Foot) -> Attachment:
        port = foot.port
        return Attachment(
            port_id=port.port_id,
            network_id=port.network_id,
            mac_address=port.mac_address,
            mtu=port.mtu,
            namespace=self.name,
        )

    def _after(self, wanted: Layout) -> tuple[list[Step], list[str]]:
        """Addresses and routes: the addresses that are new, and what could not be done."""
        added: list[Step] = []
        failed: list[tuple[Step, str]] = []
        with enter(self.name), netlink.Socket() as kernel:
            for _ in range(_ROUNDS):
                seen = router_kernel.observe(kernel)
                steps = router_kernel.plan(wanted, seen)
                if not steps:
                    return added, []
                failed = router_kernel.carry_out(kernel, steps, seen.links)
                self._did = True
                refused = [step for step, _ in failed]
                added += [step for step in steps if step.act == "add address" and step not in refused]
        return added, [f"{router_kernel.describe(step)}: {why}" for step, why in failed]

    def _cut(self, router: WiredRouter) -> None:
        with enter(self.name):
            cut = router_connections.cut(router)
        if cut:
            log.info("connections were cut that a router leads elsewhere now", router=router.id, connections=cut)

    async def _announce(self, wanted: Layout, added: Iterable[Step]) -> None:
        ips: dict[str, set[str]] = {}
        for step in added:
            if step.interface != LOOPBACK:
                ips.setdefault(step.interface, set()).add(step.address.partition("/")[0])
        for name, fresh in ips.items():
            await self._tools.announcer.tell(self.name, name, wanted.feet[name].port.mac_address, fresh)

    async def _advertise(self, wanted: Layout, networks: Mapping[str, WiredNetwork], added: list[Step]) -> None:
        """To inner networks whose gateway it is."""
        for name, foot in wanted.feet.items():
            network = networks.get(foot.port.network_id)
            if foot.gateway or network is None or name not in self._attachments:
                continue
            own = {it.ip for it in foot.port.addresses}
            subnets = [it for it in network.subnets if it.gateway_ip in own]
            said = advertising.advertisement(subnets, network.mtu, routes=True)
            await self._tools.advertiser.say(self.name, name, foot.port.mac_address, said)

    async def _serve(self, router: WiredRouter, wanted: Layout) -> None:
        if self._tools.metadata is None:
            return
        if router.ports:
            feet = tuple(
                InnerFoot(name, foot.port.network_id, foot.metadata_six and name in self._attachments)
                for name, foot in wanted.feet.items()
                if not foot.gateway
            )
            inner = {foot.network_id for foot in feet}
            await self._tools.metadata.serve(self.name, inner, through=Through(router.id, feet))
        else:
            await self._tools.metadata.leave(self.name)


def silence(name: str) -> None:
    """Have it neither hear nor say anything; nothing happens when it is not there.

    Interfaces are taken down only where rules cannot be made: for each the kernel waits until no packet is under way.
    """
    with suppress(OSError), enter(name):
        try:
            nft.apply(SILENCE)
            namespace.sysctl("net/ipv4/conf/all/arp_ignore", _NO_ARP)
        except (OSError, NftRefused):
            with netlink.Socket() as kernel:
                router_kernel.silence(kernel)


def _make(name: str) -> int:
    """Have it, set up to route; its inode."""
    namespace.create(name)
    with enter(name):
        for key, value in _SETTINGS.items():
            namespace.sysctl(key, value)
    return (FOLDER / name).stat().st_ino


def _feet(name: str) -> list[str]:
    """Interfaces in it that are ours."""
    try:
        with enter(name), netlink.Socket() as kernel:
            return [it for it in router_kernel.observe(kernel).links if _is_foot(it)]
    except OSError:
        return []


def _is_foot(interface: str) -> bool:
    return interface.startswith("q") and len(interface) <= 12
