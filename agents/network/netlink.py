"""Netlink: many requests in one write, every answer told apart, and dumps read into bytes.

Its own few lines because a port must be wired in one batch and a sweep over hundreds of them must cost nothing to speak
of: pyroute2 needs 0.2 ms for each link of a dump and 0.8 ms for each request. Formats: linux/netlink.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

REQUEST, ACK, REPLACE, EXCLUSIVE, CREATE, APPEND = 0x1, 0x4, 0x100, 0x200, 0x400, 0x800
DUMP = 0x300
LINKS, NEIGHBOURS = 1 << 0, 1 << 2
"""Groups of changes one can listen to."""

_NESTED = 0x8000
_TYPE_MASK = 0x3FFF
_ERROR, _DONE = 2, 3
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _STRICT = 270, 10, 11, 12
_SO_RCVBUFFORCE, _SO_ATTACH_FILTER = 33, 26
_RECEIVE_BYTES = 4 << 20
_BATCH = 256
"""Requests in one write: their answers must fit the receive buffer."""
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_CODE = struct.Struct("=i")
_INSTRUCTION, _PROGRAM = struct.Struct("=HBBI"), struct.Struct("@HP")


class Request(NamedTuple):
    """A message to the kernel, without its header."""

    kind: int
    flags: int
    body: bytes


class Answer(NamedTuple):
    """What the kernel said of one request."""

    number: int
    """An errno; 0: done."""
    text: str = ""

    def __str__(self) -> str:
        return self.text or (os.strerror(self.number) if self.number else "done")


class Socket:
    """Belongs to the namespace of the thread that makes it, wherever it is used afterwards."""

    def __init__(self, groups: int = 0, family: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BYTES)
        for option in (_CAP_ACK, _EXT_ACK, _STRICT):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.bind((0, groups))
        self._sequence = 0
        self.writes = 0
        """System calls that carried requests, for who counts them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def hear(self, program: Sequence[tuple[int, int, int, int]]) -> None:
        """Of changes only those for which a classic BPF program returns more than 0; the others cost nothing.

        Each instruction is (code, jump if true, jump if false, value), as in linux/filter.h.
        """
        code = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*it) for it in program))
        self._socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, _PROGRAM.pack(len(program), ctypes.addressof(code))
        )

    def send(self, requests: Sequence[Request]) -> list[Answer]:
        """Carry them out in order, whatever becomes of each; the answers in the same order."""
        answers: list[Answer] = []
        for start in range(0, len(requests), _BATCH):
            answers += self._send(requests[start : start + _BATCH])
        return answers

    def ask(self, request: Request) -> list[tuple[int, bytes]]:
        """(kind, body) of every message that answers it: a dump, or one thing. Raises OSError."""
        self._sequence += 1
        sequence = self._sequence
        self._write([_message(request, sequence)])
        found: list[tuple[int, bytes]] = []
        while True:
            for kind, number, body in self._receive():
                if number != sequence:
                    continue
                if kind == _ERROR:
                    answer = _answer(body)
                    if answer.number:
                        raise OSError(answer.number, str(answer))
                    return found
                if kind == _DONE:
                    return found
                found.append((kind, body))
                if not request.flags & DUMP:
                    return found

    def changes(self) -> Iterator[tuple[int, bytes]]:
        """(kind, body) of what happened since the last time, never waiting. Raises OSError ENOBUFS: some was lost."""
        while True:
            try:
                data = self._socket.recv(1 << 20, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            for kind, _, body in _messages(data):
                yield kind, body

    def _send(self, requests: Sequence[Request]) -> list[Answer]:
        first = self._sequence + 1
        self._sequence += len(requests)
        self._write([_message(it._replace(flags=it.flags | ACK), first + i) for i, it in enumerate(requests)])
        answers: dict[int, Answer] = {}
        while len(answers) < len(requests):
            for kind, sequence, body in self._receive():
                if kind == _ERROR and first <= sequence < first + len(requests):
                    answers[sequence] = _answer(body)
        return [answers[first + i] for i in range(len(requests))]

    def _write(self, messages: list[bytes]) -> None:
        self._socket.send(b"".join(messages))
        self.writes += 1

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        return _messages(self._socket.recv(1 << 20))


def attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(attributes))


def byte(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=B", value))


def short(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=H", value))


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """Kind → value; of several of a kind the last."""
    found: dict[int, bytes] = {}
    end = len(data)
    while start + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < 4:
            break
        found[kind & _TYPE_MASK] = data[start + 4 : start + length]
        start += length + 3 & ~3
    return found


def as_text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def as_number(value: bytes) -> int:
    return int.from_bytes(value, "little" if struct.pack("=H", 1)[0] else "big")


def _message(request: Request, sequence: int) -> bytes:
    body = request.body
    length = 16 + len(body)
    header = _HEADER.pack(length, request.kind, request.flags | REQUEST, sequence, 0)
    return header + body + bytes(-length % 4)


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    start = 0
    while start + 16 <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, start)
        if length < 16:
            return
        yield kind, sequence, data[start + 16 : start + length]
        start += length + 3 & ~3


def _answer(body: bytes) -> Answer:
    """Without the request it answers: the socket asked for that to be left out."""
    (code,) = _CODE.unpack_from(body)
    if not code:
        return Answer(0)
    said = as_text(attributes(body, 20).get(1, b""))
    return Answer(-code, f"{said or os.strerror(-code)} ({errno.errorcode.get(-code, -code)})")
