"""A connection to libvirt that an event loop can use: calls in threads, events in the loop, back after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import libvirt
import structlog

from agents.hypervisor.driver import OnChange, StepFailed

log = structlog.get_logger()

THREADS = 8
AWAY_SECONDS = 30.0
"""How long a step waits for a libvirt that is away before it fails."""
RETRY_SECONDS = 0.5

T = TypeVar("T")

_LOST = {
    libvirt.VIR_ERR_SYSTEM_ERROR,
    libvirt.VIR_ERR_INTERNAL_ERROR,
    libvirt.VIR_ERR_RPC,
    libvirt.VIR_ERR_NO_CONNECT,
    libvirt.VIR_ERR_INVALID_CONN,
    libvirt.VIR_ERR_OPERATION_ABORTED,
}


class Connection:
    """`await call(lambda connection: …)`. `revive`: starts libvirtd anew if it is ours and gone; runs in a thread."""

    def __init__(self, uri: str, revive: Callable[[], object] | None = None) -> None:
        self.uri = uri
        self._revive = revive
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="libvirt")
        self._connection: Any = None
        self._connected = asyncio.Event()
        self._reconnecting: asyncio.Task[None] | None = None
        self._on_change: OnChange | None = None
        self._on_return: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def open(self, on_change: OnChange, on_return: Callable[[], None]) -> None:
        """Connect and hear events. `on_return`: after a time away, when anything may have happened unheard."""
        _run_event_loop()
        self._loop = asyncio.get_running_loop()
        self._on_change = on_change
        self._on_return = on_return
        try:
            await self._run(self._open)
        except libvirt.libvirtError as error:
            raise StepFailed(f"libvirt at {self.uri} does not answer: {error}") from None
        self._connected.set()

    async def close(self) -> None:
        self._closed = True
        if self._reconnecting:
            self._reconnecting.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                await self._run(connection.close)
        self._threads.shutdown(wait=False)

    async def call(self, function: Callable[[Any], T], doing: str) -> T:
        """What the function makes of the connection, in a thread. Raises StepFailed, and what the function raises.

        libvirt's refusals become StepFailed, but for a domain that is not there: that stays a libvirtError. A call that
        was cut off by a restart of libvirtd is made again, so functions must bear that.
        """
        for _ in range(3):
            connection = await self._alive()
            try:
                return await self._run(functools.partial(function, connection))
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                    raise
                if error.get_error_code() in _LOST and not await self._run(functools.partial(_is_alive, connection)):
                    self._lost(connection)
                    continue
                raise StepFailed(f"libvirt, {doing}: {error.get_error_message()}") from error
        raise StepFailed(f"libvirt at {self.uri} went away again and again while {doing}")

    async def _alive(self) -> Any:
        if not self._connected.is_set():
            try:
                async with asyncio.timeout(AWAY_SECONDS):
                    await self._connected.wait()
            except TimeoutError:
                raise StepFailed(
                    f"libvirt at {self.uri} has not answered for {AWAY_SECONDS:.0f} s; is libvirtd running?"
                ) from None
        return self._connection

    async def _run(self, function: Callable[[], T]) -> T:
        """In a thread. A cancelled caller still waits for the thread: there is one act per domain at a time."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._threads, function)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            if not future.cancelled():
                future.exception()
            raise

    def _open(self) -> None:
        if self._revive:
            self._revive()
        connection = libvirt.open(self.uri)
        connection.setKeepAlive(5, 3)
        connection.registerCloseCallback(lambda lost, reason, opaque: self._soon(self._lost, lost), None)
        for event in (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED):
            connection.domainEventRegisterAny(None, event, self._changed, None)
        self._connection = connection

    def _changed(self, connection: Any, domain: Any, *details: Any) -> None:
        """In the thread of libvirt's own loop."""
        if self._on_change:
            self._soon(self._on_change, domain.UUIDString())

    def _soon(self, function: Callable[..., object], *arguments: Any) -> None:
        if self._loop and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(function, *arguments)

    def _lost(self, connection: Any) -> None:
        if connection is not self._connection or self._closed or not self._connected.is_set():
            return
        log.warning("libvirt is away", uri=self.uri)
        self._connected.clear()
        self._reconnecting = asyncio.create_task(self._reconnect(), name="libvirt returns")

    async def _reconnect(self) -> None:
        while True:
            try:
                await self._run(self._open)
            except Exception as error:  # noqa: BLE001  whatever keeps it away, it is tried again
                log.info("libvirt is still away", uri=self.uri, error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                break
        log.info("libvirt is back", uri=self.uri)
        self._connected.set()
        if self._on_return:
            self._on_return()


def _is_alive(connection: Any) -> bool:
    """Ask something small: `isAlive` alone only knows of an end it has noticed."""
    try:
        connection.getLibVersion()
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


@functools.cache
def _run_event_loop() -> threading.Thread:
    """libvirt's own loop, which events and keepalives need: one per process, before the first connection."""
    libvirt.registerErrorHandler(lambda *_: None, None)
    libvirt.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    thread = threading.Thread(target=run, name="libvirt events", daemon=True)
    thread.start()
    return thread
