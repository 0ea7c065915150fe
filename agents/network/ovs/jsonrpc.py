"""JSON-RPC as Open vSwitch's daemons speak it, on unix sockets: requests, and notifications nobody asked for.

The wire is that of RFC 7047, section 4: JSON values one after the other, with nothing between them. Both the database
and the daemons' control sockets (those of `ovs-appctl`) speak it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

ANSWER_SECONDS = 10.0
_LONGEST_PATH = 100
"""A unix socket's address takes 108 bytes."""
_READ_BYTES = 1 << 18

Notified = Callable[[str, list[Any]], None]


class RpcError(Exception):
    """The other end refused a request, or is not there; the text is what it said."""


class Connection:
    """One socket. Once `gone`, make a new one."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, notified: Notified, gone: Callable[[], None]
    ) -> None:
        self._reader, self._writer = reader, writer
        self._notified, self._on_gone = notified, gone
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self.gone = False
        self._listening = asyncio.create_task(self._listen(), name="jsonrpc")

    async def ask(self, method: str, params: Sequence[Any]) -> Any:
        """The result. Raises RpcError."""
        if self.gone:
            raise RpcError("the connection is gone")
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._send({"method": method, "params": list(params), "id": number})
            async with asyncio.timeout(ANSWER_SECONDS):
                return await answer
        except TimeoutError:
            raise RpcError(f"no answer to {method} within {ANSWER_SECONDS:.0f} s") from None
        finally:
            self._waiting.pop(number, None)

    async def close(self) -> None:
        self._on_gone = _nobody
        self._listening.cancel()
        with suppress(asyncio.CancelledError):
            await self._listening
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    def _send(self, message: dict[str, Any]) -> None:
        self._writer.write(msgspec.json.encode(message))

    async def _listen(self) -> None:
        try:
            decoder, held = json.JSONDecoder(), ""
            while data := await self._reader.read(_READ_BYTES):
                held += data.decode()
                if not held.rstrip().endswith("}"):
                    continue  # not all of it is there yet; a long answer is not looked at again and again
                while held:
                    try:
                        message, end = decoder.raw_decode(held)
                    except json.JSONDecodeError:
                        break
                    held = held[end:].lstrip()
                    self._take(message)
        except (OSError, UnicodeDecodeError):
            pass
        finally:
            self.gone = True
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(RpcError("the connection was lost"))
            self._on_gone()

    def _take(self, message: dict[str, Any]) -> None:
        if message.get("method") == "echo":
            self._send({"result": message["params"], "error": None, "id": message["id"]})
        elif "method" in message:
            self._notified(message["method"], message["params"])
        elif (answer := self._waiting.get(message["id"])) and not answer.done():
            if message.get("error"):
                answer.set_exception(RpcError(_said(message["error"])))
            else:
                answer.set_result(message.get("result"))


async def connect(
    path: Path, notified: Notified = lambda method, params: None, gone: Callable[[], None] = lambda: None
) -> Connection:
    """Raises RpcError when nobody listens there."""
    try:
        with _short(path) as name:
            reader, writer = await asyncio.open_unix_connection(name)
    except OSError as error:
        raise RpcError(f"nobody answers at {path}: {error.strerror}") from error
    return Connection(reader, writer, notified, gone)


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """The same place by a name that fits."""
    if len(bytes(path)) < _LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _said(error: Any) -> str:
    if isinstance(error, dict):
        return str(error.get("details") or error.get("error") or error)
    return str(error).strip()


def _nobody() -> None:
    pass
