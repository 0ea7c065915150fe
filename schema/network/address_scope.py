"""An address scope: subnet pools whose ranges must not overlap, because traffic between them is not translated.

(absent) ──AddressScopeCreated──▶ there ──AddressScopePoolAdded, …Removed──▶ there ──AddressScopeDeleted──▶ gone
"""

from __future__ import annotations

from datetime import datetime

from msgspec import UNSET, UnsetType, field
from msgspec.structs import replace

from schema.changes import applied
from schema.event import Command, Event, Kind, Said, State


class AddressScope(State):
    name: str = ""
    project_id: str = ""
    ip_version: int = 4
    shared_with: tuple[str, ...] = ()
    """Projects that RBAC lets use it; `*`: all of them (`shared`)."""
    pools: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Subnet pool → its prefixes."""


class _NewAddressScope(Said):
    name: str = ""
    project_id: str = ""
    ip_version: int = 4
    shared_with: tuple[str, ...] = ()


class AddressScopeCreated(Event, _NewAddressScope):
    """It is there."""


class AddressScopeUpdated(Event):
    name: str | UnsetType = UNSET


class AddressScopePoolAdded(Event):
    """It is in the scope with these prefixes: newly, or with others than before."""

    pool_id: str
    prefixes: tuple[str, ...]


class AddressScopePoolRemoved(Event):
    pool_id: str


class AddressScopeShared(Event):
    """A project (`*`: every one) may use it."""

    project_id: str


class AddressScopeUnshared(Event):
    project_id: str


class AddressScopeDeleted(Event):
    """It ended."""


class CreateAddressScope(Command, _NewAddressScope):
    """Make it."""


class UpdateAddressScope(Command):
    name: str | UnsetType = UNSET


class AddAddressScopePool(Command):
    """Refused where the prefixes overlap another pool's, are of the other family, or the project may not use it."""

    pool_id: str
    prefixes: tuple[str, ...]
    project_id: str = ""
    """Of the pool."""


class RemoveAddressScopePool(Command):
    pool_id: str


class ShareAddressScope(Command):
    project_id: str


class UnshareAddressScope(Command):
    project_id: str


class DeleteAddressScope(Command):
    """End it."""


AddressScopeEvent = (
    AddressScopeCreated
    | AddressScopeUpdated
    | AddressScopePoolAdded
    | AddressScopePoolRemoved
    | AddressScopeShared
    | AddressScopeUnshared
    | AddressScopeDeleted
)


def evolve(scope: AddressScope, event: AddressScopeEvent, at: datetime) -> AddressScope:
    match event:
        case AddressScopeCreated() | AddressScopeUpdated():
            return applied(scope, event)
        case AddressScopePoolAdded():
            return replace(scope, pools=scope.pools | {event.pool_id: event.prefixes})
        case AddressScopePoolRemoved():
            return replace(scope, pools={id: it for id, it in scope.pools.items() if id != event.pool_id})
        case AddressScopeShared():
            return replace(scope, shared_with=(*scope.shared_with, event.project_id))
        case AddressScopeUnshared():
            return replace(scope, shared_with=tuple(it for it in scope.shared_with if it != event.project_id))
        case AddressScopeDeleted():
            return replace(scope, deleted_at=at)


ADDRESS_SCOPE = Kind("address-scope", AddressScope, AddressScopeEvent, evolve)
