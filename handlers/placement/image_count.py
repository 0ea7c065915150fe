"""The properties of the images that a host's servers were made from, counted: what the weigher ImageProperties goes by.

    servers in the log ──made_from──▶ consumer → properties ─┐
    claims and picks ──arrived, left──▶ consumer → slots ────┴──▶ slot → property → how many servers there have it

Nothing is counted unless somebody weighs it, and only the properties that weigh something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Property = tuple[str, str]
"""Name and value."""
KINDS = 4096
"""Sets of properties that are kept once for all servers that have them, at most."""


class ImageCount:
    """`weights`: property → how much one server that has it counts; empty: all properties, alike; None: nobody asks."""

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self.weights = weights
        self._properties: dict[str, frozenset[Property]] = {}
        self._slots: dict[str, list[int]] = {}
        """Consumer → where it counts: a claim or a pick is once."""
        self._counts: dict[int, dict[Property, int]] = {}
        self._alike: dict[frozenset[Property], frozenset[Property]] = {}
        """Servers of one image share what is kept of it."""

    @property
    def on(self) -> bool:
        """Whether anything is counted at all."""
        return self.weights is not None

    def weight(self, slot: int, properties: Mapping[str, str]) -> float:
        """What the servers of a slot have in common with these properties."""
        counts = self._counts.get(slot)
        if not counts or self.weights is None:
            return 0.0
        return sum(self._weight(it[0]) * counts[it] for it in properties.items() if it in counts)

    def made_from(self, consumer: str, properties: Mapping[str, str] | None) -> Sequence[int]:
        """A server is made from an image with these; None: it is no more. The slots whose numbers that changes."""
        if self.weights is None:
            return ()
        before = self._properties.pop(consumer, None)
        after = frozenset(it for it in (properties or {}).items() if self._weight(it[0]))
        if after:
            if len(self._alike) >= KINDS:
                self._alike.clear()
            self._properties[consumer] = self._alike.setdefault(after, after)
        if after == (before or frozenset()):
            return ()
        slots = self._slots.get(consumer, ())
        for slot in slots:
            self._add(slot, before, -1)
            self._add(slot, after, 1)
        return slots

    def arrived(self, consumer: str, slot: int) -> None:
        """It is there, or about to be."""
        if self.weights is not None:
            self._slots.setdefault(consumer, []).append(slot)
            self._add(slot, self._properties.get(consumer), 1)

    def left(self, consumer: str, slot: int) -> None:
        """It is not there any more, or will not be after all."""
        if self.weights is not None:
            slots = self._slots[consumer]
            slots.remove(slot)
            if not slots:
                del self._slots[consumer]
            self._add(slot, self._properties.get(consumer), -1)

    def _weight(self, name: str) -> float:
        return self.weights.get(name, 0.0) if self.weights else 1.0

    def _add(self, slot: int, properties: frozenset[Property] | None, sign: int) -> None:
        if not properties:
            return
        counts = self._counts.setdefault(slot, {})
        for it in properties:
            counts[it] = counts.get(it, 0) + sign
            if not counts[it]:
                del counts[it]
