"""The words of a project: what resources belong to. Projects may lie in projects; at the top is a domain."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import UNSET, UnsetType, field
from msgspec.structs import replace

from schema.changes import applied
from schema.event import Command, Event, Key, Kind, Said, State


class _NewProject(Said):
    name: str
    domain_id: str
    ancestors: tuple[str, ...]
    """Its parent first, the domain last."""
    description: str = ""
    enabled: bool = True
    tags: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


class ProjectCreated(Event, _NewProject):
    """It is there."""


class _ProjectChanges(Said):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET
    options: dict[str, Any] | UnsetType = UNSET
    extra: dict[str, Any] | UnsetType = UNSET


class ProjectUpdated(Event, _ProjectChanges):
    """It is changed."""


class ProjectDeleted(Event):
    pass


class Project(State):
    name: str = ""
    domain_id: str = ""
    ancestors: tuple[str, ...] = ()
    description: str = ""
    enabled: bool = True
    tags: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def parent_id(self) -> str:
        """The project it lies in; the domain, when it lies in none."""
        return self.ancestors[0] if self.ancestors else ""


class CreateProject(Command, _NewProject):
    """Make it."""


class UpdateProject(Command, _ProjectChanges):
    """Change it."""


class DeleteProject(Command):
    pass


def evolve(project: Project, event: Any, at: datetime) -> Project:
    match event:
        case ProjectCreated() | ProjectUpdated():
            return applied(project, event)
        case ProjectDeleted():
            return replace(project, deleted_at=at)
    return project


def _unique(project: Project) -> tuple[Key, ...]:
    return (("project name", f"{project.domain_id}/{project.name}"),)


PROJECT = Kind("project", Project, ProjectCreated | ProjectUpdated | ProjectDeleted, evolve, unique=_unique)
