"""Durable consumers: projections, whose effect and checkpoint are one transaction; reactors, whose effect is commands.

    log ──▶ Tail ──▶ Projection.apply(tx, events) + checkpoint          a read model, exactly once
               └──▶ touched streams ──▶ Reactor.react(documents)        follow-through, at least once, idempotent

Both retry in place; what keeps failing is parked by stream, with the reason, and paged (`log.error("parked", …)`), so
that one bad stream never stops the others.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

import asyncpg
import structlog

from bus import clock
from bus.away import AWAY, pause
from bus.broker import Broker
from bus.checkpoint import EVERY_PARTITION, WHOLE_LOG, Checkpoints, Overtaken, move
from bus.execute import Executor
from bus.log import READ_LIMIT, Document, Log, Recorded
from bus.tail import Tail
from schema.event import Event, Kind

log = structlog.get_logger()

POLL_SECONDS = 1.0
"""How long a consumer waits for the bus before it looks at the log itself."""
RETRIES = 3
BACKOFF_SECONDS = 0.2
SAVE_SECONDS = 1.0
"""How often a checkpoint is written that need not move with every batch: a reactor's, whose work may be done twice, and
a projection's while nothing is said that it reads."""
MAINTAIN_SECONDS = 600.0
"""How often the leader looks after the log's tables."""
REACTION_BATCH = 2000
"""Events gathered for one reaction, at most."""
PROJECTION_BATCH = 5000
"""Events gathered for one transaction of a projection, but for the last batch's overhang."""
CATCH_UP_SECONDS = 2.0
CATCH_UP_POLL_SECONDS = 0.005

Apply = Callable[[Any, Sequence[Recorded]], Awaitable[Any]]
"""(transaction, events) → what became of it, for who is told after the commit; mostly nothing."""
Committed = Callable[[Any], Awaitable[None]]

PROJECTIONS: dict[str, Projection] = {}


class Projection:
    """A read model over many streams. A new `version` is built beside the old one, from position 0."""

    def __init__(self, name: str, *, version: int, reads: Iterable[type[Event]], tables: str) -> None:
        self.name = name
        self.version = version
        self.reads = frozenset(event.__name__ for event in reads)
        self.tables = tables
        self._begin: Callable[[], Apply] | None = None
        PROJECTIONS[name] = self

    @property
    def consumer(self) -> str:
        return f"projection.{self.name}.v{self.version}"

    def apply(self, function: Apply) -> Apply:
        """Decorator: `async def apply(tx, events)`, one statement per batch, never one per event."""
        self._begin = lambda: function
        return function

    def begins(self, function: Callable[[], Apply]) -> Callable[[], Apply]:
        """Decorator, instead of `apply`, for one that remembers: makes the `apply` of one worker.

        It is dropped for a new one whenever what it remembers may not be what was committed.
        """
        self._begin = function
        return function

    def begin(self) -> Apply:
        """An `apply` that remembers nothing yet."""
        assert self._begin is not None, f"projection {self.name} has no apply"
        return self._begin()

    async def caught_up(self, pool: asyncpg.Pool, timeout_seconds: float = CATCH_UP_SECONDS) -> bool:
        """Wait until everything it reads that is in the log now is in its tables; False when that takes too long.

        So that who asks sees what they did before, whichever process works this projection.
        """
        head = await pool.fetchval("SELECT position FROM head")
        until = clock.monotonic() + timeout_seconds
        while await pool.fetchval(_BEHIND, self.consumer, head, sorted(self.reads)):
            if clock.monotonic() >= until:
                return False
            await pause(CATCH_UP_POLL_SECONDS)
        return True


_BEHIND = """
SELECT EXISTS (SELECT FROM events e WHERE e.position > c.position AND e.position <= $2 AND e.type = ANY($3::text[]))
  OR EXISTS (SELECT FROM archives a WHERE a.last > c.position)
FROM (SELECT coalesce(max(position), 0) AS position FROM checkpoints WHERE consumer = $1) c
"""
"""A checkpoint moves lazily past what its projection does not read: what lies between is looked at, not counted."""


