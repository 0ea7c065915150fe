"""GET /log/v1/events: a page of JSON, server-sent events, or a WebSocket; the same events, filtered the same way.

    curl -H "X-Auth-Token: …" '…/log/v1/events?last=20'
    curl -N -H "X-Auth-Token: …" -H 'Accept: text/event-stream' -H 'Last-Event-ID: 4711' '…/log/v1/events?kind=server'

A stream resumes past `Last-Event-ID` (or `after`); without either it begins with what happens next. Every message
carries its position as its id; a heartbeat carries how far the reader has come, so that resuming skips what was sifted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlencode

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from api.log.asking import READ, READ_ALL, Asked, history, wanted
from api.log.view import view
from api.wire import Call, Get
from bus import clock
from bus.history import Wanted
from bus.log import Recorded
from bus.tail import Tail
from handlers.identity.token import Unauthorized
from handlers.identity.tokens import tokens
from schema.refusal import Invalid, Refused

HEARTBEAT_SECONDS = 15.0
POLL_SECONDS = 5.0
"""Without word from the bus, the log is looked at itself."""
LISTENERS = 200
"""Streams open at once in one process, at most."""
SENDING_SECONDS = 30.0
"""A reader that takes nothing for so long is let go; it resumes where it was."""

_encode = msgspec.json.Encoder().encode
Send = Callable[[list[Recorded], int], Awaitable[None]]
"""Hands over events and the position reached; no events: a heartbeat."""


class TooManyListeners(Refused):
    """This process tells the log to as many as it can (503)."""

    status = 503


async def index(call: Call) -> Any:
    asked: Asked = call.params
    sought = wanted(call, asked)
    headers = call.request.headers
    if headers.get("Upgrade", "").lower() == "websocket":
        return await _socket(call, sought, _begin(call, asked))
    if "text/event-stream" in headers.get("Accept", ""):
        return await _stream(call, sought, _begin(call, asked))
    return await _page(call, asked, sought)


async def _page(call: Call, asked: Asked, sought: Wanted) -> dict[str, Any]:
    if asked.last is not None:
        found = await history(call.cloud).last(sought, asked.last)
    else:
        found = await history(call.cloud).page(sought, asked.after or 0, asked.limit)
    head = await call.cloud.log.head()
    whole = call.may(READ_ALL)
    answer = {"events": [view(event, whole=whole) for event in found.events], "reached": found.reached, "head": head}
    if found.reached < head:
        kept = [(k, v) for k, v in call.query.items() if k not in {"after", "last"}]
        answer["next"] = call.url(f"/events?{urlencode([*kept, ('after', found.reached)])}")
    return answer


def _begin(call: Call, asked: Asked) -> int | None:
    """The position to go on from; None: from now."""
    text = call.request.headers.get("Last-Event-ID")
    if text is None:
        return asked.after
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Invalid(f"Last-Event-ID must be a position, not {text[:32]!r}.")
    return int(text)


async def _stream(call: Call, sought: Wanted, after: int | None) -> web.StreamResponse:
    whole = call.may(READ_ALL)
    async with _listening():
        response = web.StreamResponse(
            headers={
                **call.headers,
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
            }
        )
        await response.prepare(call.request)
        await response.write(b"retry: 2000\n\n")

        async def send(events: list[Recorded], position: int) -> None:
            parts = [b"id: %d\ndata: %b\n\n" % (e.position, _encode(view(e, whole=whole))) for e in events]
            async with asyncio.timeout(SENDING_SECONDS):
                await response.write(b"".join(parts) or b": %d\nid: %d\n\n" % (position, position))

        with suppress(ConnectionError, TimeoutError, Unauthorized):
            await _tell(call, sought, after, send)
        return response


async def _socket(call: Call, sought: Wanted, after: int | None) -> web.StreamResponse:
    whole = call.may(READ_ALL)
    async with _listening():
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_SECONDS, max_msg_size=4096)
        socket.headers.update(call.headers)
        await socket.prepare(call.request)

        async def send(events: list[Recorded], position: int) -> None:
            async with asyncio.timeout(SENDING_SECONDS):
                for event in events:
                    await socket.send_str(_encode(view(event, whole=whole)).decode())

        telling = asyncio.create_task(_tell(call, sought, after, send))
        hearing = asyncio.create_task(_until_closed(socket))
        try:
            await asyncio.wait({telling, hearing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (telling, hearing):
                task.cancel()
            await asyncio.gather(telling, hearing, return_exceptions=True)
            with suppress(ConnectionError, TimeoutError):
                await socket.close(code=WSCloseCode.GOING_AWAY)
        return socket


async def _until_closed(socket: web.WebSocketResponse) -> None:
    """What a reader says is not asked for; that it leaves is."""
    async for message in socket:
        if message.type in (WSMsgType.ERROR, WSMsgType.CLOSE):
            return


async def _tell(call: Call, sought: Wanted, after: int | None, send: Send) -> None:
    """Events as they come, until the reader is gone or its token no longer good."""
    cloud = call.cloud
    subscription = await cloud.broker.watch()
    tail = Tail(cloud.log, subscription, await cloud.log.head() if after is None else after)
    text = call.request.headers.get("X-Auth-Token", "")
    heartbeat_at = clock.monotonic() + HEARTBEAT_SECONDS
    try:
        while not _gone(call):
            batch = await tail.next(POLL_SECONDS)
            await tokens(cloud).verify(text)
            fitting = await history(cloud).fitting(sought, batch.events) if batch is not None else []
            if fitting or clock.monotonic() >= heartbeat_at:
                await send(fitting, tail.position)
                heartbeat_at = clock.monotonic() + HEARTBEAT_SECONDS
    finally:
        await tail.close()


def _gone(call: Call) -> bool:
    transport = call.request.transport
    return transport is None or transport.is_closing()


_open = 0


@asynccontextmanager
async def _listening() -> AsyncIterator[None]:
    global _open  # noqa: PLW0603  one count a process
    if _open >= LISTENERS:
        raise TooManyListeners(f"{LISTENERS} readers follow the log here already; try again later")
    _open += 1
    try:
        yield
    finally:
        _open -= 1


routes = [Get("/events", index, may=READ, query=Asked, streams=True)]
