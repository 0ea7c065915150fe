"""Revoking tokens: by audit id, by chain, or by a subject they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from bus import clock
from bus.execute import Aggregate, Wish
from schema.event import Command, Event
from schema.identity.revocation import REVOCATION, LapseRevocation, Revocation, RevocationLapsed, Revoke, Revoked
from schema.refusal import NotFound

ALLOWED: dict[type[Command], set[str]] = {Revoke: {"new", "revoked"}, LapseRevocation: {"revoked"}}


def decide(revocation: Revocation, command: Command) -> Sequence[Event]:
    match command:
        case Revoke():
            already = revocation.created_at is not None and (
                revocation.mark == command.mark or revocation.deleted_at is not None
            )
            return [] if already else [Revoked(mark=command.mark, lapse_at=command.lapse_at)]
        case LapseRevocation():
            if revocation.created_at is None:
                raise NotFound(f"{revocation.id} was never revoked")
            return [] if revocation.deleted_at else [RevocationLapsed()]
    raise TypeError(command)


REVOCATIONS = Aggregate(REVOCATION, decide, ALLOWED)


def revoke(*subjects: str, lapse_at: datetime | None = None) -> tuple[Wish, ...]:
    """Wishes that end every token resting on these subjects as they are now; append them with the change itself."""
    mark = clock.hex_id()
    return tuple(Wish(REVOCATIONS, subject, Revoke(mark=mark, lapse_at=lapse_at)) for subject in subjects)
