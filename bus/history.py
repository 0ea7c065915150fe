"""The log as people ask for it: a project's, type's, kind's or request's events, a bounded look at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec

from bus import clock
from bus.archive import Archives
from bus.away import reaching
from bus.log import READ_LIMIT, Log, Recorded, referred_event
from bus.postgres_log import LOG, record

SCAN = 200_000
"""Positions one question looks at, at most; the answer says how far it looked."""
REMEMBERED = 50_000
"""Streams whose project is kept at hand."""
REMEMBERED_SECONDS = 60.0

_COLUMNS = "e.position, e.stream, e.version, e.type, e.at, e.partition, e.actor, e.correlation, e.causation, e.data"


class Wanted(msgspec.Struct, frozen=True):
    """Which events. Empty: all. `project_id`: those of streams that belong to it (None: of every stream)."""

    types: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    stream: str = ""
    request_id: str = ""
    project_id: str | None = None

    def fits(self, recorded: Recorded, project_id: str | None) -> bool:
        """Whether an event of a stream that belongs to that project is one of them."""
        return (
            (not self.types or recorded.type in self.types)
            and (not self.kinds or recorded.stream.partition("/")[0] in self.kinds)
            and (not self.stream or recorded.stream == self.stream)
            and (not self.request_id or recorded.correlation == self.request_id)
            and (self.project_id is None or project_id == self.project_id)
        )


class Found(msgspec.Struct, frozen=True):
    events: list[Recorded]
    reached: int
    """The position up to which nothing more is wanted: where to go on."""


class History:
    """Reads of a log with conditions."""

    def __init__(self, pool: asyncpg.Pool, log: Log) -> None:
        self._pool = pool
        self._log = log
        self._archives = Archives(pool)
        self._projects: dict[str, str | None] = {}
        self._forget_at = 0.0

    async def page(self, wanted: Wanted, after: int, limit: int) -> Found:
        """The next events past a position, in order."""
        head = await self._log.head()
        if after >= head:
            return Found([], after)
        with reaching(LOG):
            archived = await self._archives.holding(after)
        if archived is not None:
            return await self._read(wanted, after, limit)
        return await self._select(wanted, after, min(after + SCAN, head), limit)

    async def last(self, wanted: Wanted, limit: int) -> Found:
        """The newest ones, in order."""
        head = await self._log.head()
        return await self._select(wanted, max(0, head - SCAN), head, limit, newest=True)

    async def projects(self, streams: Sequence[str]) -> dict[str, str | None]:
        """The project each stream belongs to, if any: as it was a minute ago at most."""
        if len(self._projects) > REMEMBERED or clock.monotonic() >= self._forget_at:
            self._projects.clear()
            self._forget_at = clock.monotonic() + REMEMBERED_SECONDS
        unknown = [stream for stream in dict.fromkeys(streams) if stream not in self._projects]
        if unknown:
            with reaching(LOG):
                rows = await self._pool.fetch(
                    "SELECT stream, project_id FROM documents WHERE stream = ANY($1)", unknown
                )
            self._projects |= {row[0]: row[1] for row in rows}
        return {stream: self._projects.get(stream) for stream in streams}

    async def fitting(self, wanted: Wanted, events: Sequence[Recorded]) -> list[Recorded]:
        """Those of these events that are wanted."""
        asked = [event.stream for event in events] if wanted.project_id is not None else []
        projects = await self.projects(asked)
        return [event for event in events if wanted.fits(event, projects.get(event.stream))]

    async def of_request(self, request_id: str, first: int, last: int, limit: int) -> list[Recorded]:
        """What one request led to, between two positions."""
        found = await self._select(Wanted(request_id=request_id), max(first - 1, last - SCAN), last, limit)
        return found.events

    async def at(self, position: int) -> Recorded | None:
        """The event of a position."""
        events = await self._log.read(position - 1, 1)
        return events[0] if events and events[0].position == position else None

    async def named(self, causation: str) -> Recorded | None:
        """The event a causation names, by stream and version or by position."""
        if causation.isdecimal():
            return await self.at(int(causation))
        referred = referred_event(causation)
        if referred is None:
            return None
        events = await self._log.read_stream(referred[0], referred[1] - 1, 1)
        return events[0] if events else None

    async def _read(self, wanted: Wanted, after: int, limit: int) -> Found:
        """From wherever the log lies, sifted here."""
        found: list[Recorded] = []
        for _ in range(SCAN // READ_LIMIT // 10):
            events = await self._log.read(after)
            if not events:
                break
            for event in await self.fitting(wanted, events):
                found.append(event)
                if len(found) == limit:
                    return Found(found, event.position)
            after = events[-1].position
        return Found(found, after)

    async def _select(self, wanted: Wanted, after: int, upto: int, limit: int, *, newest: bool = False) -> Found:
        """From the live table, sifted by PostgreSQL."""
        arguments: list[Any] = [after, upto]

        def argument(value: Any) -> str:
            arguments.append(value)
            return f"${len(arguments)}"

        query = f"SELECT {_COLUMNS} FROM events e"
        if wanted.project_id is not None:
            query += f" JOIN documents d ON d.stream = e.stream AND d.project_id = {argument(wanted.project_id)}"
        query += " WHERE e.position > $1 AND e.position <= $2"
        if wanted.types:
            query += f" AND e.type = ANY({argument(list(wanted.types))})"
        if wanted.kinds:
            query += f" AND split_part(e.stream, '/', 1) = ANY({argument(list(wanted.kinds))})"
        if wanted.stream:
            query += f" AND e.stream = {argument(wanted.stream)}"
        if wanted.request_id:
            query += f" AND e.correlation = {argument(wanted.request_id)}"
        query += f" ORDER BY e.position {'DESC' if newest else 'ASC'} LIMIT {argument(limit)}"
        with reaching(LOG):
            rows = await self._pool.fetch(query, *arguments)
        events = [record(row) for row in (reversed(rows) if newest else rows)]
        whole = newest or len(events) < limit
        return Found(events, upto if whole else events[-1].position)
