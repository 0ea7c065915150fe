"""Keeps a libvirt host tidy: consoles stay small, and images that nobody uses go."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agents.hypervisor import console
from agents.hypervisor.libvirt_guests import Guests
from bus import clock

TRIM_SECONDS = 5.0
CLEAN_SECONDS = 3600.0
"""Between two looks for images that nobody uses."""


async def keep_tidy(guests: Guests) -> None:
    cleaned = clock.monotonic()
    while True:
        await asyncio.sleep(TRIM_SECONDS)
        await asyncio.to_thread(trim, guests.folder)
        if clock.monotonic() - cleaned > CLEAN_SECONDS:
            cleaned = clock.monotonic()
            in_use = {path.readlink() for path in guests.folder.glob("*/base*")}
            await asyncio.to_thread(guests.images.clean, in_use)


def trim(folder: Path) -> None:
    """The consoles of these guests. Blocks."""
    for path in folder.glob("*/console.log"):
        console.trim(path)
