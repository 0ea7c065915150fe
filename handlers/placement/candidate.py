"""A host as filters and weighers see it: what it is, and what is left of it at this moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from handlers.placement.image_count import ImageCount
from schema.compute.host import Host
from schema.placement.provider import Inventory


class Columns(Protocol):
    """What changes with every claim, by slot; and the projects that some aggregate is kept for."""

    free: dict[str, list[int]]
    servers: list[int]
    tenants: frozenset[str]
    devices: int
    """PCI devices that there are on all hosts together."""
    images: ImageCount

    def busy(self, slot: int) -> int: ...

    def metrics(self, slot: int) -> Mapping[str, float]: ...

    def units_free(self, slot: int) -> Mapping[str, int]: ...

    def units_there(self, slot: int) -> Mapping[str, int]: ...

    def failures_at(self, slot: int) -> int: ...


class Candidate(Struct, frozen=True, eq=False):
    """`free`, `servers` and `busy` are as of now; the rest as of the last change that filters look at."""

    host: Host
    inventories: Mapping[str, Inventory]
    traits: frozenset[str]
    aggregates: Sequence[Mapping[str, str]]
    """Metadata of the host aggregates it is in."""
    slot: int
    columns: Columns
    physical_networks: frozenset[str] = frozenset()
    """Those its network agent has an interface to."""

    def free(self, resource_class: str) -> int:
        """What is left for one more claim, picks counted."""
        column = self.columns.free.get(resource_class)
        return max(0, column[self.slot]) if column else 0

    @property
    def servers(self) -> int:
        """How many have a claim here, picks counted."""
        return self.columns.servers[self.slot]

    @property
    def busy(self) -> int:
        """How many of them are being built, moved, or otherwise worked on."""
        return self.columns.busy(self.slot)

    @property
    def metrics(self) -> Mapping[str, float]:
        """How busy it says it is, by Nova's names."""
        return self.columns.metrics(self.slot)

    @property
    def units(self) -> Mapping[str, int]:
        """How much of each unit nobody has, picks counted (schema/compute/topology.py)."""
        return self.columns.units_free(self.slot)

    @property
    def units_there(self) -> Mapping[str, int]:
        """How much of each unit there is."""
        return self.columns.units_there(self.slot)

    def said(self, key: str) -> list[str]:
        """What its aggregates say under this key, commas between words."""
        return [word.strip() for it in self.aggregates if key in it for word in it[key].split(",")]

    def least(self, key: str, default: float) -> float:
        """The smallest number its aggregates say under this key."""
        return min((number for word in self.said(key) if (number := _number(word)) is not None), default=default)


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
