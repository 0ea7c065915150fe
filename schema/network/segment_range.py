"""Which numbers VXLAN and VLAN networks are given, beyond what the settings say: one list for the whole cloud.

Two ranges never have a number in common; that is decided on the list's one stream.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from schema.compute.domain import Word
from schema.event import Command, Event, Kind, Said, State

STREAM = "all"
"""`segment-ranges/all`: the one list."""


class SegmentRange(Word):
    """Numbers of one project's networks, or of those of every project that has none of its own left."""

    id: str
    network_type: str
    minimum: int
    maximum: int
    name: str = ""
    description: str = ""
    physical_network: str | None = None
    """Of VLANs: where."""
    project_id: str = ""
    """Empty: it is for all of them (`shared`)."""
    tags: tuple[str, ...] = ()
    created_at: datetime | None = None
    updated_at: datetime | None = None
    revision: int = 0

    @property
    def numbers(self) -> range:
        return range(self.minimum, self.maximum + 1)

    @property
    def place(self) -> tuple[str, str | None]:
        """Where numbers must differ."""
        return self.network_type, self.physical_network


class SegmentRanges(State):
    ranges: tuple[SegmentRange, ...] = ()


class SegmentRangeAdded(Event):
    range: SegmentRange


class _SegmentRangeChanges(Said):
    range_id: str
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    minimum: int | UnsetType = UNSET
    maximum: int | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET


class SegmentRangeChanged(Event, _SegmentRangeChanges):
    """The fields that changed."""


class SegmentRangeRemoved(Event):
    range_id: str


SegmentRangesEvent = SegmentRangeAdded | SegmentRangeChanged | SegmentRangeRemoved


class AddSegmentRange(Command):
    """Refused where another has some of its numbers."""

    range: SegmentRange


class ChangeSegmentRange(Command, _SegmentRangeChanges):
    """Change it."""


class RemoveSegmentRange(Command):
    range_id: str


def evolve(list: SegmentRanges, event: SegmentRangesEvent, at: datetime) -> SegmentRanges:
    match event:
        case SegmentRangeAdded():
            added = replace(event.range, created_at=at, updated_at=at)
            return replace(list, ranges=(*list.ranges, added))
        case SegmentRangeChanged():
            return replace(
                list, ranges=tuple(_changed(it, event, at) if it.id == event.range_id else it for it in list.ranges)
            )
        case SegmentRangeRemoved():
            return replace(list, ranges=tuple(it for it in list.ranges if it.id != event.range_id))


def _changed(it: SegmentRange, event: SegmentRangeChanged, at: datetime) -> SegmentRange:
    said = {name: value for name in _CHANGEABLE if (value := getattr(event, name)) is not UNSET}
    return replace(it, **said, updated_at=at, revision=it.revision + 1)


_CHANGEABLE = ("name", "description", "minimum", "maximum", "tags")

SEGMENT_RANGES = Kind("segment-ranges", SegmentRanges, SegmentRangesEvent, evolve)
"""The ranges that networks' numbers are of."""
