"""The Linux bridge driver's switch: bridges, VXLAN devices, taps and pairs as netlink makes them.

    kernel ─dumps─▶ seen ─┐
    world ───▶ wanted ────┴─▶ plan ─▶ new links ─▶ one batch of all the rest ─▶ seen

What was seen is kept and told of each step, so a change costs no look at the kernel. A sweep costs one dump; all three
are taken only at the beginning, and when somebody else was heard to have changed something.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping

import structlog

from agents.network import bridge_wanted, links, namespace, netlink
from agents.network.bridge_act import act, foot_inside, observe
from agents.network.bridge_plan import Remove, Seen, Step, plan
from agents.network.bridge_wanted import OURS, Fabric, Wanted, is_ours, wanted
from agents.network.bridge_watch import Watch, ears
from agents.network.driver import Faults, Touched
from agents.network.namespace import Namespace
from agents.network.switch import Attachment, CannotWire
from agents.network.world import World
from schema.network.wiring import NetworkHostFacts, WiredNetwork

log = structlog.get_logger()


class LinuxBridge:
    """A Switch. What it makes outlives it; the next one finds everything in place, and touches nothing."""

    def __init__(self, inside: Namespace, *, fabric: str = "", interfaces: Mapping[str, str] | None = None) -> None:
        """`fabric`: the interface, or the address, at which tunnels end. `interfaces`: of the physical networks."""
        self._namespace = inside
        self._fabric = fabric
        self._interfaces = dict(interfaces or {})
        self._endpoint = "", ""
        """(address, interface) when last looked at: whoever asks for `facts` now and then has it followed."""
        self._kernel: netlink.Socket | None = None
        self._sockets: list[netlink.Socket] = []
        """Opened and closed in the namespace's thread, whoever stopped waiting for it meanwhile."""
        self._watch: Watch | None = None
        self._on_change: Callable[[], None] = _nobody
        self._lock = asyncio.Lock()
        self._seen = Seen()
        self._unsure = True
        """The kernel may have other things than `_seen`."""
        self._feet: dict[str, Attachment] = {}
        self._names: dict[str, frozenset[str]] = {}
        """Network → the links it was given."""
        self._networks_of: dict[str, list[str]] = {}
        """Key of a piece → the networks it was in last."""

    async def start(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._watch = Watch(await self._namespace.run(self._ears), self._heard)

    async def facts(self) -> NetworkHostFacts:
        return await self._namespace.run(self._facts)

    async def apply(self, world: World, touched: Touched) -> Faults:
        async with self._lock:
            ids = self._touched_networks(world, touched)
            try:
                faults = await self._namespace.run(self._bring, world, ids, everything=touched is None)
            except OSError as error:
                self._unsure = True
                return {f"network/{id}": f"the kernel could not be asked: {error}" for id in ids}
            self._look_for_others()
        return faults

    async def close(self) -> None:
        if self._watch:
            self._watch.close()
            self._watch = None
        await self._namespace.run(self._close_sockets)

    def bridge_of(self, network: WiredNetwork) -> str:
        return bridge_wanted.bridge_of(network)

    async def attach(self, attachment: Attachment, world: World) -> None:
        async with self._lock:
            try:
                fault = await self._namespace.run(self._attach, attachment, world)
            except OSError as error:
                self._unsure = True
                raise CannotWire(f"{attachment.inside} could not be made: {error}") from error
            self._look_for_others()
        if fault:
            raise CannotWire(fault)

    async def detach(self, port_id: str) -> None:
        async with self._lock:
            self._feet.pop(port_id, None)
            await self._namespace.run(self._take_away, f"h{port_id[:11]}")
            self._look_for_others()

    # In the event loop's thread

    def _touched_networks(self, world: World, touched: Touched) -> list[str]:
        if touched is None:
            self._networks_of = {key: ids for key in world.pieces if (ids := world.networks_of(key))}
            return sorted({*world.networks, *world.ports_of, *self._names})
        found: set[str] = set()
        for key in touched:
            ids = world.networks_of(key)
            found |= {*ids, *self._networks_of.pop(key, ())}
            if ids:
                self._networks_of[key] = ids
        return sorted(found)

    def _heard(self) -> None:
        if not self._lock.locked():
            self._look_for_others()

    def _look_for_others(self) -> None:
        ours = {name for names in self._names.values() for name in names}
        what = self._watch.judge(self._seen, ours) if self._watch else ""
        if what and not self._unsure:
            log.info("somebody else changed a host's network", what=what, namespace=self._namespace.name)
        if what:
            self._unsure = True
            self._on_change()

    # In the namespace's thread

    def _socket(self) -> netlink.Socket:
        if self._kernel is None:
            self._kernel = netlink.Socket()
            self._sockets.append(self._kernel)
        return self._kernel

    def _ears(self) -> netlink.Socket:
        self._sockets.append(ears())
        return self._sockets[-1]

    def _close_sockets(self) -> None:
        for it in self._sockets:
            it.close()
        self._sockets, self._kernel = [], None

    def _bring(self, world: World, ids: Iterable[str], *, everything: bool) -> Faults:
        kernel = self._socket()
        if everything or self._unsure:
            observe(kernel, self._seen, only_links=not self._unsure and self._watch is not None)
            self._unsure = False
        of, faults, spared = self._wanted(world, ids)
        names = {name for it in of.values() for name in it.links}
        before = {name for id in ids for name in self._names.get(id, ())}
        unwanted = before - names - spared
        if everything and world.pieces:  # an agent that was told nothing yet knows of no leftovers
            unwanted |= {name for name, link in self._seen.links.items() if is_ours(link)} - names - spared
        # A foot goes by `detach` alone, and an operator's interface stays.
        steps = plan(of.values(), self._seen, {it for it in unwanted if OURS.fullmatch(it)})
        faults |= self._act(steps)
        for id in ids:
            if id in of and of[id].links:
                self._names[id] = frozenset(of[id].links)
            elif id in of:
                self._names.pop(id, None)
        return faults

    def _wanted(self, world: World, ids: Iterable[str]) -> tuple[dict[str, Wanted], Faults, set[str]]:
        """By network, with what cannot be wired, and the links of that, which are left as they are."""
        fabric = self._know_fabric()
        of: dict[str, Wanted] = {}
        faults: Faults = {}
        spared: set[str] = set()
        for id in ids:
            try:
                of[id] = wanted(world, id, self._feet_in(id), fabric)
            except CannotWire as error:
                faults[f"network/{id}"] = str(error)
                spared |= bridge_wanted.names_of(world, id) | self._names.get(id, frozenset())
            else:
                faults |= of[id].faults
        return of, faults, spared

    def _feet_in(self, network_id: str) -> list[Attachment]:
        """Without those whose namespace somebody deleted: who made it will ask for the foot again."""
        feet = (foot for foot in self._feet.values() if foot.network_id == network_id)
        return [foot for foot in feet if foot.outside in self._seen.links or namespace.exists(foot.namespace)]

    def _act(self, steps: list[Step]) -> Faults:
        if not steps:
            return {}
        feet = {foot.outside: foot for foot in self._feet.values()}
        faults, sure = act(self._socket(), steps, self._seen, feet)
        self._unsure |= not sure
        return faults

    def _attach(self, foot: Attachment, world: World) -> str:
        if not namespace.exists(foot.namespace):
            return f"there is no namespace {foot.namespace} on this host"
        if foot.network_id not in world.networks:
            return f"there is no network {foot.network_id} on this host"
        kernel = self._socket()
        if self._unsure:
            observe(kernel, self._seen, only_links=False)
            self._unsure = False
        self._feet[foot.port_id] = foot
        there = self._seen.links.get(foot.outside)
        if there is not None and not foot_inside(foot, there):
            self._act([Remove(there)])
        of, faults, _ = self._wanted(world, [foot.network_id])
        if not faults.get(f"network/{foot.network_id}"):
            faults = self._act(plan(of.values(), self._seen, ()))
            self._names[foot.network_id] = frozenset(of[foot.network_id].links)
        return faults.get(f"network/{foot.network_id}", "")

    def _take_away(self, name: str) -> None:
        link = links.one_link(self._socket(), name)
        if link:
            self._act([Remove(link)])

    def _know_fabric(self) -> Fabric:
        endpoint_ip, interface = self._endpoint = self._endpoint if self._endpoint[0] else self._find_endpoint()
        return Fabric(
            endpoint_ip=endpoint_ip,
            mtu=self._seen.links[interface].mtu if interface in self._seen.links else 0,
            interfaces=self._interfaces,
            links={it: self._seen.links[it] for it in self._interfaces.values() if it in self._seen.links},
        )

    def _find_endpoint(self) -> tuple[str, str]:
        """(address, its interface), as far as there are such."""
        if not self._fabric:
            return "", ""
        names = dict(socket.if_nameindex())
        for index, ip in links.addresses(self._socket()):
            if self._fabric in {ip, names.get(index)}:
                return ip, names.get(index, "")
        return "", ""

    def _facts(self) -> NetworkHostFacts:
        self._endpoint = self._find_endpoint()
        there = {name for _, name in socket.if_nameindex()}
        return NetworkHostFacts(
            driver="linuxbridge",
            endpoint_ip=self._endpoint[0],
            physical_networks=tuple(sorted(it for it, name in self._interfaces.items() if name in there)),
        )


def _nobody() -> None:
    """Nobody listens yet."""