class ProjectionWorker:
    """Moves one projection along the log. `committed` is told after each commit what `apply` answered, unless None."""

    def __init__(  # noqa: PLR0917
        self,
        pool: asyncpg.Pool,
        log: Log,
        broker: Broker,
        checkpoints: Checkpoints,
        it: Projection,
        committed: Committed | None = None,
    ) -> None:
        self.projection = it
        self._project = it.begin()
        self._committed = committed
        self.position = 0
        self._saved = 0
        self._saved_at = 0.0
        self._pool = pool
        self._log = log
        self._broker = broker
        self._checkpoints = checkpoints

    async def run(self) -> None:
        """For ever. Whoever loses the checkpoint to another worker starts again from where that one is."""
        while True:
            try:
                await self._work()
            except Overtaken as overtaken:
                log.info("projection worked elsewhere", projection=self.projection.name, why=str(overtaken))
            except AWAY as error:
                log.warning("projection waits for the log", projection=self.projection.name, error=repr(error))
            await pause(POLL_SECONDS)

    async def _work(self) -> None:
        name = self.projection.consumer
        self._project = self.projection.begin()
        self._saved = self.position = (await self._checkpoints.load(name, [WHOLE_LOG]))[WHOLE_LOG]
        tail = Tail(self._log, await self._broker.subscribe(name), self._saved)
        try:
            while True:
                await self._take(await self._gather(tail), tail.position)
                self.position = tail.position
        finally:
            await tail.close()

    async def _gather(self, tail: Tail) -> list[Recorded]:
        """Of what is there now, what the projection reads: many batches become one transaction when there is a backlog.

        Empty when it reads none of it.
        """
        found: list[Recorded] = []
        timeout = POLL_SECONDS
        first = tail.position
        while tail.position - first < PROJECTION_BATCH:
            batch = await tail.next(timeout)
            if batch is None:
                break
            timeout = 0.0
            found += [event for event in batch.events if event.type in self.projection.reads]
            if not tail.more_waiting and len(batch.events) < READ_LIMIT:
                break
        return found

    async def _take(self, events: Sequence[Recorded], last: int) -> None:
        """These events, and the checkpoint to `last`: where it was saved before, nothing lay that is read."""
        if not events and (last == self._saved or clock.monotonic() - self._saved_at < SAVE_SECONDS):
            return
        for attempt in range(RETRIES):
            try:
                await self._apply(events, last)
                return
            except (Overtaken, *AWAY):
                raise
            except Exception as error:  # noqa: BLE001  parked below
                log.warning("projection failed", projection=self.projection.name, error=repr(error), attempt=attempt)
                self._project = self.projection.begin()
                await pause(BACKOFF_SECONDS * 2**attempt)
        await self._apply_by_stream(events, last)

    async def _apply(self, events: Sequence[Recorded], last: int) -> None:
        became: Any = None
        async with self._pool.acquire() as connection, connection.transaction():
            if events:
                events = await self._unparked(connection, events)
            if events:
                became = await self._project(connection, events)
            await self._move(connection, last)
        self._saved, self._saved_at = last, clock.monotonic()
        if became is not None and self._committed is not None:
            await self._committed(became)

    async def _apply_by_stream(self, events: Sequence[Recorded], last: int) -> None:
        """The events as a whole will not go: find the streams that stop them and set those aside."""
        streams: dict[str, list[Recorded]] = defaultdict(list)
        for event in events:
            streams[event.stream].append(event)
        async with self._pool.acquire() as connection, connection.transaction():
            for stream, own in streams.items():
                try:
                    async with connection.transaction():
                        await self._project(connection, own)
                except AWAY:
                    raise
                except Exception as error:  # noqa: BLE001
                    self._project = self.projection.begin()
                    await park(connection, self.projection.consumer, stream, own[0].position, repr(error))
            await self._move(connection, last)
        self._saved, self._saved_at = last, clock.monotonic()

    async def _move(self, connection: Any, last: int) -> None:
        await move(connection, self.projection.consumer, {WHOLE_LOG: self._saved}, {WHOLE_LOG: last})

    async def _unparked(self, connection: Any, events: Sequence[Recorded]) -> Sequence[Recorded]:
        rows = await connection.fetch("SELECT stream FROM parked WHERE consumer = $1", self.projection.consumer)
        parked = {row[0] for row in rows}
        return [event for event in events if event.stream not in parked] if parked else events


async def park(connection: Any, consumer: str, stream: str, position: int, error: str) -> None:
    """Set a stream aside and page."""
    log.error("parked", consumer=consumer, stream=stream, position=position, error=error)
    await connection.execute(
        "INSERT INTO parked (consumer, stream, position, error) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (consumer, stream) DO UPDATE SET error = EXCLUDED.error, at = now()",
        consumer,
        stream,
        position,
        error,
    )


class Reactor(Protocol):
    """Follow-through for some kinds: looks at states, never at the event that woke it."""

    @property
    def kinds(self) -> Sequence[Kind[Any]]:
        """What it follows through."""

    async def react(self, documents: Sequence[Document]) -> None:
        """Do what these states still need. Idempotent: called after events, and by the sweep past a deadline."""


