"""Processes that serve a namespace and outlive the agent: started once, adopted after a restart, ended by their id.

A process is known by what stands on its command line: a text that only ours has (as a rule the path of its pid file)
tells that it is ours, the whole line tells that it does what is wanted now. So no other process is ever signalled.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import tempfile
from contextlib import nullcontext, suppress
from pathlib import Path

from agents.network.namespace import FOLDER, enter
from bus import clock
from schema.compute.domain import Word

START_SECONDS = 10.0
STOP_SECONDS = 3.0
"""How long one may take to end when asked to, before it is killed."""
_children: set[int] = set()
"""Who was started here and has not been reaped. Nobody else's children are: their parents wait for them."""


class CannotStart(Exception):
    """The process did not start. The text says what it said."""


class Daemon(Word):
    """What is to run. Whatever it should do must show in the command, or a change of it is not seen."""

    command: tuple[str, ...]
    namespace: str
    """As in /run/netns; empty: the one this process is in."""
    pid_file: str
    mark: str = ""
    """What stands on the command line of ours and of no other process; the pid file's path if empty."""
    forks: bool = False
    """It goes into the background by itself once it is ready, and writes its pid file."""
    log: str = "/dev/null"
    """Where one that does not fork writes its output."""
    environment: tuple[tuple[str, str], ...] = ()
    """Besides the agent's own."""


def running(daemon: Daemon) -> bool:
    """Whether it runs as it should."""
    pid = _recorded(daemon)
    return pid is not None and _as_wanted(daemon, pid)


def pid_of(daemon: Daemon) -> int | None:
    """None: it does not run."""
    return _recorded(daemon)


async def ensure(daemon: Daemon) -> bool:
    """Have it run, and no other of ours in its place; whether it was started anew. Raises CannotStart."""
    return False if running(daemon) else await asyncio.to_thread(_replace, daemon)


async def stop(daemon: Daemon) -> None:
    """End it; nothing happens when it does not run."""
    await asyncio.to_thread(_stop, daemon, _recorded(daemon))


def tell(daemon: Daemon, number: signal.Signals) -> bool:
    """Signal it; False: it does not run."""
    pid = _recorded(daemon)
    return pid is not None and _signal(daemon, pid, number)


def _replace(daemon: Daemon) -> bool:
    for pid in _strays(daemon):
        if _as_wanted(daemon, pid):
            _record(daemon, pid)
            return False
        _stop(daemon, pid)
    _let_die(daemon)
    _start(daemon)
    return True


def _let_die(daemon: Daemon) -> None:
    """One that somebody has just killed may still hold its sockets."""
    with suppress(OSError, ValueError):
        pid = int(Path(daemon.pid_file).read_text())
        if not _arguments(pid):
            handle = os.pidfd_open(pid)
            select.select([handle], [], [], 1.0)
            os.close(handle)


def _start(daemon: Daemon) -> None:
    Path(daemon.pid_file).parent.mkdir(parents=True, exist_ok=True)
    with enter(daemon.namespace) if daemon.namespace else nullcontext():
        if not daemon.forks:
            pid = _spawn(daemon)
            _record(daemon, pid)
            _let_begin(pid)
            return
        # Not a pipe: what it leaves in the background may hold on to it.
        with tempfile.TemporaryFile() as words:
            try:
                done = subprocess.run(
                    daemon.command,
                    stdin=subprocess.DEVNULL,
                    stdout=words,
                    stderr=words,
                    start_new_session=True,
                    check=False,
                    timeout=START_SECONDS,
                    cwd="/",
                    env={**os.environ, **dict(daemon.environment)},
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise CannotStart(f"{daemon.command[0]} did not start: {error}") from error
            if done.returncode:
                words.seek(0)
                said = words.read(2000).decode(errors="replace").strip()
                raise CannotStart(f"{daemon.command[0]} did not start: {said or f'exit {done.returncode}'}")


def _let_begin(pid: int) -> None:
    """For a moment after it was started it has no command line, and would be taken for one that has ended."""
    handle = os.pidfd_open(pid)
    try:
        until = clock.monotonic() + START_SECONDS
        while not _arguments(pid) and clock.monotonic() < until and not select.select([handle], [], [], 0.001)[0]:
            pass
    finally:
        os.close(handle)


def _spawn(daemon: Daemon) -> int:
    output = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        pid = os.posix_spawnp(
            daemon.command[0],
            daemon.command,
            {**os.environ, **dict(daemon.environment)},
            setsid=True,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, daemon.log, output, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )
    except OSError as error:
        raise CannotStart(f"{daemon.command[0]} did not start: {error}") from error
    _children.add(pid)
    return pid


def _stop(daemon: Daemon, pid: int | None) -> None:
    if pid is not None:
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                for number in (signal.SIGTERM, signal.SIGKILL):
                    if not _is_ours(daemon, pid):
                        break
                    signal.pidfd_send_signal(handle, number)
                    if select.select([handle], [], [], STOP_SECONDS)[0]:
                        break
            finally:
                os.close(handle)
        _reap(pid)
    else:
        _let_die(daemon)
    Path(daemon.pid_file).unlink(missing_ok=True)


def _signal(daemon: Daemon, pid: int, number: signal.Signals) -> bool:
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            if _is_ours(daemon, pid):
                signal.pidfd_send_signal(handle, number)
                return True
        finally:
            os.close(handle)
    return False


def _recorded(daemon: Daemon) -> int | None:
    """As the pid file has it, if that process is ours."""
    try:
        pid = int(Path(daemon.pid_file).read_text())
    except (OSError, ValueError):
        return None
    return pid if _is_ours(daemon, pid) else None


def _record(daemon: Daemon, pid: int) -> None:
    path = Path(daemon.pid_file)
    fresh = path.with_suffix(".new")
    fresh.write_text(f"{pid}\n")
    fresh.replace(path)


def _strays(daemon: Daemon) -> list[int]:
    """All that are ours, even if the pid file knows nothing of them."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if _is_ours(daemon, pid)]


def _is_ours(daemon: Daemon, pid: int) -> bool:
    arguments = _arguments(pid)
    if not arguments:
        _reap(pid)
        return False
    same_program = Path(arguments[0]).name == Path(daemon.command[0]).name
    return same_program and any((daemon.mark or daemon.pid_file) in argument for argument in arguments)


def _as_wanted(daemon: Daemon, pid: int) -> bool:
    return _arguments(pid) == list(daemon.command) and _is_inside(pid, daemon.namespace)


def _arguments(pid: int) -> list[str]:
    """Empty for one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def _is_inside(pid: int, name: str) -> bool:
    """Whether a process is in what bears that name now: a namespace may have been made anew under its feet."""
    try:
        wanted = FOLDER / name if name else Path("/proc/self/ns/net")
        return Path(f"/proc/{pid}/ns/net").stat().st_ino == wanted.stat().st_ino
    except OSError:
        return False


def _reap(pid: int) -> None:
    """Of a child of ours that has ended, let the kernel forget it."""
    if pid in _children:
        with suppress(OSError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                return
        _children.discard(pid)
