"""Deletion that can be taken back for a while.

SoftDeletionRequested ─▶ ServerSoftDeleted ─▶ RestoreRequested ─▶ ServerRestored
└── when its time is over, or by force ─▶ DeletionRequested
"""

from __future__ import annotations

from schema.event import Event


class SoftDeletionRequested(Event):
    """It shall be off; what it holds of the quota is released in the same append."""

    reclaim_seconds: int
    request_id: str = ""


class ServerSoftDeleted(Event):
    pass


class RestoreRequested(Event):
    """It shall run again; its quota is reserved anew in the same append."""

    request_id: str = ""


class ServerRestored(Event):
    pass


SoftDeleteEvent = SoftDeletionRequested | ServerSoftDeleted | RestoreRequested | ServerRestored
