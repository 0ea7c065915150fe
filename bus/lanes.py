"""Lanes: words of many hosts worked on at once, those of one host in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger()

Done = Callable[[], Awaitable[None]]


class Lanes:
    """Calls `work(key, message)` for each message: side by side for different keys, in turn for the same one.

    What the work raises is logged and not tried again: a host says again what matters.
    """

    def __init__(self, work: Callable[[str, bytes], Awaitable[None]], width: int) -> None:
        self._work = work
        self._room = asyncio.Semaphore(width)
        self._few = asyncio.Event()
        self._few.set()
        self._waiting = 0
        self._many = width * 16
        self._lanes: dict[str, deque[tuple[bytes, Done]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, key: str, message: bytes, done: Done) -> None:
        """Queue a message; `done` is awaited after its work. How many wait is bounded by whoever puts them (`room`)."""
        self._waiting += 1
        if self._waiting >= self._many:
            self._few.clear()
        lane = self._lanes.get(key)
        if lane is not None:
            lane.append((message, done))
            return
        self._lanes[key] = deque([(message, done)])
        task = asyncio.create_task(self._walk(key), name=f"reports of {key}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def put_newest(self, key: str, message: bytes) -> None:
        """Queue a message that makes those before it worthless, as far as they still wait."""
        lane = self._lanes.get(key)
        if lane:
            self._waiting -= len(lane)
            lane.clear()
        self.put(key, message, _nothing)

    async def room(self) -> None:
        """Wait until not too many wait."""
        await self._few.wait()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _walk(self, key: str) -> None:
        lane = self._lanes[key]
        try:
            while lane:
                message, done = lane.popleft()
                self._waiting -= 1
                if self._waiting < self._many:
                    self._few.set()
                async with self._room:
                    try:
                        await self._work(key, message)
                    except Exception as error:
                        log.warning("report not taken", host=key, error=repr(error), exc_info=True)
                try:
                    await done()
                except ConnectionError:
                    continue  # it comes again
        finally:
            self._lanes.pop(key, None)


async def _nothing() -> None:
    """It is worth no receipt."""
