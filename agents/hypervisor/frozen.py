"""Guests that stand still because their processes were stopped (SIGSTOP): what can be done when nobody else is there.

    libvirt's notes of what runs ──freeze──▶ <folder>/frozen/<server id>, process stopped ──thaw──▶ as it was
                                                                                    └──end──▶ gone, and never ran again

It takes neither an agent nor libvirt. libvirt goes on believing that they run, and what it asks of one is not answered
before it is thawed; so a frozen guest is to be thawed, or ended, before anything else is done with it.
"""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from pathlib import Path

from agents.hypervisor.remembered import NAMESPACE

_STATUS = re.compile(r"<domstatus state='(\w+)'[^>]* pid='(\d+)'")
_STOPPED = "T"


class Frozen:
    """Those of one host. `folder`: the host's own, not one that hosts share: it must answer whatever else does not."""

    def __init__(self, folder: Path) -> None:
        self._notes = folder / "frozen"

    def holds(self, id: str) -> bool:
        return (self._notes / id).exists()

    def freeze(self, processes: Path, guests: str) -> list[str]:
        """Stop every guest that runs; the ids of those that did. The note comes first: it may outlast what failed."""
        frozen = []
        for id, pid in _running(processes, guests):
            started, state = _look(pid)
            if state == _STOPPED and self.holds(id):
                continue
            self._notes.mkdir(exist_ok=True)
            (self._notes / id).write_text(f"{pid} {started}")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                frozen.append(id)
        return frozen

    def thaw(self, id: str) -> None:
        """Let it go on."""
        self._signal(id, signal.SIGCONT)

    def end(self, id: str) -> None:
        """Cut its power. It does not run again before."""
        self._signal(id, signal.SIGKILL)

    def _signal(self, id: str, number: signal.Signals) -> None:
        note = self._notes / id
        try:
            pid, started = note.read_text().split()
        except (OSError, ValueError):
            note.unlink(missing_ok=True)
            return
        if _look(int(pid))[0] == started:
            with suppress(ProcessLookupError):
                os.kill(int(pid), number)
        note.unlink(missing_ok=True)


def _running(processes: Path, guests: str) -> list[tuple[str, int]]:
    """(Server id, process) of those that libvirt has not paused, by its own notes: a file for each that is on."""
    found = []
    for path in processes.glob("*.xml"):
        try:
            text = path.read_text()
        except OSError:
            continue  # it has just ended
        status = _STATUS.search(text)
        if status is None or status[1] == "paused" or NAMESPACE not in text or f"{guests}/" not in text:
            continue
        with suppress(OSError):
            if path.stem.encode() in Path(f"/proc/{status[2]}/cmdline").read_bytes():
                found.append((path.stem, int(status[2])))
    return found


def _look(pid: int) -> tuple[str, str]:
    """(When it was started, in ticks since boot; its state, a letter) of a process; empty when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[19], fields[0]
