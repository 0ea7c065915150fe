"""Migrations: every move of a server, under way or over, for administrators; its project's for a manager."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from api.compute.asking import ask
from api.compute.page import NoQuery, links, listing, next_link, page_size
from api.compute.server import by, server_in_path
from api.compute.times import written
from api.wire import Call, Delete, Get, Post
from bus.documents import NEWEST_FIRST, AnyOf, Condition, Where
from bus.log import Document
from handlers.compute.moving import cancelling
from schema.compute.migration import MIGRATION, OVER, Migration, MigrationStatus, MigrationType
from schema.compute.question import ForceMove, MeasureMove, MoveMeasured, Unable
from schema.compute.server_command import CancelMove
from schema.compute.server_state import Server
from schema.refusal import Conflict, Invalid, NotFound

RULE = "os_compute_api:os-migrations:index"
MEASURING_SECONDS = 3.0
SERVER_RULE = "os_compute_api:servers:migrations"


class Filters(Struct, frozen=True):
    host: str | None = None
    """The one it comes from or goes to."""
    source_compute: str | None = None
    status: str | None = None
    migration_type: str | None = None
    instance_uuid: str | None = None
    hidden: str | None = None
    """Taken, and nothing is."""


class PagedFilters(Filters, frozen=True):
    """Since 2.59."""

    limit: Annotated[int, Meta(ge=0)] | None = None
    marker: str | None = None
    changes_since: datetime | None = field(default=None, name="changes-since")


class BoundedFilters(PagedFilters, frozen=True):
    """Since 2.66."""

    changes_before: datetime | None = field(default=None, name="changes-before")


class OwnedFilters(BoundedFilters, frozen=True):
    """Since 2.80."""

    user_id: str | None = None
    project_id: str | None = None


async def index(call: Call) -> dict[str, Any]:
    """Newest first, those that are over included. Whoever does not ask for their own project's asks for all."""
    if getattr(call.params, "project_id", None) != call.token.project_id:
        call.must(f"{RULE}:all_projects")
    where = _conditions(call.params)
    if not isinstance(call.params, PagedFilters):
        found = await call.cloud.documents.find(MIGRATION, where=where, sort=NEWEST_FIRST, limit=None)
        return {"migrations": [_view(call, document) for document in found]}
    limit = page_size(call)
    try:
        found = await call.cloud.documents.find(
            MIGRATION, where=where, sort=NEWEST_FIRST, limit=limit + 1, marker=call.params.marker
        )
    except NotFound:
        raise Invalid(f"Marker {(call.params.marker or '')[:255]} could not be found.") from None
    chosen = found[:limit]
    answer: dict[str, Any] = {"migrations": [_view(call, document) for document in chosen]}
    if len(found) > limit and chosen:
        answer["migrations_links"] = next_link(call, chosen, lambda document: document.id)
    return answer


async def index_of_server(call: Call) -> dict[str, Any]:
    """Its live migration, while it is under way."""
    server = await server_in_path(call)
    found = await _live(call, server)
    return {"migrations": [_progress(call, it, await _measured(call, server, it)) for it in found]}


async def show_of_server(call: Call) -> dict[str, Any]:
    id, server = call.path["migration_id"], await server_in_path(call)
    found = [document for document in await _live(call, server) if str(document.state.number) == id]
    if not found:
        raise NotFound(f"In-progress live migration {id[:64]} is not found for server {call.path['id']}.")
    return {"migration": _progress(call, found[0], await _measured(call, server, found[0]))}


async def cancel(call: Call) -> None:
    """It shall stay where it is, if there is time yet."""
    server = await server_in_path(call)
    migration = await _under_way(call)
    able = {MigrationStatus.RUNNING}
    if call.version >= (2, 65):
        able |= {MigrationStatus.QUEUED, MigrationStatus.PREPARING, MigrationStatus.ACCEPTED}
    if migration.status not in able:
        raise _wrong_status(server, migration, "abort")
    await call.execute(*cancelling(server, CancelMove(migration_id=migration.id, **by(call))))


async def force_complete(call: Call) -> None:
    """Have it stand still until it is there."""
    server = await server_in_path(call)
    migration = await _under_way(call)
    if migration.status is not MigrationStatus.RUNNING:
        raise _wrong_status(server, migration, "force complete")
    answer = await ask(call, server, ForceMove(server_id=server.id))
    if isinstance(answer, Unable):
        raise Conflict(f"Migration {migration.number} of server {server.id} cannot be forced: {answer.fault}")


async def _under_way(call: Call) -> Migration:
    """The migration in the path. Raises NotFound."""
    id = call.path["migration_id"]
    where = [Where("server_id", "=", call.path["id"])]
    found = await call.cloud.documents.find(MIGRATION, where=where, limit=None)
    for document in found:
        migration: Migration = document.state
        if id in {str(migration.number), migration.id} and migration.status not in OVER:
            return migration
    raise NotFound(f"Migration {id[:64]} could not be found.", code="MigrationNotFound")


def _wrong_status(server: Server, migration: Migration, verb: str) -> Invalid:
    return Invalid(
        f"Migration {migration.number} state of instance {server.id} is {migration.status}. "
        f"Cannot {verb} while the migration is in this state.",
        code="InvalidMigrationState",
    )


