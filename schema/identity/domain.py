"""The words of a domain: the house in which users, groups and projects have their names."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import UNSET, UnsetType, field
from msgspec.structs import replace

from schema.changes import applied
from schema.event import Command, Event, Key, Kind, Said, State


class _NewDomain(Said):
    name: str
    description: str = ""
    enabled: bool = True
    tags: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


class DomainCreated(Event, _NewDomain):
    """It is there."""


class _DomainChanges(Said):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET
    options: dict[str, Any] | UnsetType = UNSET
    extra: dict[str, Any] | UnsetType = UNSET


class DomainUpdated(Event, _DomainChanges):
    """It is changed."""


class DomainDeleted(Event):
    pass


class Domain(State):
    name: str = ""
    description: str = ""
    enabled: bool = True
    tags: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


class CreateDomain(Command, _NewDomain):
    """Make it."""


class UpdateDomain(Command, _DomainChanges):
    """Change it."""


class DeleteDomain(Command):
    pass


def evolve(domain: Domain, event: Any, at: datetime) -> Domain:
    match event:
        case DomainCreated() | DomainUpdated():
            return applied(domain, event)
        case DomainDeleted():
            return replace(domain, deleted_at=at)
    return domain


def _unique(domain: Domain) -> tuple[Key, ...]:
    return (("domain name", domain.name),)


DOMAIN = Kind("domain", Domain, DomainCreated | DomainUpdated | DomainDeleted, evolve, unique=_unique)
