"""The capacity index: what is left on every provider, in flat lists, kept by following the log.

    mirrors ──changed──▶ free amounts by resource class and slot ◀──hold, forget── the scheduler's picks

A slot is one provider and the host that goes with it. A pick counts as claimed from the moment it is made; when the
claim shows in the log, it takes the pick's place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from msgspec import Struct, field

from bus import clock
from bus.log import Document
from handlers.placement.candidate import Candidate
from handlers.placement.image_count import ImageCount
from schema.compute.aggregate import Aggregate
from schema.compute.host import Host
from schema.compute.topology import Units
from schema.placement.provider import Provider, Resources

PICK_SECONDS = 60
"""How long a pick counts that the log never shows."""
TOUCHES = 100_000
"""Changed slots that are remembered; who comes later looks at all of them."""
FAILURE_SECONDS = 600
"""How long a failed build speaks against a host."""

MAIN_CLASSES = ("MEMORY_MB", "VCPU", "DISK_GB")
TENANTS = "filter_tenant_id"
"""Metadata of a host aggregate: only for these projects (any key that begins with it, commas between ids)."""
NONE_LEFT = -1
"""What is left of a class the provider does not have."""


class Slot(Struct):
    provider_id: str
    provider: Provider | None = None
    version: int = 0
    """Of the provider's stream."""
    host: Host | None = None
    picks: dict[str, Resources] = field(default_factory=dict)
    """Consumer id → what it is about to claim here."""
    units_picked: dict[str, Units] = field(default_factory=dict)
    """Consumer id → which units it is about to claim here."""
    units_free: Units | None = None
    """What nobody has of each; None: to be counted."""
    metrics: dict[str, float] = field(default_factory=dict)
    """How busy the host says it is."""
    failures: list[float] = field(default_factory=list)
    """When each failed build is forgiven."""
    busy: set[str] = field(default_factory=set)
    """Servers here that are being built, moved, or otherwise worked on."""


