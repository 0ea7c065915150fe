"""Mirrors: living documents of small, often-read kinds, kept in memory by folding the log as it moves.

A mirror starts from a snapshot taken at one position and goes on from there. Appends of its own process reach it before
their callers hear of them, so a process reads what it wrote; other processes' arrive with the bus.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from bus.away import pause
from bus.broker import Broker
from bus.log import Batch, Document, Log, Recorded
from bus.tail import Tail
from schema.event import Kind

log = structlog.get_logger()

POLL_SECONDS = 1.0

Changed = Callable[[Document | None, Document | None], None]
"""Hears of a document before and after an event; None before its birth and after its end."""


class Mirror:
    """The living documents of one kind."""

    def __init__(self, kind: Kind[Any]) -> None:
        self.kind = kind
        self.position = -1
        self._documents: dict[str, Document] = {}
        self._changed: list[Changed] = []

    def get(self, id: str) -> Document | None:
        return self._documents.get(id)

    def values(self) -> Iterable[Document]:
        return self._documents.values()

    def __len__(self) -> int:
        return len(self._documents)

    def on_change(self, changed: Changed) -> None:
        """Call this with (before, after) for what is there already and for every change to come."""
        self._changed.append(changed)
        for document in self._documents.values():
            changed(None, document)

    def reset(self, position: int, documents: Iterable[Document]) -> None:
        """Start anew from a snapshot true at that position."""
        fresh = {document.id: document for document in documents}
        for id in [id for id in self._documents if id not in fresh]:
            self._put(id, None)
        for id, document in fresh.items():
            if self._documents.get(id) != document:
                self._put(id, document)
        self.position = position

    def apply(self, recorded: Recorded) -> None:
        """Fold one event in, unless the snapshot has it already."""
        if recorded.position <= self.position:
            return
        id = recorded.stream.partition("/")[2]
        document = self._documents.get(id)
        version, state = (document.version, document.state) if document else (0, self.kind.unborn(id))
        if recorded.version != version + 1 and (document or not self._reborn(recorded)):
            return  # the tail of a stream that is gone
        state = self.kind.fold(state, recorded.event, recorded.at)
        alive = state.deleted_at is None
        self._put(id, Document(recorded.stream, recorded.version, state) if alive else None)

    def _reborn(self, recorded: Recorded) -> bool:
        return self.kind.reborn is not None and isinstance(recorded.event, self.kind.reborn)

    def _put(self, id: str, after: Document | None) -> None:
        before = self._documents.pop(id, None)
        if after is not None:
            self._documents[id] = after
        if before is not None or after is not None:
            for changed in self._changed:
                changed(before, after)


class Mirrors:
    """All mirrors of a process, moved along the log together."""

    def __init__(self, log: Log, broker: Broker) -> None:
        self.by_kind: dict[str, Mirror] = {}
        self.position = 0
        self._log = log
        self._broker = broker
        self._tail: Tail | None = None
        self._task: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[Batch], None]] = []

    def of(self, kind: Kind[Any]) -> Mirror:
        """The mirror of a kind; asking before the start is what makes it."""
        mirror = self.by_kind.get(kind.name)
        if mirror is None:
            mirror = self.by_kind[kind.name] = Mirror(kind)
        return mirror

    def on_batch(self, listener: Callable[[Batch], None]) -> None:
        """Also hear every batch as it goes by (caches that must be told what was overtaken)."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Load every mirror and follow the log from there."""
        subscription = await self._broker.watch()
        for kind, mirror in self.by_kind.items():
            mirror.reset(*await self._log.of_kind(kind))
        self.position = min((m.position for m in self.by_kind.values()), default=await self._log.head())
        self._tail = Tail(self._log, subscription, self.position)
        self._task = asyncio.create_task(self._follow(), name="mirrors")

    def offer(self, batch: Batch) -> None:
        """A batch this process just committed: taken at once, so that a process reads what it wrote.

        Where other processes' events lie between, each thing that stood at its newest version moves on already; the
        whole batch comes by again in its place, and what a mirror has by then is skipped.
        """
        if self._tail is None:
            return
        if batch.previous == self.position:
            self._apply(batch)
            self._tail.position = self.position
            return
        for recorded in batch.events:
            if recorded.position > self.position:
                self._fold(recorded)

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._tail:
            await self._tail.close()

    async def _follow(self) -> None:
        assert self._tail is not None
        while True:
            try:
                batch = await self._tail.next(POLL_SECONDS)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001  a reader that stops would serve the past for ever
                log.warning("mirrors cannot read the log, trying again", error=repr(error))
                await pause(POLL_SECONDS)
                continue
            if batch is not None:
                self._apply(batch)

    def _apply(self, batch: Batch) -> None:
        for recorded in batch.events:
            if recorded.position > self.position:
                self._fold(recorded)
                self.position = recorded.position
        for listener in self._listeners:
            listener(batch)

    def _fold(self, recorded: Recorded) -> None:
        mirror = self.by_kind.get(recorded.stream.partition("/")[0])
        if mirror is not None and mirror.position >= 0:
            mirror.apply(recorded)
