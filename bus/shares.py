"""Work dealt out among processes: each holds the advisory locks of its share, about as many as everybody else.

    join (a shared lock that counts the members) ─▶ every second: how many are we? ─▶ let go of what is too much,
    take what is free ─▶ run the work on what is held; anew whenever that changes

All locks live on one connection: lose it and the share is lost with it, free for the others within a second. A lock is
a hint; the checkpoints' compare-and-swap is the fence.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Any, Generic, TypeVar

import asyncpg
import structlog

from bus import clock
from bus.away import pause

log = structlog.get_logger()

LOOK_SECONDS = 1.0
_CLASS = 0x6376
"""Our own part of the lock's key space, beside the leaders'."""
_MEMBERS = (
    "SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1 AND objid = $2"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)

T = TypeVar("T", bound=Hashable)


class Shares(Generic[T]):
    """Some of `items` for this process, the rest for the others of that name."""

    def __init__(self, pool: asyncpg.Pool, name: str, items: Iterable[T]) -> None:
        self.name = name
        self.held: frozenset[T] = frozenset()
        self._pool = pool
        self._keys = {item: _key(f"{name}/{item}") for item in items}
        self._task: asyncio.Task[None] | None = None

    async def run(self, work: Callable[[frozenset[T]], Awaitable[None]]) -> None:
        """For ever. `work(share)` runs for ever too and is cancelled when the share changes; if it fails, this does."""
        while True:
            try:
                async with self._pool.acquire() as connection:
                    await self._take_part(connection, work)
            except _Failed as failed:
                raise failed.error from None
            except Exception as error:  # noqa: BLE001  whatever became of this connection, the next one is as good
                log.warning("share lost", of=self.name, error=repr(error))
            await pause(LOOK_SECONDS)

    async def _take_part(self, connection: Any, work: Callable[[frozenset[T]], Awaitable[None]]) -> None:
        members = _key(self.name)
        try:
            await connection.execute("SELECT pg_advisory_lock_shared($1, $2)", _CLASS, members)
            while True:
                count = await connection.fetchval(_MEMBERS, _CLASS, members)
                await self._settle(connection, -(-len(self._keys) // max(1, count)), work)
                await self._look_again()
        finally:
            await self._stop()
            connection.terminate()  # the locks go with their session

    async def _settle(self, connection: Any, fair: int, work: Callable[[frozenset[T]], Awaitable[None]]) -> None:
        """Hold as much as is fair, as far as others leave it."""
        held = list(self.held)
        if len(held) > fair:
            await self._stop()
            for item in held[fair:]:
                await connection.execute("SELECT pg_advisory_unlock($1, $2)", _CLASS, self._keys[item])
            held = held[:fair]
        elif len(held) < fair:
            free = sorted((item for item in self._keys if item not in held), key=lambda item: clock.fraction())
            for item in free:
                if len(held) == fair:
                    break
                if await connection.fetchval("SELECT pg_try_advisory_lock($1, $2)", _CLASS, self._keys[item]):
                    held.append(item)
        if frozenset(held) != self.held or (held and self._task is None):
            await self._stop()
            self.held = frozenset(held)
            log.info("share", of=self.name, held=len(held), among=len(self._keys))
            if held:
                self._task = asyncio.create_task(_run(work, self.held), name=f"{self.name}: {len(held)}")

    async def _look_again(self) -> None:
        """Wait a while, or until the work fails."""
        if self._task is None:
            await pause(LOOK_SECONDS)
            return
        done, _ = await asyncio.wait({self._task}, timeout=LOOK_SECONDS)
        if done:
            error = self._task.exception()
            raise _Failed(error or RuntimeError(f"{self.name} ended by itself"))

    async def _stop(self) -> None:
        task, self._task = self._task, None
        self.held = frozenset()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class _Failed(Exception):
    """The work itself failed, not the taking part in it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(repr(error))
        self.error = error


async def _run(work: Callable[[frozenset[T]], Awaitable[None]], share: frozenset[T]) -> None:
    await work(share)


def _key(name: str) -> int:
    return zlib.crc32(name.encode()) & 0x7FFFFFFF
