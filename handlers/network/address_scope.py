"""The rules of address scopes: one family, no overlap between the pools in it, and one with pools stays."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from bus.execute import Aggregate
from schema.changes import differing, given
from schema.event import Command
from schema.network.address_scope import (
    ADDRESS_SCOPE,
    AddAddressScopePool,
    AddressScope,
    AddressScopeCreated,
    AddressScopeDeleted,
    AddressScopeEvent,
    AddressScopePoolAdded,
    AddressScopePoolRemoved,
    AddressScopeShared,
    AddressScopeUnshared,
    AddressScopeUpdated,
    CreateAddressScope,
    DeleteAddressScope,
    RemoveAddressScopePool,
    ShareAddressScope,
    UnshareAddressScope,
    UpdateAddressScope,
)
from schema.refusal import Conflict, Invalid, NotFound

ABSENT, THERE, GONE = "absent", "there", "gone"

ALLOWED: dict[type[Command], set[str]] = {
    CreateAddressScope: {ABSENT},
    UpdateAddressScope: {THERE},
    AddAddressScopePool: {THERE},
    RemoveAddressScopePool: {THERE, GONE},
    ShareAddressScope: {THERE},
    UnshareAddressScope: {THERE},
    DeleteAddressScope: {THERE},
}


def decide(scope: AddressScope, command: Command) -> list[AddressScopeEvent]:
    if _already_so(scope, command):
        return []
    status = _status(scope)
    if status not in ALLOWED[type(command)]:
        if isinstance(command, CreateAddressScope):
            raise Conflict(f"Address scope {scope.id} is {status} already.", code="Conflict")
        raise not_found(scope.id)
    match command:
        case CreateAddressScope():
            return [AddressScopeCreated(**given(command))]
        case UpdateAddressScope():
            return [AddressScopeUpdated(**differing(scope, command))]
        case AddAddressScopePool():
            _refuse_unfit(scope, command)
            return [AddressScopePoolAdded(pool_id=command.pool_id, prefixes=command.prefixes)]
        case RemoveAddressScopePool():
            return [AddressScopePoolRemoved(pool_id=command.pool_id)]
        case ShareAddressScope():
            return [AddressScopeShared(project_id=command.project_id)]
        case UnshareAddressScope():
            return [AddressScopeUnshared(project_id=command.project_id)]
        case DeleteAddressScope():
            if scope.pools:
                raise Conflict(
                    f"Unable to complete operation on address scope {scope.id}. There are one or more subnet pools in "
                    "use on the address scope",
                    code="AddressScopeInUse",
                )
            return [AddressScopeDeleted()]
    raise TypeError(f"address scopes know no {type(command).__name__}")


def not_found(id: str) -> NotFound:
    return NotFound(f"Address scope {id} could not be found", code="AddressScopeNotFound")


def usable(scope: AddressScope, project_id: str) -> bool:
    """Whether that project's pools may be in it."""
    return scope.project_id == project_id or not {"*", project_id}.isdisjoint(scope.shared_with)


def _refuse_unfit(scope: AddressScope, command: AddAddressScopePool) -> None:
    if not usable(scope, command.project_id):
        raise Invalid(
            f"Illegal subnetpool association: subnetpool {command.pool_id} cannot be associated with address scope "
            f"{scope.id}.",
            code="IllegalSubnetPoolAssociationToAddressScope",
        )
    if any(version(it) != scope.ip_version for it in command.prefixes):
        raise Invalid(
            f"Illegal subnetpool association: subnetpool {command.pool_id} cannot associate with address scope "
            f"{scope.id} because subnetpool ip_version is not {scope.ip_version}.",
            code="IllegalSubnetPoolIpVersionAssociationToAddressScope",
        )
    others = [it for id, prefixes in scope.pools.items() if id != command.pool_id for it in prefixes]
    if overlapping(command.prefixes, others):
        raise Conflict(
            "Failed to associate address scope: subnetpools within an address scope must have unique prefixes.",
            code="AddressScopePrefixConflict",
        )


def network(prefix: str) -> Any:
    """A prefix as one. Raises Invalid."""
    try:
        return ipaddress.ip_network(prefix)
    except ValueError:
        raise Invalid(
            f"Invalid input for prefixes. Reason: '{prefix[:64]}' is no prefix.", code="InvalidInput"
        ) from None


def version(prefix: str) -> int:
    """Raises Invalid."""
    number: int = network(prefix).version
    return number


def overlapping(some: Iterable[str], others: Iterable[str]) -> bool:
    """Whether any of the ones overlaps any of the others; all of one family."""
    theirs = [network(it) for it in others]
    return any(network(it).overlaps(other) for it in some for other in theirs)


def _already_so(scope: AddressScope, command: Command) -> bool:
    match command:
        case CreateAddressScope():
            return scope.living and not {k: v for k, v in given(command).items() if getattr(scope, k) != v}
        case DeleteAddressScope():
            return scope.deleted_at is not None
        case RemoveAddressScopePool():
            return scope.created_at is not None and command.pool_id not in scope.pools
    if not scope.living:
        return False
    match command:
        case UpdateAddressScope():
            return not differing(scope, command)
        case AddAddressScopePool():
            return scope.pools.get(command.pool_id) == command.prefixes
        case ShareAddressScope() | UnshareAddressScope():
            return (command.project_id in scope.shared_with) is isinstance(command, ShareAddressScope)
    return False


def _status(scope: AddressScope) -> str:
    if scope.deleted_at is not None:
        return GONE
    return THERE if scope.living else ABSENT


ADDRESS_SCOPES = Aggregate(ADDRESS_SCOPE, decide, ALLOWED)
