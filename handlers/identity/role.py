"""The rules of roles, and which roles others imply."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from bus.execute import Aggregate
from handlers.identity.resource import LIVING, Plain
from schema.event import Command, Event
from schema.identity.role import (
    ROLE,
    CreateRole,
    DeleteRole,
    ImplyRole,
    Role,
    RoleCreated,
    RoleDeleted,
    RoleImplied,
    RoleNoLongerImplied,
    RoleUpdated,
    StopImplyingRole,
    UpdateRole,
)
from schema.refusal import Forbidden

PLAIN = Plain("role", (CreateRole, RoleCreated), (UpdateRole, RoleUpdated), (DeleteRole, RoleDeleted))

ALLOWED: dict[type[Command], set[str]] = {
    **PLAIN.allowed,
    ImplyRole: {LIVING},
    StopImplyingRole: {LIVING},
}


def decide(role: Role, command: Command) -> Sequence[Event]:
    match command:
        case ImplyRole():
            PLAIN.find(role)
            if command.role_id == role.id:
                raise Forbidden(f"Role {role.id} cannot imply itself.")
            return [] if command.role_id in role.implies else [RoleImplied(role_id=command.role_id)]
        case StopImplyingRole():
            PLAIN.find(role)
            return [RoleNoLongerImplied(role_id=command.role_id)] if command.role_id in role.implies else []
    return PLAIN.decide(role, command)


ROLES = Aggregate(ROLE, decide, ALLOWED)


def with_implied(roles: Iterable[str], find: Callable[[str], Role | None]) -> list[Role]:
    """These roles and all they imply, each once; roles that are gone are left out. Circles do no harm.

    A role of a domain counts only by what it implies.
    """
    found: dict[str, Role] = {}
    waiting = list(roles)
    while waiting:
        id = waiting.pop(0)
        role = None if id in found else find(id)
        if role is not None and role.living:
            found[id] = role
            waiting.extend(role.implies)
    return [role for role in found.values() if role.domain_id is None]
