"""The watchdog beside the agents of a machine: guests stand still when their host's lease is over, agent or not.

    every deadline of this machine's hosts, twice a second ──over for a moment──▶ freeze the guests that still run

An agent that lives fences by itself, a moment earlier, by pausing; this is for one that was killed, hangs, or is not
started again. It needs nobody: no bus, no libvirt, no settings, not even the agent's own Python packages but a few. It
holds a lock while it stands, by which an agent knows that it may promise to fence.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import structlog

from agents.hypervisor.deadline import FILE, Deadline, boot_id, is_over, read
from agents.hypervisor.frozen import Frozen
from bus import clock

log = structlog.get_logger()

LOOK_SECONDS = 0.5
GRACE_SECONDS = 1.0
"""An agent that lives pauses its guests within it, which is gentler."""
_LOCK = "watchdog.lock"
_UNLIKELY_TO_BE_KILLED = "-1000"


def look(home: Path) -> dict[str, list[str]]:
    """Freeze what must stand still. Host → the servers that still ran."""
    now = clock.boot_seconds() - GRACE_SECONDS
    return _freeze(home, lambda deadline: is_over(deadline, boot_id(), now))


def fence(home: Path) -> dict[str, list[str]]:
    """Freeze, now, what would have to stand still soon, as nobody will be there then. Host → the servers."""
    return _freeze(home, lambda deadline: deadline.fences)


def run(home: Path, stop: threading.Event) -> None:
    """Stand until told to stop. Whatever fails is tried again at the next look."""
    with suppress(OSError):  # the last to be killed when memory is short, where that may be asked for
        Path("/proc/self/oom_score_adj").write_text(_UNLIKELY_TO_BE_KILLED)
    home.mkdir(parents=True, exist_ok=True)
    with (home / _LOCK).open("w") as file:
        while not _locked(file):
            if stop.wait(LOOK_SECONDS):
                return
        log.info("the watchdog stands", home=str(home))
        _look_until(stop, home)


def _look_until(stop: threading.Event, home: Path) -> None:
    while not stop.wait(LOOK_SECONDS):
        try:
            frozen = look(home)
        except Exception:
            log.exception("the watchdog could not look")
            continue
        for host, ids in frozen.items():
            log.warning("the lease is over and guests still ran; they stand still now", host=host, servers=ids)


def stands(home: Path) -> bool:
    """Whether a watchdog does."""
    try:
        file = os.open(home / _LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _freeze(home: Path, due: Callable[[Deadline], bool]) -> dict[str, list[str]]:
    frozen: dict[str, list[str]] = {}
    for path in (home / "hypervisor" / FILE, *home.glob(f"hosts/*/{FILE}")):
        deadline = read(path)
        if deadline is not None and deadline.processes and due(deadline):
            ids = Frozen(path.parent).freeze(Path(deadline.processes), deadline.guests)
            if ids:
                frozen[path.parent.name] = ids
    return frozen


def _locked(file: IO[str]) -> bool:
    """One at a time; the kernel lets go of it when that one dies. Who only asks holds it for an instant."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
