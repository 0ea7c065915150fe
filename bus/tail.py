"""Following the log without a hole: from the bus while it is continuous, from the log itself wherever it is not."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from bus.broker import Delivery, Subscription
from bus.checkpoint import WHOLE_LOG
from bus.log import PARTITIONS, READ_LIMIT, Batch, Log, Recorded

log = structlog.get_logger()


class Tail:
    """One reader's way along the log, or along some partitions of it. Not for two tasks at once.

    The bus may lose, repeat, reorder or be away: `next` still gives every event once, each partition's in order (and of
    the whole log, all of them in order). What it costs then is a query.

    `position`: where to begin, or where in each partition.
    """

    def __init__(
        self,
        log: Log,
        subscription: Subscription | None,
        position: int | Mapping[int, int],
        partitions: frozenset[int] | None = None,
    ) -> None:
        self.repairs = 0
        self._log = log
        self._subscription = subscription
        self._partitions = None if partitions is None or len(partitions) == PARTITIONS else partitions
        self._reached: dict[int, int]
        if self._partitions is None:
            self._reached = {WHOLE_LOG: position if isinstance(position, int) else min(position.values())}
        else:
            self._reached = {p: position if isinstance(position, int) else position[p] for p in self._partitions}
        self._held: Delivery | None = None
        self._away = False

    @property
    def position(self) -> int:
        """Everything of the reader's up to here has been given out."""
        return min(self._reached.values())

    @position.setter
    def position(self, position: int) -> None:
        """Somebody saw to it that this reader has everything up to there."""
        self._reached = dict.fromkeys(self._reached, position)

    def at(self, partition: int) -> int:
        """How far one partition has been given out."""
        return self._reached.get(partition, self.position)

    @property
    def more_waiting(self) -> bool:
        """Whether `next` has something at once."""
        return self._held is not None or (self._subscription is not None and self._subscription.more_waiting)

    async def next(self, timeout_seconds: float) -> Batch | None:
        """What follows, or None when nothing does. The position moves past it."""
        while True:
            delivery, self._held = self._held, None
            if delivery is None:
                delivery = await self._receive(timeout_seconds)
            if delivery is None:
                return await self._read_on()
            batch = delivery.batch
            lane = WHOLE_LOG if self._partitions is None else batch.events[0].partition
            reached = self._reached.get(lane)
            if reached is None or batch.last <= reached:
                await delivery.ack()
                continue
            if batch.previous > reached:
                missing = await self._read_between(lane, batch.events[0].position)
                if missing is not None:
                    self._held = delivery
                    self.repairs += 1
                    return missing
                # Nothing lies between: the sender only did not know where this reader stands.
            self._reached[lane] = batch.last
            await delivery.ack()
            return Batch(reached, tuple(event for event in batch.events if event.position > reached))

    async def close(self) -> None:
        if self._subscription is not None:
            await self._subscription.close()

    async def _receive(self, timeout_seconds: float) -> Delivery | None:
        if self._subscription is None:
            return None
        try:
            delivery = await self._subscription.next(timeout_seconds)
        except (ConnectionError, OSError) as error:
            if not self._away:
                log.warning("bus away, reading the log", error=str(error))
            self._away = True
            return None
        self._away = False
        return delivery

    async def _read_between(self, lane: int, before: int) -> Batch | None:
        """What a lane of the log holds between its reader and a position."""
        reached = self._reached[lane]
        only = None if lane == WHOLE_LOG else frozenset([lane])
        events = tuple(e for e in await self._log.read(reached, READ_LIMIT, only) if e.position < before)
        if not events:
            return None
        self._reached[lane] = events[-1].position
        return Batch(reached, events)

    async def _read_on(self) -> Batch | None:
        """The next events of the log itself."""
        while True:
            after = self.position
            # Asked before the events: whatever is at or below it is visible to the query after.
            head = 0 if self._partitions is None else await self._log.head()
            events = await self._log.read(after, READ_LIMIT, self._partitions)
            fresh = tuple(event for event in events if event.position > self._reached_of(event))
            end = events[-1].position if events else after
            if len(events) < READ_LIMIT:
                end = max(end, head)
            self._reached = {lane: max(reached, end) for lane, reached in self._reached.items()}
            if fresh:
                return Batch(after, fresh)
            if len(events) < READ_LIMIT:
                return None

    def _reached_of(self, event: Recorded) -> int:
        return self._reached[WHOLE_LOG if self._partitions is None else event.partition]
