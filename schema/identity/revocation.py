"""The words of a revocation: tokens that rest on an older version of this subject are good no more.

The stream's id is the subject: `audit/<id>`, `chain/<id>`, `user/<id>`, `project/<id>`, `domain/<id>`, `role/<id>`,
`group/<id>`, `membership/<group>/<user>`, `grant/<actor>/<target>`. A token carries the versions of those it rests on
(none, most of the time); a revocation with a higher version ends it. No clocks are compared, so nothing slips between.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec.structs import replace

from schema.event import Command, Event, Kind, State


class Revoked(Event):
    mark: str
    """What this revocation was about: the same command twice revokes once."""
    lapse_at: datetime | None = None
    """When every token it could concern has expired; None for subjects that live on."""


class RevocationLapsed(Event):
    pass


class Revocation(State):
    mark: str = ""
    lapse_at: datetime | None = None


class Revoke(Command):
    mark: str
    lapse_at: datetime | None = None


class LapseRevocation(Command):
    pass


def evolve(revocation: Revocation, event: Any, at: datetime) -> Revocation:
    match event:
        case Revoked():
            return replace(revocation, mark=event.mark, lapse_at=event.lapse_at)
        case RevocationLapsed():
            return replace(revocation, deleted_at=at)
    return revocation


def _deadline(revocation: Revocation) -> datetime | None:
    return None if revocation.deleted_at else revocation.lapse_at


REVOCATION = Kind("revocation", Revocation, Revoked | RevocationLapsed, evolve, deadline=_deadline)
