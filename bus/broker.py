"""What a broker does for Cumulog, whichever one it is: hurry events along, and carry words to and from hosts.

Nothing here is trusted to arrive: a lost batch is read from the log, a lost word to a host is said again by the sweep,
a lost report is made again by the agent's own loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from bus.log import Batch, Recorded

QUEUE = 256
"""Batches waiting for one in-process consumer, at most; past that they are dropped and read from the log instead."""

LISTENERS = 512
"""Reports of different hosts worked on at once; one host's come in order."""

OnReport = Callable[[str, bytes], Awaitable[None]]
"""What hears the hosts: (host, message). Called for many hosts at once, for each of them in turn; but for a host's
heartbeats, which wait for none of its reports."""

OnQuestion = Callable[[bytes], Awaitable[bytes]]
"""What answers for a host: question → answer."""


class HostLink(Protocol):
    """A host's end of the bus: it reads its own queue and writes reports, nothing else."""

    async def receive(self) -> bytes:
        """The next word from the control plane; waits for it."""

    async def report(self, message: bytes) -> None:
        """Tell the control plane something. Raises ConnectionError when it did not get through."""

    async def beat(self, message: bytes) -> None:
        """The same of a heartbeat: it overtakes reports, and only the newest counts."""

    async def answer(self, on_question: OnQuestion) -> None:
        """From now on, answer what is asked of this host."""

    async def close(self) -> None: ...


class Dealer:
    """Deals batches of the whole log out by partition, each saying what its partition's reader must have had before."""

    def __init__(self) -> None:
        self._reach = -1
        self._reached: dict[int, int] = {}

    def forget(self) -> None:
        """Nobody knows what was received: whatever comes next does not follow what was dealt."""
        self._reach = -1

    def deal(self, batch: Batch) -> dict[int, Batch]:
        """The batch by partition. Where it is not known what a partition had before, its reader is made to look."""
        if batch.previous != self._reach:
            self._reached.clear()
        self._reach = batch.last
        parts: dict[int, list[Recorded]] = {}
        for event in batch.events:
            parts.setdefault(event.partition, []).append(event)
        dealt = {
            partition: Batch(self._reached.get(partition, events[0].position - 1), tuple(events))
            for partition, events in parts.items()
        }
        self._reached |= {partition: part.last for partition, part in dealt.items()}
        return dealt


class Delivery(msgspec.Struct, frozen=True):
    """A batch as the bus brought it, and how to say that its effect is done."""

    batch: Batch
    ack: Callable[[], Awaitable[None]]


class Subscription(Protocol):
    """One consumer's place on the bus."""

    async def next(self, timeout_seconds: float) -> Delivery | None:
        """The next batch, or None when none came in time. Raises ConnectionError while the broker is away."""

    @property
    def more_waiting(self) -> bool:
        """Whether `next` has something at once."""

    async def close(self) -> None: ...


class Broker(Protocol):
    """Both brokers keep this contract (`tests/bus/test_broker.py` runs it against each)."""

    async def start(self) -> None:
        """Connect and declare what is needed. May be called again after a failure."""

    async def close(self) -> None:
        """Leave in good order: stop working, stop acknowledging, disconnect."""

    async def publish(self, batches: Sequence[Batch]) -> None:
        """Hand events of the whole log on, in order. Returns once the broker has them for certain; else raises."""

    async def subscribe(self, group: str, partitions: frozenset[int] | None = None) -> Subscription:
        """Join a durable group on some partitions of the log, or on the whole of it; one active consumer each."""

    async def watch(self) -> Subscription:
        """Follow the whole log from now on, for this process alone; nothing is kept while it is away."""

    def hand_on(self, batch: Batch) -> None:
        """This process has just committed a batch: pass it on, or tell whoever relays. Never waits, never raises."""

    async def tell(self, host: str, message: bytes) -> None:
        """A word for one host's agent. Best effort: it is lost if nobody is there."""

    async def ask(self, host: str, message: bytes, timeout_seconds: float) -> bytes:
        """A question for one host's agent. Raises TimeoutError when no answer came."""

    @property
    def hears(self) -> bool:
        """Whether what hosts say can reach this process now."""

    async def echo(self, timeout_seconds: float) -> bool:
        """Whether a word of this process went to the broker and came back: one that stands still is there, and deaf."""

    async def listen(self, on_report: OnReport) -> None:
        """Hear what agents report: each report reaches one of the processes that listen, and so do heartbeats."""

    async def link(self, host: str) -> HostLink:
        """The agent's end of it."""
