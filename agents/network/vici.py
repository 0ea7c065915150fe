"""strongSwan's control interface: requests to a charon daemon over its unix socket, and what it tells unasked.

Wire format: strongSwan's src/libcharon/plugins/vici/README.md (packets with a length, messages of nested elements).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

TIMEOUT_SECONDS = 5.0
MOST_BYTES = 512 * 1024
"""Of one packet; charon's own limit."""

_REQUEST, _RESPONSE, _UNKNOWN, _REGISTER, _UNREGISTER, _CONFIRM, _NO_SUCH_EVENT, _EVENT = range(8)
_SECTION, _SECTION_END, _VALUE, _LIST, _ITEM, _LIST_END = range(1, 7)

Message = Mapping[str, Any]
"""Texts, lists of texts, and messages, by name."""


class ViciRefused(Exception):
    """The daemon refused, with its reason."""


class Vici:
    """One connection to a daemon; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._lock = asyncio.Lock()

    @classmethod
    async def connect(cls, path: str) -> Self:
        """Raises OSError: nobody listens there."""
        return cls(*await asyncio.open_unix_connection(path))

    async def request(self, command: str, message: Message | None = None) -> dict[str, Any]:
        """Its answer. Raises ViciRefused, OSError or TimeoutError."""
        _, answer = await self.stream(command, "", message)
        return answer

    async def stream(
        self, command: str, event: str, message: Message | None = None
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """What is told by events of that name until the answer comes, and the answer. Raises as `request` does."""
        told: list[dict[str, Any]] = []
        async with self._lock, asyncio.timeout(TIMEOUT_SECONDS):
            if event:
                await self._register(_REGISTER, event)
            self._send(_REQUEST, command, encode(message or {}))
            while True:
                kind, name, body = await self._receive()
                if kind == _EVENT and name == event:
                    told.append(decode(body))
                elif kind == _UNKNOWN:
                    raise ViciRefused(f"charon knows no {command}")
                elif kind == _RESPONSE:
                    break
            if event:
                await self._register(_UNREGISTER, event)
        answer = decode(body)
        if answer.get("success", "yes") != "yes":
            raise ViciRefused(str(answer.get("errmsg") or f"charon refused {command}"))
        return told, answer

    async def listen(self, events: Sequence[str], heard: Callable[[], None]) -> None:
        """Call whenever one of these is told, until the daemon goes away. Not to be mixed with requests."""
        for event in events:
            await self._register(_REGISTER, event)
        with suppress(OSError, EOFError):
            while True:
                await self._receive()
                heard()

    def close(self) -> None:
        self._writer.close()

    async def _register(self, how: int, event: str) -> None:
        self._send(how, event)
        while True:
            kind, _, _ = await self._receive()
            if kind == _NO_SUCH_EVENT:
                raise ViciRefused(f"charon tells no {event}")
            if kind == _CONFIRM:
                return

    def _send(self, kind: int, name: str, body: bytes = b"") -> None:
        packet = bytes([kind, len(name)]) + name.encode() + body
        self._writer.write(struct.pack("!I", len(packet)) + packet)

    async def _receive(self) -> tuple[int, str, bytes]:
        try:
            (length,) = struct.unpack("!I", await self._reader.readexactly(4))
            if length > MOST_BYTES:
                raise OSError(f"charon said {length} bytes at once")
            packet = await self._reader.readexactly(length)
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("charon has gone away") from error
        kind = packet[0]
        if kind != _EVENT:
            return kind, "", packet[1:]
        end = 2 + packet[1]
        return kind, packet[2:end].decode(), packet[end:]


def encode(message: Message) -> bytes:
    made = b""
    for name, value in message.items():
        if isinstance(value, Mapping):
            made += bytes([_SECTION]) + _name(name) + encode(value) + bytes([_SECTION_END])
        elif isinstance(value, str):
            made += bytes([_VALUE]) + _name(name) + _text(value)
        else:
            items = b"".join(bytes([_ITEM]) + _text(it) for it in value)
            made += bytes([_LIST]) + _name(name) + items + bytes([_LIST_END])
    return made


def decode(data: bytes) -> dict[str, Any]:
    """Raises ValueError or IndexError when it is none."""
    root: dict[str, Any] = {}
    stack, at = [root], 0
    items: list[str] = []
    while at < len(data):
        kind, at = data[at], at + 1
        match kind:
            case 1:
                name, at = _read(data, at, 1)
                stack[-1][name] = {}
                stack.append(stack[-1][name])
            case 2:
                stack.pop()
            case 3:
                name, at = _read(data, at, 1)
                stack[-1][name], at = _read(data, at, 2)
            case 4:
                name, at = _read(data, at, 1)
                items = stack[-1][name] = []
            case 5:
                item, at = _read(data, at, 2)
                items.append(item)
            case 6:
                pass
            case _:
                raise ValueError(f"there is no element {kind}")
    return root


def _name(text: str) -> bytes:
    encoded = text.encode()
    return bytes([len(encoded)]) + encoded


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("!H", len(encoded)) + encoded


def _read(data: bytes, at: int, width: int) -> tuple[str, int]:
    start = at + width
    end = start + int.from_bytes(data[at:start], "big")
    return data[start:end].decode(errors="replace"), end
