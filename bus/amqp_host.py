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
from typing import Any

import structlog
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from aiormq.exceptions import PublishError
from pamqp.commands import Basic

from bus.amqp_wire import Wire, translated
from bus.broker import OnQuestion

log = structlog.get_logger()

REPORTS = "cumulog.reports"
REPORT = "report"
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
    """The connections of an agent process, for one host or (a simulated driver) many."""

    def __init__(self, url: str, name: str = "agent") -> None:
        self._publishing = Wire(url, f"{name} publishing")
        self._consuming = Wire(url, f"{name} consuming")
        self._links: list[AmqpLink] = []

    async def start(self) -> None:
        """Connect. Raises ConnectionError when that takes long; it goes on trying all the same."""
        await asyncio.gather(self._publishing.start(), self._consuming.start())

    async def link(self, host: str) -> AmqpLink:
        link = await AmqpLink(host, self._publishing, self._consuming).open()
        self._links.append(link)
        return link

    async def close(self) -> None:
        for link in self._links:
            await link.close()
        await self._consuming.close()
        await self._publishing.close()


class AmqpLink:
    """`bus.broker.HostLink` over RabbitMQ."""

    def __init__(self, host: str, publishing: Wire, consuming: Wire) -> None:
        self.host = host
        self._publishing = publishing
        self._consuming = consuming
        self._channel: AbstractChannel | None = None
        self._reader: AbstractChannel | None = None
        self._words: asyncio.Queue[bytes] = asyncio.Queue(WORDS)
        self._on_question: OnQuestion | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._open = False

    async def open(self) -> AmqpLink:
        self._open = True
        await self._publishing.join(self._set_up_reports)
        await self._consuming.join(self._set_up_words)
        return self

    async def receive(self) -> bytes:
        return await self._words.get()

    async def report(self, message: bytes) -> None:
        await self._publish(REPORT, message, Basic.Properties(delivery_mode=2))

    async def answer(self, on_question: OnQuestion) -> None:
        self._on_question = on_question

    async def close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._publishing.leave(self._set_up_reports)
        self._consuming.leave(self._set_up_words)
        for task in self._answering:
            task.cancel()
        for wire, channel in ((self._consuming, self._reader), (self._publishing, self._channel)):
            if channel is not None:
                await wire.release(channel)

    async def _set_up_reports(self, connection: AbstractConnection) -> None:
        self._channel = await self._publishing.channel(connection, confirms=True)

    async def _set_up_words(self, connection: AbstractConnection) -> None:
        channel = self._reader = await self._consuming.channel(connection)
        await channel.queue_declare(HOSTS + self.host, durable=True, arguments=_HOST_QUEUE)
        # Words are taken as they come: what is lost with this process is said again.
        await channel.basic_consume(HOSTS + self.host, self._hear, no_ack=True)

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
        channel = self._channel
        if channel is None or not self._publishing.up.is_set():
            raise ConnectionError("RabbitMQ is away")
        properties.user_id = self._publishing.user
        properties.app_id = self.host
        with translated("reporting"):
            try:
                await channel.basic_publish(
                    message,
                    exchange=REPORTS,
                    routing_key=key,
                    properties=properties,
                    mandatory=True,
                    timeout=REPORT_SECONDS,
                )
            except PublishError:
                raise ConnectionError("nobody hears reports yet: no control plane has used this RabbitMQ") from None
            except TimeoutError:
                self._publishing.drop()
                raise


def sender(message: DeliveredMessage) -> str | None:
    """The host a report is from, or None when it does not say so in a way that RabbitMQ vouches for."""
    properties = message.header.properties
    user = properties.user_id or ""
    if user.startswith(HOST_USER):
        return user.removeprefix(HOST_USER)
    return properties.app_id if user else None
