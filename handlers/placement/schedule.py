"""The scheduler: which host each of a batch of servers goes to, over the capacity index. Nothing here waits.

    filters that seldom change their mind ─▶ where others are ─▶ room ─▶ weights ─▶ pick ─▶ Placement | NoValidHost
       (remembered per kind of request)                                   (one heap per kind of request)

Requests of one kind share a heap, so a thousand servers cost one pass over the hosts. The claim itself is decided on
the provider's stream; here is only where it is worth trying.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence

from msgspec import Struct

from bus import clock
from bus.config import Scheduler as Weights
from bus.mirror import Mirror
from handlers.placement.capacity import CapacityIndex, failed
from handlers.placement.demand import Group, Request
from handlers.placement.filters import FILTERS
from schema.placement.provider import Resources

FAILURE_WEIGHT = 1000.0
"""A host where a build failed comes after every host where none did."""
GROUP_WEIGHT = 10.0
"""Soft (anti-)affinity comes before free capacity."""
KINDS = 256
"""Kinds of request whose candidates are remembered."""
SLOTS = 1 << 20
"""Hosts, at most."""


class Placement(Struct, frozen=True):
    """Where a server is to go, and what to claim there for it."""

    consumer_id: str
    host: str
    provider_id: str
    zone: str
    resources: Resources


class NoValidHost(Struct, frozen=True):
    """No host will do. `rejected`: filter → hosts it turned down; `reason`: a sentence for the server's fault."""

    consumer_id: str
    hosts: int
    rejected: dict[str, int]
    reason: str


class _Rejection(Struct, frozen=True):
    filter: str
    hosts: int
    text: str


class _Choice(Struct, frozen=True):
    """Which slots pass the filters, for one kind of request."""

    slots: list[int]
    hosts: int
    rejections: list[_Rejection]


