"""A guest of libvirt's whose root disk becomes another: made anew, or for a while that of a rescue image.

The fresh disk is made before the guest is touched; until then a failure leaves it as it was.
"""

from __future__ import annotations

from pathlib import Path

from agents.hypervisor import disk, libvirt_domain
from agents.hypervisor.domain_disks import rescue_disk
from agents.hypervisor.domain_xml import NVRAM
from agents.hypervisor.driver import StepFailed
from agents.hypervisor.libvirt_guests import Guests
from agents.hypervisor.libvirt_making import define_again, downloading, furnish, point
from agents.hypervisor.wishes import Wishes
from schema.compute.domain import Domain


async def remake(guests: Guests, domain: Domain) -> None:
    folder = guests.of(domain.server_id)
    fresh, base_of_fresh = folder / "fresh", folder / "base.fresh"
    if domain.image is None:
        raise StepFailed("it has no image to make its root disk anew from")
    try:
        fresh.unlink(missing_ok=True)
        base = await guests.images.get(domain.image, lambda done, whole: downloading(guests, domain, done, whole))
        point(base_of_fresh, base)
        await disk.overlay(fresh, base, domain.image.disk_format, domain.disk_gb * disk.GIB)
        await guests.on(domain.server_id, "stopping it", libvirt_domain.power_off)
    except BaseException:
        fresh.unlink(missing_ok=True)
        base_of_fresh.unlink(missing_ok=True)
        raise
    fresh.replace(folder / "disk")
    base_of_fresh.replace(folder / "base")
    for name in ("config-drive.iso", NVRAM, *(() if domain.keep_ephemeral else ("ephemeral", "swap"))):
        (folder / name).unlink(missing_ok=True)
    await furnish(guests, domain)
    made = {"remade": domain.remade, "fenced": False}
    await define_again(guests, domain, **made)


async def rescue(guests: Guests, domain: Domain) -> None:
    folder = guests.of(domain.server_id)
    image = domain.rescue
    if image is None:
        raise StepFailed("it has no image to be rescued with")
    rescue_disk(folder / "rescue", Wishes(domain.properties))  # refused before anything is touched
    try:
        (folder / "rescue").unlink(missing_ok=True)
        base = await guests.images.get(image, lambda done, whole: downloading(guests, domain, done, whole))
        point(folder / "base.rescue", base)
        await disk.overlay(folder / "rescue", base, image.disk_format, 0)
        await guests.on(domain.server_id, "stopping it", libvirt_domain.power_off)
    except BaseException:
        _drop_rescue(folder)
        raise
    await define_again(guests, domain, rescued=True, fenced=False)


async def unrescue(guests: Guests, domain: Domain) -> None:
    folder = guests.of(domain.server_id)
    await guests.on(domain.server_id, "stopping it", libvirt_domain.power_off)
    await define_again(guests, domain, rescued=False, fenced=False)
    _drop_rescue(folder)


def _drop_rescue(folder: Path) -> None:
    for name in ("rescue", "base.rescue"):
        (folder / name).unlink(missing_ok=True)
