"""The rules of application credentials."""

from __future__ import annotations

from collections.abc import Sequence

from bus.execute import Aggregate
from handlers.identity.resource import GONE, LIVING, NEW, not_found, status
from schema.event import Command, Event
from schema.identity.credential import (
    APPLICATION_CREDENTIAL,
    ApplicationCredential,
    ApplicationCredentialCreated,
    ApplicationCredentialDeleted,
    CreateApplicationCredential,
    DeleteApplicationCredential,
)
from schema.refusal import Conflict

ALLOWED: dict[type[Command], set[str]] = {
    CreateApplicationCredential: {NEW},
    DeleteApplicationCredential: {LIVING},
}


def decide(credential: ApplicationCredential, command: Command) -> Sequence[Event]:
    match command:
        case CreateApplicationCredential():
            if status(credential) == GONE:
                raise Conflict(f"Application credential {credential.id} is gone; make another.")
            wanted = {name: getattr(command, name) for name in command.__struct_fields__}
            if credential.living and all(getattr(credential, name) == value for name, value in wanted.items()):
                return []
            if credential.living:
                raise Conflict(f"Application credential {credential.id} is there already.")
            return [ApplicationCredentialCreated(**wanted)]
        case DeleteApplicationCredential():
            if status(credential) == NEW:
                raise not_found("application credential", credential.id)
            return [ApplicationCredentialDeleted()] if credential.living else []
    raise TypeError(command)


APPLICATION_CREDENTIALS = Aggregate(APPLICATION_CREDENTIAL, decide, ALLOWED)
