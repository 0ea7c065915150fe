"""The words of an application credential: a user's roles on one project, for a program, with a secret of its own."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec.structs import replace

from schema.event import Command, Event, Key, Kind, Said, State


class _NewApplicationCredential(Said):
    user_id: str
    project_id: str
    name: str
    secret_id: str
    """The hash of its secret in the vault."""
    roles: tuple[str, ...]
    description: str | None = None
    unrestricted: bool = False
    """It may make and delete application credentials itself."""
    expires_at: datetime | None = None


class ApplicationCredentialCreated(Event, _NewApplicationCredential):
    """It is there."""


class ApplicationCredentialDeleted(Event):
    pass


class ApplicationCredential(State):
    user_id: str = ""
    project_id: str = ""
    name: str = ""
    secret_id: str = ""
    roles: tuple[str, ...] = ()
    description: str | None = None
    unrestricted: bool = False
    expires_at: datetime | None = None

    @property
    def parent_id(self) -> str:
        return self.user_id


class CreateApplicationCredential(Command, _NewApplicationCredential):
    """Make it."""


class DeleteApplicationCredential(Command):
    pass


def evolve(credential: ApplicationCredential, event: Any, at: datetime) -> ApplicationCredential:
    match event:
        case ApplicationCredentialCreated():
            return replace(
                credential,
                user_id=event.user_id,
                project_id=event.project_id,
                name=event.name,
                secret_id=event.secret_id,
                roles=event.roles,
                description=event.description,
                unrestricted=event.unrestricted,
                expires_at=event.expires_at,
            )
        case ApplicationCredentialDeleted():
            return replace(credential, deleted_at=at)
    return credential


def _unique(credential: ApplicationCredential) -> tuple[Key, ...]:
    return (("application credential name", f"{credential.user_id}/{credential.name}"),)


APPLICATION_CREDENTIAL = Kind(
    "application_credential",
    ApplicationCredential,
    ApplicationCredentialCreated | ApplicationCredentialDeleted,
    evolve,
    unique=_unique,
    secrets=lambda credential: [credential.secret_id],
)
