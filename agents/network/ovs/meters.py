"""Bandwidth limits in the switch itself: what comes from a guest is metered, and so is what goes to a trunk's subport.

What goes to a guest's own tap waits in a token bucket there (agents/network/shaping.py). What comes from it does not:
the switch reads a tap before the kernel would lead its frames anywhere, and a meter can only drop.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping

import msgspec

from agents.network.shaping import policed, rate_of
from agents.network.world import World
from schema.network.wiring import Direction

_MOST_METERS = 200_000
_METER = re.compile(r"meter=(\d+) kbps burst bands=\s*type=drop rate=(\d+) burst_size=(\d+)", re.ASCII)


class Limit(msgspec.Struct, frozen=True):
    kbps: int
    burst_kbits: int

    @property
    def words(self) -> str:
        return f"kbps,burst,band=type=drop,rate={self.kbps},burst_size={self.burst_kbits}"


def wanted(world: World) -> dict[tuple[str, Direction], Limit]:
    """By port and direction."""
    found: dict[tuple[str, Direction], Limit] = {}
    directions: tuple[Direction, ...] = ("egress", "ingress")
    for port in world.ports.values():
        for direction in directions:
            rate = rate_of(port.quality, direction)
            if rate and (direction == "egress" or port.parent_id):
                rate = policed(rate)
                limit = Limit(rate.bytes_per_second * 8 // 1000, max(1, rate.burst_bytes * 8 // 1000))
                found[port.id, direction] = limit
    return found


def numbered(names: Iterable[tuple[str, Direction]]) -> dict[tuple[str, Direction], int]:
    """A number for each, the same as the last time unless two should have had the same."""
    found: dict[tuple[str, Direction], int] = {}
    taken: set[int] = set()
    for name in sorted(names):
        number = zlib.crc32(" ".join(name).encode()) % _MOST_METERS + 1
        while number in taken:
            number = number % _MOST_METERS + 1
        taken.add(number)
        found[name] = number
    return found


def plan(limits: Mapping[int, Limit], seen: Mapping[int, Limit]) -> tuple[list[str], list[str]]:
    """What is to be said to the switch before flows may name the meters, and what once none names them any more."""
    before = [
        f"{'mod' if number in seen else 'add'}-meter meter={number},{limit.words}"
        for number, limit in limits.items()
        if seen.get(number) != limit
    ]
    return before, [f"del-meter meter={number}" for number in seen if number not in limits]


def read(listing: str) -> dict[int, Limit]:
    """What `ovs-ofctl dump-meters` said."""
    return {int(it[1]): Limit(int(it[2]), int(it[3])) for it in _METER.finditer(listing)}
