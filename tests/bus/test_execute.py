"""The one command path, over the log in memory and the log in PostgreSQL."""

import asyncio
import contextvars
from datetime import UTC, datetime

import pytest

from bus.execute import AlreadyTaken, Context, Executor, KeyReused, StillHeld, Wish
from bus.log import Actor, Batch, Log, referred_event
from schema.refusal import Refused
from tests.bus.words import Add, Break, Due, End, Rename, Stay, Use, wish


async def everything(log: Log) -> list[tuple[int, str, int]]:
    return [(e.position, e.stream, e.version) for e in await log.read(0)]


async def assert_dense(log: Log) -> None:
    """Positions without a hole, and each stream's versions too."""
    events = await log.read(0, 100_000)
    assert [event.position for event in events] == list(range(1, len(events) + 1))
    assert await log.head() == len(events)
    versions: dict[str, int] = {}
    for event in events:
        assert event.version == versions.get(event.stream, 0) + 1
        versions[event.stream] = event.version
    documents = await log.load(list(versions))
    assert {stream: document.version for stream, document in documents.items()} == versions


async def test_a_command_becomes_events_and_a_document(executor: Executor, log: Log):
    by = Context(Actor("u", "p", "t"), "req-1", "because")
    (document,) = await executor.execute(wish("a", Add(by=3)), by=by)
    assert (document.stream, document.version, document.state.count) == ("tally/a", 1, 3)
    (event,) = await log.read(0)
    assert (event.position, event.version, event.type, event.actor.user) == (1, 1, "Tallied", "u")
    assert (event.correlation, event.causation) == ("req-1", "because")
    assert (await log.load(["tally/a"]))["tally/a"] == document
    assert document.state.created_at == document.state.updated_at == event.at


async def test_a_refused_command_writes_nothing(executor: Executor, log: Log):
    with pytest.raises(Refused, match="more than"):
        await executor.execute(wish("a", Add(by=3, most=2)))
    assert await everything(log) == []


async def test_wishes_of_one_call_are_done_together_or_not_at_all(executor: Executor, log: Log):
    await executor.execute(wish("a", Add()), wish("b", Add()), wish("a", Add()))
    assert [stream for _, stream, _ in await everything(log)] == ["tally/a", "tally/b", "tally/a"]
    with pytest.raises(Refused):
        await executor.execute(wish("a", Add()), wish("b", Add(most=0)))
    assert await log.head() == 3


async def test_the_documents_come_in_the_order_of_the_wishes(executor: Executor):
    documents = await executor.execute(wish("b", Add()), wish("a", Add(by=2)), wish("b", Add()))
    assert [(d.id, d.state.count) for d in documents] == [("b", 2), ("a", 2), ("b", 2)]


async def test_commands_waiting_together_are_one_append(executor: Executor, log: Log):
    batches: list[Batch] = []
    executor.committed = batches.append
    await asyncio.gather(*(executor.execute(wish(f"s{n % 7}", Add())) for n in range(100)))
    assert len(batches) <= 3
    assert [b.previous for b in batches] == [0, *[b.last for b in batches[:-1]]]
    await assert_dense(log)


async def test_it_works_in_the_name_of_who_made_it_and_not_of_who_asked_first(executor: Executor):
    asking: contextvars.ContextVar[str] = contextvars.ContextVar("asking", default="nobody")
    heard: list[str] = []
    executor.committed = lambda batch: heard.append(asking.get())
    asking.set("the first")
    await executor.execute(wish("a", Add()))
    asking.set("the second")
    await executor.execute(wish("a", Add()))
    assert heard == ["nobody", "nobody"]


async def test_each_command_of_a_batch_sees_those_before_it(executor: Executor):
    results = await asyncio.gather(
        *(executor.execute(wish("a", Add(most=5))) for _ in range(10)), return_exceptions=True
    )
    assert [isinstance(r, Refused) for r in results] == [False] * 5 + [True] * 5


