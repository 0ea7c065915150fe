"""When this machine was started, as its kernel says."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def booted_at() -> int:
    """Unix seconds; 0 where the kernel does not say.

    Read once: the kernel reckons it from its clock, and a clock that is set must not look like a machine that started.
    """
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("btime ")), 0)
