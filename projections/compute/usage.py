"""Usage: one row for every server there ever was, with what it holds and from when to when it held it.

ServerRequested ─▶ row    first arrival ─▶ started_at    ServerDetailsChanged ─▶ name    ServerDeleted ─▶ ended_at
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from bus.consumer import Projection
from bus.log import Recorded
from schema.compute.server_event import (
    ServerDeleted,
    ServerDetailsChanged,
    ServerPaused,
    ServerRebooted,
    ServerRequested,
    ServerResumed,
    ServerStarted,
    ServerStopped,
    ServerSuspended,
    ServerUnpaused,
)
from schema.event import id_of
from schema.refusal import NotFound

ARRIVALS = (
    ServerStarted,
    ServerStopped,
    ServerRebooted,
    ServerPaused,
    ServerUnpaused,
    ServerSuspended,
    ServerResumed,
)
"""The first of them says that the server ran: a host may well report it stopped before anybody saw it run."""

USAGE = Projection(
    "compute.usage",
    version=1,
    reads=(ServerRequested, *ARRIVALS, ServerDetailsChanged, ServerDeleted),
    tables="""
CREATE TABLE IF NOT EXISTS compute_usage_v1 (
    server_id  text COLLATE "C" PRIMARY KEY,
    project_id text COLLATE "C" NOT NULL,
    name       text        NOT NULL,
    flavor     text        NOT NULL,
    vcpus      integer     NOT NULL,
    memory_mb  integer     NOT NULL,
    local_gb   integer     NOT NULL,
    created_at timestamptz NOT NULL,
    started_at timestamptz,
    ended_at   timestamptz
);
CREATE INDEX IF NOT EXISTS compute_usage_v1_of_project ON compute_usage_v1 (project_id, ended_at);
CREATE INDEX IF NOT EXISTS compute_usage_v1_ended ON compute_usage_v1 (ended_at);
CREATE INDEX IF NOT EXISTS compute_usage_v1_in_order ON compute_usage_v1 (created_at, server_id);
""",
)


class ServerUsage(msgspec.Struct, frozen=True):
    """A server as it is charged for. `state`: Nova's vm_state, or "terminated"."""

    server_id: str
    project_id: str
    name: str
    flavor: str
    vcpus: int
    memory_mb: int
    local_gb: int
    started_at: datetime
    ended_at: datetime | None
    state: str


async def usages(  # noqa: PLR0917
    pool: asyncpg.Pool,
    start: datetime,
    end: datetime,
    project_id: str | None = None,
    limit: int | None = None,
    marker: str | None = None,
) -> list[ServerUsage]:
    """The servers that were there for some of a period, oldest first, past the one whose id is `marker`.

    Raises NotFound when no server ever had that id.
    """
    after = None
    if marker is not None:
        after = await pool.fetchval("SELECT created_at FROM compute_usage_v1 WHERE server_id = $1", marker)
        if after is None:
            raise NotFound(f"no server {marker}")
    rows = await pool.fetch(_FIND, start, end, project_id, after, marker, limit)
    return [ServerUsage(*row) for row in rows]


@USAGE.apply
async def apply(tx: Any, events: Sequence[Recorded]) -> None:
    """Two statements a batch: what is new, then what became of what was there or is new."""
    new: dict[str, tuple[Any, ...]] = {}
    became: dict[str, _Became] = {}
    for recorded in events:
        id, event, at = id_of(recorded.stream), recorded.event, recorded.at
        if isinstance(event, ServerRequested):
            flavor = event.flavor
            local_gb = flavor.disk_gb + flavor.ephemeral_gb
            new[id] = (id, event.project_id, event.name, flavor.name, flavor.vcpus, flavor.ram_mb, local_gb, at)
            became.pop(id, None)
            continue
        row = became.setdefault(id, _Became())
        if isinstance(event, ServerDetailsChanged):
            row.name = row.name if event.name is msgspec.UNSET else event.name
        elif isinstance(event, ServerDeleted):
            row.ended_at = at
        elif isinstance(event, ARRIVALS):
            row.started_at = row.started_at or at
    if new:
        await tx.execute(_INSERT, *zip(*new.values(), strict=True))
    if became:
        rows = became.items()
        await tx.execute(
            _UPDATE,
            list(became),
            [row.name for _, row in rows],
            [row.started_at for _, row in rows],
            [row.ended_at for _, row in rows],
        )


class _Became(msgspec.Struct):
    """What a batch says of one server. None: nothing."""

    name: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


_INSERT = """
INSERT INTO compute_usage_v1 (server_id, project_id, name, flavor, vcpus, memory_mb, local_gb, created_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int[], $6::int[], $7::int[], $8::timestamptz[])
ON CONFLICT (server_id) DO UPDATE SET project_id = EXCLUDED.project_id, name = EXCLUDED.name, flavor = EXCLUDED.flavor,
  vcpus = EXCLUDED.vcpus, memory_mb = EXCLUDED.memory_mb, local_gb = EXCLUDED.local_gb,
  created_at = EXCLUDED.created_at, started_at = NULL, ended_at = NULL
"""

_UPDATE = """
UPDATE compute_usage_v1 t SET name = coalesce(u.name, t.name), started_at = coalesce(t.started_at, u.started_at),
  ended_at = coalesce(u.ended_at, t.ended_at)
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[]) AS u (server_id, name, started_at, ended_at)
WHERE t.server_id = u.server_id
"""

_FIND = """
SELECT u.server_id, u.project_id, u.name, u.flavor, u.vcpus, u.memory_mb, u.local_gb, u.started_at, u.ended_at,
  CASE WHEN u.ended_at IS NULL THEN coalesce(d.state->>'vm_state', 'active') ELSE 'terminated' END
FROM compute_usage_v1 u LEFT JOIN documents d ON u.ended_at IS NULL AND d.stream = 'server/' || u.server_id
WHERE u.started_at < $2 AND (u.ended_at IS NULL OR u.ended_at > $1) AND ($3::text IS NULL OR u.project_id = $3)
  AND ($5::text IS NULL OR (u.created_at, u.server_id) > ($4::timestamptz, $5))
ORDER BY u.created_at, u.server_id LIMIT $6
"""