async def test_one_that_is_refused_spoils_no_other(executor: Executor, log: Log):
    results = await asyncio.gather(
        executor.execute(wish("a", Add())),
        executor.execute(wish("b", Add(most=0))),
        executor.execute(wish("c", Break())),
        executor.execute(wish("d", Add())),
        return_exceptions=True,
    )
    assert [type(r).__name__ for r in results] == ["list", "Refused", "ZeroDivisionError", "list"]
    assert await log.head() == 2


async def test_who_insists_on_a_version_changes_no_other(executor: Executor, other: Executor, log: Log):
    await executor.execute(wish("a", Add()))
    seen = Context(at={"tally/a": 1})
    outcomes = await asyncio.gather(
        *((executor, other)[n % 2].execute(wish("a", Add()), wish("a", Add()), by=seen) for n in range(10)),
        return_exceptions=True,
    )
    assert sorted(type(it).__name__ for it in outcomes) == ["OtherVersion"] * 9 + ["list"]
    assert (await log.load(["tally/a"]))["tally/a"].state.count == 3


async def test_two_processes_on_one_stream_lose_no_update(executor: Executor, other: Executor, log: Log):
    await asyncio.gather(*((executor, other)[n % 2].execute(wish("a", Add())) for n in range(200)))
    assert (await log.load(["tally/a"]))["tally/a"].state.count == 200
    await assert_dense(log)


async def test_two_processes_on_many_streams(executor: Executor, other: Executor, log: Log):
    calls = [
        (executor, other)[n % 2].execute(wish(f"s{n % 5}", Add()), wish(f"s{(n * 3 + 1) % 5}", Add()))
        for n in range(200)
    ]
    await asyncio.gather(*calls)
    documents = await log.load([f"tally/s{n}" for n in range(5)])
    assert sum(d.state.count for d in documents.values()) == 400
    await assert_dense(log)


async def test_a_limit_holds_across_processes(executor: Executor, other: Executor):
    """What was remembered from before may be overtaken; nobody is granted or refused on it."""
    results = await asyncio.gather(
        *((executor, other)[n % 2].execute(wish("a", Add(most=30))) for n in range(100)), return_exceptions=True
    )
    assert sum(not isinstance(r, BaseException) for r in results) == 30
    assert all(isinstance(r, Refused) for r in results if isinstance(r, BaseException))


async def test_a_refusal_never_rests_on_an_overtaken_state(executor: Executor, other: Executor):
    await executor.execute(wish("a", Add(by=5)))
    await other.execute(wish("a", Add(by=-5)))
    (document,) = await executor.execute(wish("a", Add(by=5, most=5)))
    assert document.state.count == 5


async def test_a_name_is_held_by_one(executor: Executor, other: Executor, log: Log):
    results = await asyncio.gather(
        *((executor, other)[n % 2].execute(wish(f"s{n}", Rename(name="x"))) for n in range(10)),
        return_exceptions=True,
    )
    winners = [r for r in results if isinstance(r, list)]
    assert len(winners) == 1
    assert all(isinstance(r, AlreadyTaken) and r.key == "x" for r in results if not isinstance(r, list))
    assert await log.holder("tally name", "x") == winners[0][0].stream
    assert await log.head() == 1


async def test_a_name_is_let_go_by_renaming_and_by_the_end(executor: Executor, log: Log):
    await executor.execute(wish("a", Rename(name="x")))
    await executor.execute(wish("a", Rename(name="y")))
    await executor.execute(wish("b", Rename(name="x")))
    await executor.execute(wish("b", End()))
    await executor.execute(wish("c", Rename(name="x")))
    assert await log.holder("tally name", "x") == "tally/c"
    assert await log.holder("tally name", "y") == "tally/a"


