"""Fold every document and reservation anew from the log: compare, or put them in place of the old ones.

    log, sorted by stream ─▶ fold, one stream at a time ─▶ COPY into fresh tables ─▶ swapped in one transaction

Memory holds one stream's state and one batch of rows, whatever the log's size; PostgreSQL does the sorting. A large log
is cut into ranges of streams, one process each, all reading the same snapshot. What is appended meanwhile is folded
in before the swap.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from typing import Any, NamedTuple, Self

import asyncpg
import msgspec

from bus import archive
from bus.consumer import PROJECTIONS
from schema.event import decode, id_of, kind_of, kinds

FETCH = 5000
"""Events fetched, and rows written, at once."""
ONE_PROCESS = 150_000
"""Up to so many events one process is done before a second has started."""
CATCH_UPS = 5
"""Rounds of folding what was appended meanwhile, before appends are held up for the swap."""

Progress = Callable[[int, int], None]
"""Events done, events in all."""

_encode = msgspec.json.Encoder().encode
DOCUMENT_COLUMNS = (
    "stream",
    "kind",
    "id",
    "version",
    "project_id",
    "parent_id",
    "name",
    "created_at",
    "updated_at",
    "deadline",
    "gone",
    "state",
)


class Unfoldable(Exception):
    """The log itself is wrong, so nothing was changed; the text says where."""


class Report(NamedTuple):
    events: int
    documents: int
    reservations: int
    changed: tuple[str, ...]
    """Streams whose document differed from the fold: the first few."""
    differences: int
    """How many differed, were missing, or were too many."""
    projections: tuple[str, ...]
    """Projections that begin anew."""
    seconds: float


class Folded(NamedTuple):
    stream: str
    version: int
    state: Any
    events: int


async def rebuild(
    dsn: str, *, compare: bool = False, projections: bool = True, progress: Progress | None = None, workers: int = 0
) -> Report:
    """Refold everything. `compare`: change nothing. Raises Unfoldable; ConnectionError and OSError as they come.

    Run it while nothing else appends, or be ready to restart what does: processes remember states between commands.
    """
    started = time.monotonic()
    kinds()
    main = await connect(dsn)
    try:
        await _fresh_tables(main)
        await load_archives(main)
        async with Snapshot(dsn) as snapshot:
            total = await snapshot.connection.fetchval("SELECT position FROM head")
            ranges = await stream_ranges(snapshot.connection, total, workers)
            await _fold_ranges(dsn, snapshot.id, ranges, progress, total)
        position = await _catch_up(main, total)
        async with main.transaction():
            # In the order in which appends lock: documents first, the head last.
            await main.execute("LOCK TABLE documents, reservations IN ACCESS EXCLUSIVE MODE")
            await main.fetchval("SELECT position FROM head FOR UPDATE")
            position = await _catch_up(main, position)
            await _index_reservations(main)
            changed, differences = await _differences(main)
            counts = [await main.fetchval(f"SELECT count(*) FROM {table}") for table in _TABLES.values()]
            reset: tuple[str, ...] = ()
            if not compare:
                await _swap(main)
                reset = await _reset_projections(main) if projections else ()
    finally:
        await _drop_temporary(main)
        await main.close()
    return Report(position, counts[0], counts[1], changed, differences, reset, time.monotonic() - started)


async def connect(dsn: str) -> asyncpg.Connection:
    """A connection for long work."""
    return await asyncpg.connect(
        dsn,
        command_timeout=None,
        server_settings={
            "application_name": "cumulog rebuild",
            "TimeZone": "UTC",
            "statement_timeout": "0",
            "idle_in_transaction_session_timeout": "0",
            "lock_timeout": "30000",
            "work_mem": "64MB",
            "jit": "off",
        },
    )


class Snapshot:
    """One view of the database that several connections share."""

    def __init__(self, dsn: str, id: str = "") -> None:
        self.id = id
        self._dsn = dsn
        self.connection: asyncpg.Connection

    async def __aenter__(self) -> Self:
        self.connection = await connect(self._dsn)
        await self.connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        if self.id:
            await self.connection.execute(f"SET TRANSACTION SNAPSHOT '{self.id}'")
        else:
            self.id = await self.connection.fetchval("SELECT pg_export_snapshot()")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.connection.close()


StreamRange = tuple[str, str | None]
"""Streams from the first (included) to the second (excluded; None: to the end), as bytes compare."""


async def stream_ranges(connection: asyncpg.Connection, events: int, workers: int = 0) -> list[StreamRange]:
    """The streams cut into as many parts as there are processes to work on them."""
    count = workers or (1 if events <= ONE_PROCESS else min(os.cpu_count() or 1, 8))
    if count == 1:
        return [("", None)]
    fractions = [n / count for n in range(1, count)]
    cuts = await connection.fetchval(
        "SELECT percentile_disc($1::float8[]) WITHIN GROUP (ORDER BY stream)"
        " FROM (SELECT stream FROM events TABLESAMPLE SYSTEM (10) UNION ALL SELECT min(stream) FROM documents) s",
        fractions,
    )
    bounds = ["", *sorted({cut for cut in cuts or [] if cut}), None]
    return [(bounds[n] or "", bounds[n + 1]) for n in range(len(bounds) - 1)]


async def fold(connection: asyncpg.Connection, part: StreamRange) -> AsyncIterator[list[Folded]]:
    """Every stream of a range, folded from its first event, in order of name. Raises Unfoldable."""
    source = f"({_EVENTS} UNION ALL {_EVENTS.replace('events', 'archived_events')}) e"
    if not await connection.fetchval("SELECT to_regclass('archived_events') IS NOT NULL"):
        source = f"({_EVENTS}) e"
    cursor = await connection.cursor(f"SELECT * FROM {source} ORDER BY stream, version", *part)
    folder = Folder()
    while rows := await cursor.fetch(FETCH):
        yield folder.take(rows)
    yield folder.rest()


_EVENTS = "SELECT stream, version, type, at, data FROM events WHERE stream >= $1 AND ($2::text IS NULL OR stream < $2)"


class Folder:
    """Events in stream order in, finished streams out."""

    def __init__(self) -> None:
        self._stream = ""
        self._version = 0
        self._state: Any = None
        self._kind: Any = None

    def take(self, rows: Iterable[Any]) -> list[Folded]:
        done: list[Folded] = []
        stream, version, state, kind = self._stream, self._version, self._state, self._kind
        for row in rows:
            name, number, type, at, data = row
            if name != stream:
                if stream:
                    done.append(Folded(stream, version, state, version))
                stream, version = name, 0
                kind = self._known(name)
                state = kind.unborn(id_of(name))
            version += 1
            if number != version:
                raise Unfoldable(
                    f"{name} has no event of version {version}: version {number} follows {version - 1}"
                    if number > version
                    else f"{name} has two events of version {number}"
                )
            try:
                state = kind.fold(state, decode(type, data), at)
            except (KeyError, msgspec.ValidationError, msgspec.DecodeError) as error:
                raise Unfoldable(f"{name} version {number}: no schema reads this {type}: {error}") from None
        self._stream, self._version, self._state, self._kind = stream, version, state, kind
        return done

    def rest(self) -> list[Folded]:
        done = [Folded(self._stream, self._version, self._state, self._version)] if self._stream else []
        self._stream = ""
        return done

    def _known(self, stream: str) -> Any:
        try:
            return kind_of(stream)
        except KeyError:
            raise Unfoldable(f"{stream}: no schema knows this kind of thing; is the code older than the log?") from None


def document_row(folded: Folded) -> tuple[Any, ...]:
    """A folded stream as the documents table holds it."""
    stream, version, state, _ = folded
    kind, _, id = stream.partition("/")
    return (
        stream,
        kind,
        id,
        version,
        getattr(state, "project_id", None) or None,
        getattr(state, "parent_id", None) or None,
        getattr(state, "name", None) or None,
        state.created_at,
        state.updated_at,
        kind_of(stream).deadline(state),
        state.deleted_at is not None,
        _encode(state).decode(),
    )


def reservation_rows(folded: Folded) -> list[tuple[str, str, str, datetime]]:
    """What a folded stream holds: (scope, key, stream, since at most)."""
    state = folded.state
    if state.deleted_at is not None:
        return []
    return [
        (scope, key, folded.stream, state.updated_at)
        for scope, key in dict.fromkeys(kind_of(folded.stream).unique(state))
    ]


async def load_archives(connection: asyncpg.Connection) -> None:
    """Archived events in a table of their own for as long as the work lasts: the fold wants them by stream."""
    await connection.execute("DROP TABLE IF EXISTS archived_events")
    archives = await archive.listed(connection)
    if not archives:
        return
    await connection.execute(
        "CREATE UNLOGGED TABLE archived_events (LIKE events);ALTER TABLE archived_events SET (autovacuum_enabled = off)"
    )
    for each in archives:
        await asyncio.to_thread(archive.check_file, each)
        await connection.copy_to_table("archived_events", source=_in_thread(archive.lines(each)))


async def _in_thread(chunks: Any) -> AsyncIterator[bytes]:
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk


_TABLES = {"documents": "documents_rebuilt", "reservations": "reservations_rebuilt"}


async def _fresh_tables(connection: asyncpg.Connection) -> None:
    await _drop_temporary(connection)
    await connection.execute(
        "CREATE TABLE documents_rebuilt (LIKE documents INCLUDING DEFAULTS INCLUDING STORAGE);"
        "ALTER TABLE documents_rebuilt SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);"
        "CREATE TABLE reservations_rebuilt (LIKE reservations INCLUDING DEFAULTS)"
    )


async def _drop_temporary(connection: asyncpg.Connection) -> None:
    if not connection.is_closed():
        await connection.execute("DROP TABLE IF EXISTS documents_rebuilt, reservations_rebuilt, archived_events")


async def _fold_ranges(
    dsn: str, snapshot: str, ranges: Sequence[StreamRange], progress: Progress | None, total: int
) -> None:
    """Every range into the fresh tables; in processes of their own when there is more than one."""
    counter = multiprocessing.get_context("spawn").Value("q", 0)
    watching = asyncio.create_task(_watch(counter, progress, total))
    try:
        if len(ranges) == 1:
            await _fold_range(dsn, snapshot, ranges[0], counter)
        else:
            loop = asyncio.get_running_loop()
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(len(ranges), context, _adopt, (counter,)) as pool:
                await asyncio.gather(*(loop.run_in_executor(pool, _work, dsn, snapshot, part) for part in ranges))
    finally:
        watching.cancel()
    if progress is not None:
        progress(total, total)


_counter: Any = None


def _adopt(counter: Any) -> None:
    """In a new process: where to count what is done."""
    global _counter  # noqa: PLW0603  a process pool has no other way in
    _counter = counter


def _work(dsn: str, snapshot: str, part: StreamRange) -> None:
    """One range, in a process of its own."""
    kinds()
    asyncio.run(_fold_range(dsn, snapshot, part, _counter))


async def _fold_range(dsn: str, snapshot: str, part: StreamRange, counter: Any) -> None:
    writer = await connect(dsn)
    try:
        async with Snapshot(dsn, snapshot) as reader:
            writing: asyncio.Task[None] | None = None
            async for batch in fold(reader.connection, part):
                if writing is not None:
                    await writing
                with counter.get_lock():
                    counter.value += sum(folded.events for folded in batch)
                writing = asyncio.create_task(_write(writer, batch))
            if writing is not None:
                await writing
    finally:
        await writer.close()


async def _write(writer: asyncpg.Connection, batch: Sequence[Folded]) -> None:
    if not batch:
        return
    await writer.copy_records_to_table(
        "documents_rebuilt", records=[document_row(folded) for folded in batch], columns=DOCUMENT_COLUMNS
    )
    held = [row for folded in batch for row in reservation_rows(folded)]
    if held:
        await writer.copy_records_to_table(
            "reservations_rebuilt", records=held, columns=("scope", "key", "stream", "at")
        )


async def _watch(counter: Any, progress: Progress | None, total: int) -> None:
    while progress is not None:
        progress(min(counter.value, total), total)
        await asyncio.sleep(0.25)


async def _catch_up(main: asyncpg.Connection, position: int) -> int:
    """Fold again whatever was appended past a position; the position then reached."""
    for _ in range(CATCH_UPS):
        streams = [
            row[0] for row in await main.fetch("SELECT DISTINCT stream FROM events WHERE position > $1", position)
        ]
        if not streams:
            break
        position = await main.fetchval("SELECT position FROM head")
        for start in range(0, len(streams), FETCH):
            await _fold_again(main, streams[start : start + FETCH])
    return position


async def _fold_again(main: asyncpg.Connection, streams: Sequence[str]) -> None:
    archived = await main.fetchval("SELECT to_regclass('archived_events') IS NOT NULL")
    query = " UNION ALL ".join(
        f"SELECT stream, version, type, at, data FROM {table} WHERE stream = ANY($1)"
        for table in ("events", *(["archived_events"] if archived else []))
    )
    folder = Folder()
    rows = await main.fetch(f"SELECT * FROM ({query}) e ORDER BY stream, version", streams)
    folded = [*folder.take(rows), *folder.rest()]
    await main.execute("DELETE FROM documents_rebuilt WHERE stream = ANY($1)", streams)
    await main.execute("DELETE FROM reservations_rebuilt WHERE stream = ANY($1)", streams)
    await _write(main, folded)


async def _index_reservations(main: asyncpg.Connection) -> None:
    """Keep what no document says (idempotency keys); find two streams that hold the same."""
    twice = await main.fetchrow(
        "SELECT scope, key, min(stream), max(stream) FROM reservations_rebuilt GROUP BY scope, key"
        " HAVING count(*) > 1 LIMIT 1"
    )
    if twice:
        raise Unfoldable(f"{twice[2]} and {twice[3]} both hold {twice[0]} {twice[1]!r}")
    await main.execute(
        "INSERT INTO reservations_rebuilt SELECT * FROM reservations WHERE scope = 'command';"
        "UPDATE reservations_rebuilt n SET at = o.at, note = o.note FROM reservations o"
        " WHERE o.scope = n.scope AND o.key = n.key AND o.stream = n.stream"
    )


async def _differences(main: asyncpg.Connection) -> tuple[tuple[str, ...], int]:
    """Streams whose document or reservations the fold would change."""
    columns = ", ".join(DOCUMENT_COLUMNS)
    await main.execute("ANALYZE documents_rebuilt; ANALYZE reservations_rebuilt")
    rows = await main.fetch(
        f"WITH o AS (SELECT stream, md5(ROW({columns})::text) AS it FROM documents),"
        f" n AS (SELECT stream, md5(ROW({columns})::text) AS it FROM documents_rebuilt),"
        " d AS (SELECT coalesce(o.stream, n.stream) AS stream FROM o FULL JOIN n ON n.stream = o.stream"
        "  WHERE o.it IS DISTINCT FROM n.it"
        "  UNION SELECT coalesce(o.stream, n.stream) FROM reservations o FULL JOIN reservations_rebuilt n"
        "  ON n.scope = o.scope AND n.key = o.key WHERE o.stream IS DISTINCT FROM n.stream)"
        " SELECT stream, count(*) OVER () FROM d ORDER BY stream LIMIT 10"
    )
    return tuple(row[0] for row in rows), rows[0][1] if rows else 0


async def _swap(main: asyncpg.Connection) -> None:
    """The fresh tables under the old names, with indexes of the old names."""
    for table, fresh in _TABLES.items():
        indexes = await main.fetch(
            "SELECT indexname::text, indexdef, coalesce(c.contype = 'p', false) AS primary FROM pg_indexes"
            " LEFT JOIN pg_constraint c ON c.conname = indexname AND c.conrelid = to_regclass(tablename::text)"
            " WHERE tablename = $1 AND schemaname = current_schema()",
            table,
        )
        await main.execute(f"DROP TABLE {table}")
        await main.execute(f"ALTER TABLE {fresh} RENAME TO {table}")
        for name, definition, primary in indexes:
            await main.execute(definition)
            if primary:
                await main.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} PRIMARY KEY USING INDEX {name}")
        await main.execute(f"ANALYZE {table}")


_MADE = re.compile(r"CREATE\s+TABLE\s+IF\s+NOT\s+EXISTS\s+([\w.]+)", re.IGNORECASE)


async def _reset_projections(main: asyncpg.Connection) -> tuple[str, ...]:
    """Empty every projection's tables and put it back to position 0: its workers build it again."""
    reset = []
    for projection in PROJECTIONS.values():
        for table in _MADE.findall(projection.tables):
            if await main.fetchval("SELECT to_regclass($1) IS NOT NULL", table):
                await main.execute(f"TRUNCATE {table}")
        await main.execute(
            "UPDATE checkpoints SET position = 0, hash = NULL, at = now() WHERE consumer = $1", projection.consumer
        )
        await main.execute("DELETE FROM parked WHERE consumer = $1", projection.consumer)
        reset.append(projection.name)
    return tuple(reset)
