"""The rules of projects."""

from __future__ import annotations

from bus.execute import Aggregate
from handlers.identity.resource import Plain
from schema.identity.project import (
    PROJECT,
    CreateProject,
    DeleteProject,
    ProjectCreated,
    ProjectDeleted,
    ProjectUpdated,
    UpdateProject,
)

DEPTH = 8
"""Projects within projects, at most."""

PLAIN = Plain(
    "project", (CreateProject, ProjectCreated), (UpdateProject, ProjectUpdated), (DeleteProject, ProjectDeleted)
)
PROJECTS = Aggregate(PROJECT, PLAIN.decide, PLAIN.allowed)
