"""Documents as they were: folded up to a position, and asked with the same questions as the present ones.

    `?as_of=4711` or `?as_of=2030-01-31T12:00:00Z`: streams ─▶ events up to there ─▶ fold ─▶ a temporary table

What handlers keep in mirrors stays in the present, so `consulted` tells whether an answer came from here at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

import asyncpg

from bus import archive
from bus.cloud import Cloud
from bus.documents import LIMIT, OLDEST_FIRST, Condition, Documents, Sort, kinds_named
from bus.log import Document
from bus.mirror import Mirrors
from bus.rebuild import DOCUMENT_COLUMNS, Folded, Folder, document_row
from schema.event import Kind, kind_named
from schema.refusal import Invalid

EVENTS = 200_000
"""Events of one kind folded for one question, at most."""
BATCH = 5000


@asynccontextmanager
async def cloud_as_of(cloud: Cloud, text: str) -> AsyncIterator[tuple[Cloud, PastDocuments]]:
    """The cloud with the documents of a position or a time, for one question. Raises Invalid."""
    async with cloud.pool.acquire() as connection, connection.transaction():
        position = await _position(connection, text)
        await connection.execute(
            "SET LOCAL idle_in_transaction_session_timeout = '60s';"
            "CREATE TEMPORARY TABLE past_documents (LIKE documents) ON COMMIT DROP"
        )
        documents = PastDocuments(connection, position)
        mirrors = cast("Mirrors", _Still(cloud.mirrors))
        yield dataclasses.replace(cloud, documents=documents, mirrors=mirrors), documents


async def _position(connection: asyncpg.Connection, text: str) -> int:
    head: int = await connection.fetchval("SELECT position FROM head")
    if text.isascii() and text.isdigit() and len(text) <= 18:
        if int(text) > head:
            raise Invalid(f"as_of: the log has reached position {head}; {text} is yet to come.")
        return int(text)
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        raise Invalid(f"as_of must be a position or a time such as 2030-01-31T12:00:00Z, not {text[:64]!r}.") from None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    found = await connection.fetchval("SELECT max(position) FROM events WHERE at <= $1", at)
    if found is None and await archive.listed(connection):
        raise Invalid(f"as_of: what happened by {text[:64]} is archived; name a position instead.")
    return found or 0


class PastDocuments(Documents):
    """`bus.documents.Documents` of another time. Kinds are folded when they are first asked for."""

    def __init__(self, connection: asyncpg.Connection, position: int) -> None:
        super().__init__(_Renamed(connection))
        self.position = position
        self.consulted = False
        self._connection = connection
        self._kinds: set[str] = set()
        self._streams: set[str] = set()

    async def get(self, kind: Kind[Any], id: str, *, gone: bool = False) -> Document:
        await self._fold_streams(kind, [id])
        return await super().get(kind, id, gone=gone)

    async def get_many(self, kind: Kind[Any], ids: Sequence[str]) -> dict[str, Document]:
        await self._fold_streams(kind, ids)
        return await super().get_many(kind, ids)

    async def find(
        self,
        kind: Kind[Any],
        *,
        where: Sequence[Condition] = (),
        sort: Sequence[Sort] = OLDEST_FIRST,
        limit: int | None = LIMIT,
        marker: str | None = None,
        gone: bool | None = False,
    ) -> list[Document]:
        await self._fold_kinds(kind, where)
        return await super().find(kind, where=where, sort=sort, limit=limit, marker=marker, gone=gone)

    async def versions(
        self,
        kind: Kind[Any],
        *,
        where: Sequence[Condition] = (),
        sort: Sequence[Sort] = OLDEST_FIRST,
        limit: int | None = LIMIT,
        marker: str | None = None,
        gone: bool | None = False,
    ) -> list[tuple[str, int]]:
        await self._fold_kinds(kind, where)
        return await super().versions(kind, where=where, sort=sort, limit=limit, marker=marker, gone=gone)

    async def count(self, kind: Kind[Any], *, where: Sequence[Condition] = (), gone: bool | None = False) -> int:
        await self._fold_kinds(kind, where)
        return await super().count(kind, where=where, gone=gone)

    async def _fold_kinds(self, kind: Kind[Any], where: Sequence[Condition]) -> None:
        """The kind, and those its conditions look into."""
        await self._fold_kind(kind)
        for name in kinds_named(where):
            await self._fold_kind(kind_named(name))

    async def _fold_streams(self, kind: Kind[Any], ids: Sequence[str]) -> None:
        self.consulted = True
        if kind.name in self._kinds:
            return
        streams = sorted({kind.stream(id) for id in ids} - self._streams)
        self._streams.update(streams)
        rows = await self._connection.fetch(
            "SELECT stream, version, type, at, data FROM events WHERE stream = ANY($1) AND position <= $2"
            " ORDER BY stream, version LIMIT $3",
            streams,
            self.position,
            EVENTS + 1,
        )
        if len(rows) > EVENTS:
            raise _too_much()
        live: dict[str, list[Any]] = {stream: [] for stream in streams}
        for row in rows:
            live[row[0]].append(row)
        folder = Folder()
        for stream, mine in live.items():
            if not mine or mine[0][1] > 1:
                older = await archive.Archives(self._connection).read_stream(stream, 0, EVENTS)
                mine[:0] = [(r.stream, r.version, r.type, r.at, r.data) for r in older if r.position <= self.position]
            await self._write(folder.take(mine))
        await self._write(folder.rest())

    async def _fold_kind(self, kind: Kind[Any]) -> None:
        self.consulted = True
        if kind.name in self._kinds:
            return
        if await archive.listed(self._connection):
            raise Invalid("as_of: a part of the log is archived, so only single things can be shown as they were.")
        where = "stream >= $1 AND stream < $2 AND position <= $3"
        bounds = (f"{kind.name}/", f"{kind.name}0", self.position)
        count = await self._connection.fetchval(
            f"SELECT count(*) FROM (SELECT FROM events WHERE {where} LIMIT {EVENTS + 1}) e", *bounds
        )
        if count > EVENTS:
            raise _too_much()
        await self._connection.execute("DELETE FROM past_documents WHERE kind = $1", kind.name)
        folder = Folder()
        cursor = await self._connection.cursor(
            f"SELECT stream, version, type, at, data FROM events WHERE {where} ORDER BY stream, version", *bounds
        )
        while rows := await cursor.fetch(BATCH):
            await self._write(folder.take(rows))
        await self._write(folder.rest())
        self._kinds.add(kind.name)

    async def _write(self, folded: Sequence[Folded]) -> None:
        if folded:
            await self._connection.copy_records_to_table(
                "past_documents", records=[document_row(each) for each in folded], columns=DOCUMENT_COLUMNS
            )


def _too_much() -> Invalid:
    return Invalid(f"as_of: more than {EVENTS} events would have to be read; ask for single things.")


class _Still:
    """The mirrors, as they are now, for one question: nobody who asks it hears of changes, or is remembered by them."""

    def __init__(self, of: Any) -> None:
        self._of = of

    def of(self, kind: Kind[Any]) -> Any:
        return _Still(self._of.of(kind))

    def on_change(self, changed: Any) -> None:
        """There is nothing to hear."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)

    def __len__(self) -> int:
        return len(self._of)


class _Renamed:
    """A connection on which the documents are those of the past."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        return list(await self._connection.fetch(_renamed(query), *arguments))

    async def fetchrow(self, query: str, *arguments: Any) -> Any:
        return await self._connection.fetchrow(_renamed(query), *arguments)

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        return await self._connection.fetchval(_renamed(query), *arguments)


def _renamed(query: str) -> str:
    return query.replace(" FROM documents ", " FROM past_documents ")
