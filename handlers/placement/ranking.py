"""Hosts that would do, best first, for one kind of request; kept as numbers change.

A pick costs no pass over all of them: every slot that can be picked has one true entry in the heap; a change puts a new
one beside the old, which is passed over when it comes up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from math import inf

from handlers.placement.capacity import CapacityIndex
from handlers.placement.weighers import Term
from schema.placement.decision import BEST, Weighed

Score = Callable[[int], float]


class Ranking:
    """`best`, then `CapacityIndex.hold` it (or not): what changed meanwhile is seen at the next call."""

    def __init__(self, index: CapacityIndex, slots: Sequence[int], terms: Sequence[Term], salt: int) -> None:
        self.failures_generation = index.failures_generation
        self._index = index
        self._slots = frozenset(slots)
        self._terms = tuple(terms)
        self._score = _sum(terms)
        self._salt = salt
        self._scores: dict[int, float] = {slot: self._score(slot) for slot in slots}
        self._heap = [(-score, slot ^ salt, slot) for slot, score in self._scores.items()]
        heapify(self._heap)
        self._seen = index.overlooked + len(index.touched)
        self._entries = len(self._heap)
        self._growing = [it for it in terms if it.most < inf]
        self._outgrown = False

    @property
    def old(self) -> bool:
        """It should be made anew: too much has changed, or been overlooked."""
        return (
            self._outgrown
            or self._seen < self._index.overlooked
            or self.failures_generation != self._index.failures_generation
            or len(self._heap) > 2 * self._entries + 64
        )

    def best(self, fits: Callable[[int], bool]) -> int | None:
        """The best slot that fits; those before it are out until something changes there."""
        self._refresh()
        while self._heap:
            score, _, slot = self._heap[0]
            if self._scores.get(slot) == -score:
                if fits(slot):
                    return slot
                del self._scores[slot]
            heappop(self._heap)
        return None

    def top(self) -> tuple[Weighed, ...]:
        """The best few, the very best with what each weigher said of it, the others with the sum."""
        heap, scores, slots = self._heap, self._scores, self._index.slots
        found: dict[int, float] = {}
        ahead = [(heap[0], 0)] if heap else []
        while ahead and len(found) < BEST:
            (score, _, slot), place = heappop(ahead)
            below = 2 * place + 1
            if below < len(heap):
                heappush(ahead, (heap[below], below))
                if below + 1 < len(heap):
                    heappush(ahead, (heap[below + 1], below + 1))
            if scores.get(slot) == -score:
                found[slot] = -score
        told: list[Weighed] = []
        for slot, score in found.items():
            host = slots[slot].host
            weights = {} if told else {it.name: round(weight, 4) for it in self._terms if (weight := it(slot))}
            told.append(Weighed(host=host.id if host else "", weight=round(score, 4), weights=weights))
        return tuple(told)

    def _refresh(self) -> None:
        touched = self._index.touched
        for place in range(self._seen - self._index.overlooked, len(touched)):
            slot = touched[place]
            if slot in self._slots:
                score = self._score(slot)
                if self._scores.get(slot) != score:
                    self._scores[slot] = score
                    heappush(self._heap, (-score, slot ^ self._salt, slot))
                    self._outgrown = self._outgrown or any(it.outgrown(slot) for it in self._growing)
        self._seen = self._index.overlooked + len(touched)


def _sum(terms: Sequence[Term]) -> Score:
    """What all of them say together; the usual three columns without a detour."""
    columns = [(it.factor, it.column) for it in terms if it.column is not None and not it.factors]
    if len(columns) == len(terms) == 3:
        (a, x), (b, y), (c, z) = columns
        return lambda slot: a * x[slot] + b * y[slot] + c * z[slot]
    return lambda slot: sum(term(slot) for term in terms)
