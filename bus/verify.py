"""Is the log what it says it is? Everything derivable is derived again and compared, without changing anything.

in order of position   dense positions, hash chain, partition of each event, archives
in order of stream     dense versions, documents = fold, reservations = what the states hold
in the end             head, parked streams, checkpoints of another history
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple

import asyncpg
import msgspec

from bus import archive
from bus.chain import GENESIS, Row, link
from bus.log import partition_of
from bus.rebuild import (
    DOCUMENT_COLUMNS,
    FETCH,
    ONE_PROCESS,
    Folded,
    Progress,
    Snapshot,
    StreamRange,
    Unfoldable,
    connect,
    document_row,
    fold,
    load_archives,
    reservation_rows,
    stream_ranges,
)
from schema.event import kinds

REMEMBERED_STREAMS = 100_000
"""Partitions of streams kept at hand."""

_PARTITION, _HASH = Row._fields.index("partition"), Row._fields.index("hash")
_ROWS = (
    "SELECT position, stream, version, type, at, partition, actor::text, correlation, causation, data::text, hash"
    " FROM events WHERE position > $1 AND position <= $2 ORDER BY position"
)


class Report(NamedTuple):
    """What was looked at, and what is wrong: the first finding of each kind, in the order of the checks."""

    events: int
    documents: int
    reservations: int
    head: int
    hash: str
    """The chain's hash at the head, hexadecimal: write it down, and a later rewriting of the log shows."""
    wrong: tuple[str, ...]
    seconds: float

    @property
    def good(self) -> bool:
        return not self.wrong


async def verify(dsn: str, *, progress: Progress | None = None, workers: int = 0) -> Report:
    """Check all of it as of one moment, beside whatever else goes on. Raises what PostgreSQL raises when it is away."""
    started = time.monotonic()
    kinds()
    main = await connect(dsn)
    try:
        try:
            await load_archives(main)
        except archive.Damaged as damaged:
            return Report(0, 0, 0, 0, "", (str(damaged),), time.monotonic() - started)
        async with Snapshot(dsn) as snapshot:
            connection = snapshot.connection
            head, hash = await connection.fetchrow("SELECT position, hash FROM head")
            archives = await archive.listed(connection)
            parts = await _parts(connection, head, archives, workers)
            done = await _all(dsn, snapshot.id, parts, progress, head)
            documents = await connection.fetchval("SELECT count(*) FROM documents")
            reservations = await connection.fetchval("SELECT count(*) FROM reservations")
            wrong = [finding for part in done for finding in part]
            wrong += [finding async for finding in _ends(connection, head, bytes(hash), archives)]
    finally:
        await main.execute("DROP TABLE IF EXISTS archived_events")
        await main.close()
    return Report(head, documents, reservations, head, bytes(hash).hex(), tuple(wrong), time.monotonic() - started)


class _Part(NamedTuple):
    """One piece of the work: a range of positions, or of streams."""

    positions: tuple[int, int] | None = None
    before: bytes = GENESIS
    archive: archive.Archive | None = None
    streams: StreamRange | None = None


