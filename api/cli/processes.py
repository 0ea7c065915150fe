"""Processes in the background: a file per process that names its id, its start time and the boot it belongs to.

A process id alone says nothing: after a crash or a reboot it may be somebody else's. With the start time the kernel
keeps (/proc/<pid>/stat, field 22) and the boot id, it names one process for ever.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

_POLL_SECONDS = 0.02
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Process(msgspec.Struct, frozen=True):
    """One process, past mistaking it for another. `since`: seconds since the epoch."""

    pid: int
    started: str
    boot: str
    since: float

    @property
    def alive(self) -> bool:
        return self.boot == _boot() and _started(self.pid) == self.started


def find(folder: Path, name: str) -> Process | None:
    """The process of that name, if it lives."""
    try:
        process = msgspec.json.decode((folder / f"{name}.pid").read_bytes(), type=Process)
    except (OSError, msgspec.DecodeError):
        return None
    return process if process.alive else None


def record(folder: Path, name: str, pid: int) -> Process:
    """Write down that this process is the one of that name."""
    process = Process(pid, _started(pid) or "", _boot(), time.time())
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{name}.pid.{pid}"
    aside.write_bytes(msgspec.json.encode(process))
    aside.rename(folder / f"{name}.pid")
    return process


def spawn(folder: Path, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
    """Start a process in a session of its own, its words going to a log file, and write it down."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment),
            cwd="/",
            start_new_session=True,
        )
    return record(folder, name, child.pid)


def stop(process: Process, seconds: float, *, kill: bool = True) -> bool:
    """Ask it to end, wait, kill it if it will not. False when it would not go and was not to be killed."""
    with contextlib.suppress(ProcessLookupError):
        if process.alive:
            os.kill(process.pid, signal.SIGTERM)
    if wait(process, seconds):
        return True
    if not kill:
        return False
    with contextlib.suppress(ProcessLookupError):
        if process.alive:
            os.kill(process.pid, signal.SIGKILL)
    return wait(process, 10)


def wait(process: Process, seconds: float) -> bool:
    """Until it has ended; False when it has not by then."""
    deadline = time.monotonic() + seconds
    while process.alive:
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        ended(process.pid, min(left, 1.0))
    return True


def ended(pid: int, seconds: float) -> bool:
    """Wait for any process's end, our child or not; False when it still runs."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except OSError:
        time.sleep(min(seconds, _POLL_SECONDS))
        return False
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def _started(pid: int) -> str | None:
    """When the kernel started it, in ticks since boot; None when it is gone or only waits to be collected."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""