async def test_a_name_is_handed_over_within_a_batch(executor: Executor, log: Log):
    await executor.execute(wish("a", Rename(name="x")))
    await asyncio.gather(
        executor.execute(wish("a", Rename(name="y"))),
        executor.execute(wish("b", Rename(name="x"))),
    )
    assert await log.holder("tally name", "x") == "tally/b"
    await executor.execute(wish("b", Rename(name="z")), wish("c", Rename(name="x")))
    assert await log.holder("tally name", "x") == "tally/c"


async def test_letting_go_of_what_was_never_granted_takes_it_from_nobody(executor: Executor, log: Log):
    await executor.execute(wish("a", Rename(name="x")))
    await asyncio.gather(
        executor.execute(wish("b", Rename(name="x"))), executor.execute(wish("b", End())), return_exceptions=True
    )
    assert await log.holder("tally name", "x") == "tally/a"


async def test_one_taken_name_spoils_no_other_command(executor: Executor, other: Executor, log: Log):
    await other.execute(wish("a", Rename(name="x")))
    results = await asyncio.gather(
        executor.execute(wish("b", Rename(name="x"))),
        executor.execute(wish("c", Rename(name="y"))),
        executor.execute(wish("d", Add())),
        return_exceptions=True,
    )
    assert [type(r).__name__ for r in results] == ["AlreadyTaken", "list", "list"]


def using(id: str, other: str) -> tuple[Wish, Wish]:
    return wish(id, Use(other=other)), wish(other, Stay())


async def test_what_is_used_stays(executor: Executor, other: Executor, log: Log):
    await executor.execute(wish("a", Add()))
    await executor.execute(*using("b", "a"))
    with pytest.raises(StillHeld) as caught:
        await other.execute(wish("a", End(), vacant=["use of a"]))
    assert (caught.value.scope, caught.value.key) == ("use of a", "b")
    assert [it.stream for it in await log.holding(["use of a"])] == ["tally/b"]
    await executor.execute(wish("b", End()))
    await other.execute(wish("a", End(), vacant=["use of a"]))
    assert await log.holding(["use of a"]) == []
    with pytest.raises(Refused, match="gone"):
        await executor.execute(*using("c", "a"))


async def test_users_and_end_at_once_never_both_succeed(executor: Executor, other: Executor, log: Log):
    for nth in range(20):
        it = f"it{nth}"
        await executor.execute(wish(it, Add()))
        uses = [(executor, other)[n % 2].execute(*using(f"u{nth}-{n}", it)) for n in range(4)]
        ends = [one.execute(wish(it, End(), vacant=[f"use of {it}"])) for one in (other, executor)]
        work = [*uses[: nth % 5], *ends, *uses[nth % 5 :]]
        await asyncio.gather(*work, return_exceptions=True)
        document = (await log.load([f"tally/{it}"]))[f"tally/{it}"]
        users = await log.holding([f"use of {it}"])
        assert document.state.living is bool(users)


async def test_a_user_and_an_end_in_one_batch_spoil_no_other_command(executor: Executor, log: Log):
    await executor.execute(wish("a", Add()))
    results = await asyncio.gather(
        executor.execute(*using("b", "a")),
        executor.execute(wish("a", End(), vacant=["use of a"])),
        executor.execute(wish("c", Add())),
        return_exceptions=True,
    )
    assert [type(r).__name__ for r in results] == ["list", "StillHeld", "list"]


def keyed(key: str = "k", fingerprint: str = "f") -> Context:
    return Context(idempotency=key, fingerprint=fingerprint)


async def test_a_repeated_request_is_the_same_request(executor: Executor, other: Executor, log: Log):
    first = await executor.execute(wish("a", Add()), wish("b", Add()), by=keyed())
    again = await other.execute(wish("c", Add()), wish("d", Add()), by=keyed())
    assert [d.stream for d in again] == [d.stream for d in first] == ["tally/a", "tally/b"]
    assert await log.head() == 2


async def test_a_repeated_request_on_the_same_stream_is_done_once(executor: Executor):
    await executor.execute(wish("a", Add()), by=keyed())
    (document,) = await executor.execute(wish("a", Add()), by=keyed())
    assert document.state.count == 1