async def _parts(
    connection: asyncpg.Connection, head: int, archives: Sequence[archive.Archive], workers: int
) -> list[_Part]:
    """Positions in as many pieces as there are processes, each from the hash the one before ends with; streams too."""
    count = workers or (1 if head <= ONE_PROCESS else min(os.cpu_count() or 1, 8))
    parts = []
    position, hash = 0, GENESIS
    for each in archives:
        parts.append(_Part(positions=(position, each.last), before=hash, archive=each))
        position, hash = each.last, each.hash
    step = max(1, -(-(head - position) // count))
    while position < head:
        last = min(position + step, head)
        parts.append(_Part(positions=(position, last), before=hash))
        row = await connection.fetchrow("SELECT hash FROM events WHERE position = $1", last)
        position, hash = last, bytes(row[0]) if row else b""
    return parts + [_Part(streams=streams) for streams in await stream_ranges(connection, head, count)]


async def _all(
    dsn: str, snapshot: str, parts: Sequence[_Part], progress: Progress | None, total: int
) -> list[list[str]]:
    """What is wrong in each part, the parts in processes of their own where that pays."""
    context = get_context("spawn")
    counter = context.Value("q", 0)
    watching = asyncio.create_task(_watch(counter, progress, 2 * total))
    try:
        if total <= ONE_PROCESS:
            return [await _check(dsn, snapshot, part, counter) for part in parts]
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(min(os.cpu_count() or 1, len(parts)), context, _adopt, (counter,)) as pool:
            return list(
                await asyncio.gather(*(loop.run_in_executor(pool, _work, dsn, snapshot, part) for part in parts))
            )
    finally:
        watching.cancel()


_counter: Any = None


def _adopt(counter: Any) -> None:
    """In a new process: where to count what is done."""
    global _counter  # noqa: PLW0603  a process pool has no other way in
    _counter = counter


def _work(dsn: str, snapshot: str, part: _Part) -> list[str]:
    kinds()
    return asyncio.run(_check(dsn, snapshot, part, _counter))


async def _watch(counter: Any, progress: Progress | None, total: int) -> None:
    while progress is not None:
        progress(min(counter.value, total), total)
        await asyncio.sleep(0.25)


async def _check(dsn: str, snapshot: str, part: _Part, counter: Any) -> list[str]:
    def done(events: int) -> None:
        with counter.get_lock():
            counter.value += events

    if part.archive is not None:
        assert part.positions is not None
        return await asyncio.to_thread(_check_chain, archive.read_file(part.archive), part.positions, part.before, done)
    async with Snapshot(dsn, snapshot) as view:
        if part.positions is not None:
            chain = _Chain(part.positions, part.before)
            cursor = await view.connection.cursor(_ROWS, *part.positions)
            while not chain.wrong and (rows := await cursor.fetch(FETCH)):
                chain.take(rows)
                done(len(rows))
            return chain.end()
        assert part.streams is not None
        return await _check_streams(view, dsn, snapshot, part.streams, done)


def _check_chain(
    batches: Iterator[list[Row]], positions: tuple[int, int], before: bytes, done: Callable[[int], None]
) -> list[str]:
    chain = _Chain(positions, before)
    for rows in batches:
        chain.take(rows)
        done(len(rows))
        if chain.wrong:
            break
    return chain.end()


class _Chain:
    """Follows positions, hashes and partitions; remembers the first thing wrong."""

    def __init__(self, positions: tuple[int, int], before: bytes) -> None:
        self.wrong: list[str] = []
        self._position, self._last = positions
        self._hash = before
        self._partitions: dict[str, int] = {}

    def take(self, rows: Iterable[Sequence[Any]]) -> None:
        """Rows of `chain.Row`, or of the database: read by place, since there are many."""
        position, hash, partitions = self._position, self._hash, self._partitions
        for row in rows:
            position += 1
            if row[0] != position:
                self._say(f"position {position} is missing: {row[0]} follows {position - 1}")
                break
            hash = link(hash, row)
            if hash != row[_HASH]:
                self._say(
                    f"the chain breaks at position {position} ({row[3]} of {row[1]}, {row[4]:%Y-%m-%d %H:%M:%S}):"
                    " this event, or its hash, is not what was appended"
                )
                break
            stream = row[1]
            partition = partitions.get(stream)
            if partition is None:
                if len(partitions) > REMEMBERED_STREAMS:
                    partitions.clear()
                partition = partitions[stream] = partition_of(stream)
            if partition != row[_PARTITION]:
                self._say(f"position {position} of {stream} is in partition {row[_PARTITION]}, not {partition}")
                break
        self._position, self._hash = position, hash

    def end(self) -> list[str]:
        if not self.wrong and self._position != self._last:
            self._say(f"positions {self._position + 1} to {self._last} are missing")
        return self.wrong

    def _say(self, finding: str) -> None:
        self.wrong.append(finding)


async def _check_streams(
    view: Snapshot, dsn: str, snapshot: str, streams: StreamRange, done: Callable[[int], None]
) -> list[str]:
    """Folds against documents and reservations, all in order of stream."""
    async with Snapshot(dsn, snapshot) as second, Snapshot(dsn, snapshot) as third:
        documents = _Ordered(second.connection, _DOCUMENTS, streams)
        reservations = _Ordered(third.connection, _RESERVATIONS, streams)
        comparing = _Comparison()
        try:
            async for batch in fold(view.connection, streams):
                if not batch:
                    continue
                upto = batch[-1].stream
                comparing.take(batch, await documents.upto(upto), await reservations.upto(upto))
                done(sum(folded.events for folded in batch))
                if comparing.full:
                    break
            else:
                comparing.take([], await documents.upto(None), await reservations.upto(None))
        except Unfoldable as error:
            return [*comparing.wrong.values(), str(error)]
        return list(comparing.wrong.values())


_DOCUMENTS = (
    "SELECT stream, kind, id, version, project_id, parent_id, name, created_at, updated_at, deadline, gone, state"
    " FROM documents WHERE stream >= $1 AND ($2::text IS NULL OR stream < $2) ORDER BY stream"
)
_RESERVATIONS = (
    "SELECT stream, scope, key FROM reservations WHERE scope <> 'command'"
    " AND stream >= $1 AND ($2::text IS NULL OR stream < $2) ORDER BY stream"
)


class _Ordered:
    """Rows in order of their first column, handed out up to a name at a time."""

    def __init__(self, connection: asyncpg.Connection, query: str, streams: StreamRange) -> None:
        self._rows = _rows(connection, query, streams)
        self._next: Any = None
        self._begun = False

    async def upto(self, stream: str | None) -> list[Any]:
        """What comes up to and with that stream; None: all that is left."""
        taken = []
        if not self._begun:
            self._begun, self._next = True, await anext(self._rows, None)
        while self._next is not None and (stream is None or self._next[0] <= stream):
            taken.append(self._next)
            self._next = await anext(self._rows, None)
        return taken


async def _rows(connection: asyncpg.Connection, query: str, streams: StreamRange) -> AsyncIterator[Any]:
    cursor = await connection.cursor(query, *streams)
    while rows := await cursor.fetch(FETCH):
        for row in rows:
            yield row


class _Comparison:
    """Folded streams beside what the tables hold; the first finding of each kind."""

    def __init__(self) -> None:
        self.wrong: dict[str, str] = {}

    @property
    def full(self) -> bool:
        return len(self.wrong) >= len(_COMPARED) + 2

    def take(self, folded: Sequence[Folded], documents: Sequence[Any], reservations: Sequence[Any]) -> None:
        known = {row[0]: row for row in documents}
        held: dict[str, set[tuple[str, str]]] = {}
        for stream, scope, key in reservations:
            held.setdefault(stream, set()).add((scope, key))
        for each in folded:
            self._document(each, known.pop(each.stream, None))
            self._reservations(each, held.pop(each.stream, set()))
        for stream in known:
            self._say("orphan", f"{stream} has a document, and no event")
        for stream, keys in held.items():
            self._say("reservation", f"{stream} holds {_named(keys)}, and has no event")

    def _document(self, folded: Folded, row: Any) -> None:
        if row is None:
            self._say("missing", f"{folded.stream} has {folded.version} events, and no document")
            return
        expected = document_row(folded)
        if tuple(row[:11]) != expected[:11]:
            for name, is_so, should in zip(_COMPARED, row[:11], expected[:11], strict=True):
                if is_so != should:
                    self._say(name, f"the document {folded.stream} has {name} {is_so!r}; its events say {should!r}")
        elif not _same_json(row[11], expected[11]):
            self._say("state", f"the document {folded.stream} is not what its {folded.version} events add up to")

    def _reservations(self, folded: Folded, held: set[tuple[str, str]]) -> None:
        expected = {(scope, key) for scope, key, _, _ in reservation_rows(folded)}
        if expected - held:
            self._say("reservation", f"{folded.stream} should hold {_named(expected - held)}, and does not")
        if held - expected:
            self._say("reservation", f"{folded.stream} holds {_named(held - expected)}, and should not")

    def _say(self, kind: str, finding: str) -> None:
        self.wrong.setdefault(kind, finding)


_COMPARED = DOCUMENT_COLUMNS[:-1]
"""All but the state, which is compared as what it says."""


def _same_json(stored: str, expected: str) -> bool:
    return bool(msgspec.json.decode(stored) == msgspec.json.decode(expected))


def _named(keys: Iterable[tuple[str, str]]) -> str:
    scope, key = min(keys)
    return f"{scope} {key!r}"


async def _ends(
    connection: asyncpg.Connection, head: int, hash: bytes, archives: Sequence[archive.Archive]
) -> AsyncIterator[str]:
    """What the tables say about the log as a whole."""
    last = await connection.fetchrow("SELECT position, hash FROM events ORDER BY position DESC LIMIT 1")
    if last:
        position, newest = last[0], bytes(last[1])
    else:
        position, newest = (archives[-1].last, archives[-1].hash) if archives else (0, GENESIS)
    if position != head:
        yield f"the head says position {head}, and the newest event has {position}"
    elif newest != hash:
        yield f"the head's hash is not that of the newest event, position {head}"
    row = await connection.fetchrow("SELECT consumer, stream, error FROM parked ORDER BY at LIMIT 1")
    if row:
        yield f"{row[0]} has set {row[1]} aside: {row[2]}"
    row = await connection.fetchrow(
        "SELECT c.consumer, c.position FROM checkpoints c LEFT JOIN events e ON e.position = c.position"
        " WHERE c.position > $1 OR (c.hash IS NOT NULL AND e.hash IS NOT NULL AND c.hash <> e.hash) LIMIT 1",
        head,
    )
    if row:
        yield f"{row[0]} stands at position {row[1]} of another history than this log's"