async def _measured(call: Call, server: Server, document: Document) -> MoveMeasured | None:
    """How far it is, of one whose guest is being sent."""
    if document.state.status is not MigrationStatus.RUNNING:
        return None
    try:
        answer = await ask(call, server, MeasureMove(server_id=server.id), MEASURING_SECONDS)
    except Conflict:
        return None
    return answer if isinstance(answer, MoveMeasured) else None


async def _live(call: Call, server: Server) -> list[Document]:
    where = [Where("server_id", "=", server.id), Where("type", "=", MigrationType.LIVE)]
    found = await call.cloud.documents.find(MIGRATION, where=where, limit=None)
    return [document for document in found if document.state.status not in OVER]


def _conditions(query: Filters) -> list[Condition]:
    where: list[Condition] = []
    equal = {"source_host": query.source_compute, "status": query.status, "type": query.migration_type}
    equal["server_id"] = query.instance_uuid
    if isinstance(query, OwnedFilters):
        equal |= {"user_id": query.user_id, "project_id": query.project_id}
    where += [Where(name, "=", value) for name, value in equal.items() if value is not None]
    if query.host is not None:
        where.append(AnyOf([[Where("source_host", "=", query.host)], [Where("dest_host", "=", query.host)]]))
    since = query.changes_since if isinstance(query, PagedFilters) else None
    before = query.changes_before if isinstance(query, BoundedFilters) else None
    if since and before and since > before:
        raise Invalid("The value of changes-since must be less than or equal to changes-before")
    if since:
        where.append(Where("updated_at", ">=", since))
    if before:
        where.append(Where("updated_at", "<=", before))
    return where


def _view(call: Call, document: Document) -> dict[str, Any]:
    migration: Migration = document.state
    shown: dict[str, Any] = {
        "id": migration.number,
        "instance_uuid": migration.server_id,
        **_hosts(migration, shown=call.may(f"{RULE}:host")),
        "status": migration.status,
        "old_instance_type_id": _number(migration.old_flavor),
        "new_instance_type_id": _number(migration.new_flavor),
        "created_at": written(migration.created_at),
        "updated_at": written(migration.updated_at) if document.version > 1 else None,
    }
    if call.version >= (2, 23):
        shown["migration_type"] = migration.type
        if migration.type is MigrationType.LIVE and migration.status not in OVER:
            shown["links"] = links(call, f"/servers/{migration.server_id}/migrations/{migration.number}")
    if call.version >= (2, 59):
        shown["uuid"] = migration.id
    if call.version >= (2, 80):
        shown |= {"user_id": migration.user_id, "project_id": migration.project_id}
    return shown


def _progress(call: Call, document: Document, measured: MoveMeasured | None) -> dict[str, Any]:
    migration: Migration = document.state
    shown: dict[str, Any] = {
        "id": migration.number,
        "server_uuid": migration.server_id,
        **_hosts(migration, shown=call.may(f"{SERVER_RULE}:index:host")),
        "status": migration.status,
        "memory_total_bytes": measured.memory_total if measured else None,
        "memory_processed_bytes": measured.memory_processed if measured else None,
        "memory_remaining_bytes": measured.memory_remaining if measured else None,
        "disk_total_bytes": measured.disk_total if measured else None,
        "disk_processed_bytes": measured.disk_processed if measured else None,
        "disk_remaining_bytes": measured.disk_remaining if measured else None,
        "created_at": written(migration.created_at),
        "updated_at": written(migration.updated_at),
    }
    if call.version >= (2, 59):
        shown["uuid"] = migration.id
    if call.version >= (2, 80):
        shown |= {"user_id": migration.user_id, "project_id": migration.project_id}
    return shown


def _hosts(migration: Migration, *, shown: bool) -> dict[str, str | None]:
    """Where from and where to, for those who may know of hosts."""
    source, destination = (migration.source_host, migration.dest_host or None) if shown else (None, None)
    return {
        "source_compute": source,
        "source_node": source,
        "dest_compute": destination,
        "dest_host": None,
        "dest_node": destination,
    }


def _number(flavor_id: str) -> int | None:
    """Nova has a number for each flavor besides its id; here a flavor has one only if its id is a number."""
    return int(flavor_id) if flavor_id.isascii() and flavor_id.isdigit() else None


_OF_SERVER = "/servers/{id}/migrations"

routes = [
    *listing("/os-migrations", index, RULE, Filters, until="2.58"),
    *listing("/os-migrations", index, RULE, PagedFilters, since="2.59", until="2.65", strict_since="2.59"),
    *listing("/os-migrations", index, RULE, BoundedFilters, since="2.66", until="2.79", strict_since="2.59"),
    *listing("/os-migrations", index, RULE, OwnedFilters, since="2.80"),
    *listing(_OF_SERVER, index_of_server, f"{SERVER_RULE}:index", NoQuery, since="2.23"),
    Delete(f"{_OF_SERVER}/{{migration_id}}", cancel, may=f"{SERVER_RULE}:delete", since="2.24", answers=202),
    Post(
        f"{_OF_SERVER}/{{migration_id}}/action",
        force_complete,
        may=f"{SERVER_RULE}:force_complete",
        action="force_complete",
        body=type(None),
        since="2.22",
        answers=202,
    ),
    Get(f"{_OF_SERVER}/{{migration_id}}", show_of_server, may=f"{SERVER_RULE}:show", since="2.23"),
]
