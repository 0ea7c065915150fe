"""The words of a group: what is granted to it is granted to its users. Who is in it is written with each user."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import UNSET, UnsetType, field
from msgspec.structs import replace

from schema.changes import applied
from schema.event import Command, Event, Key, Kind, State


class GroupCreated(Event):
    name: str
    domain_id: str
    description: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


class GroupUpdated(Event):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    extra: dict[str, Any] | UnsetType = UNSET


class GroupDeleted(Event):
    pass


class Group(State):
    name: str = ""
    domain_id: str = ""
    description: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


class CreateGroup(Command):
    name: str
    domain_id: str
    description: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


class UpdateGroup(Command):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    extra: dict[str, Any] | UnsetType = UNSET


class DeleteGroup(Command):
    pass


def evolve(group: Group, event: Any, at: datetime) -> Group:
    match event:
        case GroupCreated() | GroupUpdated():
            return applied(group, event)
        case GroupDeleted():
            return replace(group, deleted_at=at)
    return group


def _unique(group: Group) -> tuple[Key, ...]:
    return (("group name", f"{group.domain_id}/{group.name}"),)


GROUP = Kind("group", Group, GroupCreated | GroupUpdated | GroupDeleted, evolve, unique=_unique)
