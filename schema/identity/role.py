"""The words of a role: a name that policy asks for; it may imply others."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import UNSET, UnsetType, field
from msgspec.structs import replace

from schema.changes import applied
from schema.event import Command, Event, Key, Kind, Said, State


class _NewRole(Said):
    name: str
    domain_id: str | None = None
    """None: a role for all; else only for projects of that domain, and only to imply others."""
    description: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


class RoleCreated(Event, _NewRole):
    """It is there."""


class _RoleChanges(Said):
    name: str | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    options: dict[str, Any] | UnsetType = UNSET
    extra: dict[str, Any] | UnsetType = UNSET


class RoleUpdated(Event, _RoleChanges):
    """It is changed."""


class RoleImplied(Event):
    """Whoever has this role has that one."""

    role_id: str


class RoleNoLongerImplied(Event):
    role_id: str


class RoleDeleted(Event):
    pass


class Role(State):
    name: str = ""
    domain_id: str | None = None
    description: str | None = None
    implies: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


class CreateRole(Command, _NewRole):
    """Make it."""


class UpdateRole(Command, _RoleChanges):
    """Change it."""


class ImplyRole(Command):
    role_id: str


class StopImplyingRole(Command):
    role_id: str


class DeleteRole(Command):
    pass


def evolve(role: Role, event: Any, at: datetime) -> Role:
    match event:
        case RoleCreated() | RoleUpdated():
            return applied(role, event)
        case RoleImplied():
            return replace(role, implies=(*role.implies, event.role_id))
        case RoleNoLongerImplied():
            return replace(role, implies=tuple(id for id in role.implies if id != event.role_id))
        case RoleDeleted():
            return replace(role, deleted_at=at)
    return role


def _unique(role: Role) -> tuple[Key, ...]:
    return (("role name", f"{role.domain_id or ''}/{role.name}"),)


ROLE = Kind(
    "role",
    Role,
    RoleCreated | RoleUpdated | RoleImplied | RoleNoLongerImplied | RoleDeleted,
    evolve,
    unique=_unique,
)
