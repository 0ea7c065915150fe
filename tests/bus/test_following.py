"""Sums that are kept without knowing their parts: wishes that follow what becomes of other streams."""

import asyncio

import pytest

from bus.execute import Executor, Following
from bus.log import Log
from schema.refusal import Refused
from tests.bus.words import Add, End, Rename, wish


def counted(*ids, most=1_000_000):
    """The wish that adds what these tallies grew by to their sum."""

    def command(became):
        by = sum(
            (it.after.count if it.after.living else 0) - (it.before.count if it.before.living else 0) for it in became
        )
        return Add(by=by, most=most) if by else None

    return wish("sum", Following([f"tally/{id}" for id in ids], command))


async def total(log: Log) -> int:
    return (await log.load(["tally/sum"]))["tally/sum"].state.count


async def test_it_is_what_became_of_them(executor: Executor, log: Log):
    [_, _, after] = await executor.execute(wish("a", Add(by=2)), wish("b", Add(by=3)), counted("a", "b"))
    assert (after.id, after.state.count) == ("sum", 5)
    await executor.execute(wish("a", Add(by=4)), wish("a", Add(by=-1)), counted("a"))
    assert await total(log) == 8
    await executor.execute(wish("a", End()), counted("a"))
    assert await total(log) == 3
    await executor.execute(wish("a", End()), counted("a"))
    assert await total(log) == 3, "what ended twice is counted off once"


async def test_where_it_makes_no_difference_its_stream_is_nobodys_business(executor: Executor, log: Log):
    [_, there] = await executor.execute(wish("a", Rename(name="x")), counted("a"))
    assert (there.stream, there.version) == ("tally/sum", 0)
    await executor.execute(wish("a", Add()), counted("a"))
    head = await log.head()
    [_, there] = await executor.execute(wish("a", Rename(name="y")), counted("a"))
    assert (there.version, there.state.count) == (1, 1)
    assert [event.stream for event in await log.read(head)] == ["tally/a"]


async def test_followed_twice_it_is_done_once(executor: Executor, log: Log):
    await executor.execute(wish("a", Add()), counted("a"), counted("a"), wish("a", Add(by=5)), counted("a"))
    assert await total(log) == 6


async def test_what_is_refused_leaves_nothing_behind(executor: Executor, log: Log):
    with pytest.raises(Refused, match="more than"):
        await executor.execute(wish("a", Add(by=3)), counted("a", most=2))
    assert await log.head() == 0


async def test_who_follows_what_nobody_wished_for_is_told(executor: Executor):
    with pytest.raises(ValueError, match="follows tally/a"):
        await executor.execute(counted("a"), wish("a", Add()))


async def test_the_sum_is_right_whoever_is_at_it(executor: Executor, other: Executor, log: Log):
    """Two processes, calls that are repeated, and a limit that is never passed."""
    processes = (executor, other)

    async def grow(n: int) -> None:
        id = f"s{n % 40}"
        await processes[n % 2].execute(wish(id, Rename(name=id)), wish(id, Add(most=2)), counted(id, most=50))

    outcomes = await asyncio.gather(*(grow(n) for n in range(120)), return_exceptions=True)
    assert all(isinstance(it, Refused) for it in outcomes if it is not None)
    assert await total(log) == outcomes.count(None) == 50
    ids = [f"s{n}" for n in range(40)]
    await asyncio.gather(
        *(processes[n % 2].execute(wish(ids[n % 40], End()), counted(ids[n % 40])) for n in range(120))
    )
    assert await total(log) == 0
