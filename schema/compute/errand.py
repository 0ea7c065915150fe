"""What is done inside of a server's guest and changes nothing a host should hold: told for the record.

The words of passwords are in no event. What a guest has posted for its owner, encrypted by itself, is in the vault.
"""

from __future__ import annotations

from schema.event import Event


class ServerPasswordChanged(Event):
    """The guest's agent has set another one for its administrator."""

    request_id: str


class CrashDumpTriggered(Event):
    """The guest was sent a non-maskable interrupt."""

    request_id: str


class GuestPasswordPosted(Event):
    """The guest has told the metadata service a password, encrypted for its owner."""

    secret_id: str


class GuestPasswordCleared(Event):
    """Forgotten here; the guest knows it still."""


ErrandEvent = ServerPasswordChanged | CrashDumpTriggered | GuestPasswordPosted | GuestPasswordCleared
