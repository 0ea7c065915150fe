"""The way from a browser to a guest: noVNC's files, and the WebSocket that a console's token opens.

    browser ══ WebSocket: /compute/console/socket?token=… ══ any process of the API ══ TLS ══ agent ── the guest

A token is taken in the log, by one append, so it opens one console whichever process it is brought to. What is refused
is refused before there is a WebSocket, with an empty 403: a proxy tells a stranger nothing.
"""

from __future__ import annotations

import asyncio
import mimetypes
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from api.wire import Call, Get, Reply
from bus import clock
from bus.config import Settings
from bus.consoles import abort, dial
from bus.execute import Context, Wish
from handlers.compute.console import CONSOLES
from schema.compute.console import CONSOLE, Console, OpenConsole, console_id
from schema.compute.question import ConsoleFound, FindConsole, decode_answer, encode
from schema.compute.server import SERVER
from schema.compute.server_state import Server
from schema.refusal import NotFound, Refused

log = structlog.get_logger()

FOLDER = "/compute/console"
SOCKET = f"{FOLDER}/socket"
PAGE = f"{FOLDER}/vnc_lite.html"
ASKING_SECONDS = 10.0
HEARTBEAT_SECONDS = 30.0
CONSOLES_AT_ONCE = 500
"""Open in one process, at most."""
CHUNK_BYTES = 64 * 1024
MESSAGE_BYTES = 4 * 1024 * 1024
"""The largest thing a client says at once: what it pastes."""
FILE_BYTES = 4 * 1024 * 1024
TOKEN_CHARACTERS = 64

_STRANGERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


class NoConsole(Exception):
    """There is nothing to be opened; the text is for the log."""


async def socket(call: Call) -> web.StreamResponse:
    """One console, for as long as both ends stay."""
    if _sockets.full:
        return _refused(call, 503)
    with _sockets:
        try:
            _must_be_ours(call)
            console = await _taken(call)
            reader, writer = await _dialled(call, console)
        except (NoConsole, Refused, OSError) as error:
            log.info("a console was refused", error=str(error) or repr(error))
            return _refused(call, 403)
        try:
            return await _join(call, reader, writer)
        finally:
            abort(writer)


async def file(call: Call) -> Reply:
    """noVNC, as it is installed."""
    folder = novnc(call.cloud.settings)
    if folder is None:
        raise NotFound(
            "noVNC is not here. `./cumulog up` fetches it; otherwise `novnc` in the settings names its folder."
        )
    path = (folder / call.path["file"]).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise NotFound("The resource could not be found.")
    content = await asyncio.to_thread(_read, path)
    kind = "text/javascript" if path.suffix in {".js", ".mjs"} else mimetypes.guess_type(path.name)[0]
    # The page's address holds a token: nobody keeps it, and no other page learns of it.
    headers = {**_STRANGERS, "X-Content-Type-Options": "nosniff"}
    if path.suffix != ".html":
        headers["Cache-Control"] = "max-age=3600"
    return Reply(content, headers=headers, content_type=kind or "application/octet-stream")


def novnc(settings: Settings) -> Path | None:
    """Where noVNC is: where the settings say, or where `up` unpacked it."""
    for folder in (settings.novnc, settings.home / "novnc" / "usr" / "share" / "novnc"):
        if (folder / "vnc_lite.html").is_file():
            return folder
    return None


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(FILE_BYTES)


def _must_be_ours(call: Call) -> None:
    """A page of somebody else's may not use a token in its visitor's name."""
    headers = call.request.headers
    if headers.get("Upgrade", "").lower() != "websocket":
        raise NoConsole("it is opened as a WebSocket")
    origin = headers.get("Origin")
    ours = {call.request.host, urlsplit(call.cloud.settings.url).netloc}
    if origin is not None and urlsplit(origin).netloc not in ours:
        raise NoConsole(f"a page of {origin[:255]} asked")


async def _taken(call: Call) -> Console:
    """The console of the token, which opens nothing any more. Raises Refused, NoConsole."""
    token = call.query.get("token", "")
    if not token or len(token) > TOKEN_CHARACTERS:
        raise NoConsole("no token")
    command = OpenConsole(request_id=call.request_id, now=clock.now())
    by = Context(request_id=call.request_id)
    id = console_id(token)
    if (await call.cloud.executor.load([CONSOLE.stream(id)])).get(CONSOLE.stream(id)) is None:
        raise NoConsole("unknown token")
    [document] = await call.cloud.executor.execute(Wish(CONSOLES, id, command), by=by)
    console: Console = document.state
    return console


async def _dialled(call: Call, console: Console) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    server: Server = (await call.cloud.documents.get(SERVER, console.server_id)).state
    if server.host is None:
        raise NoConsole(f"server {server.id} has no host")
    secret = clock.random_bytes(32).hex()
    question = encode(FindConsole(server_id=server.id, kind=console.kind, secret=secret))
    try:
        found = decode_answer(await call.cloud.broker.ask(server.host, question, ASKING_SECONDS))
    except msgspec.DecodeError as error:
        raise NoConsole(f"host {server.host} said something else") from error
    if not isinstance(found, ConsoleFound):
        raise NoConsole(getattr(found, "fault", f"host {server.host} said something else"))
    log.info("a console is opened", server=server.id, host=server.host, kind=console.kind)
    return await dial(found, secret)


async def _join(call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> web.StreamResponse:
    joined = web.WebSocketResponse(
        protocols=("binary",), heartbeat=HEARTBEAT_SECONDS, max_msg_size=MESSAGE_BYTES, compress=False
    )
    joined.headers.update(call.headers)
    await joined.prepare(call.request)
    ways = [asyncio.create_task(_hear(joined, writer)), asyncio.create_task(_tell(reader, joined))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        with suppress(ConnectionError, TimeoutError):
            await joined.close(code=WSCloseCode.GOING_AWAY)
    return joined


async def _hear(joined: web.WebSocketResponse, writer: asyncio.StreamWriter) -> None:
    async for message in joined:
        if message.type is WSMsgType.BINARY:
            writer.write(message.data)
        elif message.type is WSMsgType.TEXT:
            writer.write(message.data.encode())
        else:
            return
        await writer.drain()


async def _tell(reader: asyncio.StreamReader, joined: web.WebSocketResponse) -> None:
    while data := await reader.read(CHUNK_BYTES):
        await joined.send_bytes(data)


def _refused(call: Call, status: int) -> web.Response:
    response = web.Response(status=status, headers={**call.headers, **_STRANGERS})
    response.force_close()
    return response


class _Sockets:
    """How many are open in this process."""

    def __init__(self) -> None:
        self._open = 0

    @property
    def full(self) -> bool:
        return self._open >= CONSOLES_AT_ONCE

    def __enter__(self) -> None:
        self._open += 1

    def __exit__(self, *_: object) -> None:
        self._open -= 1


_sockets = _Sockets()

roots = [
    Get(SOCKET, socket, public=True, streams=True),
    Get(f"{FOLDER}/{{file*}}", file, public=True),
]
"""Whoever has a token may open its console; nothing else here is anybody's."""
