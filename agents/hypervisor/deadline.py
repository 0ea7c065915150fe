"""When the guests of a host must stand still: one rule, for its agent, for its watchdog and for the simulation.

    lease renewed ──▶ may run until its end ──▶ over ──lease renewed──▶ may run …

The end of the lease outlives the agent that was granted it. One that starts has what is left of it, and no more: only
the control plane moves it later, by renewing it. It counts by the clock of the machine's boot, which goes on while the
machine sleeps; what an earlier boot wrote down is over.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Protocol

import msgspec

FILE = "lease.json"
"""In the folder of a host."""


class Deadline(msgspec.Struct, frozen=True, omit_defaults=True):
    """Until when the guests of a host may run."""

    boot: str = ""
    """The machine's, by whose clock it counts."""
    until: float = 0.0
    """Seconds since that boot, those it slept included."""
    fences: bool = False
    """The control plane was told that they are paused then, and may build them elsewhere."""
    processes: str = ""
    """The folder where libvirt names the processes of running guests; empty: they are only pretended."""
    guests: str = ""
    """The folder of the guests' files, which tells them from those of other clouds."""


def seconds_left(deadline: Deadline, boot: str, now: float) -> float:
    """Of the lease. `now`: seconds since this boot."""
    return max(deadline.until - now, 0.0) if deadline.boot == boot else 0.0


def is_over(deadline: Deadline, boot: str, now: float) -> bool:
    """Whether the guests of that host must stand still."""
    return deadline.fences and seconds_left(deadline, boot, now) <= 0


class Deadlines(Protocol):
    """Where a host keeps its deadline."""

    def load(self) -> Deadline:
        """What was saved last; one that is over, where nothing was."""

    def save(self, deadline: Deadline) -> None: ...


class MemoryDeadlines:
    """For guests that are only pretended: they end with the process."""

    def __init__(self) -> None:
        self._deadline = Deadline()

    def load(self) -> Deadline:
        return self._deadline

    def save(self, deadline: Deadline) -> None:
        self._deadline = deadline


class FileDeadlines:
    """A file in the folder of a host, always whole. It need not outlast a loss of power: then it is over anyway."""

    def __init__(self, folder: Path, *, processes: Path, guests: Path) -> None:
        self._path = folder / FILE
        self._where = {"processes": str(processes), "guests": str(guests)}

    def load(self) -> Deadline:
        return read(self._path) or Deadline()

    def save(self, deadline: Deadline) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        aside = self._path.with_suffix(".new")
        aside.write_bytes(msgspec.json.encode(msgspec.structs.replace(deadline, **self._where)))
        aside.replace(self._path)


def read(path: Path) -> Deadline | None:
    """What a file says; None if it says nothing."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Deadline)
    except (OSError, msgspec.DecodeError):
        return None


@cache
def boot_id() -> str:
    """Which boot of this machine it is; empty where the kernel does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
