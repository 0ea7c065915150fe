"""A guest of libvirt's that becomes of another size where it is; its disks of before are kept meanwhile."""

from __future__ import annotations

import asyncio

from agents.hypervisor import disk, libvirt_domain, moving
from agents.hypervisor.libvirt_guests import Guests
from agents.hypervisor.libvirt_making import define_again, furnish
from schema.compute.domain import Domain


async def resize(guests: Guests, domain: Domain) -> None:
    folder, id = guests.of(domain.server_id), domain.server_id
    await guests.on(id, "stopping it", libvirt_domain.power_off)
    try:
        await asyncio.to_thread(moving.keep, folder)
        if domain.disk_gb:
            await disk.grow(folder / "disk", domain.disk_gb * disk.GIB)
        if domain.ephemeral_gb and (folder / "ephemeral").exists():
            await disk.grow(folder / "ephemeral", domain.ephemeral_gb * disk.GIB)
        await furnish(guests, domain)
    except BaseException:
        await asyncio.to_thread(moving.put_back, folder)
        raise
    made = {"resized": domain.resized, "kept": True, "fenced": False}
    await define_again(guests, domain, **made)


async def unresize(guests: Guests, domain: Domain) -> None:
    folder, id = guests.of(domain.server_id), domain.server_id
    await guests.on(id, "stopping it", libvirt_domain.power_off)
    await asyncio.to_thread(moving.put_back, folder)
    await furnish(guests, domain)
    made = {"resized": domain.resized, "kept": False, "fenced": False}
    await define_again(guests, domain, **made)


async def drop_kept(guests: Guests, id: str) -> None:
    await asyncio.to_thread(moving.drop_kept, guests.of(id))
    guests.note(id, moving.KEPT).unlink(missing_ok=True)
    await guests.on(id, "noting its size", lambda it: libvirt_domain.remember(it, kept=False))
