"""Makes a guest of libvirt's, and leaves nothing of it: files before the domain, and removed before it.

So whatever a crash leaves is still seen, and cleaned up.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import libvirt
import msgspec

from agents.hypervisor import config_drive, disk, domain_system, libvirt_domain, moving
from agents.hypervisor.domain_disks import Disk, rescue_disk
from agents.hypervisor.domain_xml import NVRAM, domain_xml
from agents.hypervisor.driver import StepFailed
from agents.hypervisor.libvirt_guests import Guests
from agents.hypervisor.plan import Adopt
from agents.hypervisor.remembered import Remembered
from agents.hypervisor.wishes import Wishes
from schema.compute.domain import Domain

_EVERYTHING = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
)


async def define(guests: Guests, domain: Domain, position: int) -> None:
    folder = guests.hold(domain.server_id)
    root = folder / "disk"
    kept = domain.copy_from is not None and guests.shares(domain.server_id, domain.copy_from.host)
    if kept:
        await _keep_shared(guests, domain)
    elif domain.copy_from is not None:
        await moving.copied(domain, folder, guests.sockets, lambda words: guests.on_progress(domain.server_id, words))
    if domain.image and not root.exists():
        if domain.built:
            raise StepFailed(f"the root disk of this server is gone from host {guests.host}; rebuild it")
        base = await guests.images.get(domain.image, lambda done, whole: downloading(guests, domain, done, whole))
        point(folder / "base", base)
        await disk.overlay(root, base, domain.image.disk_format, domain.disk_gb * disk.GIB)
    elif domain.built and not root.exists():
        raise StepFailed(f"the disks of this server are gone from host {guests.host}; rebuild it")
    elif not root.exists():
        await disk.blank(root, max(domain.disk_gb, 1) * disk.GIB)
    await furnish(guests, domain)
    await define_again(guests, domain, position, **({"kept": True} if kept else {}))


async def _keep_shared(guests: Guests, domain: Domain) -> None:
    """Copies of the disks that it had on another host, in their places; those are kept beside them."""
    folder = guests.of(domain.server_id)
    moving.note(guests.note(domain.server_id, moving.KEPT), domain.generation)
    await asyncio.to_thread(moving.keep, folder)
    if domain.disk_gb:
        await disk.grow(folder / "disk", domain.disk_gb * disk.GIB)


async def prepare(guests: Guests, domain: Domain) -> None:
    """Unless it has come meanwhile."""
    if await guests.libvirt.call(lambda it: libvirt_domain.lookup(it, domain.server_id) is not None, "looking for it"):
        return
    folder = guests.hold(domain.server_id)
    await moving.prepared(domain, folder)
    await furnish(guests, domain)
    moving.note(guests.note(domain.server_id, moving.AWAITING), domain.generation)


async def adopt(guests: Guests, step: Adopt) -> None:
    awaiting, sent = (guests.note(step.server_id, what) for what in (moving.AWAITING, moving.SENT))
    try:
        await guests.on(
            step.server_id,
            "noting its generation",
            lambda domain: libvirt_domain.adopt(domain, step, guests.boot),
        )
    except libvirt.libvirtError:
        if moving.noted(sent) is None:
            raise
        moving.note(sent, step.generation)
    else:
        awaiting.unlink(missing_ok=True)
        sent.unlink(missing_ok=True)


async def furnish(guests: Guests, domain: Domain) -> None:
    """Whatever it has beside its root disk, if that is not there yet."""
    folder = guests.of(domain.server_id)
    if domain.ephemeral_gb:
        await disk.blank(folder / "ephemeral", domain.ephemeral_gb * disk.GIB)
    if domain.swap_mb:
        await disk.blank(folder / "swap", domain.swap_mb * 1024 * 1024)
    drive = folder / "config-drive.iso"
    if domain.config_drive and not drive.exists():
        await asyncio.to_thread(config_drive.write, domain, drive)
        drive.chmod(0o600)
    nvram = folder / NVRAM
    if not nvram.exists() and (blank := domain_system.variables(Wishes(domain.properties), await guests.abilities())):
        await asyncio.to_thread(shutil.copyfile, blank, nvram)
        moving.give(nvram)


async def define_again(guests: Guests, domain: Domain, position: int = 0, **changes: Any) -> None:
    """Write the definition, keeping what is remembered of it but for those changes."""
    folder, host = guests.of(domain.server_id), await guests.abilities()
    fresh = Remembered(position=position, remade=domain.remade, resized=domain.resized)
    wishes = Wishes(domain.properties)

    def define(connection: Any) -> None:
        known = libvirt_domain.lookup(connection, domain.server_id)
        memory = msgspec.structs.replace(libvirt_domain.remembered(known) if known else fresh, **changes)
        disks = _disks(folder, wishes, rescued=memory.rescued)
        connection.defineXML(domain_xml(domain, host=host, disks=disks, folder=folder, memory=memory))

    await guests.libvirt.call(define, "defining it")


def _disks(folder: Path, wishes: Wishes, *, rescued: bool) -> list[Disk]:
    """In the guest's order. That of a rescue image is the first, or the last if the image says as what it stands."""
    last = rescue_disk(folder / "rescue", wishes) if rescued else None
    names = (*(("rescue",) if rescued and not last else ()), "disk", "ephemeral", "swap")
    disks = [Disk(path=folder / name) for name in names if (folder / name).exists()]
    drive = folder / "config-drive.iso"
    if drive.exists():
        disks.append(Disk(path=drive, format="raw", readonly=True, serial="config-drive"))
    return [*disks, last] if last else disks


async def remove(guests: Guests, id: str) -> None:
    await guests.libvirt.call(lambda connection: _remove(guests, connection, id), "removing it")


def _remove(guests: Guests, connection: Any, id: str) -> None:
    domain = libvirt_domain.lookup(connection, id)
    if domain:
        libvirt_domain.power_off(domain)
    variables = libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    if guests.shared_by_others(id):
        variables = libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
    guests.let_go(id)
    if domain:
        domain.undefineFlags(_EVERYTHING | variables)
    else:  # that of its TPM was there before the domain; with it, libvirt removes it
        shutil.rmtree(guests.sockets.tpms / id, ignore_errors=True)


def downloading(guests: Guests, domain: Domain, done: int, whole: int) -> None:
    of = f" of {whole / 1e6:.0f}" if whole else ""
    guests.on_progress(domain.server_id, f"downloading its image: {done / 1e6:.0f}{of} MB")


def point(link: Path, to: Path) -> None:
    """Note what the disk is laid over, for as long as it is."""
    link.unlink(missing_ok=True)
    link.symlink_to(to)
