"""The Open vSwitch driver's switch and firewall in one: what is plugged in, and every flow, changed by one bundle.

    kernel ─▶ devices ─┐
    database ─▶ ports ─┴▶ numbers ─▶ wanted flows ─▶ difference ─▶ bundle ─▶ connections cut

A frame without a flow for it goes nowhere, so it does not matter that a port may be there before its rules are. What
was done is remembered: a change costs one netlink write, one transaction and one process, a sweep a dump of each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import structlog

from agents.network import namespace
from agents.network.conntrack import Judge
from agents.network.daemons import CannotStart
from agents.network.driver import Faults, Touched
from agents.network.firewall import revoked
from agents.network.namespace import Namespace
from agents.network.nft import NftRefused
from agents.network.ovs import bridge, connections, flows, meters, openflow
from agents.network.ovs.bridge import BRIDGE, Numbers
from agents.network.ovs.database import Database, Row
from agents.network.ovs.devices import Devices, Ends
from agents.network.ovs.flows import Flow, Listing
from agents.network.ovs.host_flows import HostFlows, Plugged
from agents.network.ovs.jsonrpc import Connection, RpcError
from agents.network.ovs.meters import Limit
from agents.network.ovs.network_flows import Place
from agents.network.ovs.openflow import FlowsRefused
from agents.network.ovs.pipeline import DROP_COUNTERS, STATIC
from agents.network.ovs.processes import Processes
from agents.network.ovs.silence import Silence
from agents.network.switch import Attachment, CannotWire
from agents.network.world import World
from schema.network.wiring import NetworkHostFacts, WiredGroup, WiredNetwork, WiredPort

log = structlog.get_logger()

CAPABILITIES = ("trunk", "vlan")
_MOST_SHUT = 20
"""Pieces that are left out one after the other, each at the cost of one more attempt."""
_UNSEEN = ("",)
"""Of a flow that was not listed since it was made."""
_TROUBLE = (CannotStart, RpcError, FlowsRefused, NftRefused, OSError)


class OvsSwitch:
    """A Switch. The daemons and all that is plugged in outlive it; the next one finds everything in place."""

    def __init__(
        self,
        inside: Namespace,
        folder: Path,
        *,
        fabric: str = "",
        interfaces: Mapping[str, str] | None = None,
        protecting: bool = True,
    ) -> None:
        """`folder` is this host's own, and stays from one agent to the next.

        `fabric`: the interface, or the address, at which tunnels end. `interfaces`: of the physical networks.
        `protecting`: False, no port has rules.
        """
        self._namespace = inside
        self._processes = Processes(inside.name or "", folder)
        self._devices = Devices(inside, fabric, interfaces or {})
        self._silence = Silence()
        self._flows = HostFlows(protecting=protecting)
        self._feet: dict[str, Attachment] = {}
        self._on_change: Callable[[], None] = _nobody
        self._lock = asyncio.Lock()
        self._store: Database | None = None
        self._control: Connection | None = None
        self._world: World | None = None
        """As it was carried out the last time."""
        self._cuts = False
        """Connections are cut that may be allowed again."""
        self._there: Listing | None = None
        """The flows that are there; None: to be looked at."""
        self._limits: dict[int, Limit] | None = None
        """The meters that are there; None: to be looked at."""
        self._worded: dict[str, tuple[str, ...]] = {}
        """As the switch worded them."""
        self._left = bridge.Seen()
        """The database as it was left the last time."""
        self.commands: list[str] = []
        """Of the last bundle, for who wants to look."""

    async def start(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        await self._devices.start(self._heard)

    async def facts(self) -> NetworkHostFacts:
        endpoint_ip, _ = await self._namespace.run(self._devices.endpoint)
        return NetworkHostFacts(
            driver="ovs",
            endpoint_ip=endpoint_ip,
            physical_networks=tuple(sorted(self._devices.interfaces)),
            capabilities=CAPABILITIES,
        )

    @property
    def folder(self) -> Path:
        """Of its daemons' files."""
        return self._processes.folder

    @property
    def database(self) -> str:
        """Where the switch's database is, as ovs-vsctl wants to hear it."""
        return self._processes.database_at

    @property
    def openflow(self) -> str:
        """Where br-int takes OpenFlow, as ovs-ofctl wants to hear it."""
        return self._processes.openflow

    def bridge_of(self, network: WiredNetwork) -> str:
        return BRIDGE

    async def apply(self, world: World, touched: Touched) -> Faults:
        async with self._lock:
            try:
                faults = await self._bring(world, look=touched is None)
                return {self._blamed(key): text for key, text in faults.items()}
            except _TROUBLE as error:
                self._there = None
                log.warning("the switch could not be brought up to date", error=str(error))
                blamed = world.pieces if touched is None else touched
                text = f"the switch could not be brought up to date: {error}"
                kinds = WiredPort | WiredGroup | WiredNetwork
                return {key: text for key in blamed if isinstance(world.pieces.get(key), kinds)}

    async def attach(self, attachment: Attachment, world: World) -> None:
        if not namespace.exists(attachment.namespace):
            raise CannotWire(f"there is no namespace {attachment.namespace} on this host")
        if attachment.network_id not in world.networks:
            raise CannotWire(f"there is no network {attachment.network_id} on this host")
        async with self._lock:
            try:
                known = self._feet.get(attachment.port_id) == attachment
                stands = await self._namespace.run(self._devices.stands, attachment)
                if known and stands:
                    return
                self._feet[attachment.port_id] = attachment
                faults = await self._bring(world, look=False)
            except _TROUBLE as error:
                self._there = None
                raise CannotWire(f"{attachment.inside} could not be made: {error}") from error
        if fault := faults.get(f"foot/{attachment.port_id}"):
            raise CannotWire(fault)

    async def detach(self, port_id: str) -> None:
        async with self._lock:
            foot = self._feet.pop(port_id, None)
            name = foot.outside if foot else f"h{port_id[:11]}"
            await self._namespace.run(self._devices.remove, name)
            if foot and self._world:
                try:
                    await self._bring(self._world, look=False)
                except _TROUBLE as error:
                    self._there = None
                    log.info("what is left of a foot goes later", foot=name, error=str(error))

    async def counters(self) -> dict[str, int]:
        """Frames dropped by why: `spoofed-mac`, `rogue-dhcp`, … Raises FlowsRefused."""
        counts = await openflow.counted(self._processes.openflow)
        found = dict.fromkeys(DROP_COUNTERS, 0)
        for flow in STATIC:
            if flow.note:
                found[flow.note] += counts.get(flow.cookie, 0)
        return found

    async def close(self) -> None:
        async with self._lock:
            await self._devices.close()
            await self._let_go()

    def _blamed(self, key: str) -> str:
        """A foot is no piece; its network is."""
        kind, _, id = key.partition("/")
        return f"network/{self._feet[id].network_id}" if kind == "foot" and id in self._feet else key

    # The daemons

    async def _connect(self) -> tuple[Database, Connection]:
        """Have both daemons run, and be connected to both. Raises CannotStart, RpcError."""
        if self._store and self._control and not self._control.gone and not self._store.gone:
            return self._store, self._control
        await self._let_go()
        self._there = self._limits = None
        self._store = await self._processes.database(self._heard, self._heard)
        self._control, anew = await self._processes.switch(self._store, self._heard)
        if anew:
            self._worded = {}
        return self._store, self._control

    async def _let_go(self) -> None:
        for it in (self._control, self._store):
            if it:
                await it.close()
        self._store = self._control = None

    def _heard(self) -> None:
        """Something changed; our own doings, which all happen under the lock, are not listened to."""
        if not self._lock.locked():
            self._look_for_others()

    def _look_for_others(self) -> None:
        lost = any(it is not None and it.gone for it in (self._store, self._control))
        if self._devices.others() or lost or (self._store and bridge.read(self._store) != self._left):
            self._on_change()

    # Bringing it about

    async def _bring(self, world: World, *, look: bool) -> Faults:
        try:
            return await self._bring_all(world, look=look)
        finally:
            self._left = bridge.read(self._store) if self._store else bridge.Seen()
            if self._devices.others():
                self._on_change()

    async def _bring_all(self, world: World, *, look: bool) -> Faults:
        store, control = await self._connect()
        if not world.pieces and self._world is None:
            return {}  # an agent that was told nothing yet knows of no leftovers
        seen = bridge.read(store)
        if self._world is None:
            self._feet = {**seen.feet, **self._feet}
        ends, faults = await self._namespace.run(self._devices.bring, world, self._feet, seen.ports, look=look)
        standing = ends.feet.keys()
        self._feet = {id: it for id, it in self._feet.items() if id in standing or namespace.exists(it.namespace)}
        numbers, operations = bridge.plan(ends.numbers, ends.new, world.networks, self._feet, seen)
        if operations or seen.given != seen.numbers:
            await store.settled(operations)
        if operations or self._there is None:
            await self._processes.lengthen_queues()
        await connections.forget(control, {it for id, it in numbers.networks.items() if seen.networks.get(id) != it})
        taken = ends.numbers.keys() - set(self._devices.interfaces.values())
        await self._namespace.run(self._silence.ensure, taken)
        plugged, refused = plug(ends, numbers, interfaces(store))
        limits = meters.wanted(world)
        plugged = msgspec.structs.replace(plugged, meters=meters.numbered(limits))
        unsure = self._there is None
        changed, shut = await self._change_what_goes(
            world, plugged, {plugged.meters[it]: limit for it, limit in limits.items()}, look=look
        )
        faults |= refused | self._flows.faults | shut
        mended = self._cuts and self._world is not None and self._world.pieces != world.pieces
        if (changed and unsure) or revoked(self._world, world) or mended or self._world is None:
            zones = set(numbers.networks.values())
            count = await connections.cut(control, self.openflow, zones, Judge(world, numbers.networks).fate)
            self._cuts = count > 0
            if count:
                log.info("connections cut", count=count)
        self._world = world
        return faults

    async def _change_what_goes(
        self, world: World, plugged: Plugged, limits: Mapping[int, Limit], *, look: bool
    ) -> tuple[bool, Faults]:
        """Leave out the pieces whose flows cannot be said; whether a flow changed, and why not which pieces.

        Raises FlowsRefused when it is not known what to leave out.
        """
        shut: Faults = {}
        while True:
            wanted = self._flows.of(world, plugged, shut.keys())
            try:
                return await self._change(wanted, limits, look=look), shut
            except FlowsRefused as refusal:
                key = self._flows.blamed(refusal.cookie)
                if not key or key in shut or len(shut) == _MOST_SHUT:
                    raise
                shut[key] = f"the switch cannot be told of it: {refusal}"

    async def _change(self, wanted: Mapping[str, Flow], limits: Mapping[int, Limit], *, look: bool) -> bool:
        """Have these flows and meters and no others; whether a flow changed. Raises FlowsRefused."""
        switch = self._processes.openflow
        if self._there is None:
            await openflow.prepare(switch)
        if look or self._there is None:
            self._there = await openflow.listed(switch)
            if limits or self._limits is None or self._limits:
                self._limits = await openflow.metered(switch)
        lines = flows.plan(wanted, self._there, self._worded)
        first, last = meters.plan(limits, self._limits or {})
        try:
            await openflow.tell(switch, first)
            await openflow.change(switch, lines)
            await openflow.tell(switch, last)
        except FlowsRefused:
            self._there = self._limits = None
            raise
        self._limits = dict(limits)
        self.commands = lines or self.commands
        known = {cookie: self._worded.get(cookie, words) for cookie, words in self._there.items() if words != _UNSEEN}
        self._worded = {cookie: words for cookie, words in known.items() if cookie in wanted and len(words) == 1}
        self._there = {cookie: self._worded.get(cookie, _UNSEEN) for cookie in wanted}
        return bool(lines)


def plug(ends: Ends, numbers: Numbers, there: Mapping[str, Row]) -> tuple[Plugged, Faults]:
    """What is in the switch, under the numbers it has there; and what could not be put in. Pure."""
    faults: Faults = {}

    def place(name: str, key: str, tag: int | None = None) -> Place | None:
        row = there.get(name, {})
        number = row.get("ofport")
        if isinstance(number, int) and number > 0:
            return Place(number, tag, mac_address=ends.macs.get(name, ""))
        said = row.get("error") or "it does not say why"
        faults[key] = f"the switch could not open {name}: {said}"
        return None

    taps = {id: it for id, name in ends.taps.items() if (it := place(name, f"port/{id}"))}
    feet = {id: (foot, it) for id, foot in ends.feet.items() if (it := place(foot.outside, f"foot/{id}"))}
    fabrics = {id: it for id, (name, tag) in ends.fabrics.items() if (it := place(name, f"network/{id}", tag))}
    return Plugged(numbers.networks, taps, feet, fabrics), faults


def interfaces(store: Database) -> dict[str, Row]:
    """By name."""
    return {row["name"]: row for row in store.tables["Interface"].values()}


def _nobody() -> None:
    """Nobody listens yet."""