class Scheduler:
    """`place` is all there is to ask. One per process."""

    def __init__(self, index: CapacityIndex, weights: Weights | None = None) -> None:
        weights = weights or Weights()
        self.index = index
        self._weights = {"MEMORY_MB": weights.ram_weight, "VCPU": weights.cpu_weight, "DISK_GB": weights.disk_weight}
        self._choices: dict[Hashable, _Choice] = {}
        self._generation = -1
        self._groups: dict[str, set[str]] = {}
        """Group → those of it picked in this batch."""

    @classmethod
    def following(cls, providers: Mirror, hosts: Mirror, aggregates: Mirror, weights: Weights) -> Scheduler:
        """A scheduler that knows what the mirrors know, and hears what they hear."""
        index = CapacityIndex()
        providers.on_change(index.provider_changed)
        hosts.on_change(index.host_changed)
        aggregates.on_change(index.aggregate_changed)
        return cls(index, weights)

    def place(
        self, requests: Sequence[Request], random: Callable[[], float] = clock.fraction
    ) -> list[Placement | NoValidHost]:
        """One answer per request, in order. Every pick counts for the next one, in this batch and after it.

        `random` breaks ties between hosts that are equally good. Tell `forget` about a pick that will not be claimed
        after all, `failed` and `succeeded` how the build on a host went.
        """
        self.index.expire()
        if self._generation != self.index.generation:
            self._generation = self.index.generation
            self._choices.clear()
        for request in requests:
            self.index.forget(request.consumer_id)
        answers: list[Placement | NoValidHost] = []
        while len(answers) < len(requests):
            start = end = len(answers)
            while end < len(requests) and _alike(requests[start], requests[end]):
                end += 1
            answers += self._place_alike(requests[start:end], int(random() * SLOTS))
        self._groups.clear()
        return answers

    def forget(self, consumer_id: str) -> None:
        """The pick for this consumer will not be claimed."""
        self.index.forget(consumer_id)

    def failed(self, host: str) -> None:
        """A build failed on that host: others are tried first for a while."""
        if slot := self.index.slot_of_host(host):
            failed(slot)

    def succeeded(self, host: str) -> None:
        """A build succeeded on that host: its past is forgiven."""
        if slot := self.index.slot_of_host(host):
            slot.failures.clear()

    def host_of(self, consumer_id: str) -> str | None:
        """The host a consumer has its claim on, or is about to have."""
        slot = self.index.slot_of_consumer(consumer_id)
        host = self.index.slots[slot].host if slot is not None else None
        return host.id if host else None

    def _place_alike(self, requests: Sequence[Request], salt: int) -> Iterator[Placement | NoValidHost]:
        """Requests that differ in nothing but who asks."""
        request = requests[0]
        choice = self._choice(request)
        if request.group is None:
            heap = self._ranked(choice, request, salt, [])
        for done, one in enumerate(requests):
            if one.group is not None:
                heap = self._ranked(choice, one, salt, [])
            slot = self._best(heap, one)
            if slot is None:
                rejections = list(choice.rejections)
                self._ranked(choice, one, salt, rejections)
                yield from (_no_valid_host(it, choice.hosts, rejections) for it in requests[done:])
                return
            yield self._pick(slot, one)
            heap.push(slot)

    def _pick(self, index: int, request: Request) -> Placement:
        self.index.hold(index, request.consumer_id, request.resources)
        if request.group is not None:
            self._groups.setdefault(request.group.id, set()).add(request.consumer_id)
        slot = self.index.slots[index]
        assert slot.host is not None
        return Placement(request.consumer_id, slot.host.id, slot.provider_id, slot.host.zone, request.resources)

    def _best(self, heap: _Heap, request: Request) -> int | None:
        free = [
            (self.index.free[name], amount) for name, amount in request.resources.items() if name in self.index.free
        ]
        while (slot := heap.pop()) is not None:
            if all(left[slot] >= amount for left, amount in free):
                return slot
        return None

    def _ranked(self, choice: _Choice, request: Request, salt: int, rejections: list[_Rejection]) -> _Heap:
        slots = self._apart(choice.slots, request, rejections)
        slots = self._with_room(slots, request, rejections)
        return _Heap(slots, self._scorer(slots, request), salt)

    def _apart(self, slots: list[int], request: Request, rejections: list[_Rejection]) -> list[int]:
        """What depends on where this and other servers are or were."""
        index = self.index
        if request.tried:
            past = self._on(slots, request.tried)
            slots = _keep(slots, lambda slot: slot not in past, rejections, "Retry", "were tried already")
        if request.cut_off:
            away = self._on(slots, request.cut_off)
            text = "have no network agent that is there"
            slots = _keep(slots, lambda slot: slot not in away, rejections, "Network", text)
        if request.same_host:
            near = {index.slot_of_consumer(consumer) for consumer in request.same_host}
            slots = _keep(slots, near.__contains__, rejections, "SameHost", "are not where the same_host servers are")
        if request.different_host:
            far = {index.slot_of_consumer(consumer) for consumer in request.different_host}
            text = "are where a different_host server is"
            slots = _keep(slots, lambda slot: slot not in far, rejections, "DifferentHost", text)
        group = request.group
        if group is None:
            return slots
        counts = self._members(group, request.consumer_id)
        if group.policy == "affinity" and counts:
            text = "are not where the server group is"
            return _keep(slots, counts.__contains__, rejections, "ServerGroupAffinity", text)
        if group.policy == "anti-affinity":
            text = "have their share of the anti-affinity group already"
            most = group.max_per_host
            return _keep(slots, lambda slot: counts.get(slot, 0) < most, rejections, "ServerGroupAntiAffinity", text)
        return slots

    def _on(self, slots: Sequence[int], hosts: Collection[str]) -> set[int]:
        return {slot for slot in slots if (host := self.index.slots[slot].host) and host.id in hosts}

    def _with_room(self, slots: list[int], request: Request, rejections: list[_Rejection]) -> list[int]:
        for name, amount in request.resources.items():
            free = self.index.free.get(name)
            left = [slot for slot in slots if free[slot] >= amount] if free is not None else []
            if len(left) < len(slots):
                most = max((free[slot] for slot in slots), default=0) if free is not None else 0
                text = f"have too little {name} free ({amount} asked, {max(most, 0)} left at most)"
                rejections.append(_Rejection(name, len(slots) - len(left), text))
            slots = left
        return slots

    def _scorer(self, slots: list[int], request: Request) -> Callable[[int], float]:
        """Higher is better: free amounts in proportion to the largest among the candidates, times their weights."""
        terms: list[tuple[float, list[int]]] = []
        for name, weight in self._weights.items():
            free = self.index.free[name]
            most = max((free[slot] for slot in slots), default=0)
            if weight and most > 0:
                terms.append((weight / most, free))
        extra = {slot: -FAILURE_WEIGHT * count for slot, count in self.index.failures(slots)}
        group = request.group
        if group is not None and group.policy.startswith("soft-"):
            sign = 1 if group.policy == "soft-affinity" else -1
            for slot, count in self._members(group, request.consumer_id).items():
                extra[slot] = extra.get(slot, 0.0) + sign * GROUP_WEIGHT * count
        if len(terms) == len(self._weights) and not extra:
            (a, x), (b, y), (c, z) = terms
            return lambda slot: a * x[slot] + b * y[slot] + c * z[slot]
        return lambda slot: sum(weight * free[slot] for weight, free in terms) + extra.get(slot, 0.0)

    def _members(self, group: Group, consumer_id: str) -> dict[int, int]:
        """Slot → how many of the group are there, those picked a moment ago included."""
        counts: dict[int, int] = {}
        for member in {*group.members, *self._groups.get(group.id, ())} - {consumer_id}:
            slot = self.index.slot_of_consumer(member)
            if slot is not None:
                counts[slot] = counts.get(slot, 0) + 1
        return counts

    def _choice(self, request: Request) -> _Choice:
        kind = (
            tuple(request.resources.items()),
            request.zone,
            request.host,
            request.forced,
            tuple(request.extra_specs.items()),
            tuple(request.image_properties.items()),
            request.project_id if self.index.isolating else "",
        )
        choice = self._choices.get(kind)
        if choice is None:
            if len(self._choices) >= KINDS:
                self._choices.pop(next(iter(self._choices)))
            choice = self._choices[kind] = self._filtered(request)
        return choice

    def _filtered(self, request: Request) -> _Choice:
        candidates = self.index.candidates()
        slots, rejections = list(candidates), list[_Rejection]()
        for one in FILTERS:
            passing = {slot for slot in slots if one.passes(candidates[slot], request)}
            slots = _keep(slots, passing.__contains__, rejections, one.name, one.reason(request))
        return _Choice(slots, len(candidates), rejections)


