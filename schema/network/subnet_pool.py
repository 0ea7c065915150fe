"""A subnet pool: prefixes from which subnets take their ranges, none twice. Who has which is decided on its stream.

(absent) ──SubnetPoolCreated──▶ there ──RangeAllotted, RangeReturned──▶ there ──SubnetPoolDeleted──▶ gone
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec import UNSET, UnsetType, field
from msgspec.structs import replace

from schema.changes import applied
from schema.compute.domain import Word
from schema.event import Command, Event, Key, Kind, Said, State

DEFAULT_SCOPE = "default-subnet-pool"
"""Scope of the reservation that the default pool of an IP version holds under the version."""


class Range(Word):
    """What a subnet has of a pool."""

    cidr: str
    project_id: str


class SubnetPool(State):
    name: str = ""
    project_id: str = ""
    description: str = ""
    ip_version: int = 4
    prefixes: tuple[str, ...] = ()
    """Joined where they touch, in order."""
    min_prefixlen: int = 8
    max_prefixlen: int = 32
    default_prefixlen: int = 8
    default_quota: int | None = None
    """How much one project may have of it: addresses of IPv4, /64s of IPv6. None: whatever there is."""
    address_scope_id: str | None = None
    is_default: bool = False
    shared_with: tuple[str, ...] = ()
    """Projects that RBAC lets use it; `*`: all of them (`shared`)."""
    ranges: dict[str, Range] = field(default_factory=dict)
    """Subnet → what it has."""
    tags: tuple[str, ...] = ()


class _NewSubnetPool(Said):
    name: str = ""
    project_id: str = ""
    description: str = ""
    ip_version: int = 4
    prefixes: tuple[str, ...] = ()
    min_prefixlen: int = 8
    max_prefixlen: int = 32
    default_prefixlen: int = 8
    default_quota: int | None = None
    address_scope_id: str | None = None
    is_default: bool = False
    shared_with: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


class SubnetPoolCreated(Event, _NewSubnetPool):
    """It is there."""


class _SubnetPoolChanges(Said):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    prefixes: tuple[str, ...] | UnsetType = UNSET
    min_prefixlen: int | UnsetType = UNSET
    max_prefixlen: int | UnsetType = UNSET
    default_prefixlen: int | UnsetType = UNSET
    default_quota: int | None | UnsetType = UNSET
    address_scope_id: str | None | UnsetType = UNSET
    is_default: bool | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET


class SubnetPoolUpdated(Event, _SubnetPoolChanges):
    """It is changed."""


class RangeAllotted(Event):
    """A subnet has it, in the same append."""

    subnet_id: str
    cidr: str
    project_id: str = ""


class RangeReturned(Event):
    subnet_id: str


class SubnetPoolShared(Event):
    """A project (`*`: every one) may use it."""

    project_id: str


class SubnetPoolUnshared(Event):
    project_id: str


class SubnetPoolDeleted(Event):
    """It ended."""


class CreateSubnetPool(Command, _NewSubnetPool):
    """Make it."""


class UpdateSubnetPool(Command, _SubnetPoolChanges):
    """Change it."""


class AllotRange(Command):
    """Refused where another subnet has some of it. `chosen`: it was picked for who named none, who picks again."""

    subnet_id: str
    cidr: str
    project_id: str = ""
    chosen: bool = False
    onboarded: bool = False
    """Of a subnet that was there before: its range becomes a prefix of the pool, if it is none."""


class ReturnRange(Command):
    """Nothing happens unless that subnet has one."""

    subnet_id: str


class ShareSubnetPool(Command):
    project_id: str


class UnshareSubnetPool(Command):
    project_id: str


class DeleteSubnetPool(Command):
    """End it."""


SubnetPoolEvent = (
    SubnetPoolCreated
    | SubnetPoolUpdated
    | RangeAllotted
    | RangeReturned
    | SubnetPoolShared
    | SubnetPoolUnshared
    | SubnetPoolDeleted
)


def evolve(pool: SubnetPool, event: SubnetPoolEvent, at: datetime) -> SubnetPool:
    match event:
        case SubnetPoolCreated() | SubnetPoolUpdated():
            return applied(pool, event)
        case RangeAllotted():
            given = Range(cidr=event.cidr, project_id=event.project_id)
            return replace(pool, ranges=pool.ranges | {event.subnet_id: given})
        case RangeReturned():
            return replace(pool, ranges={id: it for id, it in pool.ranges.items() if id != event.subnet_id})
        case SubnetPoolShared():
            return replace(pool, shared_with=(*pool.shared_with, event.project_id))
        case SubnetPoolUnshared():
            return replace(pool, shared_with=tuple(it for it in pool.shared_with if it != event.project_id))
        case SubnetPoolDeleted():
            return replace(pool, deleted_at=at)


def _unique(pool: SubnetPool) -> Iterable[Key]:
    """One default for each IP version."""
    if pool.is_default:
        yield DEFAULT_SCOPE, str(pool.ip_version)


SUBNET_POOL = Kind("subnet-pool", SubnetPool, SubnetPoolEvent, evolve, unique=_unique)
