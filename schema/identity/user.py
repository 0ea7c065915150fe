"""The words of a user: a name in a domain, a password in the vault, the groups it is in."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import UNSET, UnsetType, field
from msgspec.structs import replace

from schema.changes import applied
from schema.event import Command, Event, Key, Kind, Said, State


class _NewUser(Said):
    name: str
    domain_id: str
    enabled: bool = True
    default_project_id: str | None = None
    password_id: str | None = None
    """The hash's id in the vault; None: this user cannot log in with a password."""
    options: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


class UserCreated(Event, _NewUser):
    """It is there."""


class _UserChanges(Said):
    name: str | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    default_project_id: str | UnsetType | None = UNSET
    options: dict[str, Any] | UnsetType = UNSET
    extra: dict[str, Any] | UnsetType = UNSET


class UserUpdated(Event, _UserChanges):
    """It is changed."""


class UserPasswordSet(Event):
    password_id: str


class UserJoinedGroup(Event):
    group_id: str


class UserLeftGroup(Event):
    group_id: str


class UserDeleted(Event):
    pass


class User(State):
    name: str = ""
    domain_id: str = ""
    enabled: bool = True
    default_project_id: str | None = None
    password_id: str | None = None
    groups: tuple[str, ...] = ()
    """Ids, some perhaps of groups that are gone."""
    options: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


class CreateUser(Command, _NewUser):
    """Make it."""


class UpdateUser(Command, _UserChanges):
    """Change it."""


class SetPassword(Command):
    password_id: str


class JoinGroup(Command):
    group_id: str


class LeaveGroup(Command):
    group_id: str


class DeleteUser(Command):
    pass


def evolve(user: User, event: Any, at: datetime) -> User:
    match event:
        case UserCreated() | UserUpdated() | UserPasswordSet():
            return applied(user, event)
        case UserJoinedGroup():
            return replace(user, groups=(*user.groups, event.group_id))
        case UserLeftGroup():
            return replace(user, groups=tuple(id for id in user.groups if id != event.group_id))
        case UserDeleted():
            return replace(user, deleted_at=at, password_id=None)
    return user


def _unique(user: User) -> tuple[Key, ...]:
    return (("user name", f"{user.domain_id}/{user.name}"),)


USER = Kind(
    "user",
    User,
    UserCreated | UserUpdated | UserPasswordSet | UserJoinedGroup | UserLeftGroup | UserDeleted,
    evolve,
    unique=_unique,
    secrets=lambda user: [user.password_id or ""],
)
