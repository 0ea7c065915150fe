"""What a project may have in networking, and what it has.

`network-quota/<project>` holds the limits somebody set; `network-usage/<project>:<resource>` what counts against one of
them. The usage is a stream of its own for each resource, and knows what it counted: so a repeated command counts
nothing twice, and of things made at once exactly as many succeed as the limit allows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime

from msgspec import field
from msgspec.structs import replace

from schema.event import Command, Event, Kind, State

UNLIMITED = -1


class NetworkQuota(State):
    """The stream's id is the project's."""

    limits: dict[str, int] = field(default_factory=dict)
    """Only what was set for this project; -1 is unlimited."""


class NetworkQuotaLimitsSet(Event):
    limits: dict[str, int]
    """The limits that were set; the others stay."""


class NetworkQuotaLimitsCleared(Event):
    """Every limit is the default again."""


NetworkQuotaEvent = NetworkQuotaLimitsSet | NetworkQuotaLimitsCleared


class SetNetworkQuotaLimits(Command):
    limits: dict[str, int]


class ClearNetworkQuotaLimits(Command):
    pass


def evolve(quota: NetworkQuota, event: NetworkQuotaEvent, at: datetime) -> NetworkQuota:
    match event:
        case NetworkQuotaLimitsSet():
            return replace(quota, limits=quota.limits | event.limits)
        case NetworkQuotaLimitsCleared():
            return replace(quota, limits={})


NETWORK_QUOTA = Kind("network-quota", NetworkQuota, NetworkQuotaEvent, evolve)


MARK = 9
"""Bytes that stand for one thing: of ten thousand, two are alike once in 10^13 clouds."""


class NetworkUsage(State):
    """Things of one kind that a project has. The stream's id: `<project>:<resource>`."""

    project_id: str = ""
    name: str = ""
    """The resource."""
    used: int = 0
    marks: bytes = b""
    """Of each thing, by its id: a document that is written with every port made has to be small, and to copy it cheap.
    The ids themselves are in the events."""

    def has(self, id: str) -> bool:
        return _find(self.marks, _mark(id)) >= 0


class NetworkQuotaTaken(Event):
    """These things count from now on."""

    ids: tuple[str, ...]


class NetworkQuotaGivenBack(Event):
    ids: tuple[str, ...]


NetworkUsageEvent = NetworkQuotaTaken | NetworkQuotaGivenBack


class TakeNetworkQuota(Command):
    """Append it together with the making of the things."""

    ids: tuple[str, ...]
    limit: int
    """The limit in force."""


class GiveBackNetworkQuota(Command):
    """Append it together with their end."""

    ids: tuple[str, ...]


def usage_id(project_id: str, resource: str) -> str:
    return f"{project_id}:{resource}"


def evolve_usage(usage: NetworkUsage, event: NetworkUsageEvent, at: datetime) -> NetworkUsage:
    match event:
        case NetworkQuotaTaken():
            marks = _with(usage.marks, event.ids)
        case NetworkQuotaGivenBack():
            marks = _without(usage.marks, event.ids)
    project_id, _, resource = usage.id.rpartition(":")
    return replace(usage, project_id=project_id, name=resource, used=len(marks) // MARK, marks=marks)


def _with(marks: bytes, ids: Iterable[str]) -> bytes:
    fresh = [mark for mark in dict.fromkeys(map(_mark, ids)) if _find(marks, mark) < 0]
    return b"".join((marks, *fresh))


def _without(marks: bytes, ids: Iterable[str]) -> bytes:
    for id in ids:
        at = _find(marks, _mark(id))
        if at >= 0:
            marks = marks[:at] + marks[at + MARK :]
    return marks


def _mark(id: str) -> bytes:
    return hashlib.blake2b(id.encode(), digest_size=MARK).digest()


def _find(marks: bytes, mark: bytes) -> int:
    """Where it stands; -1: nowhere. What straddles two marks is none."""
    at = marks.find(mark)
    while at % MARK and at >= 0:
        at = marks.find(mark, at + 1)
    return at


NETWORK_USAGE = Kind("network-usage", NetworkUsage, NetworkUsageEvent, evolve_usage)