class Reactions:
    """Runs reactors over the log. Any number of processes may, each on its share of the partitions."""

    CONSUMER = "reactions"

    def __init__(  # noqa: PLR0917
        self,
        log: Log,
        executor: Executor,
        broker: Broker,
        checkpoints: Checkpoints,
        reactors: Sequence[Reactor],
        partitions: frozenset[int] = EVERY_PARTITION,
    ) -> None:
        self.position = 0
        self.parked: dict[str, str] = {}
        self._log = log
        self._executor = executor
        self._broker = broker
        self._checkpoints = checkpoints
        self._reactors: dict[str, list[Reactor]] = {}
        for reactor in reactors:
            for kind in reactor.kinds:
                self._reactors.setdefault(kind.name, []).append(reactor)
        self._partitions = partitions
        self._saved_at = 0.0

    async def run(self, partitions: frozenset[int] | None = None) -> None:
        """For ever, on these partitions (`bus.shares` deals them out)."""
        if partitions is not None:
            self._partitions = partitions
        while True:
            try:
                await self._work()
            except Overtaken as overtaken:
                log.info("reactions worked elsewhere", why=str(overtaken))
            except AWAY as error:
                log.warning("reactions wait for the log", error=repr(error))
            await pause(POLL_SECONDS)

    async def _work(self) -> None:
        saved = await self._checkpoints.load(self.CONSUMER, self._partitions)
        tail = Tail(
            self._log,
            await self._broker.subscribe(self.CONSUMER, self._partitions),
            saved,
            self._partitions,
        )
        try:
            while True:
                self.position = tail.position
                touched = await self._gather(tail)
                if touched:
                    await self.react(touched)
                saved = await self._save(saved, tail)
        finally:
            await tail.close()

    async def _gather(self, tail: Tail) -> list[str]:
        """The streams touched by what is there now: many batches become one reaction when there is a backlog."""
        touched: dict[str, None] = {}
        events = 0
        timeout = POLL_SECONDS
        while events < REACTION_BATCH:
            batch = await tail.next(timeout)
            if batch is None:
                break
            timeout = 0.0
            events += len(batch.events)
            # What is remembered of a stream must not be older than the event that tells of it: nobody would look again.
            self._executor.observe(batch)
            touched |= dict.fromkeys(event.stream for event in batch.events if self.concerns(event.stream))
            if not tail.more_waiting:
                break
        return list(touched)

    async def _save(self, saved: dict[int, int], tail: Tail) -> dict[int, int]:
        now = clock.monotonic()
        reached = {partition: tail.at(partition) for partition in saved}
        if now - self._saved_at < SAVE_SECONDS or reached == saved:
            return saved
        await self._checkpoints.move(self.CONSUMER, saved, reached)
        self._saved_at = now
        return reached

    def concerns(self, stream: str) -> bool:
        """Whether some reactor follows this stream through."""
        return stream.partition("/")[0] in self._reactors

    async def react(self, streams: Sequence[str]) -> None:
        """React to the present states of these streams, retrying in place and parking what will not go."""
        for attempt in range(RETRIES):
            try:
                await self._react(streams)
                self._unpark(streams)
                return
            except AWAY as error:
                log.warning("reaction waits", error=repr(error))
                await pause(POLL_SECONDS)
            except Exception as error:
                log.warning("reaction failed", error=repr(error), streams=len(streams), attempt=attempt, exc_info=True)
                await pause(BACKOFF_SECONDS * 2**attempt)
        for stream in streams:
            try:
                await self._react([stream])
                self._unpark([stream])
            except AWAY:
                raise
            except Exception as error:
                self.parked[stream] = repr(error)
                log.exception("parked", consumer=self.CONSUMER, stream=stream, error=repr(error))

    def _unpark(self, streams: Sequence[str]) -> None:
        for stream in streams if self.parked else ():
            self.parked.pop(stream, None)

    async def _react(self, streams: Sequence[str]) -> None:
        documents = await self._executor.load(streams)
        by_reactor: dict[int, tuple[Reactor, list[Document]]] = {}
        for stream in streams:
            if stream not in documents:
                continue
            for reactor in self._reactors[stream.partition("/")[0]]:
                by_reactor.setdefault(id(reactor), (reactor, []))[1].append(documents[stream])
        await asyncio.gather(*(reactor.react(mine) for reactor, mine in by_reactor.values()))


class Sweep:
    """Finds what time has overtaken: documents past their deadline, and transitions nobody spoke of for a while."""

    def __init__(self, log: Log, reactions: Reactions, every_seconds: float = 1.0, again_seconds: float = 10.0) -> None:
        self._log = log
        self._reactions = reactions
        self._every_seconds = every_seconds
        self._again_seconds = again_seconds
        self._again_at = 0.0
        self._maintain_at = 0.0

    async def run(self) -> None:
        """For ever, while leading."""
        while True:
            await self.once()
            await pause(self._every_seconds)

    async def once(self) -> int:
        """One pass; how many documents were looked at."""
        if clock.monotonic() >= self._maintain_at:
            self._maintain_at = clock.monotonic() + MAINTAIN_SECONDS
            await self._log.maintain()
        documents = await self._log.due(clock.now())
        if clock.monotonic() >= self._again_at:
            self._again_at = clock.monotonic() + self._again_seconds
            seen = {document.stream for document in documents}
            documents += [d for d in await self._log.waiting() if d.stream not in seen]
        streams = [d.stream for d in documents if self._reactions.concerns(d.stream)]
        if streams:
            await self._reactions.react(streams)
        return len(streams)
