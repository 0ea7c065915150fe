"""An address group: addresses that security group rules name together, and that change in one place.

(absent) ──AddressGroupCreated──▶ there ──AddressesAdded, AddressesRemoved──▶ there ──AddressGroupDeleted──▶ gone
"""

from __future__ import annotations

from datetime import datetime

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from schema.changes import applied
from schema.event import Command, Event, Kind, Said, State


class AddressGroup(State):
    name: str = ""
    project_id: str = ""
    description: str = ""
    addresses: tuple[str, ...] = ()
    """CIDRs of both families; a single address is a /32 or a /128."""
    shared_with: tuple[str, ...] = ()
    """Projects that RBAC lets use it; `*`: all of them."""


class _NewAddressGroup(Said):
    name: str
    project_id: str
    description: str = ""
    addresses: tuple[str, ...] = ()


class AddressGroupCreated(Event, _NewAddressGroup):
    """It is there."""


class AddressGroupUpdated(Event):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET


class AddressesAdded(Event):
    addresses: tuple[str, ...]


class AddressesRemoved(Event):
    addresses: tuple[str, ...]


class AddressGroupShared(Event):
    project_id: str


class AddressGroupUnshared(Event):
    project_id: str


class AddressGroupDeleted(Event):
    pass


AddressGroupEvent = (
    AddressGroupCreated
    | AddressGroupUpdated
    | AddressesAdded
    | AddressesRemoved
    | AddressGroupShared
    | AddressGroupUnshared
    | AddressGroupDeleted
)


class CreateAddressGroup(Command, _NewAddressGroup):
    """Make it."""


class UpdateAddressGroup(Command):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET


class AddAddresses(Command):
    addresses: tuple[str, ...]


class RemoveAddresses(Command):
    addresses: tuple[str, ...]


class ShareAddressGroup(Command):
    project_id: str


class UnshareAddressGroup(Command):
    project_id: str


class DeleteAddressGroup(Command):
    pass


def evolve(group: AddressGroup, event: AddressGroupEvent, at: datetime) -> AddressGroup:
    match event:
        case AddressGroupCreated() | AddressGroupUpdated():
            return applied(group, event)
        case AddressesAdded():
            return replace(group, addresses=group.addresses + event.addresses)
        case AddressesRemoved():
            return replace(group, addresses=tuple(it for it in group.addresses if it not in event.addresses))
        case AddressGroupShared():
            return replace(group, shared_with=(*group.shared_with, event.project_id))
        case AddressGroupUnshared():
            return replace(group, shared_with=tuple(it for it in group.shared_with if it != event.project_id))
        case AddressGroupDeleted():
            return replace(group, deleted_at=at)


ADDRESS_GROUP = Kind("address-group", AddressGroup, AddressGroupEvent, evolve)
