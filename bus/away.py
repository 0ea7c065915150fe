"""What an unreachable PostgreSQL or broker raises: waited out or answered with 503, never held against anybody."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import asyncpg

AWAY = (
    OSError,  # ConnectionError and TimeoutError are
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,  # a pool or connection that was closed under its user
    asyncpg.InternalClientError,  # used again after the server's last words, before its hanging up was noticed
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,  # starting up, shutting down, in recovery
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,  # the primary became a standby
    asyncpg.exceptions.IdleInTransactionSessionTimeoutError,
)


@contextlib.contextmanager
def reaching(what: str) -> Iterator[None]:
    """One exception for all of them, in words: ConnectionError."""
    try:
        yield
    except AWAY as error:
        raise ConnectionError(f"{what} cannot be reached: {error or type(error).__name__}") from error


async def pause(seconds: float) -> None:
    """Wait before the next try of a loop that goes on for ever.

    A connection that is cancelled in the middle of a query may answer with an error of its own, which then stands in
    the cancellation's place: here it becomes a cancellation again, or the loop would outlive its role.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    await asyncio.sleep(seconds)
