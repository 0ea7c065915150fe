"""The in-process broker: asyncio queues over the same log, so that one machine needs no RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bus import clock
from bus.broker import LISTENERS, QUEUE, Dealer, Delivery, OnQuestion, OnReport
from bus.lanes import Lanes
from bus.log import PARTITIONS, Batch

WORDS = 10_000
"""Words waiting for one host or from all hosts, at most; older ones are dropped first."""
_ECHO = ""
"""The name of no host."""


async def _acknowledged() -> None:
    """In one process, what was taken from a queue needs no receipt."""


class MemoryBroker:
    """`bus.broker.Broker` within one process. `publish` never waits: whoever is too slow reads the log."""

    def __init__(self) -> None:
        self._subscriptions: list[MemorySubscription] = []
        self._hosts: dict[str, MemoryLink] = {}
        self._reports: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(WORDS)
        self._beats: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(WORDS)
        self._listeners: list[asyncio.Task[None]] = []
        self._echoes: dict[str, asyncio.Event] = {}

    async def start(self) -> None:
        """Nothing to connect."""

    async def close(self) -> None:
        for task in self._listeners:
            task.cancel()
        await asyncio.gather(*self._listeners, return_exceptions=True)
        self._listeners.clear()

    async def publish(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            self.hand_on(batch)

    def hand_on(self, batch: Batch) -> None:
        for subscription in self._subscriptions:
            subscription.offer(batch)

    async def subscribe(self, group: str, partitions: frozenset[int] | None = None) -> MemorySubscription:
        if partitions is None or len(partitions) == PARTITIONS:
            return MemorySubscription(self._subscriptions)
        return MemorySubscription(self._subscriptions, partitions)

    async def watch(self) -> MemorySubscription:
        return MemorySubscription(self._subscriptions)

    async def tell(self, host: str, message: bytes) -> None:
        link = self._hosts.get(host)
        if link is not None:
            link.offer(message)

    async def ask(self, host: str, message: bytes, timeout_seconds: float) -> bytes:
        link = self._hosts.get(host)
        if link is None or link.on_question is None:
            raise TimeoutError(f"no agent answers for host {host}")
        async with asyncio.timeout(timeout_seconds):
            return await link.on_question(message)

    @property
    def hears(self) -> bool:
        return True

    async def echo(self, timeout_seconds: float) -> bool:
        """Behind all heartbeats that nobody has heard yet."""
        if not self._listeners:
            return True
        number = clock.hex_id()
        heard = self._echoes[number] = asyncio.Event()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._beats.put((_ECHO, number.encode()))
                await heard.wait()
        except TimeoutError:
            return False
        finally:
            del self._echoes[number]
        return True

    async def listen(self, on_report: OnReport) -> None:
        self._listeners.append(asyncio.create_task(self._hear(on_report), name="reports"))
        self._listeners.append(asyncio.create_task(self._hear_beats(on_report), name="heartbeats"))

    async def link(self, host: str) -> MemoryLink:
        link = self._hosts[host] = MemoryLink(host, self._reports, self._beats, self._hosts)
        return link

    @property
    def reports_waiting(self) -> int:
        return self._reports.qsize()

    async def _hear(self, on_report: OnReport) -> None:
        lanes = Lanes(on_report, LISTENERS)
        try:
            while True:
                await lanes.room()
                host, message = await self._reports.get()
                lanes.put(host, message, _acknowledged)
        finally:
            await lanes.close()

    async def _hear_beats(self, on_report: OnReport) -> None:
        lanes = Lanes(on_report, LISTENERS)
        try:
            while True:
                await lanes.room()
                host, message = await self._beats.get()
                if host != _ECHO:
                    lanes.put_newest(host, message)
                elif heard := self._echoes.get(message.decode()):
                    heard.set()
        finally:
            await lanes.close()


class MemorySubscription:
    """A bounded queue of batches. What does not fit is dropped: its reader sees the hole and reads the log."""

    def __init__(self, joined: list[MemorySubscription], partitions: frozenset[int] | None = None) -> None:
        self._partitions = partitions
        self._dealer = Dealer()
        self._queue: asyncio.Queue[Batch] = asyncio.Queue(QUEUE)
        self._joined = joined
        joined.append(self)

    def offer(self, batch: Batch) -> None:
        if self._partitions is None:
            self._offer(batch)
            return
        for partition, part in self._dealer.deal(batch).items():
            if partition in self._partitions:
                self._offer(part)

    def _offer(self, batch: Batch) -> None:
        if not self._queue.full():
            self._queue.put_nowait(batch)

    async def next(self, timeout_seconds: float) -> Delivery | None:
        if self._queue.empty():
            try:
                async with asyncio.timeout(timeout_seconds):
                    return Delivery(await self._queue.get(), _acknowledged)
            except TimeoutError:
                return None
        return Delivery(self._queue.get_nowait(), _acknowledged)

    @property
    def more_waiting(self) -> bool:
        return not self._queue.empty()

    async def close(self) -> None:
        if self in self._joined:
            self._joined.remove(self)


class MemoryLink:
    """A host's end of the in-process bus."""

    def __init__(
        self,
        host: str,
        reports: asyncio.Queue[tuple[str, bytes]],
        beats: asyncio.Queue[tuple[str, bytes]],
        hosts: dict[str, MemoryLink],
    ) -> None:
        self.host = host
        self.on_question: OnQuestion | None = None
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue(WORDS)
        self._reports = reports
        self._beats = beats
        self._hosts = hosts

    def offer(self, message: bytes) -> None:
        if self._inbox.full():
            self._inbox.get_nowait()
        self._inbox.put_nowait(message)

    async def receive(self) -> bytes:
        return await self._inbox.get()

    async def report(self, message: bytes) -> None:
        if self._reports.full():
            raise ConnectionError("the control plane does not keep up with reports; try again")
        self._reports.put_nowait((self.host, message))

    async def beat(self, message: bytes) -> None:
        if self._beats.full():
            raise ConnectionError("the control plane does not keep up with heartbeats; try again")
        self._beats.put_nowait((self.host, message))

    async def answer(self, on_question: OnQuestion) -> None:
        self.on_question = on_question

    async def close(self) -> None:
        if self._hosts.get(self.host) is self:
            del self._hosts[self.host]
