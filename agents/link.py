"""An agent's end of the bus: the only thing it speaks to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

import msgspec
import structlog

from bus.broker import HostLink
from schema.compute import question
from schema.compute.domain import Heartbeat, Report, ToHost, decode_to_host, encode
from schema.compute.question import Answer, Ask, Unable, decode_ask

log = structlog.get_logger()

T = TypeVar("T")
OnAsk = Callable[[Ask], Awaitable[Answer]]


class Link(Protocol):
    """Words in and out. Nothing here is sure to arrive, and the agent does not rely on it."""

    def inbox(self) -> AsyncIterator[ToHost]:
        """What the control plane says, for ever; waits while it says nothing or is away."""

    async def report(self, message: Report) -> None:
        """Raises ConnectionError when it did not get through."""

    async def heartbeat(self, message: Heartbeat) -> None:
        """Raises ConnectionError when it did not get through."""

    async def serve(self, on_ask: OnAsk) -> None:
        """From now on, answer questions."""

    async def close(self) -> None: ...


async def words(host: HostLink, decode: Callable[[bytes], T]) -> AsyncIterator[T]:
    """What the control plane says, for ever; what is no word of that kind is dropped."""
    while True:
        message = await host.receive()
        try:
            word = decode(message)
        except msgspec.DecodeError as error:
            log.warning("a word that is none was dropped", error=str(error), size_bytes=len(message))
            continue
        yield word


class BrokerLink:
    """`Link` over a broker's `HostLink`: JSON on the wire."""

    def __init__(self, host: HostLink) -> None:
        self._host = host

    def inbox(self) -> AsyncIterator[ToHost]:
        return words(self._host, decode_to_host)

    async def report(self, message: Report) -> None:
        await self._host.report(encode(message))

    async def heartbeat(self, message: Heartbeat) -> None:
        await self._host.beat(encode(message))

    async def serve(self, on_ask: OnAsk) -> None:
        async def answer(message: bytes) -> bytes:
            try:
                ask = decode_ask(message)
            except msgspec.DecodeError as error:
                log.warning("a question that is none was refused", error=str(error), size_bytes=len(message))
                return question.encode(Unable(fault="its agent does not know such a question", why="unsupported"))
            return question.encode(await on_ask(ask))

        await self._host.answer(answer)

    async def close(self) -> None:
        await self._host.close()
