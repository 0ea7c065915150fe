"""What every role holds in its hands: the log, the way to change it, the ways to read it."""

from __future__ import annotations

import dataclasses
from typing import Any

import asyncpg

from bus.broker import Broker
from bus.checkpoint import Checkpoints, PostgresCheckpoints
from bus.config import Settings
from bus.consumer import PROJECTIONS
from bus.documents import Documents
from bus.execute import Executor
from bus.log import Batch, Log
from bus.memory_broker import MemoryBroker
from bus.mirror import Mirror, Mirrors
from bus.postgres_log import PostgresLog, connect, install
from bus.vault import PostgresKeys, Vault, master_key
from schema.event import Kind, kinds


@dataclasses.dataclass
class Cloud:
    """One process's view of its cell. Opened by the composition root (`api/cli/serve.py`) and by tests.

    Ask for the mirrors you need, then `start`; `close` in the end.
    """

    settings: Settings
    pool: asyncpg.Pool
    log: Log
    executor: Executor
    documents: Documents
    vault: Vault
    broker: Broker
    checkpoints: Checkpoints
    mirrors: Mirrors

    def mirror(self, kind: Kind[Any]) -> Mirror:
        """The process's in-memory copy of a kind; asking for it before the start is what makes it."""
        return self.mirrors.of(kind)

    async def start(self) -> None:
        """Load the mirrors and follow the log."""
        await self.mirrors.start()

    async def close(self) -> None:
        """Finish what was submitted, then let go of everything."""
        await self.executor.close()
        await self.mirrors.close()
        await self.broker.close()
        await self.pool.close()


async def open_cloud(settings: Settings, dsn: str, broker: Broker | None = None) -> Cloud:
    """Connect, create or upgrade the tables, and put the parts together. `broker`: None for the in-process one.

    The tables of every projection known by now are among them.
    """
    kinds()
    settings.home.mkdir(parents=True, exist_ok=True)
    pool = await connect(dsn, maximum=settings.database_connections)
    await install(pool, [projection.tables for projection in PROJECTIONS.values()])
    log = PostgresLog(pool)
    broker = broker or MemoryBroker()
    await broker.start()
    mirrors = Mirrors(log, broker)
    executor = Executor(log, _committed(mirrors, broker))
    mirrors.on_batch(executor.observe)
    return Cloud(
        settings=settings,
        pool=pool,
        log=log,
        executor=executor,
        documents=Documents(pool),
        vault=Vault(PostgresKeys(pool), master_key(settings.home)),
        broker=broker,
        checkpoints=PostgresCheckpoints(pool),
        mirrors=mirrors,
    )


def _committed(mirrors: Mirrors, broker: Broker) -> Any:
    """What happens right after each commit of this process: its mirrors first, then whoever follows the log."""

    def committed(batch: Batch) -> None:
        mirrors.offer(batch)
        broker.hand_on(batch)

    return committed
