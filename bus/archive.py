"""Old ranges of the log in files: a partition becomes one compressed file, checked before the table is let go.

    events_0 ──COPY──▶ events-000000000001-000004999999.copy.gz ──read back, chain checked──▶ detached, remembered

A file holds PostgreSQL's own COPY text, a line an event with its hash: `zcat FILE | psql -c "COPY … FROM STDIN"` brings
it back. Reads that reach below the live table go on in the files (`Archives`), and so do `verify` and `rebuild`.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import structlog

from bus.chain import GENESIS, Row, link

log = structlog.get_logger()

COLUMNS = "position, stream, version, type, at, partition, actor, correlation, causation, data, hash"
BATCH = 2000
"""Events parsed at once."""
OPEN_FILES = 16
"""Files kept open at the place where a reader stopped."""
_LEVEL = 3
_BOUNDS = re.compile(r"FOR VALUES FROM \('(\d+)'\) TO \('(\d+)'\)")
_PARTITIONS = (
    "SELECT c.relname::text, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i"
    " JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'events'::regclass"
)


class Archive(NamedTuple):
    """One file: the positions it holds, its own sha256, and the chain's hash at its last event."""

    first: int
    last: int
    path: str
    sha256: bytes
    hash: bytes


class Damaged(Exception):
    """An archive is not what was written; the text says which and how."""


async def archive(dsn: str, folder: Path, keep_events: int = 0) -> list[Archive]:
    """Move every partition that is full, read by every consumer and older than `keep_events` into a file.

    Any number of crashes on the way lose nothing: the table goes in the transaction that remembers the checked file.
    """
    connection = await asyncpg.connect(
        dsn, command_timeout=None, server_settings={"TimeZone": "UTC", "statement_timeout": "0", "lock_timeout": "10s"}
    )
    try:
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        made = []
        for table, last in await _full_partitions(connection, keep_events):
            made.append(await _archive_one(connection, folder, table, last))
            log.info("archived", table=table, first=made[-1].first, last=made[-1].last, path=made[-1].path)
        return made
    finally:
        await connection.close()


async def _full_partitions(connection: asyncpg.Connection, keep_events: int) -> list[tuple[str, int]]:
    """Tables and their last positions, the oldest first: an unbroken run from the beginning."""
    head = await connection.fetchval("SELECT position FROM head")
    read = await connection.fetchval("SELECT min(position) FROM checkpoints")
    limit = min(head - keep_events, head if read is None else read)
    found = []
    for table, bounds in await connection.fetch(_PARTITIONS):
        parsed = _BOUNDS.fullmatch(bounds)
        if parsed:
            found.append((int(parsed[1]), int(parsed[2]) - 1, table))
    return [(table, last) for _, last, table in sorted(found) if last <= limit]


async def _archive_one(connection: asyncpg.Connection, folder: Path, table: str, last: int) -> Archive:
    first = await connection.fetchval(f"SELECT min(position) FROM {table}")
    path = folder / f"events-{first:015d}-{last:015d}.copy.gz"
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    query = f"SELECT {COLUMNS} FROM {table} ORDER BY position"
    with gzip.GzipFile(part, "wb", compresslevel=_LEVEL) as file:
        await connection.copy_from_query(query, output=_Writer(file))
    before = await _hash_before(connection, first)
    kept = await asyncio.to_thread(_checked, part, first, last, before, path)
    async with connection.transaction():
        await connection.execute(f"ALTER TABLE events DETACH PARTITION {table}")
        await connection.execute(
            "INSERT INTO archives (first, last, path, sha256, hash) VALUES ($1, $2, $3, $4, $5)", *kept
        )
        await connection.execute(f"DROP TABLE {table}")
    return kept


