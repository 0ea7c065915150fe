"""The rules of address groups."""

from __future__ import annotations

from collections.abc import Iterable

from bus.execute import Aggregate, Wish
from schema.changes import differing
from schema.event import Command
from schema.network.address_group import (
    ADDRESS_GROUP,
    AddAddresses,
    AddressesAdded,
    AddressesRemoved,
    AddressGroup,
    AddressGroupCreated,
    AddressGroupDeleted,
    AddressGroupEvent,
    AddressGroupShared,
    AddressGroupUnshared,
    AddressGroupUpdated,
    CreateAddressGroup,
    DeleteAddressGroup,
    RemoveAddresses,
    ShareAddressGroup,
    UnshareAddressGroup,
    UpdateAddressGroup,
)
from schema.network.security_group import named_by_rules
from schema.refusal import Conflict, Invalid, NotFound, Refused

ABSENT, THERE, GONE = "absent", "there", "gone"
ADDRESSES = 10_000
"""Addresses in one group, at most."""

ALLOWED: dict[type[Command], set[str]] = {
    CreateAddressGroup: {ABSENT},
    UpdateAddressGroup: {THERE},
    AddAddresses: {THERE},
    RemoveAddresses: {THERE},
    ShareAddressGroup: {THERE},
    UnshareAddressGroup: {THERE},
    DeleteAddressGroup: {THERE},
}


def decide(group: AddressGroup, command: Command) -> list[AddressGroupEvent]:
    if _already_so(group, command):
        return []
    if _status(group) not in ALLOWED[type(command)]:
        raise _wrong_status(group, command)
    match command:
        case CreateAddressGroup():
            _refuse_too_many(group, len(command.addresses))
            return [
                AddressGroupCreated(
                    name=command.name,
                    project_id=command.project_id,
                    description=command.description,
                    addresses=tuple(dict.fromkeys(command.addresses)),
                )
            ]
        case UpdateAddressGroup():
            return [AddressGroupUpdated(**differing(group, command))]
        case AddAddresses():
            fresh = tuple(it for it in dict.fromkeys(command.addresses) if it not in group.addresses)
            _refuse_too_many(group, len(group.addresses) + len(fresh))
            return [AddressesAdded(addresses=fresh)]
        case RemoveAddresses():
            there = tuple(it for it in dict.fromkeys(command.addresses) if it in group.addresses)
            return [AddressesRemoved(addresses=there)]
        case ShareAddressGroup():
            return [AddressGroupShared(project_id=command.project_id)]
        case UnshareAddressGroup():
            return [AddressGroupUnshared(project_id=command.project_id)]
        case DeleteAddressGroup():
            return [AddressGroupDeleted()]
    raise TypeError(f"address groups know no {type(command).__name__}")


def not_found(id: str) -> NotFound:
    return NotFound(f"Address group {id} could not be found.", code="AddressGroupNotFound")


def in_use(id: str) -> Conflict:
    return Conflict(f"Address group {id} is in use on one or more security group rules.", code="AddressGroupInUse")


def standing(ids: Iterable[str]) -> list[Wish]:
    """For the append of rules that name these groups: refused when one is gone by then."""
    return [Wish(ADDRESS_GROUPS, id, UpdateAddressGroup()) for id in dict.fromkeys(ids)]


def ending(id: str) -> Wish:
    """Its end; StillHeld when rules name it."""
    return Wish(ADDRESS_GROUPS, id, DeleteAddressGroup(), vacant=(named_by_rules(id),))


def _already_so(group: AddressGroup, command: Command) -> bool:
    match command:
        case CreateAddressGroup():
            return group.living and (group.name, group.project_id) == (command.name, command.project_id)
        case UpdateAddressGroup():
            return group.living and not differing(group, command)
        case AddAddresses():
            return group.living and set(command.addresses) <= set(group.addresses)
        case RemoveAddresses():
            return group.created_at is not None and not set(command.addresses) & set(group.addresses)
        case ShareAddressGroup():
            return group.living and command.project_id in group.shared_with
        case UnshareAddressGroup():
            return command.project_id not in group.shared_with or not group.living
        case DeleteAddressGroup():
            return group.deleted_at is not None
    return False


def _refuse_too_many(group: AddressGroup, number: int) -> None:
    if number > ADDRESSES:
        raise Invalid(f"Address group {group.id} would have {number} addresses; it may have {ADDRESSES}.")


def _wrong_status(group: AddressGroup, command: Command) -> Refused:
    if isinstance(command, CreateAddressGroup):
        return Conflict(f"The id {group.id} is or was another address group's; ids are not used again.")
    return not_found(group.id)


def _status(group: AddressGroup) -> str:
    if group.living:
        return THERE
    return GONE if group.deleted_at else ABSENT


ADDRESS_GROUPS = Aggregate(ADDRESS_GROUP, decide, ALLOWED)
