"""One connection to RabbitMQ that comes back by itself, with everything that was set up on it.

    connect ─▶ set-ups, in order ─▶ up ─▶ closed (by whatever) ─▶ wait, with jitter ─▶ connect …

aiormq is used bare: the robust layer above it forgets channels and consumers now and then, and brings all clients back
at the same moment. A channel that dies takes its connection along, so that there is one way back and not two.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast
from urllib.parse import unquote, urlsplit, urlunsplit

import aiormq
import structlog
from aiormq.abc import AbstractChannel, AbstractConnection

from bus import clock

log = structlog.get_logger()
logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # what it has to say is said here, once, in words

CONNECT_SECONDS = 15.0
SET_UP_SECONDS = 60.0
"""Each, at most; a process that plays a thousand hosts has two for each of them."""
CLOSE_SECONDS = 2.0
HEARTBEAT_SECONDS = 5
"""A peer that is silent for three of these is gone."""
FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 3.0

AWAY = (aiormq.AMQPError, ConnectionError, OSError, TimeoutError, RuntimeError)
"""What aiormq raises when the broker, the connection or the channel is gone."""

SetUp = Callable[[AbstractConnection], Awaitable[None]]


class Wire:
    """A connection, kept. `name` is what RabbitMQ's own tools show."""

    def __init__(self, url: str, name: str) -> None:
        self.up = asyncio.Event()
        self.user = unquote(urlsplit(url).username or "guest")
        self._url = _with_heartbeat(url)
        self._name = name
        self._connection: AbstractConnection | None = None
        self._setups: dict[SetUp, None] = {}
        self._lock = asyncio.Lock()
        self._released: set[AbstractChannel] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._dropped = asyncio.Event()

    async def start(self) -> None:
        """Connect and stay connected. Raises ConnectionError when that takes too long, and goes on trying."""
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep(), name=f"amqp {self._name}")
        await self.wait(CONNECT_SECONDS)

    async def wait(self, timeout_seconds: float) -> None:
        """Until the connection is up. Raises ConnectionError."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.up.wait()
        except TimeoutError:
            raise ConnectionError("RabbitMQ is away") from None

    async def join(self, setup: SetUp) -> None:
        """Have this done on every connection to come, and on the present one."""
        async with self._lock:
            self._setups[setup] = None
            if self._connection is not None and self.up.is_set():
                try:
                    await setup(self._connection)
                except AWAY as error:
                    log.warning("bus set-up failed, connecting anew", connection=self._name, error=repr(error))
                    self.drop()

    def leave(self, setup: SetUp) -> None:
        """No longer."""
        self._setups.pop(setup, None)

    async def channel(self, connection: AbstractConnection, *, confirms: bool = False) -> AbstractChannel:
        """A channel whose unexpected end is the connection's end."""
        channel = await connection.channel(publisher_confirms=confirms, on_return_raises=True, timeout=CONNECT_SECONDS)
        channel.on_consumer_cancel_callbacks.add(self._cancelled)

        def closed(closing: asyncio.Future[Any]) -> None:
            if not closing.cancelled():
                closing.exception()
            if channel not in self._released and connection is self._connection:
                self.drop()
            self._released.discard(channel)

        channel.closing.add_done_callback(closed)
        return channel

    async def release(self, channel: AbstractChannel) -> None:
        """Close a channel without its connection."""
        if not channel.is_closed:
            self._released.add(channel)
            with contextlib.suppress(*AWAY):
                async with asyncio.timeout(CONNECT_SECONDS):
                    await channel.close()

    def drop(self) -> None:
        """Let go of this connection; the next one is made at once."""
        self.up.clear()
        self._dropped.set()

    async def close(self) -> None:
        """Disconnect for good."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        self.up.clear()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await _close(connection)

    def _cancelled(self, frame: Any) -> None:
        """The broker took a queue away (it was deleted, or its node left): declare everything again."""
        self.drop()

    async def _keep(self) -> None:
        delay = FIRST_DELAY_SECONDS
        told = False
        while True:
            try:
                await self._connect()
            except Exception as error:  # noqa: BLE001  an unreachable broker, or one that is still starting: try again
                if not told:
                    log.warning("bus away", connection=self._name, error=repr(error))
                told = True
                await asyncio.sleep(delay * (0.5 + clock.fraction()))
                delay = min(2 * delay, LONGEST_DELAY_SECONDS)
                continue
            if told:
                log.info("bus back", connection=self._name)
            delay, told = FIRST_DELAY_SECONDS, False
            assert self._connection is not None
            await self._gone(self._connection)
            self.up.clear()

    async def _gone(self, connection: AbstractConnection) -> None:
        """Wait until the connection is closed by the other end, or let go of here."""
        dropped = asyncio.create_task(self._dropped.wait())
        try:
            await asyncio.wait({connection.closing, dropped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            dropped.cancel()
        if not connection.is_closed:
            await _close(connection)

    async def _connect(self) -> None:
        async with asyncio.timeout(CONNECT_SECONDS):
            connection = await aiormq.connect(self._url, client_properties={"connection_name": f"cumulog {self._name}"})
        try:
            async with self._lock:
                self._dropped.clear()
                self._connection = connection
                for setup in list(self._setups):
                    async with asyncio.timeout(SET_UP_SECONDS):
                        await setup(connection)
                if not self._dropped.is_set():  # a channel was lost while it was set up: once more
                    self.up.set()
        except BaseException:
            await _close(connection)
            raise


async def _close(connection: AbstractConnection) -> None:
    """In good order if the other end still answers, else by hanging up."""
    with contextlib.suppress(*AWAY):
        async with asyncio.timeout(CLOSE_SECONDS):
            await connection.close(ConnectionError("the connection to RabbitMQ was dropped"))


async def publish(channel: AbstractChannel, body: bytes, *, wait: bool = False, **how: Any) -> None:
    """Hand a message to the connection, and wait for its confirmation where the channel has them.

    `wait`: also until it is on its way, and before any other of this channel is, which takes two rounds of the event
    loop: a process that plays a thousand hosts has no time for that.
    """
    await cast("aiormq.Channel", channel).basic_publish(body, wait=wait, **how)


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """One exception for all that can be wrong with a broker: ConnectionError."""
    try:
        yield
    except AWAY as error:
        raise ConnectionError(f"RabbitMQ is away ({doing}): {error!r}") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # aiormq hands its own cancellation on to whoever waits for a confirm
        raise ConnectionError(f"RabbitMQ is away ({doing})") from error
    except Exception as error:
        if type(error) is not Exception:
            raise
        # what it tells whoever waits when it knows no reason
        raise ConnectionError(f"RabbitMQ is away ({doing})") from error


def _with_heartbeat(url: str) -> str:
    parts = urlsplit(url)
    if "heartbeat=" in parts.query:
        return url
    query = f"{parts.query}&heartbeat={HEARTBEAT_SECONDS}" if parts.query else f"heartbeat={HEARTBEAT_SECONDS}"
    return urlunsplit(parts._replace(query=query))
