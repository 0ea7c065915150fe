"""A serial line as a stream: both ways of a real terminal, under the loop that the roles run on too."""

from __future__ import annotations

import asyncio
import os
import tty
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import uvloop

from agents.hypervisor.line import line_stream

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """The guest's end, and ours."""
    guest, ours = os.openpty()
    tty.setraw(ours)
    opened = os.open(os.ttyname(ours), os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    os.close(ours)
    yield guest, opened
    with suppress(OSError):
        os.close(guest)


@pytest.mark.parametrize("loop", LOOPS)
def test_nothing_of_a_line_is_lost(terminal: tuple[int, int], loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    guest, ours = terminal
    said = b"".join(f"line {number}\r\n".encode() for number in range(5000))

    async def talk() -> None:
        reader, writer = await line_stream(ours)
        talking = asyncio.create_task(asyncio.to_thread(_write, guest, said))
        assert await reader.readexactly(len(said)) == said
        await talking
        hearing = asyncio.create_task(asyncio.to_thread(_read, guest, len(said)))
        for at in range(0, len(said), 1000):
            writer.write(said[at : at + 1000])
            await writer.drain()
        assert await hearing == said
        writer.close()
        await writer.wait_closed()
        assert await reader.read() == b""
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(ours)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(talk())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_guest_that_goes_ends_its_line(
    terminal: tuple[int, int], loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    guest, ours = terminal

    async def talk() -> None:
        reader, writer = await line_stream(ours)
        os.write(guest, b"bye")
        assert await reader.readexactly(3) == b"bye"
        os.close(guest)
        with suppress(OSError):
            assert await reader.read() == b""
        assert writer.is_closing()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(talk())


def _write(to: int, data: bytes) -> None:
    while data:
        data = data[os.write(to, data) :]


def _read(guest: int, size: int) -> bytes:
    heard = b""
    while len(heard) < size:
        heard += os.read(guest, 65536)
    return heard