class _Writer:
    """What asyncpg hands the COPY's bytes to; compression happens in a thread."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._write = file.write

    async def __call__(self, data: bytes) -> None:
        await asyncio.to_thread(self._write, data)


async def _hash_before(connection: asyncpg.Connection, first: int) -> bytes:
    if first == 1:
        return GENESIS
    found = await connection.fetchval(
        "SELECT hash FROM archives WHERE last = $1 UNION ALL SELECT hash FROM events WHERE position = $1 LIMIT 1",
        first - 1,
    )
    if found is None:
        raise Damaged(f"the event before position {first} is neither in the table nor in an archive")
    return bytes(found)


def _checked(part: Path, first: int, last: int, hash: bytes, path: Path) -> Archive:
    """Read the file back; only if it holds the whole range, linked, it gets its name."""
    position = first - 1
    for batch in _read(part):
        for row in batch:
            position += 1
            hash = link(hash, row)
            if row.position != position or row.hash != hash:
                raise Damaged(
                    f"{part}: position {row.position} does not follow {position - 1}; the table is left alone"
                )
    if position != last:
        raise Damaged(f"{part} ends at position {position}, not {last}; the table is left alone")
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        os.fsync(file.fileno())
    part.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return Archive(first, last, str(path), digest, hash)


async def listed(connection: Any) -> list[Archive]:
    """Every archive, in order."""
    rows = await connection.fetch("SELECT first, last, path, sha256, hash FROM archives ORDER BY first")
    return [Archive(row[0], row[1], row[2], bytes(row[3]), bytes(row[4])) for row in rows]


def check_file(archive: Archive) -> None:
    """Raises Damaged when the file is missing or not the one that was written."""
    try:
        with Path(archive.path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise Damaged(f"{archive.path} cannot be read: {error.strerror}; bring it back from a backup") from None
    if digest != archive.sha256:
        raise Damaged(f"{archive.path} is not the file that was archived (its sha256 differs)")


def read_file(archive: Archive) -> Iterator[list[Row]]:
    """Its events in order, in batches. Raises Damaged."""
    return _read(Path(archive.path))


def lines(archive: Archive) -> Iterator[bytes]:
    """Its bytes as COPY … FROM STDIN takes them."""
    with gzip.open(archive.path, "rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


class Archives:
    """Reads below the live table. Readers that go on where they stopped do not begin their file anew."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._places: dict[tuple[int, frozenset[int] | None], _Place] = {}

    async def holding(self, after: int) -> Archive | None:
        """The file with what follows a position; None when the live table has it."""
        row = await self._pool.fetchrow(
            "SELECT first, last, path, sha256, hash FROM archives WHERE last > $1 ORDER BY first LIMIT 1", after
        )
        return Archive(*row) if row else None

    async def read(
        self, archive: Archive, after: int, limit: int, partitions: frozenset[int] | None = None
    ) -> list[Row]:
        """Up to so many events past a position, of some partitions if asked. Raises Damaged."""
        place = self._places.pop((after, partitions), None) or _Place(archive)
        rows = await asyncio.to_thread(place.take, after, limit, partitions)
        if rows and not place.exhausted:
            self._places[rows[-1].position, partitions] = place
            if len(self._places) > OPEN_FILES:
                self._places.pop(next(iter(self._places)))
        return rows

    async def read_stream(self, stream: str, after_version: int, limit: int) -> list[Row]:
        """A stream's archived events past a version: the files are searched from the first, which takes its time."""
        archives = await listed(self._pool)
        known = await self._pool.fetchval("SELECT version FROM documents WHERE stream = $1", stream) if archives else 0
        if not known or known <= after_version:
            return []
        found: list[Row] = []
        for archive in archives:
            found += await asyncio.to_thread(_of_stream, archive, stream, after_version, limit - len(found))
            if len(found) >= limit:
                break
        return found


class _Place:
    """How far a reader has come in a file."""

    def __init__(self, archive: Archive) -> None:
        self._batches = read_file(archive)
        self._left: list[Row] = []
        self.exhausted = False

    def take(self, after: int, limit: int, partitions: frozenset[int] | None) -> list[Row]:
        taken: list[Row] = []
        while len(taken) < limit:
            if not self._left:
                batch = next(self._batches, None)
                if batch is None:
                    self.exhausted = True
                    break
                self._left = [r for r in batch if r.position > after and (not partitions or r.partition in partitions)]
            room = limit - len(taken)
            taken += self._left[:room]
            self._left = self._left[room:]
        return taken


def _of_stream(archive: Archive, stream: str, after_version: int, limit: int) -> list[Row]:
    found: list[Row] = []
    for batch in read_file(archive):
        found += [row for row in batch if row.stream == stream and row.version > after_version]
        if len(found) >= limit:
            break
    return found[:limit]


def _read(path: Path) -> Iterator[list[Row]]:
    try:
        with gzip.open(path, "rb") as file:
            yield from _batches(file)
    except (OSError, EOFError, ValueError) as error:
        raise Damaged(f"{path} cannot be read: {error}") from None


def _batches(lines: Iterable[bytes]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for line in lines:
        batch.append(_parse(line))
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


_ESCAPED = re.compile(r"\\(.)")
_MEANT = {"t": "\t", "n": "\n", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "\\": "\\"}


def _parse(line: bytes) -> Row:
    """One line of COPY text: https://www.postgresql.org/docs/current/sql-copy.html"""
    fields = line.rstrip(b"\n").decode().split("\t")
    if b"\\" in line:
        fields = [_ESCAPED.sub(lambda found: _MEANT.get(found[1], found[1]), f) if "\\" in f else f for f in fields]
    position, stream, version, type, at, partition, actor, correlation, causation, data, hash = fields
    return Row(
        int(position),
        stream,
        int(version),
        type,
        datetime.fromisoformat(at),
        int(partition),
        actor,
        correlation,
        causation,
        data,
        bytes.fromhex(hash.removeprefix("\\x")),
    )
