"""Durable consumers: projections exactly once, reactions at least once, what will not go set aside."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from bus import clock
from bus.checkpoint import MemoryCheckpoints, PostgresCheckpoints
from bus.consumer import Projection, ProjectionWorker, Reactions, Sweep
from bus.execute import Executor
from bus.log import PARTITIONS, Document, Recorded
from bus.memory_broker import MemoryBroker
from bus.memory_log import MemoryLog
from bus.postgres_log import PostgresLog
from tests.bus.conftest import until
from tests.bus.words import TALLY, Add, Due, Rename, Tallied, wish

TABLE = "CREATE TABLE IF NOT EXISTS seen (position bigint PRIMARY KEY, stream text, count integer)"


@pytest.fixture(autouse=True)
def of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The projections made here are known here only."""
    monkeypatch.setattr("bus.consumer.PROJECTIONS", {})


@pytest.fixture
def tasks() -> Any:
    """Starts what runs for ever, and ends it with the test."""
    started: list[asyncio.Task[None]] = []

    def start(coroutine: Any) -> asyncio.Task[None]:
        started.append(asyncio.ensure_future(coroutine))
        return started[-1]

    yield start
    for task in started:
        task.cancel()


@pytest.fixture
async def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
async def executor(pool: asyncpg.Pool, broker: MemoryBroker) -> AsyncIterator[Executor]:
    executor = Executor(PostgresLog(pool), broker.hand_on)
    yield executor
    await executor.close()


async def projection(pool: asyncpg.Pool, poison: str = "") -> Projection:
    """A read model that writes one row an event, and chokes on one stream."""
    await pool.execute(TABLE)
    it = Projection("test.seen", version=1, reads=[Tallied], tables=TABLE)

    @it.apply
    async def apply(tx: Any, events: Sequence[Recorded]) -> None:
        if any(event.stream == poison for event in events):
            raise ValueError("cannot digest this")
        await tx.executemany(
            "INSERT INTO seen VALUES ($1, $2, 1)", [(event.position, event.stream) for event in events]
        )

    return it


def worker(pool: asyncpg.Pool, broker: MemoryBroker, it: Projection) -> ProjectionWorker:
    return ProjectionWorker(pool, PostgresLog(pool), broker, PostgresCheckpoints(pool), it)


async def test_a_projection_sees_each_event_once_even_with_two_workers(
    executor: Executor, pool: asyncpg.Pool, broker: MemoryBroker, tasks: Callable[..., Any]
):
    it = await projection(pool)
    workers = [worker(pool, broker, it) for _ in range(2)]
    await asyncio.gather(*(executor.execute(wish(f"s{n}", Add())) for n in range(20)))
    for each in workers:
        tasks(each.run())
    for n in range(30):
        await executor.execute(wish(f"s{n % 9}", Add()), wish(f"s{n % 9}", Rename(name=f"n{n}")))
    events = await executor.log.read(0)
    wanted = [event.position for event in events if event.type == "Tallied"]
    await until(lambda: max(each.position for each in workers) == events[-1].position)
    assert [row[0] for row in await pool.fetch("SELECT position FROM seen ORDER BY 1")] == wanted


async def test_a_projection_takes_a_backlog_in_one_transaction(
    executor: Executor, pool: asyncpg.Pool, broker: MemoryBroker, tasks: Callable[..., Any]
):
    await asyncio.gather(
        *(executor.execute(wish(f"s{n}", Add())) for n in range(1200))
    )  # more than one read of the log
    it = worker(pool, broker, await projection(pool))
    tasks(it.run())
    await until(lambda: it.position == 1200)
    rows = await pool.fetch("SELECT count(*), count(DISTINCT xmin::text) FROM seen")
    assert tuple(rows[0]) == (1200, 1)


