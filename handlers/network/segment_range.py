"""The rules of network segment ranges, and which numbers they leave to a project's networks.

its own ranges first ─▶ none of them has one left ─▶ what is for everybody, but for what other projects have
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import UNSET

from bus.execute import Aggregate
from schema.event import Command
from schema.network.segment_range import (
    SEGMENT_RANGES,
    AddSegmentRange,
    ChangeSegmentRange,
    RemoveSegmentRange,
    SegmentRange,
    SegmentRangeAdded,
    SegmentRangeChanged,
    SegmentRangeRemoved,
    SegmentRanges,
    SegmentRangesEvent,
)
from schema.refusal import Conflict, NotFound

ANY = "any"
"""The list is always there."""
RANGES = 1000

ALLOWED: dict[type[Command], set[str]] = {
    AddSegmentRange: {ANY},
    ChangeSegmentRange: {ANY},
    RemoveSegmentRange: {ANY},
}


class Room(msgspec.Struct, frozen=True):
    """Numbers from which one may be picked, as ranges that have none in common."""

    physical_network: str | None
    parts: tuple[range, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, nth: int) -> int:
        for part in self.parts:
            if nth < len(part):
                return part[nth]
            nth -= len(part)
        raise IndexError(nth)


def decide(list: SegmentRanges, command: Command) -> list[SegmentRangesEvent]:
    match command:
        case AddSegmentRange():
            known = next((it for it in list.ranges if it.id == command.range.id), None)
            if known is not None and _plain(known) == _plain(command.range):
                return []
            if known is not None:
                raise Conflict(f"The id {known.id} is another network segment range's.")
            if len(list.ranges) >= RANGES:
                raise Conflict(f"There are {RANGES} network segment ranges at most; delete one first.")
            _refuse_overlap(list, command.range)
            return [SegmentRangeAdded(range=command.range)]
        case ChangeSegmentRange():
            before = next((it for it in list.ranges if it.id == command.range_id), None)
            if before is None:
                raise not_found(command.range_id)
            said = {name: getattr(command, name) for name in command.__struct_fields__ if name != "range_id"}
            changes = {k: v for k, v in said.items() if v is not UNSET and v != getattr(before, k)}
            _refuse_overlap(list, msgspec.structs.replace(before, **changes))
            return [SegmentRangeChanged(range_id=before.id, **changes)] if changes else []
        case RemoveSegmentRange():
            there = any(it.id == command.range_id for it in list.ranges)
            return [SegmentRangeRemoved(range_id=command.range_id)] if there else []
    raise TypeError(f"network segment ranges know no {type(command).__name__}")


def not_found(id: str) -> NotFound:
    return NotFound(f"Network Segment Range {id} could not be found.", code="NetworkSegmentRangeNotFound")


def in_use(id: str) -> Conflict:
    return Conflict(
        f"Network Segment Range {id} is referenced by one or more tenant networks.",
        code="NetworkSegmentRangeReferencedByProject",
    )


def rooms(
    ranges: Sequence[SegmentRange],
    defaults: Iterable[SegmentRange],
    project_id: str,
    network_type: str,
    physical_network: str | None,
) -> list[Room]:
    """Where a project's network may have its number, the best first. `physical_network` None: any."""
    fitting = [it for it in ranges if _fits(it, network_type, physical_network)]
    own = [it for it in fitting if it.project_id and it.project_id == project_id]
    theirs = [it for it in fitting if it.project_id and it.project_id != project_id]
    for_all = [*(it for it in defaults if _fits(it, network_type, physical_network)), *fitting]
    places = sorted({it.physical_network for it in for_all if not it.project_id}, key=lambda it: it or "")
    shared = [
        Room(
            place,
            without(
                joined(it.numbers for it in for_all if not it.project_id and it.physical_network == place),
                [it.numbers for it in [*theirs, *own] if it.physical_network == place],
            ),
        )
        for place in places
    ]
    return [*(Room(it.physical_network, (it.numbers,)) for it in own), *shared]


def joined(ranges: Iterable[range]) -> tuple[range, ...]:
    """The same numbers, each once, in order."""
    found: list[range] = []
    for it in sorted((it for it in ranges if it), key=lambda it: it.start):
        if found and it.start <= found[-1].stop:
            found[-1] = range(found[-1].start, max(found[-1].stop, it.stop))
        else:
            found.append(it)
    return tuple(found)


def without(ranges: Iterable[range], others: Iterable[range]) -> tuple[range, ...]:
    """What none of the others has."""
    left = list(ranges)
    for other in others:
        halves = [
            part
            for it in left
            for part in (range(it.start, min(it.stop, other.start)), range(max(it.start, other.stop), it.stop))
        ]
        left = [part for part in halves if part]
    return tuple(left)


def _fits(it: SegmentRange, network_type: str, physical_network: str | None) -> bool:
    return it.network_type == network_type and physical_network in {None, it.physical_network}


def _plain(it: SegmentRange) -> SegmentRange:
    return msgspec.structs.replace(it, created_at=None, updated_at=None, revision=0)


def _refuse_overlap(list: SegmentRanges, it: SegmentRange) -> None:
    overlapping = [
        other.id
        for other in list.ranges
        if other.id != it.id and other.place == it.place and other.minimum <= it.maximum and it.minimum <= other.maximum
    ]
    if overlapping:
        raise Conflict(
            f"Network segment range overlaps with range(s) with id {', '.join(overlapping)}.",
            code="NetworkSegmentRangeOverlaps",
        )


NUMBER_RANGES = Aggregate(SEGMENT_RANGES, decide, ALLOWED)
