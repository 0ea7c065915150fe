"""The relay: from the log to RabbitMQ, in order, by one process at a time.

    lead ─▶ checkpoint ─▶ read past it ─▶ publish, confirmed ─▶ go on;  nothing to read ─▶ wait for a poke, or a while

It only hurries things along: readers notice what it drops or says twice and read the log instead. So its checkpoint is
written now and then, a backlog too long to be worth repeating is skipped, and a broker that is away is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import asyncpg
import structlog

from bus import clock
from bus.amqp_broker import AmqpBroker
from bus.checkpoint import WHOLE_LOG, move
from bus.leader import Leader
from bus.log import READ_LIMIT, Batch, Recorded
from bus.postgres_log import PostgresLog

log = structlog.get_logger()

CONSUMER = "relay"
SHORTEST_WAIT_SECONDS = 0.004
LONGEST_WAIT_SECONDS = 0.1
"""How long it waits to look again when nobody poked it: the shortest after work, doubled each time there was none."""
SAVE_SECONDS = 1.0
BACKLOG_EVENTS = 20_000
"""Past this, readers are quicker to read the log themselves."""
AWAY_SECONDS = 0.5

_LOAD = "SELECT position FROM checkpoints WHERE consumer = $1 AND partition = $2"
_BEGIN = (
    "INSERT INTO checkpoints (consumer, partition, position) VALUES ($1, $2, $3)"
    " ON CONFLICT (consumer, partition) DO UPDATE SET position = EXCLUDED.position, hash = NULL, at = now()"
)


class Relay:
    """Publishes what is appended. Any number of processes may try; one does it."""

    def __init__(self, pool: asyncpg.Pool, broker: AmqpBroker) -> None:
        self.position = 0
        self.published = 0
        self._broker = broker
        self._leader = Leader(pool, CONSUMER)
        self._saved_at = 0.0

    @property
    def leading(self) -> bool:
        return self._leader.leading

    async def run(self) -> None:
        """For ever: lead when nobody else does."""
        await self._broker.listen_for_pokes()
        await self._leader.run(self._work)

    async def _work(self, connection: Any) -> None:
        """Everything over the one connection that holds the lock. Raises when that connection is gone."""
        events = PostgresLog(connection)
        saved = self.position = await self._begin(connection, await events.head())
        wait = SHORTEST_WAIT_SECONDS
        while True:
            self._broker.poked.clear()
            batch = await events.read(self.position, READ_LIMIT)
            if batch:
                await self._publish(batch)
                wait = SHORTEST_WAIT_SECONDS
            if saved != self.position and (not batch or clock.monotonic() - self._saved_at > SAVE_SECONDS):
                self._saved_at = clock.monotonic()
                await move(connection, CONSUMER, {WHOLE_LOG: saved}, {WHOLE_LOG: self.position})
                saved = self.position
            if not batch:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._broker.poked.wait()
                wait = min(wait * 2, LONGEST_WAIT_SECONDS)

    async def _begin(self, connection: Any, head: int) -> int:
        """Where to go on. Whether the log's history is still the same is for its readers to ask."""
        found: int | None = await connection.fetchval(_LOAD, CONSUMER, WHOLE_LOG)
        if found is not None and head - BACKLOG_EVENTS <= found <= head:
            return found
        log.info("relay begins anew", position=head, was=found)
        await connection.execute(_BEGIN, CONSUMER, WHOLE_LOG, head)
        return head

    async def _publish(self, events: list[Recorded]) -> None:
        """Until it is confirmed: the log waits better than anybody."""
        batch = Batch(self.position, tuple(events))
        while True:
            try:
                await self._broker.publish([batch])
                break
            except ConnectionError as error:
                log.warning("relay waits for RabbitMQ", position=self.position, error=str(error))
                await asyncio.sleep(AWAY_SECONDS * (0.5 + clock.fraction()))
        self.position = batch.last
        self.published += len(events)