async def test_a_repeated_request_is_answered_even_where_it_would_be_refused_by_now(executor: Executor):
    await executor.execute(wish("a", Rename(name="x")), by=keyed())
    (document,) = await executor.execute(wish("b", Rename(name="x")), by=keyed())
    assert document.stream == "tally/a"
    await executor.execute(wish("c", Add(most=1)), by=keyed("k2"))
    (document,) = await executor.execute(wish("c", Add(most=1)), by=keyed("k2"))
    assert document.state.count == 1


async def test_requests_repeated_at_the_same_time_are_done_once(executor: Executor, other: Executor, log: Log):
    results = await asyncio.gather(
        *((executor, other)[n % 2].execute(wish(f"s{n}", Add()), by=keyed()) for n in range(8))
    )
    assert len({documents[0].stream for documents in results}) == 1
    assert await log.head() == 1


async def test_a_key_used_for_something_else_is_noticed(executor: Executor):
    await executor.execute(wish("a", Add()), by=keyed("k", "one"))
    with pytest.raises(KeyReused):
        await executor.execute(wish("b", Add()), by=keyed("k", "two"))


async def test_callers_that_went_away_harm_nobody(executor: Executor, log: Log):
    tasks = [asyncio.create_task(executor.execute(wish("a", Add()))) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(r, list) for r in results[1::2])
    await assert_dense(log)


async def test_closing_finishes_what_was_submitted(log: Log):
    executor = Executor(log)
    futures = [executor.submit([wish(f"s{n}", Add())]) for n in range(600)]
    await asyncio.sleep(0)
    await executor.close()
    assert all(future.done() and future.exception() is None for future in futures)
    assert await log.head() == 600


async def test_deadlines_are_found_when_due(executor: Executor, log: Log):
    early, late = datetime(2031, 1, 1, tzinfo=UTC), datetime(2032, 1, 1, tzinfo=UTC)
    await executor.execute(wish("a", Due(at=late)), wish("b", Due(at=early)), wish("c", Add()))
    assert [d.id for d in await log.due(datetime(2031, 6, 1, tzinfo=UTC))] == ["b"]
    assert {d.id for d in await log.waiting()} == {"a", "b"}
    await executor.execute(wish("b", End()))
    assert await log.due(datetime(2031, 6, 1, tzinfo=UTC)) == []


async def test_the_log_reads_by_position_stream_and_partition(executor: Executor, log: Log):
    for n in range(10):
        await executor.execute(wish(f"s{n % 3}", Add()))
    events = await log.read(0)
    assert [e.position for e in await log.read(4, 3)] == [5, 6, 7]
    assert [e.version for e in await log.read_stream("tally/s0", 1)] == [2, 3, 4]
    partitions = frozenset({events[0].partition, events[1].partition})
    mine = [e.position for e in events if e.partition in partitions]
    assert [e.position for e in await log.read(0, 100, partitions)] == mine


async def test_living_documents_of_a_kind_at_one_position(executor: Executor, log: Log):
    await executor.execute(wish("a", Add()), wish("b", Add()))
    await executor.execute(wish("a", End()))
    position, documents = await log.of_kind("tally")
    assert (position, [d.id for d in documents]) == (3, ["b"])


async def test_what_nobody_asked_for_names_the_event_it_follows_from(executor: Executor, log: Log):
    await executor.execute(wish("a", Add()), by=Context(actor=Actor(user="u"), request_id="req-1"))
    await executor.execute(wish("a", Add()), wish("b", Add()))
    await executor.execute(wish("a", Add()), by=Context(causation="req-theirs"))
    assert [event.causation for event in await log.read(0)] == ["", "tally/a@1", "tally/a@1", "req-theirs"]
    assert referred_event("tally/a@1") == ("tally/a", 1)
    assert referred_event("req-theirs") is None
