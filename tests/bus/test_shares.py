"""Work dealt out among processes: every piece held once, evenly, and taken over when its holder is gone."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from bus.postgres_log import connect
from bus.shares import Shares
from tests.bus.conftest import until

ITEMS = range(16)


class Member:
    """A process that takes part."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.shares = Shares(pool, "x", ITEMS)
        self.working: frozenset[int] = frozenset()
        self.fail = asyncio.Event()
        self.task = asyncio.create_task(self.shares.run(self._work))

    async def _work(self, share: frozenset[int]) -> None:
        self.working = share
        try:
            await self.fail.wait()
            raise ValueError("broken")
        finally:
            self.working = frozenset()

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def wide(fresh_database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncpg.Pool]:
    monkeypatch.setattr("bus.shares.LOOK_SECONDS", 0.02)
    pool = await connect(fresh_database, maximum=12)
    yield pool
    await pool.close()


def dealt(*members: Member) -> list[int]:
    return sorted(item for member in members for item in member.working)


async def test_one_has_all_and_three_have_a_third_each(wide: asyncpg.Pool):
    one = Member(wide)
    await until(lambda: dealt(one) == list(ITEMS))
    two, three = Member(wide), Member(wide)
    await until(lambda: dealt(one, two, three) == list(ITEMS) and min(len(m.working) for m in (one, two, three)) >= 4)
    assert max(len(member.working) for member in (one, two, three)) <= 6
    await two.leave()
    await until(lambda: sorted(len(m.working) for m in (one, three)) == [8, 8])
    await one.leave()
    await until(lambda: dealt(three) == list(ITEMS))
    await three.leave()


async def test_more_members_than_work(wide: asyncpg.Pool):
    members = [Member(wide) for _ in range(3)]
    for member in members:
        member.shares._keys = {0: member.shares._keys[0]}
    await until(lambda: dealt(*members)[:1] == [0])
    await until(lambda: dealt(*members) == [0])
    for member in members:
        await member.leave()


async def test_a_lost_connection_loses_the_share_to_the_others(wide: asyncpg.Pool):
    one, two = Member(wide), Member(wide)
    await until(lambda: dealt(one, two) == list(ITEMS) and len(one.working) == 8)
    pid = await wide.fetchval("SELECT pid FROM pg_locks WHERE locktype = 'advisory' LIMIT 1")
    await wide.execute("SELECT pg_terminate_backend($1)", pid)
    await until(lambda: max(len(one.working), len(two.working)) == 16 or len(one.working) == len(two.working) == 8)
    await until(lambda: dealt(one, two) == list(ITEMS))
    for member in (one, two):
        await member.leave()


async def test_work_that_fails_is_a_failure(wide: asyncpg.Pool):
    member = Member(wide)
    await until(lambda: member.working)
    member.fail.set()
    with pytest.raises(ValueError, match="broken"):
        await asyncio.wait_for(member.task, 5)
