"""A bus that loses, repeats, delays, reorders and goes away, as the seed says; and a log that may be out of reach."""

from __future__ import annotations

import asyncio
import contextvars
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import msgspec

from bus.broker import LISTENERS, Delivery, OnQuestion, OnReport
from bus.documents import AnyOf, Where
from bus.lanes import Lanes
from bus.log import PARTITIONS, Append, Batch, Document
from bus.memory_broker import MemorySubscription
from bus.memory_log import MemoryLog
from schema.event import Kind
from tests.simulation.loop import OWNER, Owner

AWAY_SECONDS = 0.1


class Network:
    """Who can be reached, and what becomes of each message. `trouble`: 0 is a good day, 1 a very bad one."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.trouble = 0.0
        self.away: set[str] = set()
        """Processes and hosts that are cut off from the bus; `postgres`: the log is out of everybody's reach."""
        self.ends: dict[str, ProcessBroker] = {}
        self.links: dict[str, HostEnd] = {}

    def fate(self) -> list[float]:
        """After how many seconds a message arrives: never, once, or more than once."""
        chance = self.random.random()
        if chance >= self.trouble:
            return [0.001]
        match int(chance / self.trouble * 5):
            case 0 | 1:
                return []
            case 2:
                return [0.001, self.random.expovariate(1.0)]
            case 3:
                return [self.random.expovariate(0.5)]
        return [self.random.expovariate(5.0)]

    def carry(self, ends: Sequence[str], deliver: Callable[[], None], message: bytes = b"") -> None:
        """Take a message from one end to another, or not. `message`: what hosts say, and what they are told."""
        if self.away.isdisjoint(ends):
            for seconds in self.fate():
                asyncio.get_running_loop().call_later(seconds, self._arrive, ends, deliver)

    def _arrive(self, ends: Sequence[str], deliver: Callable[[], None]) -> None:
        if self.away.isdisjoint(ends):
            deliver()


