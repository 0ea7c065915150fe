"""A copy of the root disk of a guest of libvirt's, whole and of one moment, sent away as an image.

    off, suspended ─▶ qemu-img convert        running, paused ─▶ QEMU's own backup: the guest goes on meanwhile
                                      └─▶ a file beside the disk ─▶ the image service ─▶ the file goes

Whatever ends it on the way leaves no file and no job behind; done again, it begins anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from pathlib import Path
from typing import Any

import libvirt

from agents.hypervisor import disk, libvirt_backup, libvirt_domain, snapshotting
from agents.hypervisor.driver import StepFailed
from agents.hypervisor.libvirt_guests import Guests
from agents.hypervisor.wishes import quiesce
from schema.compute.domain import Domain

COPY = "copy"
LOOK_SECONDS = 0.2


async def send_copy(guests: Guests, domain: Domain) -> None:
    id, wanted, copy = domain.server_id, domain.snapshot, guests.of(domain.server_id) / COPY
    if wanted is None:
        raise StepFailed("there is no image to copy its root disk into")
    try:
        await _copy(guests, domain, copy)
        await snapshotting.send(wanted, copy, functools.partial(_tell, guests, id, "sending its image"))
    finally:
        copy.unlink(missing_ok=True)
    await guests.on(id, "noting its image", lambda it: libvirt_domain.remember(it, snapshot=wanted.image_id))


async def tidy(guests: Guests, of: str = "*") -> None:
    """What an agent that died left half done ends here; of one that is frozen, when it is thawed."""
    left = {it.parent for name in (COPY, libvirt_backup.QUIET) for it in guests.folder.glob(f"{of}/{name}")}
    for folder in (it for it in left if guests.holds(it.name) and not guests.frozen.holds(it.name)):
        with contextlib.suppress(StepFailed, libvirt.libvirtError):
            await _end(guests, folder)
        (folder / COPY).unlink(missing_ok=True)


async def _copy(guests: Guests, domain: Domain, copy: Path) -> None:
    on_it = functools.partial(guests.on, domain.server_id)
    root, quiet = guests.of(domain.server_id) / "disk", quiesce(domain.properties)
    await _end(guests, copy.parent)
    copy.unlink(missing_ok=True)  # noqa: ASYNC240  a local file
    if not await on_it("looking at it", lambda it: bool(it.isActive())):
        await disk.flatten(root, copy)
        return
    try:
        await on_it("copying its disk", lambda it: libvirt_backup.begin(it, root, copy, quiet))
        while (at := await on_it("copying its disk", libvirt_backup.progress)) is not None:
            _tell(guests, domain.server_id, "copying its disk", *at)
            await asyncio.sleep(LOOK_SECONDS)
    except BaseException:
        with contextlib.suppress(StepFailed, libvirt.libvirtError):
            await _end(guests, copy.parent)
        raise


async def _end(guests: Guests, folder: Path) -> None:
    """Whatever a copy of that guest has begun."""

    def end(domain: Any) -> None:
        libvirt_backup.abandon(domain)
        libvirt_backup.wake(domain, folder / libvirt_backup.QUIET)

    await guests.on(folder.name, "ending what was begun", end)


def _tell(guests: Guests, id: str, doing: str, done: int, whole: int) -> None:
    guests.on_progress(id, f"{doing}: {done / 1e6:.0f} of {whole / 1e6:.0f} MB")
