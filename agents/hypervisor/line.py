"""A guest's serial line, which is a terminal of the host, as a stream.

Not asyncio's pipes: there must be two for both ways, and uvloop's writing one reads as well, to learn when the other
end closes, and drops what it read. Half of what a guest says would be lost.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from agents.hypervisor.driver import Stream

CHUNK_BYTES = 64 * 1024
WAITING_BYTES = 64 * 1024
"""So much may wait for the guest to take it; then whoever writes waits."""


async def line_stream(descriptor: int) -> Stream:
    """Both ways of a terminal that was opened without blocking. Closing the writer closes it."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    line = _Line(loop, descriptor, protocol)
    protocol.connection_made(line)
    return reader, asyncio.StreamWriter(line, protocol, reader, loop)


class _Line(asyncio.Transport):
    def __init__(
        self, loop: asyncio.AbstractEventLoop, descriptor: int, protocol: asyncio.StreamReaderProtocol
    ) -> None:
        super().__init__()
        self._loop = loop
        self._descriptor = descriptor
        self._protocol = protocol
        self._waiting = bytearray()
        self._paused = False
        self._closed = False
        loop.add_reader(descriptor, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, CHUNK_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:  # EIO: the guest's end is gone
            self._end(error)
            return
        if data:
            self._protocol.data_received(data)
        else:
            self._end(None)

    def pause_reading(self) -> None:
        if not self._closed:
            self._loop.remove_reader(self._descriptor)

    def resume_reading(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._descriptor, self._read)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closed:
            return
        self._waiting += data
        self._write()

    def _write(self) -> None:
        try:
            while self._waiting:
                del self._waiting[: os.write(self._descriptor, self._waiting)]
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._descriptor, self._write)
        except OSError as error:
            self._end(error)
            return
        else:
            self._loop.remove_writer(self._descriptor)
        if self._paused and not self._waiting:
            self._paused = False
            self._protocol.resume_writing()
        elif not self._paused and len(self._waiting) > WAITING_BYTES:
            self._paused = True
            self._protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return len(self._waiting)

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        """What waits still for a guest that takes nothing is dropped."""
        self._end(None)

    def abort(self) -> None:
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        if self._closed:
            return
        self._closed = True
        self._waiting.clear()
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)
        with suppress(OSError):
            os.close(self._descriptor)
        self._loop.call_soon(self._protocol.connection_lost, error)
