"""Leadership by advisory lock, held on the very connection that does the work: lose the one and you lost the other."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import structlog

from bus.away import pause

log = structlog.get_logger()

Work = Callable[[Any], Awaitable[None]]
"""What a leader does, given the connection that its lock lives on."""

RETRY_SECONDS = 1.0
_CLASS = 0x6375  # "cu": our half of the lock's key space


class Leader:
    """Runs one piece of work in one process at a time, among all that try."""

    def __init__(self, pool: asyncpg.Pool, name: str) -> None:
        self.name = name
        self.leading = False
        self._pool = pool
        self._key = zlib.crc32(name.encode()) & 0x7FFFFFFF

    async def run(self, work: Work) -> None:
        """Try to lead for ever; while leading, `work(connection)`. It raises when the connection is gone."""
        while True:
            try:
                async with self._pool.acquire() as connection:
                    await self._lead(connection, work)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001  whatever it was, somebody must lead
                log.warning("leadership lost", of=self.name, error=repr(error))
            await pause(RETRY_SECONDS)

    async def _lead(self, connection: asyncpg.Connection, work: Work) -> None:
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1, $2)", _CLASS, self._key):
            return
        log.info("leading", of=self.name)
        self.leading = True
        try:
            await work(connection)
        finally:
            self.leading = False
            connection.terminate()  # the lock goes with its session
