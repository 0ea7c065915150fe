"""A verb's own connection to the log: the cloud's PostgreSQL, whether or not anything else of the cloud runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from api.cli.screen import Failure
from bus.config import EMBEDDED, Settings
from bus.postgres import EmbeddedPostgres


async def with_log(settings: Settings, work: Callable[..., Awaitable[None]]) -> None:
    """Do this with a `PostgresLog`. An embedded PostgreSQL that is down is started for it, and stopped again."""
    import asyncpg

    from bus.postgres_log import PostgresLog, connect
    from schema.event import kinds

    kinds()
    server = EmbeddedPostgres(settings.home) if settings.postgres == EMBEDDED else None
    if server and not server.data.exists():
        raise Failure(f"there is no cloud in {settings.home}", "`./cumulog up` makes one.")
    asleep = server is not None and server.pid is None
    if server and asleep:
        server.start()
    try:
        try:
            pool = await connect(server.dsn() if server else settings.postgres, maximum=2, statement_timeout="0")
        except (OSError, asyncpg.PostgresError) as error:
            raise Failure(f"PostgreSQL does not answer: {error}", "`./cumulog status` shows what runs.") from None
        try:
            await work(PostgresLog(pool))
        finally:
            await pool.close()
    finally:
        if server and asleep:
            server.stop()
