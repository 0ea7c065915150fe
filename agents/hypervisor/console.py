"""Consoles of guests: files that QEMU appends to, read from their end and kept from growing."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from agents.hypervisor.driver import StepFailed

LIMIT_BYTES = 1024 * 1024
"""A console log that grows past this loses all but its end."""
KEPT_BYTES = 256 * 1024
SHOWN_BYTES = 100 * 1024


def end_of_console(path: Path, lines: int | None) -> str:
    """The last lines of it (None: all that is shown at once), as text. Raises StepFailed if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - SHOWN_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        raise StepFailed("it has no console output") from None
    text = re.sub(r"\r*\n\r*", "\n", text)
    if lines is None or lines < 0:
        return text
    return "".join(re.findall(r"[^\n]*\n|[^\n]+", text)[-lines:]) if lines else ""


def trim(path: Path) -> None:
    """Shorten it if it has grown too long. QEMU writes at the end wherever that is, so it does not notice."""
    with contextlib.suppress(OSError), path.open("r+b") as file:
        if file.seek(0, os.SEEK_END) > LIMIT_BYTES:
            file.seek(-KEPT_BYTES, os.SEEK_END)
            end = file.read()
            file.truncate(0)
            file.seek(0)
            file.write(end)