class ProcessBroker:
    """`bus.broker.Broker` of one process of the control plane."""

    def __init__(self, owner: Owner, network: Network) -> None:
        self.owner = owner
        self._network = network
        self._subscriptions: list[MemorySubscription] = []
        self._lanes: Lanes | None = None
        self._beats: Lanes | None = None
        network.ends[owner.name] = self

    @property
    def hears(self) -> bool:
        return self.owner.name not in self._network.away

    async def echo(self, timeout_seconds: float) -> bool:
        return self.hears

    @property
    def listening(self) -> bool:
        return self._lanes is not None and not self.owner.dead and self.hears

    async def start(self) -> None:
        """It is there as long as its process."""

    async def close(self) -> None:
        """It goes with its process."""

    async def publish(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            self.hand_on(batch)

    def hand_on(self, batch: Batch) -> None:
        for end in self._network.ends.values():
            for subscription in end._subscriptions:
                self._network.carry(
                    (self.owner.name, end.owner.name),
                    lambda it=subscription: it.offer(batch),  # type: ignore[misc]
                )

    async def subscribe(self, group: str, partitions: frozenset[int] | None = None) -> Listening:
        every = partitions is None or len(partitions) == PARTITIONS
        return Listening(self, MemorySubscription(self._subscriptions, None if every else partitions))

    async def watch(self) -> Listening:
        return Listening(self, MemorySubscription(self._subscriptions))

    async def tell(self, host: str, message: bytes) -> None:
        link = self._network.links.get(host)
        if link is not None:
            self._network.carry((self.owner.name, host), lambda: link.offer(message), message)

    async def ask(self, host: str, message: bytes, timeout_seconds: float) -> bytes:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        link = self._network.links.get(host)
        if link is not None:
            self._network.carry((self.owner.name, host), lambda: link.hear(self.owner.name, message, answer))
        async with asyncio.timeout(timeout_seconds):
            return await answer

    async def listen(self, on_report: OnReport) -> None:
        self._lanes, self._beats = Lanes(on_report, LISTENERS), Lanes(on_report, LISTENERS)

    async def link(self, host: str) -> HostEnd:
        raise NotImplementedError

    def hear(self, host: str, message: bytes, *, beat: bool = False) -> None:
        """A report, in this process's own name: what it is doing dies with it."""
        if self._lanes is not None and self._beats is not None and not self.owner.dead:
            context = contextvars.copy_context()
            context.run(OWNER.set, self.owner)
            if beat:
                context.run(self._beats.put_newest, host, message)
            else:
                context.run(self._lanes.put, host, message, _nothing)


class Listening:
    """A subscription whose bus may be away."""

    def __init__(self, broker: ProcessBroker, inner: MemorySubscription) -> None:
        self._broker = broker
        self._inner = inner

    async def next(self, timeout_seconds: float) -> Delivery | None:
        if not self._broker.hears:
            await asyncio.sleep(min(timeout_seconds, AWAY_SECONDS))
            raise ConnectionError("the bus is away")
        return await self._inner.next(timeout_seconds)

    @property
    def more_waiting(self) -> bool:
        return self._inner.more_waiting

    async def close(self) -> None:
        await self._inner.close()


class HostEnd:
    """`bus.broker.HostLink` of one host: reports go to one of the processes that listen."""

    def __init__(self, host: str, network: Network) -> None:
        self.host = host
        self._network = network
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue(1000)
        self._on_question: OnQuestion | None = None
        self._owner: Owner | None = None
        self._answering: set[asyncio.Task[None]] = set()
        network.links[host] = self

    def offer(self, message: bytes) -> None:
        if self._inbox.full():
            self._inbox.get_nowait()
        self._inbox.put_nowait(message)

    async def receive(self) -> bytes:
        return await self._inbox.get()

    async def report(self, message: bytes) -> None:
        self._say(message)

    async def beat(self, message: bytes) -> None:
        self._say(message, beat=True)

    def _say(self, message: bytes, *, beat: bool = False) -> None:
        network = self._network
        if self.host in network.away or network.random.random() < network.trouble / 10:
            raise ConnectionError("the bus is away")
        listening = [end for end in network.ends.values() if end.listening]
        if not listening:
            raise ConnectionError("nobody listens")
        end = min(listening, key=lambda it: it.owner.name)
        network.carry((self.host, end.owner.name), lambda: end.hear(self.host, message, beat=beat), message)

    async def answer(self, on_question: OnQuestion) -> None:
        self._on_question, self._owner = on_question, OWNER.get()

    def hear(self, asker: str, question: bytes, answer: asyncio.Future[bytes]) -> None:
        """A question, answered in the name of the host's agent: what it is doing dies with it."""
        on_question, owner = self._on_question, self._owner
        if on_question is None or owner is None or owner.dead:
            return

        async def work() -> None:
            said = await on_question(question)
            self._network.carry((self.host, asker), lambda: answer.done() or answer.set_result(said))

        context = contextvars.copy_context()
        context.run(OWNER.set, owner)
        task = context.run(asyncio.get_running_loop().create_task, work())
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def close(self) -> None:
        """It goes with its host's agent."""


class DistantLog:
    """The log as one process reaches it: every call takes time, fails while it is away, and may fail halfway."""

    def __init__(self, log: MemoryLog, network: Network) -> None:
        self._log = log
        self._network = network

    async def append(self, append: Append) -> int:
        await self._hop()
        base = await self._log.append(append)
        # It is written. Whether its caller hears of that is another matter.
        await self._hop()
        return base

    @asynccontextmanager
    async def turn(self, streams: Sequence[str]) -> AsyncIterator[None]:
        await self._hop()
        async with self._log.turn(streams):
            yield

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._log, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._hop()
            return await method(*args, **kwargs)

        return call

    async def _hop(self) -> None:
        network = self._network
        await asyncio.sleep(network.random.random() * 0.004)
        if "postgres" in network.away or network.random.random() < network.trouble / 50:
            raise ConnectionError("the log cannot be reached")


class FoundDocuments:
    """`bus.documents.Documents` over the log in memory, as far as the follow-through asks."""

    def __init__(self, log: MemoryLog, network: Network) -> None:
        self._log = log
        self._distant = DistantLog(log, network)

    async def find(
        self,
        kind: Kind[Any],
        *,
        where: Sequence[Any] = (),
        limit: int | None = None,
        marker: str | None = None,
        **_: Any,
    ) -> list[Document]:
        await self._distant.head()
        found = [
            document
            for document in self._log.documents.values()
            if document.stream.startswith(kind.name + "/")
            and document.state.deleted_at is None
            and all(_fits(document.state, condition) for condition in where)
        ]
        past = next((nth for nth, document in enumerate(found, 1) if document.id == marker), 0)
        return found[past:][:limit]

    async def count(self, kind: Kind[Any], *, gone: bool | None = False) -> int:
        await self._distant.head()
        return sum(stream.startswith(kind.name + "/") for stream in self._log.documents)


def _fits(state: Any, condition: Where | AnyOf) -> bool:
    if isinstance(condition, AnyOf):
        return any(all(_fits(state, it) for it in those) for those in condition.alternatives)
    value: Any = msgspec.to_builtins(state)
    for name in condition.field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    match condition.op:
        case "=":
            return bool(value == condition.value)
        case "is":
            return (value is not None) is condition.value
        case "in":
            return value in condition.value
        case "not in":
            return value not in condition.value
        case "has":
            return condition.value in (value or ())
        case "~":
            return re.search(condition.value, value or "") is not None
        case "contains":
            return _holds(value, condition.value)
    raise NotImplementedError(condition.op)


def _holds(value: Any, wanted: Any) -> bool:
    """As jsonb's `@>`."""
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(_holds(value.get(key), it) for key, it in wanted.items())
    if isinstance(wanted, list):
        return isinstance(value, list | tuple) and all(any(_holds(it, one) for it in value) for one in wanted)
    return bool(value == wanted)


async def _nothing() -> None:
    """A report needs no receipt."""
