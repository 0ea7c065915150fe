"""The log in PostgreSQL: one function call appends many commands; reads are plain selects over ordinary tables."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from bus.archive import Archives
from bus.away import reaching
from bus.log import READ_LIMIT, Actor, Append, Document, Recorded, Reservation, Stale, Taken, partition_of
from schema.event import Key, decode, id_of, kind_named, kind_of

LOG = "the log (PostgreSQL)"
SQL = Path(__file__).parent / "sql"
_TURNS = 0x6378
"""The part of the advisory locks' key space that turns are taken in."""
_TAKE_TURN = "SELECT pg_advisory_xact_lock($1, key) FROM unnest($2::integer[]) AS key"
_INSTALL_LOCK = 0x63756D756C6F67  # "cumulog": one installer at a time

_encode = msgspec.json.Encoder().encode
_decode_actor = msgspec.json.Decoder(Actor).decode

_COLUMNS = "position, stream, version, type, at, partition, actor, correlation, causation, data"
_LIVE = "position > $1 AND NOT EXISTS (SELECT FROM archives WHERE last > $1)"
_READ = f"SELECT {_COLUMNS} FROM events WHERE {_LIVE} ORDER BY position LIMIT $2"
_READ_PARTITIONS = (
    f"SELECT {_COLUMNS} FROM events WHERE {_LIVE} AND partition = ANY($3::smallint[]) ORDER BY position LIMIT $2"
)
_READ_STREAM = f"SELECT {_COLUMNS} FROM events WHERE stream = $1 AND version > $2 ORDER BY version LIMIT $3"
_LOAD = "SELECT stream, version, state FROM documents WHERE stream = ANY($1)"
_DUE = "SELECT stream, version, state FROM documents WHERE deadline <= $1 ORDER BY deadline LIMIT $2"
_WAITING = "SELECT stream, version, state FROM documents WHERE deadline IS NOT NULL ORDER BY updated_at LIMIT $1"
_OF_KIND = "SELECT stream, version, state FROM documents WHERE kind = $1 AND NOT gone ORDER BY created_at, id"
_HELD = (
    "SELECT r.scope, r.key, r.stream, r.note FROM unnest($1::text[], $2::text[]) AS u (scope, key)"
    " JOIN reservations r ON r.scope = u.scope AND r.key = u.key"
)
_HOLDING = "SELECT scope, key, stream, note FROM reservations WHERE scope = ANY($1) ORDER BY scope, key LIMIT $2"
_EXPIRE_KEYS = "DELETE FROM reservations WHERE scope = 'command' AND at < now() - interval '1 day'"
_APPEND = f"SELECT base FROM append({', '.join(f'${n}' for n in range(1, 36))})"


async def connect(dsn: str, *, minimum: int = 1, maximum: int = 8, **settings: str) -> asyncpg.Pool:
    """A pool whose sessions give up rather than wait for ever (5 s idle in a transaction, 30 s a statement)."""
    return await asyncpg.create_pool(
        dsn,
        min_size=minimum,
        max_size=maximum,
        command_timeout=60,
        max_inactive_connection_lifetime=300,
        reset=_nothing_to_reset,
        server_settings={
            "application_name": "cumulog",
            "idle_in_transaction_session_timeout": "5000",
            "statement_timeout": "30000",
            "lock_timeout": "10000",
            "jit": "off",
            **settings,
        },
    )


async def _nothing_to_reset(connection: asyncpg.Connection) -> None:
    """Spare every query a second round trip. Whoever takes session locks (leader, shares) ends the session too."""


