"""Following the log without a hole: from the bus while it is continuous, from the log itself wherever it is not."""

from __future__ import annotations

import structlog

from bus.broker import Delivery, Subscription
from bus.log import READ_LIMIT, Batch, Log, Recorded

log = structlog.get_logger()


class Tail:
    """One reader's way along the log, or along some partitions of it. Not for two tasks at once.

    The bus may lose, repeat, reorder or be away: `next` still gives every event once, in order. What it costs then is
    a query.
    """

    def __init__(
        self, log: Log, subscription: Subscription | None, position: int, partitions: frozenset[int] | None = None
    ) -> None:
        self.position = position
        self.repairs = 0
        self._log = log
        self._subscription = subscription
        self._partition = next(iter(partitions)) if partitions and len(partitions) == 1 else None
        self._partitions = partitions
        self._held: Delivery | None = None

    async def next(self, timeout_seconds: float) -> Batch | None:
        """What follows, or None when nothing does. The position moves past it; `acknowledge` once its effect is done."""
        while True:
            delivery, self._held = self._held, None
            if delivery is None and self._subscription is not None:
                try:
                    delivery = await self._subscription.next(timeout_seconds)
                except (ConnectionError, OSError) as error:
                    log.warning("bus away, reading the log", error=str(error))
            if delivery is None:
                return await self._read()
            batch = delivery.batch
            if batch.last <= self.position:
                await delivery.ack()
            elif batch.previous > self.position:
                self._held = delivery
                missing = await self._read(before=batch.events[0].position)
                if missing is not None:
                    self.repairs += 1
                    return missing
                # Nothing lies between: the sender only did not know where this reader stands.
                self._held = None
                return await self._take(delivery, batch.events)
            else:
                return await self._take(delivery, tuple(e for e in batch.events if e.position > self.position))

    @property
    def more_waiting(self) -> bool:
        """Whether `next` has something at once."""
        return self._held is not None or (self._subscription is not None and self._subscription.more_waiting)

    async def _take(self, delivery: Delivery, events: tuple[Recorded, ...]) -> Batch:
        batch = Batch(self.position, events)
        self.position = batch.last
        await delivery.ack()
        return batch

    async def _read(self, before: int | None = None) -> Batch | None:
        """The next events of the log itself, up to (not including) a position."""
        while True:
            events = await self._log.read(self.position, READ_LIMIT, self._partition)
            kept = tuple(e for e in events if e.position > self.position and (before is None or e.position < before))
            if not kept:
                return None
            batch = Batch(self.position, tuple(e for e in kept if self._mine(e)))
            self.position = kept[-1].position
            if batch.events:
                return batch

    def _mine(self, event: Recorded) -> bool:
        return self._partitions is None or event.partition in self._partitions

    async def close(self) -> None:
        if self._subscription is not None:
            await self._subscription.close()
