"""A network namespace to work in: one thread that has entered it runs what must happen inside.

Sockets stay in the namespace they were made in, and so do threads: whatever is run here (netlink, nftables, taps,
`/proc/sys/net`) sees that namespace and no other, while the event loop stays where it is.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

FOLDER = Path("/run/netns")
"""Where `ip netns` keeps named ones."""
_CLONE_NEWNET = 0x40000000
_MS_BIND, _MNT_DETACH = 0x1000, 2
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """`None`: the one this process is in. Closing it lets the thread go, not the namespace."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self._local = threading.local()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix=f"netns {name or 'own'}", initializer=self._enter)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result, run inside. One at a time, in order."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: function(*args, **kwargs))

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for who has no event loop; blocks."""
        return self._threads.submit(lambda: function(*args, **kwargs)).result()

    @property
    def command(self) -> list[str]:
        """What to put before a command line so that the process runs inside."""
        return ["nsenter", f"--net={FOLDER / self.name}", "--"] if self.name else []

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _enter(self) -> None:
        if self.name:
            _enter(FOLDER / self.name)


@contextmanager
def enter(name: str) -> Iterator[None]:
    """Be in a named namespace for a moment, in a thread of which nobody else expects to stay where it is."""
    own = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(FOLDER / name)
        try:
            yield
        finally:
            _check(_libc.setns(own, _CLONE_NEWNET), "return to the namespace before")
    finally:
        os.close(own)


def create(name: str) -> bool:
    """Make a named namespace with its loopback up; False when it was there. As `ip netns add` does."""
    path = FOLDER / name
    if exists(name):
        return False
    FOLDER.mkdir(parents=True, exist_ok=True)
    path.touch()
    failure: list[BaseException] = []

    def make() -> None:
        try:
            _check(_libc.unshare(_CLONE_NEWNET), "make a network namespace")
            source = f"/proc/self/task/{threading.get_native_id()}/ns/net".encode()
            _check(_libc.mount(source, bytes(path), b"none", _MS_BIND, None), f"name namespace {name}")
            _loopback_up()
        except BaseException as error:  # noqa: BLE001  it goes to the caller's thread
            failure.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if failure:
        path.unlink(missing_ok=True)
        raise failure[0]
    return True


def remove(name: str) -> None:
    """Unname it: it goes with the last process in it. Nothing to do when it is not there."""
    path = FOLDER / name
    if path.exists():
        _libc.umount2(bytes(path), _MNT_DETACH)
        path.unlink(missing_ok=True)


def exists(name: str) -> bool:
    """Whether a namespace of that name is there (a bare file that nothing is mounted on is none)."""
    path = FOLDER / name
    try:
        return path.stat().st_dev != FOLDER.stat().st_dev
    except OSError:
        return False


def identity(name: str) -> str:
    """The same as long as it is there, and another one once it has been made anew. Raises OSError."""
    seen = (FOLDER / name).stat()
    return f"{seen.st_ino}.{seen.st_ctime_ns}"


def names(prefix: str = "") -> list[str]:
    """Named namespaces that begin so."""
    try:
        return sorted(it.name for it in FOLDER.iterdir() if it.name.startswith(prefix) and exists(it.name))
    except FileNotFoundError:
        return []


def sysctl(key: str, value: str | int) -> None:
    """Set `net/…` of the namespace this thread is in; nothing is written where it is so already. Raises OSError."""
    path = Path("/proc/sys") / key
    if path.read_text().strip() != str(value):
        path.write_text(str(value))


def _enter(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(opened, _CLONE_NEWNET), f"enter namespace {path.name}")
    finally:
        os.close(opened)


def _loopback_up() -> None:
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        netlink.link("set", index=1, state="up")


def _check(result: int, what: str) -> Any:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot {what}: {os.strerror(number)}")
    return result
