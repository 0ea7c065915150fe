"""Open vSwitches of a test's hosts, and the end of them."""

from __future__ import annotations

import os
import select
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agents.network.namespace import Namespace
from agents.network.ovs.switch import OvsSwitch


@contextmanager
def open_vswitches(**options: Any) -> Iterator[Callable[[Namespace], OvsSwitch]]:
    """Makes a host's; made again for the same host, it is the next agent's."""
    folder = Path(tempfile.mkdtemp(prefix="cl-ovs-"))
    try:
        yield lambda inside: OvsSwitch(inside, folder / str(inside.name), **options)
    finally:
        end_processes(folder)
        shutil.rmtree(folder, ignore_errors=True)


def end_processes(folder: Path) -> None:
    """Those that an agent would find again: by their pid files, if they are ours."""
    for path in folder.rglob("*.pid"):
        with suppress(OSError, ValueError):
            pid = int(path.read_text())
            if str(folder) in Path(f"/proc/{pid}/cmdline").read_text():
                handle = os.pidfd_open(pid)
                os.kill(pid, signal.SIGKILL)
                select.select([handle], [], [], 5)
                os.close(handle)
