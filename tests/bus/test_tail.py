"""Following the log whatever the bus does: lost, repeated, reordered, away."""

import random
from collections.abc import Sequence

import pytest

from bus.broker import Dealer, Delivery
from bus.execute import Executor
from bus.log import PARTITIONS, Batch
from bus.memory_log import MemoryLog
from bus.tail import Tail
from tests.bus.words import Add, wish


class Scripted:
    """A subscription that brings exactly these, in this order; None for a while without any, an error where away."""

    def __init__(self, script: Sequence[Batch | None | Exception]) -> None:
        self.script = list(script)
        self.acknowledged = 0

    async def next(self, timeout_seconds: float) -> Delivery | None:
        item = self.script.pop(0) if self.script else None
        if isinstance(item, Exception):
            raise item
        return None if item is None else Delivery(item, self._ack)

    async def _ack(self) -> None:
        self.acknowledged += 1

    @property
    def more_waiting(self) -> bool:
        return bool(self.script)

    async def close(self) -> None:
        """Nothing to close."""


async def logged(appends: int) -> tuple[MemoryLog, list[Batch]]:
    """A log with events in several streams, and the batches they were committed in."""
    log = MemoryLog()
    batches: list[Batch] = []
    executor = Executor(log, batches.append)
    for n in range(appends):
        await executor.execute(*(wish(f"s{(n * 7 + k) % 11}", Add()) for k in range(n % 3 + 1)))
    await executor.close()
    return log, batches


async def all_of(tail: Tail, head: int) -> list[int]:
    positions: list[int] = []
    while tail.position < head:
        batch = await tail.next(0.0)
        if batch is not None:
            positions += [event.position for event in batch.events]
    return positions


async def test_a_continuous_bus_needs_no_query():
    log, batches = await logged(20)
    tail = Tail(log, subscription := Scripted(batches), 0)
    assert await all_of(tail, len(log.events)) == list(range(1, len(log.events) + 1))
    assert (tail.repairs, subscription.acknowledged) == (0, 20)


@pytest.mark.parametrize("seed", range(30))
async def test_whatever_the_bus_does_each_event_comes_once_and_in_order(seed: int):
    log, batches = await logged(40)
    chance = random.Random(seed)
    script: list[Batch | None | Exception] = []
    for batch in batches:
        script += [batch] * chance.choice([0, 1, 1, 1, 2])
        script += [None] * chance.choice([0, 0, 1])
        script += [ConnectionError("away")] * chance.choice([0, 0, 0, 1])
    for _ in range(chance.randrange(10)):
        a, b = chance.randrange(len(script)), chance.randrange(len(script))
        script[a], script[b] = script[b], script[a]
    tail = Tail(log, Scripted(script), 0)
    assert await all_of(tail, len(log.events)) == list(range(1, len(log.events) + 1))


@pytest.mark.parametrize("seed", range(30))
async def test_partitions_each_come_once_and_in_order_whatever_the_bus_does(seed: int):
    log, batches = await logged(60)
    chance = random.Random(seed)
    mine = frozenset(chance.sample(range(PARTITIONS), chance.randrange(1, 15)))
    dealer = Dealer()
    lanes: dict[int, list[Batch]] = {}
    for batch in batches:
        if chance.random() < 0.1:
            dealer.forget()
        for partition, part in dealer.deal(batch).items():
            lanes.setdefault(partition, []).extend([part] * chance.choice([0, 1, 1, 1, 2]))
    script: list[Batch | None | Exception] = []
    while any(lanes.values()):  # partitions arrive out of each other's order
        partition = chance.choice([p for p, lane in lanes.items() if lane])
        part = lanes[partition].pop(0)
        if partition in mine:
            script.append(part)
            script += [None] * chance.choice([0, 0, 0, 1])
    tail = Tail(log, Scripted(script), dict.fromkeys(mine, 0), mine)
    positions = await all_of(tail, len(log.events))
    assert sorted(positions) == [e.position for e in log.events if e.partition in mine]
    for partition in mine:
        own = [p for p in positions if log.events[p - 1].partition == partition]
        assert own == sorted(own)


async def test_without_a_bus_it_reads_the_log():
    log, _ = await logged(10)
    assert await all_of(Tail(log, None, 3), len(log.events)) == list(range(4, len(log.events) + 1))


async def test_a_quiet_partition_is_not_left_behind():
    log, _ = await logged(10)
    silent = next(p for p in range(PARTITIONS) if all(e.partition != p for e in log.events))
    tail = Tail(log, Scripted([]), 0, frozenset([silent]))
    assert await tail.next(0.0) is None
    assert tail.position == len(log.events)


async def test_it_goes_on_from_where_each_partition_was():
    log, _ = await logged(30)
    mine = frozenset(e.partition for e in log.events)
    reached = {p: n * 3 for n, p in enumerate(sorted(mine))}
    tail = Tail(log, None, reached, mine)
    assert len(mine) < PARTITIONS
    assert await all_of(tail, len(log.events)) == [e.position for e in log.events if e.position > reached[e.partition]]
