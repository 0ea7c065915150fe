"""A verb's own way to the log: the cloud's PostgreSQL, whether or not anything else of the cloud runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from api.cli.screen import Failure
from bus.config import EMBEDDED, Settings
from bus.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from bus.postgres_log import PostgresLog

T = TypeVar("T")


async def with_log(settings: Settings, work: Callable[[PostgresLog], Awaitable[T]]) -> T:
    """Do this with the log, read over a pool of two."""
    from bus.postgres_log import PostgresLog, connect
    from schema.event import kinds

    async def over(dsn: str) -> T:
        pool = await connect(dsn, maximum=2, statement_timeout="0")
        try:
            return await work(PostgresLog(pool))
        finally:
            await pool.close()

    kinds()
    return await with_dsn(settings, over)


async def with_dsn(settings: Settings, work: Callable[[str], Awaitable[T]]) -> T:
    """Do this with PostgreSQL's URL. An embedded one that is down is started for it, and stopped again."""
    import asyncpg

    server = EmbeddedPostgres(settings.home) if settings.postgres == EMBEDDED else None
    if server and not server.data.exists():
        raise Failure(f"there is no cloud in {settings.home}", "`./cumulog up` makes one.")
    asleep = server is not None and server.pid is None
    if server and asleep:
        server.start()
    try:
        return await work(server.dsn() if server else settings.postgres)
    except (OSError, asyncpg.PostgresConnectionError, asyncpg.InvalidCatalogNameError) as error:
        raise Failure(f"PostgreSQL does not answer: {error}", "`./cumulog status` shows what runs.") from None
    except asyncpg.UndefinedTableError:
        raise Failure("there is no log in this database yet", "`./cumulog up` makes it.") from None
    finally:
        if server and asleep:
            server.stop()