class CapacityIndex:
    """Slots and what is free in them. `generation` moves when something changed that filters look at."""

    def __init__(self, images: ImageCount | None = None) -> None:
        self.slots: list[Slot] = []
        self.images = images or ImageCount()
        self.free: dict[str, list[int]] = {name: [] for name in MAIN_CLASSES}
        """Resource class → slot → what is left."""
        self.servers: list[int] = []
        """Slot → how many have a claim there, picks counted."""
        self.touched: list[int] = []
        """Slots whose numbers changed, the newest last, for those who rank them."""
        self.overlooked = 0
        """How many there were before those."""
        self.failures_generation = 0
        """Moves when a host's failures do."""
        self.generation = 0
        self.tenants: frozenset[str] = frozenset()
        """The projects that some aggregate is kept for."""
        self.devices = 0
        """PCI devices that there are on all hosts together."""
        self._slot_of: dict[str, int] = {}
        self._provider_of: dict[str, str] = {}
        self._claimed: dict[str, int] = {}
        self._picked: dict[str, int] = {}
        self._aggregates: dict[str, Aggregate] = {}
        self._physical_networks: dict[str, frozenset[str]] = {}
        """Host → those it is on."""
        self._at_work: dict[str, int] = {}
        """Server that is being worked on → its slot."""
        self._failing: set[int] = set()
        self._expiry: deque[tuple[float, str]] = deque()
        self._candidates: dict[int, Candidate] | None = None

    def provider_changed(self, before: Document | None, after: Document | None) -> None:
        """A provider was born, changed, or went (None). One that is older than what is known already says nothing."""
        known = after or before
        if known is None:
            return
        index = self._slot(known.id)
        slot, old = self.slots[index], self.slots[index].provider
        if after is not None and after.version < slot.version:
            return
        slot.version = known.version
        new: Provider | None = after.state if after else None
        slot.provider = new
        had, has = (old.claims if old else {}), (new.claims if new else {})
        if had is not has:
            self._claims_changed(index, had, has)
        if slot.units_free is not None and _units_differ(old, new):
            slot.units_free = None
        if old is not None and new is not None and (old.inventories, old.traits) == (new.inventories, new.traits):
            for name in {**old.used, **new.used}:
                self.free[name][index] += old.used.get(name, 0) - new.used.get(name, 0)
            self._touch(index)
        else:
            self._count(index)
            self._changed()

    def host_changed(self, before: Document | None, after: Document | None) -> None:
        """A host was born, changed, or went (None)."""
        for document, sign in ((before, -1), (after, 1)):
            self.devices += sign * len(document.state.facts.devices) if document is not None else 0
        if before is not None and (after is None or after.state.provider_id != before.state.provider_id):
            self.slots[self._slot(before.state.provider_id)].host = None
            self._provider_of.pop(before.id, None)
        if after is not None:
            self.slots[self._slot(after.state.provider_id)].host = after.state
            self._provider_of[after.id] = after.state.provider_id
        self._changed()

    def aggregate_changed(self, before: Document | None, after: Document | None) -> None:
        """A host aggregate was born, changed, or went (None)."""
        if after is not None:
            self._aggregates[after.id] = after.state
        elif before is not None:
            self._aggregates.pop(before.id, None)
        self.tenants = frozenset(
            tenant.strip()
            for it in self._aggregates.values()
            for key, value in it.metadata.items()
            if key.startswith(TENANTS)
            for tenant in value.split(",")
        )
        self._changed()

    def network_host_changed(self, before: Document | None, after: Document | None) -> None:
        """A host's network side was born, changed, or went (None)."""
        known = after or before
        if known is None:
            return
        names = frozenset(known.state.facts.physical_networks) if after is not None else frozenset[str]()
        if self._physical_networks.get(known.id, frozenset()) != names:
            self._physical_networks[known.id] = names
            self._changed()

    def candidates(self) -> Mapping[int, Candidate]:
        """Every slot that is a host, as the filters see it."""
        if self._candidates is None:
            metadata: dict[str, list[dict[str, str]]] = {}
            for aggregate in self._aggregates.values():
                for name in aggregate.hosts:
                    metadata.setdefault(name, []).append(aggregate.metadata)
            self._candidates = {
                index: Candidate(
                    slot.host,
                    slot.provider.inventories,
                    frozenset(slot.provider.traits),
                    metadata.get(slot.host.id, ()),
                    index,
                    self,
                    self._physical_networks.get(slot.host.id, frozenset()),
                )
                for index, slot in enumerate(self.slots)
                if slot.host is not None and slot.provider is not None
            }
        return self._candidates

    def slot_of_consumer(self, consumer_id: str) -> int | None:
        """Where a consumer is about to be, or is."""
        picked = self._picked.get(consumer_id)
        return self._claimed.get(consumer_id) if picked is None else picked

    def slot_of_host(self, host: str) -> Slot | None:
        provider_id = self._provider_of.get(host)
        return self.slots[self._slot_of[provider_id]] if provider_id else None

    def hold(self, index: int, consumer_id: str, resources: Resources, units: Units | None = None) -> None:
        """Count a pick as claimed."""
        if units:
            self.slots[index].units_picked[consumer_id] = units
            self.slots[index].units_free = None
        self.slots[index].picks[consumer_id] = resources
        self._picked[consumer_id] = index
        self._expiry.append((clock.monotonic() + PICK_SECONDS, consumer_id))
        for name, amount in resources.items():
            self.free[name][index] -= amount
        self.servers[index] += 1
        self.images.arrived(consumer_id, index)
        self._touch(index)

    def forget(self, consumer_id: str) -> None:
        """Stop counting a pick."""
        index = self._picked.pop(consumer_id, None)
        if index is not None:
            slot = self.slots[index]
            if slot.units_picked and consumer_id in slot.units_picked:
                del slot.units_picked[consumer_id]
                slot.units_free = None
            for name, amount in slot.picks.pop(consumer_id).items():
                self.free[name][index] += amount
            self.servers[index] -= 1
            self.images.left(consumer_id, index)
            self._touch(index)

    def expire(self) -> None:
        """Forget picks that nobody claimed in time, and failures of long ago."""
        now = clock.monotonic()
        while self._expiry and self._expiry[0][0] <= now:
            self.forget(self._expiry.popleft()[1])
        for index in [index for index in self._failing if self.slots[index].failures[0] <= now]:
            failures = self.slots[index].failures
            failures[:] = [until for until in failures if until > now]
            self.failures_generation += 1
            if not failures:
                self._failing.discard(index)

    def work_on(self, consumer_id: str, host: str | None) -> None:
        """The server is being worked on there (None: nowhere any more)."""
        before = self._at_work.pop(consumer_id, None)
        if before is not None:
            self.slots[before].busy.discard(consumer_id)
            self._touch(before)
        provider_id = self._provider_of.get(host) if host else None
        if provider_id:
            index = self._at_work[consumer_id] = self._slot_of[provider_id]
            self.slots[index].busy.add(consumer_id)
            self._touch(index)

    def measured(self, host: str, metrics: Mapping[str, float]) -> None:
        """How busy a host says it is."""
        slot = self.slot_of_host(host)
        if slot is not None and slot.metrics != metrics:
            slot.metrics = dict(metrics)
            self._touch(self._slot_of[slot.provider_id])

    def metrics(self, slot: int) -> Mapping[str, float]:
        return self.slots[slot].metrics

    def units_there(self, slot: int) -> Mapping[str, int]:
        """What a slot has of each unit."""
        provider = self.slots[slot].provider
        return provider.units if provider else {}

    def units_free(self, slot: int) -> Mapping[str, int]:
        """What nobody there has, or is about to have."""
        it = self.slots[slot]
        if it.units_free is None:
            it.units_free = dict(self.units_there(slot))
            for units in (*(it.provider.held.values() if it.provider else ()), *it.units_picked.values()):
                for unit, amount in units.items():
                    it.units_free[unit] = it.units_free.get(unit, 0) - amount
        return it.units_free

    def busy(self, slot: int) -> int:
        """How many servers there are worked on: those picked for it, and those known to be on their way."""
        it = self.slots[slot]
        return len(it.busy | it.picks.keys())

    def made_from(self, consumer_id: str, properties: Mapping[str, str] | None) -> None:
        """A server is made from an image with these properties (None: it is no more)."""
        for slot in self.images.made_from(consumer_id, properties):
            self._touch(slot)

    def build_failed(self, host: str) -> None:
        """A build failed there: others come first for a while."""
        if slot := self.slot_of_host(host):
            slot.failures.append(clock.monotonic() + FAILURE_SECONDS)
            self._failing.add(self._slot_of[slot.provider_id])
            self.failures_generation += 1

    def build_succeeded(self, host: str) -> None:
        """One succeeded: its past is forgiven."""
        slot = self.slot_of_host(host)
        if slot and slot.failures:
            slot.failures.clear()
            self._failing.discard(self._slot_of[slot.provider_id])
            self.failures_generation += 1

    def failures_at(self, slot: int) -> int:
        """How many builds failed there of late."""
        return len(self.slots[slot].failures)

    def _claims_changed(self, index: int, had: Mapping[str, Resources], has: Mapping[str, Resources]) -> None:
        for consumer in had.keys() - has.keys():
            if self._claimed.get(consumer) == index:
                del self._claimed[consumer]
            self.images.left(consumer, index)
        for consumer in has.keys() - had.keys():
            self._claimed[consumer] = index
            self.images.arrived(consumer, index)
        self.servers[index] += len(has) - len(had)
        picks = self.slots[index].picks
        for consumer in [consumer for consumer in picks if has.get(consumer) != had.get(consumer)]:
            self.forget(consumer)

    def _count(self, index: int) -> None:
        """What is left in one slot, counted anew."""
        slot = self.slots[index]
        inventories = slot.provider.inventories if slot.provider else {}
        for name in inventories.keys() - self.free.keys():
            self.free[name] = [NONE_LEFT] * len(self.slots)
        for name, free in self.free.items():
            free[index] = NONE_LEFT
            if slot.provider is not None and name in inventories:
                free[index] = slot.provider.free(name)
            for resources in slot.picks.values():
                free[index] -= resources.get(name, 0)

    def _slot(self, provider_id: str) -> int:
        index = self._slot_of.get(provider_id)
        if index is None:
            index = self._slot_of[provider_id] = len(self.slots)
            self.slots.append(Slot(provider_id))
            self.servers.append(0)
            for free in self.free.values():
                free.append(NONE_LEFT)
        return index

    def _touch(self, index: int) -> None:
        self.touched.append(index)
        if len(self.touched) > TOUCHES:
            self.overlooked += len(self.touched)
            self.touched.clear()

    def _changed(self) -> None:
        self.generation += 1
        self._candidates = None


def _units_differ(old: Provider | None, new: Provider | None) -> bool:
    if old is None or new is None:
        return True
    return old.held is not new.held or old.units is not new.units
