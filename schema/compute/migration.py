"""A migration: one move of a server from a host to another, as the API tells of it; kept when it is over.

    (absent) ──MigrationBegun──▶ accepted ─▶ pre-migrating ─▶ … ─▶ done, confirmed, reverted, failed, error, cancelled

Where the move is stands on the server's stream; what happens here is appended with what happens there. While the move
lasts, what the server held of the host it comes from is held by a consumer of the migration's id.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from msgspec.structs import replace

from schema.event import Command, Event, Key, Kind, Said, State


class MigrationType(StrEnum):
    EVACUATION = "evacuation"
    MIGRATION = "migration"
    RESIZE = "resize"
    LIVE = "live-migration"


class MigrationStatus(StrEnum):
    ACCEPTED = "accepted"
    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    PRE_MIGRATING = "pre-migrating"
    MIGRATING = "migrating"
    POST_MIGRATING = "post-migrating"
    FINISHED = "finished"
    CONFIRMED = "confirmed"
    REVERTING = "reverting"
    REVERTED = "reverted"
    DONE = "done"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"
    ERROR = "error"


OVER = frozenset(
    {
        MigrationStatus.CONFIRMED,
        MigrationStatus.REVERTED,
        MigrationStatus.DONE,
        MigrationStatus.COMPLETED,
        MigrationStatus.CANCELLED,
        MigrationStatus.FAILED,
        MigrationStatus.ERROR,
    }
)
"""What comes after nothing else."""


class Migration(State):
    number: int = 0
    """The one people know it by."""
    type: MigrationType = MigrationType.EVACUATION
    status: MigrationStatus = MigrationStatus.ACCEPTED
    server_id: str = ""
    project_id: str = ""
    user_id: str = ""
    """Whose wish it is."""
    source_host: str = ""
    dest_host: str = ""
    old_flavor: str = ""
    """Its id."""
    new_flavor: str = ""


class _Begun(Said, kw_only=True):
    number: int
    migration_type: MigrationType
    server_id: str
    project_id: str
    user_id: str
    source_host: str
    dest_host: str = ""
    old_flavor: str = ""
    new_flavor: str = ""


class MigrationBegun(_Begun, Event):
    """Somebody wants a server moved. `dest_host`: where to, if that was said."""


class MigrationAdvanced(Event):
    status: MigrationStatus
    dest_host: str = ""
    """The host it goes to, from now on."""


MigrationEvent = MigrationBegun | MigrationAdvanced


class BeginMigration(_Begun, Command):
    """Goes with the wish that the server be moved."""


class AdvanceMigration(Command):
    """Goes with what became of the server."""

    status: MigrationStatus
    dest_host: str = ""


def evolve(migration: Migration, event: MigrationEvent, at: datetime) -> Migration:
    match event:
        case MigrationBegun():
            return replace(
                migration,
                number=event.number,
                type=event.migration_type,
                status=MigrationStatus.ACCEPTED,
                server_id=event.server_id,
                project_id=event.project_id,
                user_id=event.user_id,
                source_host=event.source_host,
                dest_host=event.dest_host,
                old_flavor=event.old_flavor,
                new_flavor=event.new_flavor,
            )
        case MigrationAdvanced():
            return replace(migration, status=event.status, dest_host=event.dest_host or migration.dest_host)


def _unique(migration: Migration) -> tuple[Key, ...]:
    return (("migration number", str(migration.number)),)


MIGRATION = Kind("migration", Migration, MigrationEvent, evolve, unique=_unique)
