"""The log in memory, with the same promises, for stories and the simulation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime

from bus.log import (
    COMMAND_SCOPE,
    READ_LIMIT,
    Append,
    Document,
    Recorded,
    Reservation,
    Secret,
    Stale,
    Taken,
    recorded,
)
from schema.event import Key


class MemoryLog:
    """`bus.log.Log` without a database. It survives what a database survives: the crash of everybody who uses it."""

    def __init__(self) -> None:
        self.events: list[Recorded] = []
        self.streams: dict[str, list[Recorded]] = {}
        self.documents: dict[str, Document] = {}
        self.deadlines: dict[str, datetime] = {}
        self.reservations: dict[tuple[str, str], Reservation] = {}
        self.secrets: dict[str, Secret] = {}

    async def append(self, append: Append) -> int:
        versions = {**append.checks, **{change.stream: change.expected for change in append.changes}}
        stale = [stream for stream, version in versions.items() if self._version(stream) != version]
        if stale:
            raise Stale(stale)
        dropped = set(append.drop)
        held = [
            self.reservations[key]
            for key in ((r.scope, r.key) for r in append.take)
            if key in self.reservations and key not in dropped
        ]
        mine = {(r.scope, r.key): r.stream for r in append.take}
        if foreign := [r for r in held if r.scope == COMMAND_SCOPE or mine[r.scope, r.key] != r.stream]:
            raise Taken(foreign)
        left = [it for key, it in self.reservations.items() if key not in dropped] if append.vacant else []
        if inside := [it for it in (*left, *append.take) if it.scope in append.vacant]:
            raise Taken(inside)
        base = len(self.events)
        for key in append.drop:
            self.reservations.pop(key, None)
        for reservation in append.take:
            self.reservations[reservation.scope, reservation.key] = reservation
        for secret in append.secrets:
            self.secrets[secret.id] = secret
        for id in append.forgotten:
            self.secrets.pop(id, None)
        for change in append.changes:
            self.documents[change.stream] = Document(change.stream, change.version, change.state)
            self.deadlines.pop(change.stream, None)
            if change.deadline is not None:
                self.deadlines[change.stream] = change.deadline
        for event in recorded(append, base):
            self.events.append(event)
            self.streams.setdefault(event.stream, []).append(event)
        return base

    def turn(self, streams: Sequence[str]) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def load(self, streams: Sequence[str]) -> dict[str, Document]:
        return {stream: self.documents[stream] for stream in streams if stream in self.documents}

    async def read(
        self, after: int, limit: int = READ_LIMIT, partitions: frozenset[int] | None = None
    ) -> list[Recorded]:
        if partitions is None:
            return self.events[after : after + limit]
        return [event for event in self.events[after:] if event.partition in partitions][:limit]

    async def read_stream(self, stream: str, after_version: int = 0, limit: int = READ_LIMIT) -> list[Recorded]:
        return self.streams.get(stream, [])[after_version : after_version + limit]

    async def head(self) -> int:
        return len(self.events)

    async def due(self, now: datetime, limit: int = READ_LIMIT) -> list[Document]:
        overdue = sorted((at, stream) for stream, at in self.deadlines.items() if at <= now)
        return [self.documents[stream] for _, stream in overdue[:limit]]

    async def waiting(self, limit: int = READ_LIMIT) -> list[Document]:
        found = sorted((self.documents[stream] for stream in self.deadlines), key=lambda d: d.state.updated_at)
        return found[:limit]

    async def of_kind(self, kind: str) -> tuple[int, list[Document]]:
        prefix = kind + "/"
        return len(self.events), [
            document
            for stream, document in self.documents.items()
            if stream.startswith(prefix) and document.state.deleted_at is None
        ]

    async def maintain(self) -> None:
        """Memory needs no partitions."""

    async def held(self, keys: Sequence[Key]) -> list[Reservation]:
        return [self.reservations[key] for key in keys if key in self.reservations]

    async def holder(self, scope: str, key: str) -> str | None:
        reservation = self.reservations.get((scope, key))
        return reservation.stream if reservation else None

    async def holding(self, scopes: Sequence[str], limit: int = READ_LIMIT) -> list[Reservation]:
        found = [it for it in self.reservations.values() if it.scope in scopes]
        return sorted(found, key=lambda it: (it.scope, it.key))[:limit]

    def _version(self, stream: str) -> int:
        document = self.documents.get(stream)
        return document.version if document else 0
