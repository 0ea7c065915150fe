r"""A host's end of RabbitMQ. It needs no database, and its user in RabbitMQ needs very little:

    rabbitmqctl add_user host:compute-7 …
    rabbitmqctl set_permissions host:compute-7 '^host\.compute-7$' '^cumulog\.reports$' '^host\.compute-7$'
                                               configure            write                read

It may declare and read its own queue and publish reports and answers, nothing else; it binds nothing and sees no event.
Who a report is from is its sender's user, which RabbitMQ checks: a user `host:NAME` speaks for NAME alone. A user of
any other name (the one of a single-machine cloud) is trusted to say which of its hosts is speaking.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import structlog
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from aiormq.exceptions import PublishError
from pamqp.commands import Basic

from bus import clock
from bus.amqp_wire import AWAY, Wire, publish, translated
from bus.broker import OnQuestion

log = structlog.get_logger()

REPORTS = "cumulog.reports"
REPORT = "report"
BEAT = "beat"
HOSTS = "host."
HOST_USER = "host:"
QUESTION = "question"
WORDS = 1000
"""Words waiting for a host, at most."""
EXPIRES_MS = "60000"
QUESTIONS = 64
"""Questions answered at once, at most."""
REPORT_SECONDS = 10.0

_HOST_QUEUE: dict[str, Any] = {
    "x-max-length": WORDS,
    "x-overflow": "drop-head",
    "x-message-ttl": 60_000,
    "x-expires": 600_000,
}


class AmqpHosts:
    """The ends of a process's hosts, one or (a simulated driver) thousands: one channel to speak and one to hear.

    RabbitMQ has 2,047 channels for a connection, and each of them costs it more than a message does.
    """

    def __init__(self, publishing: Wire, consuming: Wire) -> None:
        self.speaker: AbstractChannel | None = None
        self.reader: AbstractChannel | None = None
        self.confirmed_at = 0.0
        """When something that some host said was last confirmed."""
        self._publishing = publishing
        self._consuming = consuming
        self._links: list[AmqpLink] = []
        self._joining = asyncio.Lock()
        self._joined = False

    async def link(self, host: str) -> AmqpLink:
        async with self._joining:
            if not self._joined:
                await self._publishing.join(self._set_up_speaker)
                await self._consuming.join(self._set_up_reader)
                self._joined = True
        link = await AmqpLink(host, self, self._publishing, self._consuming).open()
        self._links.append(link)
        return link

    async def close(self) -> None:
        for link in self._links:
            await link.close()

    async def _set_up_speaker(self, connection: AbstractConnection) -> None:
        self.speaker = await self._publishing.channel(connection, confirms=True)

    async def _set_up_reader(self, connection: AbstractConnection) -> None:
        self.reader = await self._consuming.channel(connection)


class AmqpAgents(AmqpHosts):
    """Those of an agent process, which has two connections for them."""

    def __init__(self, url: str, name: str = "agent") -> None:
        super().__init__(Wire(url, f"{name} publishing"), Wire(url, f"{name} consuming"))

    async def start(self) -> None:
        """Connect. Raises ConnectionError when that takes long; it goes on trying all the same."""
        await asyncio.gather(self._publishing.start(), self._consuming.start())

    async def close(self) -> None:
        await self._consuming.close()
        await self._publishing.close()
        await super().close()


class AmqpLink:
    """`bus.broker.HostLink` over RabbitMQ."""

    def __init__(self, host: str, hosts: AmqpHosts, publishing: Wire, consuming: Wire) -> None:
        self.host = host
        self._hosts = hosts
        self._publishing = publishing
        self._consuming = consuming
        self._consumer: tuple[AbstractChannel, str] | None = None
        self._words: asyncio.Queue[bytes] = asyncio.Queue(WORDS)
        self._on_question: OnQuestion | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._open = False

    async def open(self) -> AmqpLink:
        self._open = True
        await self._consuming.join(self._set_up_words)
        return self

    async def receive(self) -> bytes:
        return await self._words.get()

    async def report(self, message: bytes) -> None:
        await self._publish(REPORT, message, Basic.Properties(delivery_mode=2))

    async def beat(self, message: bytes) -> None:
        await self._publish(BEAT, message, Basic.Properties(delivery_mode=1))

    async def answer(self, on_question: OnQuestion) -> None:
        self._on_question = on_question

    async def close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._consuming.leave(self._set_up_words)
        for task in self._answering:
            task.cancel()
        if self._consumer is not None:
            channel, tag = self._consumer
            if not channel.is_closed:
                with contextlib.suppress(*AWAY):
                    await channel.basic_cancel(tag, nowait=True)

    async def _set_up_words(self, connection: AbstractConnection) -> None:
        channel = self._hosts.reader
        if channel is None or not self._open:
            return
        queue = HOSTS + self.host
        await channel.queue_declare(queue, durable=True, nowait=True, arguments=_HOST_QUEUE)
        # Words are taken as they come: what is lost with this process is said again.
        started = await channel.basic_consume(queue, self._hear, no_ack=True)
        self._consumer = channel, started.consumer_tag or ""

    async def _hear(self, message: DeliveredMessage) -> None:
        properties = message.header.properties
        if properties.message_type == QUESTION:
            if self._on_question is not None and len(self._answering) < QUESTIONS:
                task = asyncio.create_task(self._answer(self._on_question, message), name=f"answer {self.host}")
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)
            return
        if self._words.full():
            self._words.get_nowait()
        self._words.put_nowait(message.body)

    async def _answer(self, on_question: OnQuestion, message: DeliveredMessage) -> None:
        asked = message.header.properties
        try:
            answer = await on_question(message.body)
            await self._publish(
                asked.reply_to or "", answer, Basic.Properties(correlation_id=asked.correlation_id, expiration="60000")
            )
        except Exception as error:  # noqa: BLE001  the asker waits no longer than its timeout
            log.warning("question not answered", host=self.host, error=repr(error))

    async def _publish(self, key: str, message: bytes, properties: Basic.Properties) -> None:
        channel = self._hosts.speaker
        if channel is None or not self._publishing.up.is_set():
            raise ConnectionError("RabbitMQ is away")
        properties.user_id = self._publishing.user
        properties.app_id = self.host
        said_at = clock.monotonic()
        with translated("reporting"):
            try:
                await publish(
                    channel,
                    message,
                    exchange=REPORTS,
                    routing_key=key,
                    properties=properties,
                    mandatory=True,
                    timeout=REPORT_SECONDS,
                )
                self._hosts.confirmed_at = clock.monotonic()
            except PublishError:
                raise ConnectionError("nobody hears reports yet: no control plane has used this RabbitMQ") from None
            except TimeoutError:
                if self._hosts.confirmed_at < said_at:  # not of any host: it is the connection that is dead
                    self._publishing.drop()
                raise


def sender(message: DeliveredMessage) -> str | None:
    """The host a report is from, or None when it does not say so in a way that RabbitMQ vouches for."""
    properties = message.header.properties
    user = properties.user_id or ""
    if user.startswith(HOST_USER):
        return user.removeprefix(HOST_USER)
    return properties.app_id if user else None
