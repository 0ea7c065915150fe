"""Screen, serial line and disk of a guest that is only pretended, well enough for a real client.

RFB 3.8 without authentication (RFC 6143): one colour all over, another one after every key that is pressed.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

from agents.hypervisor.driver import NotRunning, Stream

WIDTH, HEIGHT = 160, 100
COLOURS = (0x2E7D32, 0x1565C0, 0xAD1457, 0xEF6C00)
"""0xRRGGBB."""

_PIXELS = struct.pack("!BBBBHHHBBBxxx", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
_LENGTHS = {0: 19, 3: 9, 4: 7, 5: 5}
"""What follows a client's message of that number: pixel format, update request, key, pointer."""

Part = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_playing: set[asyncio.Task[None]] = set()


async def play(part: Part) -> Stream:
    """One end of a line, at whose other end somebody plays that part."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=theirs)

    async def until_gone() -> None:
        try:
            await part(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, NotRunning):
            pass
        finally:
            writer.close()

    task = asyncio.create_task(until_gone(), name="pretended console")
    _playing.add(task)
    task.add_done_callback(_playing.discard)
    return await asyncio.open_connection(sock=ours)


def disk_image(disk_gb: int) -> bytes:
    """A qcow2 image of that size of which there is nothing but the header."""
    header = struct.pack("!4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, 16, max(disk_gb, 1) << 30, 0, 0, 0, 0, 0, 0, 0)
    return header.ljust(512, b"\0")


def screen(name: str) -> Part:
    """Somebody who draws."""

    async def draw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"RFB 003.008\n")
        await reader.readexactly(12)
        writer.write(b"\x01\x01")
        await reader.readexactly(1)
        writer.write(bytes(4))
        await reader.readexactly(1)
        title = name.encode()
        writer.write(struct.pack("!HH", WIDTH, HEIGHT) + _PIXELS + struct.pack("!I", len(title)) + title)
        pressed, shown, wanted = 0, -1, False
        while True:
            kind = (await reader.readexactly(1))[0]
            if kind == 2:  # encodings
                count = struct.unpack("!xH", await reader.readexactly(3))[0]
                await reader.readexactly(4 * count)
            elif kind == 6:  # its clipboard
                length = struct.unpack("!xxxI", await reader.readexactly(7))[0]
                await reader.readexactly(min(length, 65536))
            elif kind in _LENGTHS:
                body = await reader.readexactly(_LENGTHS[kind])
                pressed += kind == 4 and body[0] == 1
                if kind == 3:
                    wanted, shown = True, shown if body[0] else -1
            else:
                return
            if wanted and shown != pressed:
                wanted, shown = False, pressed
                colour = COLOURS[pressed % len(COLOURS)].to_bytes(4, "little")
                writer.write(struct.pack("!BxHHHHHi", 0, 1, 0, 0, WIDTH, HEIGHT, 0) + colour * (WIDTH * HEIGHT))
                await writer.drain()

    return draw


def line(greeting: str, heard: Callable[[str], None]) -> Part:
    """Somebody who repeats what is typed. `heard`: what the console's log keeps of it."""

    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"\r\n{greeting}".encode())
        typed = b""
        while data := await reader.read(4096):
            writer.write(data.replace(b"\r", b"\r\n"))
            typed = (typed + data)[-4096:]
            *lines, typed = typed.replace(b"\n", b"\r").split(b"\r")
            for it in lines:
                said = it.decode(errors="replace")
                heard(said)
                writer.write(f"simulated: you said {said}\r\n{greeting}".encode())
            await writer.drain()

    return repeat
