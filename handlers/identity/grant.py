"""The rules of grants."""

from __future__ import annotations

from collections.abc import Sequence

from bus.execute import Aggregate, Wish
from bus.log import Document
from handlers.identity.resource import GONE, LIVING, NEW
from handlers.identity.revocation import revoke
from schema.event import Command, Event
from schema.identity.grant import (
    GRANT,
    Grant,
    GrantRole,
    RevokeAllRoles,
    RevokeRole,
    RoleGranted,
    RoleRevoked,
    grant_id,
)

ALLOWED: dict[type[Command], set[str]] = {
    GrantRole: {NEW, LIVING, GONE},
    RevokeRole: {LIVING},
    RevokeAllRoles: {LIVING},
}


def decide(grant: Grant, command: Command) -> Sequence[Event]:
    match command:
        case GrantRole():
            held = grant.inherited if command.inherited else grant.roles
            if command.role_id in held:
                return []
            return [
                RoleGranted(
                    actor=command.actor, target=command.target, role_id=command.role_id, inherited=command.inherited
                )
            ]
        case RevokeRole():
            held = grant.inherited if command.inherited else grant.roles
            if command.role_id not in held:
                return []
            return [RoleRevoked(role_id=command.role_id, inherited=command.inherited)]
        case RevokeAllRoles():
            return [
                *(RoleRevoked(role_id=id) for id in grant.roles),
                *(RoleRevoked(role_id=id, inherited=True) for id in grant.inherited),
            ]
    raise TypeError(command)


GRANTS = Aggregate(GRANT, decide, ALLOWED)


def revoke_role(actor_id: str, target_id: str, role_id: str, *, inherited: bool = False) -> tuple[Wish, ...]:
    """Wishes that take a role away, and the tokens that rest on it."""
    id = grant_id(actor_id, target_id)
    return Wish(GRANTS, id, RevokeRole(role_id=role_id, inherited=inherited)), *revoke(f"grant/{id}")


def revoke_all(grants: Sequence[Document]) -> tuple[Wish, ...]:
    """Wishes that end whole grants, because their actor or target goes."""
    return tuple(Wish(GRANTS, grant.id, RevokeAllRoles()) for grant in grants)