async def test_a_checkpoint_moves_lazily_past_what_is_not_read(
    executor: Executor,
    pool: asyncpg.Pool,
    broker: MemoryBroker,
    tasks: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("bus.consumer.SAVE_SECONDS", 3600.0)
    it = worker(pool, broker, await projection(pool))
    tasks(it.run())
    await executor.execute(wish("a", Add()))
    await until(lambda: it.position == 1)
    for n in range(5):
        await executor.execute(wish("a", Rename(name=f"n{n}")))
    await until(lambda: it.position == 6)
    saved = "SELECT position FROM checkpoints WHERE consumer = 'projection.test.seen.v1'"
    assert await pool.fetchval(saved) == 1
    assert await it.projection.caught_up(pool)  # nothing it reads lies between
    await executor.execute(wish("a", Add()))
    await until(lambda: it.position == 7)
    assert await pool.fetchval(saved) == 7
    monkeypatch.setattr("bus.consumer.SAVE_SECONDS", 0.0)
    await executor.execute(wish("a", Rename(name="last")))
    await until(lambda: it.position == 8)
    assert await pool.fetchval(saved) == 8


async def test_who_waits_for_a_projection_sees_what_they_wrote(
    executor: Executor, pool: asyncpg.Pool, broker: MemoryBroker, tasks: Callable[..., Any]
):
    it = worker(pool, broker, await projection(pool))
    await executor.execute(wish("a", Add()))
    assert not await it.projection.caught_up(pool, timeout_seconds=0.02)  # nobody works it
    tasks(it.run())
    for n in range(20):
        await executor.execute(wish(f"s{n}", Add()))
        assert await it.projection.caught_up(pool)
        assert await pool.fetchval("SELECT count(*) FROM seen") == n + 2


async def test_what_a_projection_cannot_digest_is_set_aside_and_the_rest_goes_on(
    executor: Executor,
    pool: asyncpg.Pool,
    broker: MemoryBroker,
    tasks: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("bus.consumer.BACKOFF_SECONDS", 0.001)
    it = worker(pool, broker, await projection(pool, poison="tally/bad"))
    await asyncio.gather(*(executor.execute(wish(id, Add())) for id in ("a", "bad", "b")))
    tasks(it.run())
    await until(lambda: it.position == 3)
    await executor.execute(wish("bad", Add()), wish("c", Add()))
    await until(lambda: it.position == 5)
    assert {row[0] for row in await pool.fetch("SELECT stream FROM seen")} == {"tally/a", "tally/b", "tally/c"}
    assert [tuple(row) for row in await pool.fetch("SELECT stream, position FROM parked")] == [("tally/bad", 2)]


class Follow:
    """Adds to a tally until it is 3."""

    kinds = (TALLY,)

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.seen: list[str] = []
        self.fail: dict[str, int] = {}

    async def react(self, documents: Sequence[Document]) -> None:
        for document in documents:
            self.seen.append(document.id)
            if self.fail.get(document.id, 0) > 0:
                self.fail[document.id] -= 1
                raise ValueError("not now")
            if document.state.count < 3:
                await self.executor.execute(wish(document.id, Add()))


class Memory:
    """A process in memory: log, broker, executor, reactions."""

    def __init__(self, partitions: frozenset[int] = frozenset(range(PARTITIONS))) -> None:
        self.log = MemoryLog()
        self.broker = MemoryBroker()
        self.executor = Executor(self.log, self.broker.hand_on)
        self.checkpoints = MemoryCheckpoints()
        self.follow = Follow(self.executor)
        self.reactions = self.reacting(partitions)

    def reacting(self, partitions: frozenset[int]) -> Reactions:
        return Reactions(self.log, self.executor, self.broker, self.checkpoints, [self.follow], partitions)

    def counts(self) -> list[int]:
        return [document.state.count for document in self.log.documents.values()]


async def test_reactions_follow_every_stream_through(tasks: Callable[..., Any]):
    here = Memory()
    tasks(here.reactions.run())
    await asyncio.gather(*(here.executor.execute(wish(f"s{n}", Add())) for n in range(50)))
    await until(lambda: here.counts() == [3] * 50)


async def test_reactions_are_shared_out_by_partition(tasks: Callable[..., Any]):
    here = Memory(frozenset(range(8)))
    other = here.reacting(frozenset(range(8, PARTITIONS)))
    tasks(here.reactions.run())
    await asyncio.gather(*(here.executor.execute(wish(f"s{n}", Add())) for n in range(40)))
    mine = {e.stream for e in here.log.events if e.partition < 8}
    await until(lambda: {d.stream for d in here.log.documents.values() if d.state.count == 3} == mine)
    assert len(mine) < 40
    tasks(other.run())
    await until(lambda: here.counts() == [3] * 40)


async def test_reactions_begin_where_they_stopped(tasks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bus.consumer.SAVE_SECONDS", 0.0)
    here = Memory()
    first = tasks(here.reactions.run())
    await here.executor.execute(wish("a", Add(by=3)))
    await until(lambda: set(here.checkpoints.positions.values()) == {1})
    first.cancel()
    await here.executor.execute(wish("b", Add(by=3)))
    here.follow.seen.clear()
    tasks(here.reacting(frozenset(range(PARTITIONS))).run())
    await until(lambda: here.follow.seen)
    assert here.follow.seen == ["b"]


async def test_a_reaction_that_fails_now_and_then_is_tried_again(
    tasks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("bus.consumer.BACKOFF_SECONDS", 0.001)
    here = Memory()
    here.follow.fail["a"] = 2
    tasks(here.reactions.run())
    await here.executor.execute(wish("a", Add()), wish("b", Add()))
    await until(lambda: here.counts() == [3, 3])


async def test_a_reaction_that_will_not_go_is_set_aside_and_found_again_by_the_sweep(
    tasks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("bus.consumer.BACKOFF_SECONDS", 0.001)
    here = Memory()
    here.follow.fail["a"] = 1000
    tasks(here.reactions.run())
    past = clock.now() - timedelta(seconds=1)
    await here.executor.execute(wish("a", Due(at=past)), wish("b", Add()))
    await until(lambda: here.log.documents["tally/b"].state.count == 3)
    assert "not now" in here.reactions.parked["tally/a"]
    here.follow.fail.clear()
    await Sweep(here.log, here.reactions).once()
    await until(lambda: here.log.documents["tally/a"].state.count == 3)
    assert here.reactions.parked == {}


async def test_the_sweep_looks_at_what_is_overdue_and_now_and_then_at_what_waits():
    here = Memory()
    soon = clock.now() + timedelta(hours=1)
    await here.executor.execute(wish("late", Due(at=clock.now() - timedelta(seconds=1))), wish("soon", Due(at=soon)))
    sweep = Sweep(here.log, here.reactions, again_seconds=3600)
    assert await sweep.once() == 2  # the first pass looks at everything that waits
    await here.executor.execute(wish("late", Due(at=clock.now() - timedelta(seconds=1))))
    here.follow.seen.clear()
    assert await sweep.once() == 1
    assert here.follow.seen == ["late"]
