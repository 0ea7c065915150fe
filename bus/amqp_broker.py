"""RabbitMQ as the broker: any number of processes on any number of machines. AMQP 0-9-1, RabbitMQ 3.10 or newer.

    relay ─▶ cumulog.events (topic) ─┬─ log ──────────▶ a reader's own queue
                                     └─ partition.<n> ▶ its own queue, if it reads some partitions only
    executors ─▶ cumulog.pokes (fanout) ─▶ the relay
    control ─▶ host.<name>            a host's words and questions: capped, each for a minute
    hosts ─▶ cumulog.reports (topic) ─┬─ report ───▶ reports                 quorum, one active listener
                                      ├─ beat ─────▶ beats                   the same: heartbeats wait for no report
                                      └─ answer.* ─▶ (exclusive)             one per process that asks

The log is the buffer, so queues of events are their readers' own, capped, and gone with them: nothing grows without
bound, and a reader that is not there holds up nobody. Who of several readers works is for the lock in PostgreSQL
(`bus.shares`) and the checkpoint to say (docs/decisions/0010-queues-belong-to-their-readers.md). Publishing and
consuming have a connection each, so that a broker short of memory, which holds publishers up, does not keep consumers
from emptying its queues. What a host may do is in `bus.amqp_host`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import structlog
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from aiormq.exceptions import PublishError
from pamqp.commands import Basic

from bus import clock
from bus.amqp_host import BEAT, EXPIRES_MS, HOSTS, QUESTION, REPORT, REPORTS, AmqpHosts, AmqpLink, sender
from bus.amqp_wire import AWAY, Wire, publish, translated
from bus.broker import LISTENERS, Dealer, Delivery, OnReport
from bus.lanes import Lanes
from bus.log import PARTITIONS, Batch, decode_batch, encode_batch

log = structlog.get_logger()

EVENTS = "cumulog.events"
POKES = "cumulog.pokes"
WHOLE = "log"
REPORT_QUEUE = "reports"
BEAT_QUEUE = "beats"

MESSAGE_EVENTS = 500
MESSAGE_BYTES = 512 * 1024
"""Of events in one message, at most (a single event may be larger)."""
WINDOW = 50
"""Messages on their way to the broker, unconfirmed, at most."""
CONFIRM_SECONDS = 10.0
SMALL_BYTES = 4096
"""A word to a host that is longer waits until the connection has taken it: so many may not pile up here."""
PREFETCH = 64
"""Messages on their way to one consumer, at most."""
ACK_EVERY = 32
QUEUE_MESSAGES = 2000
QUEUE_BYTES = 64 * 1024 * 1024
REPORT_MESSAGES = 50_000
REPORT_MS = 60_000
BEATS = 20_000
"""Heartbeats waiting, at most; older ones are dropped first."""
LEADER_SECONDS = 8.0
"""How long the queue of reports may be without a leader before it is given up."""
UNBOUND_SECONDS = 30.0
"""How long nothing is published to a partition nobody is bound to; whoever binds says so."""
AWAY_SECONDS = 0.1
"""How long a reader waits before it is told that the broker is away, and looks at the log itself."""
POKE_SECONDS = 0.003
"""Between two pokes of one process, at least."""

_BOUND = b"bound"


class AmqpBroker:
    """`bus.broker.Broker` over RabbitMQ."""

    def __init__(self, url: str, name: str = "cloud") -> None:
        self.poked = asyncio.Event()
        """Set when somebody has appended; the relay waits for it and clears it."""
        self._publishing = Wire(url, f"{name} publishing")
        self._consuming = Wire(url, f"{name} consuming")
        self._publisher: AbstractChannel | None = None
        self._speaker: AbstractChannel | None = None
        self._teller: AbstractChannel | None = None
        self._dealer = Dealer()
        self._unbound: dict[int, float] = {}
        self._answer_to = f"answer.{clock.hex_id()}"
        self._questions: dict[str, asyncio.Future[bytes]] = {}
        self._poke = asyncio.Event()
        self._poker: asyncio.Task[None] | None = None
        self._lanes: list[Lanes] = []
        self._hosts = AmqpHosts(self._publishing, self._consuming)
        self._started = False

    async def start(self) -> None:
        if not self._started:
            self._started = True
            await self._publishing.join(self._set_up_publishing)
            await self._consuming.join(self._set_up_answers)
            self._poker = asyncio.create_task(self._hand_on_pokes(), name="pokes")
        await asyncio.gather(self._publishing.start(), self._consuming.start())

    async def close(self) -> None:
        if self._poker is not None:
            self._poker.cancel()
            await asyncio.gather(self._poker, return_exceptions=True)
        await self._hosts.close()
        for lanes in self._lanes:
            await lanes.close()
        await self._consuming.close()
        await self._publishing.close()
        self._started = False

    async def publish(self, batches: Sequence[Batch]) -> None:
        messages = [message for batch in batches for message in self._messages(batch)]
        try:
            for start in range(0, len(messages), WINDOW):
                await asyncio.gather(*(self._send(key, body) for key, body in messages[start : start + WINDOW]))
        except BaseException:
            self._dealer.forget()
            raise

    async def subscribe(self, group: str, partitions: frozenset[int] | None = None) -> AmqpSubscription:
        return await AmqpSubscription(self._consuming, group, partitions).open()

    async def watch(self) -> AmqpSubscription:
        return await AmqpSubscription(self._consuming, "watch", None).open()

    def hand_on(self, batch: Batch) -> None:
        self._poke.set()

    async def listen_for_pokes(self) -> None:
        """From now on, `poked` is set whenever some process has appended."""
        await self._consuming.join(self._set_up_pokes)

    async def tell(self, host: str, message: bytes) -> None:
        channel = self._teller
        if channel is None or not self._publishing.up.is_set():
            return
        properties = Basic.Properties(expiration=EXPIRES_MS)
        try:
            with translated("telling"):
                await publish(
                    channel,
                    message,
                    wait=len(message) > SMALL_BYTES,
                    routing_key=HOSTS + host,
                    properties=properties,
                    timeout=CONFIRM_SECONDS,
                )
        except ConnectionError as error:
            log.debug("word lost", host=host, error=str(error))

    async def ask(self, host: str, message: bytes, timeout_seconds: float) -> bytes:
        number = clock.hex_id()
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._questions[number] = answer
        properties = Basic.Properties(
            message_type=QUESTION,
            correlation_id=number,
            reply_to=self._answer_to,
            expiration=str(max(1, int(timeout_seconds * 1000))),
        )
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._speak(HOSTS + host, message, properties)
                return await answer
        except TimeoutError:
            raise TimeoutError(f"host {host} did not answer within {timeout_seconds:g} s") from None
        except ConnectionError as error:
            raise TimeoutError(f"host {host} cannot be asked: {error}") from None
        finally:
            self._questions.pop(number, None)

    @property
    def hears(self) -> bool:
        return self._consuming.up.is_set()

    async def echo(self, timeout_seconds: float) -> bool:
        channel = self._speaker
        if channel is None or not self.hears or not self._publishing.up.is_set():
            return False
        number = clock.hex_id()
        back: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._questions[number] = back
        try:
            with translated("listening for an echo"):
                async with asyncio.timeout(timeout_seconds):
                    properties = Basic.Properties(correlation_id=number)
                    await channel.basic_publish(
                        b"", exchange=REPORTS, routing_key=self._answer_to, properties=properties
                    )
                    await back
        except (TimeoutError, ConnectionError):
            return False
        finally:
            self._questions.pop(number, None)
        return True

    async def listen(self, on_report: OnReport) -> None:
        lanes, beats = Lanes(on_report, LISTENERS), Lanes(on_report, LISTENERS)
        self._lanes += [lanes, beats]

        async def set_up(connection: AbstractConnection) -> None:
            for queue in _FROM_HOSTS:
                await self._mend(connection, queue)
            channel = await self._consuming.channel(connection)
            await channel.basic_qos(prefetch_count=PREFETCH)

            async def hear(message: DeliveredMessage) -> None:
                tag = message.delivery_tag
                assert tag is not None

                async def done() -> None:
                    if not channel.is_closed:
                        with translated("report"):
                            await channel.basic_ack(tag, wait=False)

                host = sender(message)
                if host is None:
                    log.warning("report without a sender", user=message.header.properties.user_id)
                    await done()
                else:
                    lanes.put(host, message.body, done)

            async def hear_beat(message: DeliveredMessage) -> None:
                host = sender(message)
                if host is not None:
                    beats.put_newest(host, message.body)

            await channel.basic_consume(REPORT_QUEUE, hear)
            await channel.basic_consume(BEAT_QUEUE, hear_beat, no_ack=True)

        await self._consuming.join(set_up)

    async def link(self, host: str) -> AmqpLink:
        return await self._hosts.link(host)

    async def _mend(self, connection: AbstractConnection, queue: str) -> None:
        """A quorum queue whose node was killed moments after it was declared may never have a leader again: replace it.

        Seen with RabbitMQ 3.10.8. Hosts repeat what they had reported.
        """
        channel = await connection.channel(publisher_confirms=False)
        await _declare_from_hosts(channel, queue)
        await channel.basic_qos(prefetch_count=1)
        try:
            tag = (await channel.basic_consume(queue, _ignored, timeout=LEADER_SECONDS)).consumer_tag
            await channel.basic_cancel(tag or "")
        except TimeoutError:
            log.warning("a queue has no leader, making a new one", queue=queue)
            channel = await connection.channel(publisher_confirms=False)
            await channel.queue_delete(queue)
            await _declare_from_hosts(channel, queue)
        await channel.close()

    async def _set_up_publishing(self, connection: AbstractConnection) -> None:
        channel = await self._publishing.channel(connection, confirms=True)
        await _declare_exchanges(channel)
        for queue in _FROM_HOSTS:
            await _declare_from_hosts(channel, queue)
        self._publisher = channel
        self._speaker = await self._publishing.channel(connection, confirms=True)
        self._teller = await self._publishing.channel(connection)
        self._dealer.forget()

    async def _set_up_answers(self, connection: AbstractConnection) -> None:
        channel = await self._consuming.channel(connection)
        await _declare_exchanges(channel)
        declared = await channel.queue_declare("", exclusive=True, auto_delete=True, arguments=_EVENT_QUEUE)
        assert declared.queue
        await channel.queue_bind(declared.queue, REPORTS, self._answer_to)

        async def answered(message: DeliveredMessage) -> None:
            question = self._questions.get(message.header.properties.correlation_id or "")
            if question is not None and not question.done():
                question.set_result(message.body)

        await channel.basic_consume(declared.queue, answered, no_ack=True)

    async def _set_up_pokes(self, connection: AbstractConnection) -> None:
        channel = await self._consuming.channel(connection)
        declared = await channel.queue_declare("", exclusive=True, auto_delete=True, arguments=_POKE_QUEUE)
        assert declared.queue
        await channel.queue_bind(declared.queue, POKES)

        async def poked(message: DeliveredMessage) -> None:
            if message.body == _BOUND:
                self._unbound.clear()
            self.poked.set()

        await channel.basic_consume(declared.queue, poked, no_ack=True)

    async def _hand_on_pokes(self) -> None:
        while True:
            await self._poke.wait()
            self._poke.clear()
            self.poked.set()
            if self._teller is not None and self._publishing.up.is_set():
                try:
                    with translated("poke"):
                        await self._teller.basic_publish(b"", exchange=POKES, timeout=CONFIRM_SECONDS)
                except ConnectionError as error:
                    log.debug("poke lost", error=str(error))
            await asyncio.sleep(POKE_SECONDS)

    def _messages(self, batch: Batch) -> Iterator[tuple[str, bytes]]:
        """What a batch of the whole log is on the bus: (routing key, body), whole first, then by partition."""
        for body in _bodies(batch):
            yield WHOLE, body
        now = clock.monotonic()
        for partition, part in self._dealer.deal(batch).items():
            if self._unbound.get(partition, 0.0) <= now:
                for body in _bodies(part):
                    yield f"partition.{partition}", body

    async def _send(self, key: str, body: bytes) -> None:
        channel = self._publisher
        if channel is None or not self._publishing.up.is_set():
            raise ConnectionError("RabbitMQ is away")
        mandatory = key != WHOLE
        properties = Basic.Properties(delivery_mode=1)
        with translated("publishing"):
            try:
                await publish(
                    channel,
                    body,
                    exchange=EVENTS,
                    routing_key=key,
                    properties=properties,
                    mandatory=mandatory,
                    timeout=CONFIRM_SECONDS,
                )
            except PublishError:
                self._unbound[int(key.partition(".")[2])] = clock.monotonic() + UNBOUND_SECONDS
            except TimeoutError:
                self._publishing.drop()
                raise

    async def _speak(self, queue: str, message: bytes, properties: Basic.Properties) -> None:
        channel = self._speaker
        if channel is None or not self._publishing.up.is_set():
            raise ConnectionError("RabbitMQ is away")
        with translated("speaking"):
            try:
                await publish(
                    channel,
                    message,
                    routing_key=queue,
                    properties=properties,
                    mandatory=True,
                    timeout=CONFIRM_SECONDS,
                )
            except PublishError:
                raise ConnectionError(f"there is no queue {queue}: no agent was there lately") from None


class AmqpSubscription:
    """A queue of its own, bound to the whole log or to some partitions, read by one worker."""

    def __init__(self, wire: Wire, group: str, partitions: frozenset[int] | None) -> None:
        self._wire = wire
        self._group = group
        whole = partitions is None or len(partitions) == PARTITIONS
        self._keys = [WHOLE] if whole else [f"partition.{n}" for n in sorted(partitions or ())]
        self._waiting: asyncio.Queue[tuple[AbstractChannel, int, bytes]] = asyncio.Queue()  # bounded by the prefetch
        self._channel: AbstractChannel | None = None
        self._unacknowledged = 0
        self._broken = False

    async def open(self) -> AmqpSubscription:
        await self._wire.join(self._set_up)
        return self

    async def next(self, timeout_seconds: float) -> Delivery | None:
        while True:
            if self._waiting.empty() and not self._wire.up.is_set():
                await self._wire.wait(min(timeout_seconds, AWAY_SECONDS) if timeout_seconds else 0.0)
            try:
                async with asyncio.timeout(timeout_seconds):
                    channel, tag, body = await self._waiting.get()
            except TimeoutError:
                return None
            try:
                batch = decode_batch(body)
            except (msgspec.MsgspecError, KeyError) as error:
                # Whoever reads the log instead will say what is wrong with it, in the place where it matters.
                log.warning("undecodable batch on the bus", error=repr(error))
                await self._acknowledge(channel, tag)
                continue
            return Delivery(batch, functools.partial(self._acknowledge, channel, tag))

    @property
    def more_waiting(self) -> bool:
        return not self._waiting.empty()

    async def close(self) -> None:
        self._wire.leave(self._set_up)
        channel, self._channel = self._channel, None
        if channel is not None:
            await self._wire.release(channel)

    async def _set_up(self, connection: AbstractConnection) -> None:
        channel = await self._wire.channel(connection)
        await channel.basic_qos(prefetch_count=PREFETCH)
        queue = f"events.{self._group}.{clock.hex_id()[:12]}"  # never that of a connection that is not quite gone
        await channel.queue_declare(queue, exclusive=True, auto_delete=True, arguments=_EVENT_QUEUE)
        for key in self._keys:
            await channel.queue_bind(queue, EVENTS, key)
        await channel.basic_publish(_BOUND, exchange=POKES)
        self._channel = channel
        self._unacknowledged = 0

        async def deliver(message: DeliveredMessage) -> None:
            tag = message.delivery_tag
            assert tag is not None
            self._waiting.put_nowait((channel, tag, message.body))

        await channel.basic_consume(queue, deliver)

    async def _acknowledge(self, channel: AbstractChannel, tag: int) -> None:
        """This one and all before it; not every one by itself."""
        if channel is not self._channel or channel.is_closed:
            return
        self._unacknowledged += 1
        if self._unacknowledged >= ACK_EVERY or self._waiting.empty():
            self._unacknowledged = 0
            try:
                await channel.basic_ack(tag, multiple=True, wait=False)
            except AWAY as error:
                log.debug("acknowledgement lost", error=repr(error))


_EVENT_QUEUE: dict[str, Any] = {
    "x-max-length": QUEUE_MESSAGES,
    "x-max-length-bytes": QUEUE_BYTES,
    "x-overflow": "drop-head",
}
_QUORUM: dict[str, Any] = {
    "x-queue-type": "quorum",
    "x-single-active-consumer": True,  # one process hears a host's reports, in order; another when it is gone
    "x-delivery-limit": 20,
    "x-message-ttl": REPORT_MS,
}
_FROM_HOSTS: dict[str, tuple[str, dict[str, Any]]] = {
    REPORT_QUEUE: (REPORT, _QUORUM | {"x-max-length": REPORT_MESSAGES, "x-overflow": "reject-publish"}),
    BEAT_QUEUE: (BEAT, _QUORUM | {"x-max-length": BEATS, "x-overflow": "drop-head"}),
}
"""Queue → the key it is bound by, and what it is."""
_POKE_QUEUE: dict[str, Any] = {"x-max-length": 1, "x-overflow": "drop-head"}


async def _ignored(message: DeliveredMessage) -> None:
    """Taken back when the channel closes."""


async def _declare_exchanges(channel: AbstractChannel) -> None:
    for exchange, kind in ((EVENTS, "topic"), (POKES, "fanout"), (REPORTS, "topic")):
        await channel.exchange_declare(exchange, exchange_type=kind, durable=True)


async def _declare_from_hosts(channel: AbstractChannel, queue: str) -> None:
    key, arguments = _FROM_HOSTS[queue]
    await channel.queue_declare(queue, durable=True, arguments=arguments)
    await channel.queue_bind(queue, REPORTS, key)


def _bodies(batch: Batch) -> Iterator[bytes]:
    """A batch as messages, none too long: halved until they fit."""
    if len(batch.events) > MESSAGE_EVENTS:
        yield from _halves(batch)
        return
    body = encode_batch(batch)
    if len(body) > MESSAGE_BYTES and len(batch.events) > 1:
        yield from _halves(batch)
    else:
        yield body


def _halves(batch: Batch) -> Iterator[bytes]:
    middle = len(batch.events) // 2
    first = Batch(batch.previous, batch.events[:middle])
    yield from _bodies(first)
    yield from _bodies(Batch(first.last, batch.events[middle:]))
