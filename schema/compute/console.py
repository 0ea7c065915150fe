"""A console that may be opened: whose, of which kind, until when. It is opened once, and that is its end.

    (absent) ──ConsoleGranted──▶ there ──ConsoleOpened──▶ gone
                                   └────ConsoleExpired──▶ gone

Its id is a digest of the token in its URL (`console_id`), so the log knows who opened what, and nobody who reads the
log can open anything.
"""

from __future__ import annotations

import hashlib
import uuid
from datetime import datetime

from msgspec.structs import replace

from schema.compute.question import ConsoleKind
from schema.event import Command, Event, Kind, State


def console_id(token: str) -> str:
    """The stream's id of the console that this token opens."""
    return str(uuid.UUID(bytes=hashlib.sha256(token.encode()).digest()[:16]))


class Console(State):
    parent_id: str = ""
    """The server it is of."""
    kind: ConsoleKind = "vnc"
    console_type: str = ""
    """In the API's words: `novnc`, `serial`."""
    expires_at: datetime | None = None
    opened_by: str = ""
    """The request that opened it."""

    @property
    def server_id(self) -> str:
        return self.parent_id


class ConsoleGranted(Event):
    server_id: str
    kind: ConsoleKind
    console_type: str
    expires_at: datetime


class ConsoleOpened(Event):
    request_id: str


class ConsoleExpired(Event):
    """Nobody opened it in time."""


ConsoleEvent = ConsoleGranted | ConsoleOpened | ConsoleExpired


class GrantConsole(Command):
    server_id: str
    kind: ConsoleKind
    console_type: str
    expires_at: datetime


class OpenConsole(Command):
    request_id: str
    now: datetime


class ExpireConsole(Command):
    now: datetime


def evolve(console: Console, event: ConsoleEvent, at: datetime) -> Console:
    match event:
        case ConsoleGranted():
            return replace(
                console,
                parent_id=event.server_id,
                kind=event.kind,
                console_type=event.console_type,
                expires_at=event.expires_at,
            )
        case ConsoleOpened():
            return replace(console, deleted_at=at, opened_by=event.request_id)
        case ConsoleExpired():
            return replace(console, deleted_at=at)


def _deadline(console: Console) -> datetime | None:
    return console.expires_at if console.living else None


CONSOLE = Kind("console", Console, ConsoleEvent, evolve, deadline=_deadline)
