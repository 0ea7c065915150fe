"""Mirrors: what a process wrote it reads; what others wrote arrives; a loss is repaired."""

import asyncio

from bus.execute import Executor
from bus.log import Batch, Document
from bus.memory_broker import MemoryBroker
from bus.memory_log import MemoryLog
from bus.mirror import Mirrors
from tests.bus.conftest import until
from tests.bus.words import TALLY, Add, End, Rename, wish


async def test_a_process_reads_what_it_wrote():
    log, broker = MemoryLog(), MemoryBroker()
    mirrors = Mirrors(log, broker)
    executor = Executor(log, mirrors.offer)
    mirror = mirrors.of(TALLY)
    await executor.execute(wish("before", Add()))
    await mirrors.start()
    assert mirror.get("before") is not None
    await executor.execute(wish("a", Add(by=2)))
    found = mirror.get("a")
    assert found is not None
    assert found.state.count == 2
    await executor.execute(wish("a", End()))
    assert mirror.get("a") is None
    await mirrors.close()
    await executor.close()


async def test_what_others_write_arrives_and_losses_are_repaired():
    log, broker = MemoryLog(), MemoryBroker()
    lost: list[Batch] = []
    executor = Executor(log, lambda batch: broker.hand_on(batch) if len(lost) % 3 else None or lost.append(batch))
    mirrors = Mirrors(log, broker)
    mirror = mirrors.of(TALLY)
    await mirrors.start()
    for n in range(60):
        await executor.execute(wish(f"s{n % 7}", Add()), wish(f"s{n % 7}", Rename(name=f"n{n}")))
    await until(lambda: mirrors.position == len(log.events))
    assert {d.stream: d for d in mirror.values()} == log.documents
    await mirrors.close()
    await executor.close()


async def test_whoever_asks_hears_of_every_change():
    log, broker = MemoryLog(), MemoryBroker()
    mirrors = Mirrors(log, broker)
    executor = Executor(log, mirrors.offer)
    await executor.execute(wish("a", Add()))
    mirror = mirrors.of(TALLY)
    await mirrors.start()
    heard: list[tuple[int | None, int | None]] = []

    def changed(before: Document | None, after: Document | None) -> None:
        heard.append((before.version if before else None, after.version if after else None))

    mirror.on_change(changed)
    await executor.execute(wish("a", Add()))
    await executor.execute(wish("a", End()))
    assert heard == [(None, 1), (1, 2), (2, None)]
    await mirrors.close()
    await executor.close()


async def test_two_processes_see_the_same_in_the_end():
    log, broker = MemoryLog(), MemoryBroker()
    here, there = Mirrors(log, broker), Mirrors(log, broker)
    mirrors = [here.of(TALLY), there.of(TALLY)]

    def handing(own: Mirrors) -> Executor:
        def committed(batch: Batch) -> None:
            own.offer(batch)
            broker.hand_on(batch)

        return Executor(log, committed)

    executors = [handing(here), handing(there)]
    await here.start()
    await there.start()
    await asyncio.gather(*(executors[n % 2].execute(wish(f"s{n % 5}", Add())) for n in range(100)))
    await until(lambda: here.position == there.position == len(log.events))
    assert [{d.stream: d for d in mirror.values()} for mirror in mirrors] == [log.documents] * 2
    for each in (here, there):
        await each.close()
    for executor in executors:
        await executor.close()


async def test_what_a_process_wrote_is_not_held_up_by_what_others_did():
    log, broker = MemoryLog(), MemoryBroker()
    mirrors = Mirrors(log, broker)
    mirror = mirrors.of(TALLY)
    await mirrors.start()
    there, here = Executor(log), Executor(log, mirrors.offer)
    await there.execute(wish("theirs", Add()))
    await here.execute(wish("mine", Add()))
    await here.execute(wish("mine", Add()))
    assert (mirror.get("theirs"), getattr(mirror.get("mine"), "version", 0)) == (None, 2)
    await until(lambda: mirrors.position == len(log.events))
    assert {d.stream: d for d in mirror.values()} == log.documents
    await mirrors.close()
    await there.close()
    await here.close()
