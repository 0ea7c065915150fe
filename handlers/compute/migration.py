"""The rules of migrations: one begins once, and does not go on when it is over."""

from __future__ import annotations

from bus.execute import Aggregate
from schema.compute.migration import (
    MIGRATION,
    OVER,
    AdvanceMigration,
    BeginMigration,
    Migration,
    MigrationAdvanced,
    MigrationBegun,
    MigrationEvent,
)
from schema.event import Command
from schema.refusal import Conflict, NotFound

ABSENT, UNDER_WAY, ENDED = "absent", "under way", "ended"

ALLOWED: dict[type[Command], frozenset[str]] = {
    BeginMigration: frozenset({ABSENT}),
    AdvanceMigration: frozenset({UNDER_WAY}),
}


def decide(migration: Migration, command: Command) -> list[MigrationEvent]:
    if _already_so(migration, command):
        return []
    status = _status(migration)
    if status not in ALLOWED[type(command)]:
        if status == ABSENT:
            raise NotFound(f"Migration {migration.id} could not be found.", code="MigrationNotFound")
        raise Conflict(f"Migration {migration.id} is {migration.status} by now.")
    match command:
        case BeginMigration():
            return [
                MigrationBegun(
                    number=command.number,
                    migration_type=command.migration_type,
                    server_id=command.server_id,
                    project_id=command.project_id,
                    user_id=command.user_id,
                    source_host=command.source_host,
                    dest_host=command.dest_host,
                    old_flavor=command.old_flavor,
                    new_flavor=command.new_flavor,
                )
            ]
        case AdvanceMigration():
            return [MigrationAdvanced(status=command.status, dest_host=command.dest_host)]
    raise TypeError(f"migrations know no {type(command).__name__}")


def _already_so(migration: Migration, command: Command) -> bool:
    match command:
        case BeginMigration():
            return migration.living and (migration.number, migration.server_id) == (command.number, command.server_id)
        case AdvanceMigration():
            there = command.dest_host in {"", migration.dest_host}
            return migration.living and migration.status is command.status and there
    return False


def _status(migration: Migration) -> str:
    if not migration.living:
        return ABSENT
    return ENDED if migration.status in OVER else UNDER_WAY


MIGRATIONS = Aggregate(MIGRATION, decide, ALLOWED)