class _Heap:
    """Slots, best first; equals in an order the salt decides."""

    def __init__(self, slots: Sequence[int], score: Callable[[int], float], salt: int) -> None:
        self._score = score
        self._salt = salt
        self._entries = [(-score(slot), slot ^ salt, slot) for slot in slots]
        heapq.heapify(self._entries)

    def pop(self) -> int | None:
        return heapq.heappop(self._entries)[2] if self._entries else None

    def push(self, slot: int) -> None:
        heapq.heappush(self._entries, (-self._score(slot), slot ^ self._salt, slot))


_SHARED = tuple(name for name in Request.__struct_fields__ if name != "consumer_id")


def _alike(one: Request, other: Request) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in _SHARED)


def _keep(
    slots: list[int], passes: Callable[[int], bool], rejections: list[_Rejection], name: str, text: str
) -> list[int]:
    left = [slot for slot in slots if passes(slot)]
    if len(left) < len(slots):
        rejections.append(_Rejection(name, len(slots) - len(left), text))
    return left


def _no_valid_host(request: Request, hosts: int, rejections: Sequence[_Rejection]) -> NoValidHost:
    rejected: dict[str, int] = {}
    for it in rejections:
        rejected[it.filter] = rejected.get(it.filter, 0) + it.hosts
    if not hosts:
        reason = "No valid host was found. There is no hypervisor host yet."
    else:
        why = ", ".join(f"{it.hosts} {it.text}" for it in rejections)
        reason = f"No valid host was found. Of {hosts} {'host' if hosts == 1 else 'hosts'}, {why}."
    return NoValidHost(request.consumer_id, hosts, rejected, reason)