async def install(pool: asyncpg.Pool, extra: Sequence[str] = ()) -> None:
    """Create or upgrade every table and function; safe to run at every start and from many processes at once."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _INSTALL_LOCK)
        for statement in ((SQL / "schema.sql").read_text(), (SQL / "append.sql").read_text(), *extra):
            await connection.execute(statement)


class PostgresLog:
    """`bus.log.Log` over a pool of connections. The appender keeps one connection to itself."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.pool = pool
        self._archives = Archives(pool)

    async def append(self, append: Append) -> int:
        with reaching(LOG):
            try:
                base: int = await self.pool.fetchval(_APPEND, *_arrays(append))
            except asyncpg.PostgresError as error:
                state = getattr(error, "sqlstate", "")
                if state == "CU001":
                    raise Stale(msgspec.json.decode(error.detail or "[]")) from None
                if state == "CU002":
                    raise Taken([Reservation(*row) for row in msgspec.json.decode(error.detail or "[]")]) from None
                if state in ("40P01", "40001", "55P03"):  # deadlock, serialization, lock timeout: others were first
                    raise Stale(change.stream for change in append.changes) from None
                raise
            return base

    @asynccontextmanager
    async def turn(self, streams: Sequence[str]) -> AsyncIterator[None]:
        """Whoever waits too long for it does without."""
        keys = sorted({zlib.crc32(stream.encode()) - 2**31 for stream in streams})
        with reaching(LOG):
            async with self.pool.acquire() as connection, connection.transaction():
                with suppress(asyncpg.LockNotAvailableError):
                    await connection.execute(_TAKE_TURN, _TURNS, keys)
                yield

    async def load(self, streams: Sequence[str]) -> dict[str, Document]:
        return {row[0]: document(row) for row in await self._fetch(_LOAD, streams)}

    async def read(
        self, after: int, limit: int = READ_LIMIT, partitions: frozenset[int] | None = None
    ) -> list[Recorded]:
        while True:
            if partitions is None:
                rows = await self._fetch(_READ, after, limit)
            else:
                rows = await self._fetch(_READ_PARTITIONS, after, limit, sorted(partitions))
            with reaching(LOG):
                archive = None if rows else await self._archives.holding(after)
            if archive is None:
                return [record(row) for row in rows]
            archived = await self._archives.read(archive, after, limit, partitions)
            if archived:
                return [record(row[:-1]) for row in archived]
            after = archive.last

    async def read_stream(self, stream: str, after_version: int = 0, limit: int = READ_LIMIT) -> list[Recorded]:
        rows = await self._fetch(_READ_STREAM, stream, after_version, limit)
        whole = bool(rows) and rows[0][2] == after_version + 1
        with reaching(LOG):
            archived = [] if whole else await self._archives.read_stream(stream, after_version, limit)
        return [record(row) for row in (*(row[:-1] for row in archived), *rows)][:limit]

    async def head(self) -> int:
        return int((await self._fetch("SELECT position FROM head"))[0][0])

    async def due(self, now: datetime, limit: int = READ_LIMIT) -> list[Document]:
        return [document(row) for row in await self._fetch(_DUE, now, limit)]

    async def waiting(self, limit: int = READ_LIMIT) -> list[Document]:
        return [document(row) for row in await self._fetch(_WAITING, limit)]

    async def of_kind(self, kind: str) -> tuple[int, list[Document]]:
        with reaching(LOG):
            async with (
                self.pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                position = await connection.fetchval("SELECT position FROM head")
                rows = await connection.fetch(_OF_KIND, kind)
        decoder = kind_named(kind).decoder
        return position, [Document(row[0], row[1], _with_id(decoder.decode(row[2]), row[0])) for row in rows]

    async def maintain(self) -> None:
        await self._fetch("SELECT ensure_partitions()")
        await self._fetch(_EXPIRE_KEYS)

    async def held(self, keys: Sequence[Key]) -> list[Reservation]:
        return [Reservation(*row) for row in await self._fetch(_HELD, [k[0] for k in keys], [k[1] for k in keys])]

    async def holder(self, scope: str, key: str) -> str | None:
        held = await self.held([(scope, key)])
        return held[0].stream if held else None

    async def holding(self, scopes: Sequence[str], limit: int = READ_LIMIT) -> list[Reservation]:
        return [Reservation(*row) for row in await self._fetch(_HOLDING, list(scopes), limit)]

    async def _fetch(self, query: str, *arguments: Any) -> list[Any]:
        with reaching(LOG):
            return await self.pool.fetch(query, *arguments)  # type: ignore[no-any-return]


def document(row: Any) -> Document:
    """A row of (stream, version, state) as a document."""
    return Document(row[0], row[1], _with_id(kind_of(row[0]).decoder.decode(row[2]), row[0]))


def record(row: Any) -> Recorded:
    """A row of the events table, in the order of `_COLUMNS`, as a recorded event."""
    position, stream, version, type, at, partition, actor, correlation, causation, data = row
    return Recorded(
        position, stream, version, type, at, partition, _actor(actor), correlation, causation, decode(type, data)
    )


_actors: dict[str, Actor] = {}


def _actor(text: str) -> Actor:
    """Actors repeat for as long as a token lives: decode each once."""
    actor = _actors.get(text)
    if actor is None:
        if len(_actors) > 10_000:
            _actors.clear()
        actor = _actors[text] = _decode_actor(text)
    return actor


def _with_id(state: Any, stream: str) -> Any:
    return state if state.id else msgspec.structs.replace(state, id=id_of(stream))


def _arrays(append: Append) -> list[list[Any]]:
    """The arguments of the SQL function `append`, one array a column. What it locks is sorted: no deadlocks."""
    changes = sorted(append.changes, key=lambda change: change.stream)
    drop = sorted(append.drop)
    take = sorted(append.take, key=lambda reservation: (reservation.scope, reservation.key))
    states = [change.state for change in changes]
    facts = append.facts
    return [
        list(append.checks),
        list(append.checks.values()),
        [c.stream for c in changes],
        [c.expected for c in changes],
        [c.version for c in changes],
        [c.stream.partition("/")[0] for c in changes],
        [c.stream.partition("/")[2] for c in changes],
        [_text(s, "project_id") for s in states],
        [_text(s, "parent_id") for s in states],
        [_text(s, "name") for s in states],
        [s.created_at for s in states],
        [s.updated_at for s in states],
        [c.deadline for c in changes],
        [s.deleted_at is not None for s in states],
        [_encode(s).decode() for s in states],
        [scope for scope, _ in drop],
        [key for _, key in drop],
        [r.scope for r in take],
        [r.key for r in take],
        [r.stream for r in take],
        [r.note for r in take],
        list(append.vacant),
        [s.id for s in append.secrets],
        [s.subject for s in append.secrets],
        [s.sealed for s in append.secrets],
        sorted(append.forgotten),
        [f.stream for f in facts],
        [f.version for f in facts],
        [type(f.event).__name__ for f in facts],
        [f.at for f in facts],
        [partition_of(f.stream) for f in facts],
        [_encode(f.actor).decode() for f in facts],
        [f.correlation for f in facts],
        [f.causation for f in facts],
        [_encode(f.event).decode() for f in facts],
    ]


def _text(state: Any, attribute: str) -> str | None:
    return getattr(state, attribute, None) or None
