"""The power of a guest of libvirt's: on, off, and politely off."""

from __future__ import annotations

import asyncio
from typing import Any

import libvirt
import structlog

from agents.hypervisor import libvirt_domain, moving
from agents.hypervisor.libvirt_guests import Guests
from agents.hypervisor.libvirt_making import define_again, furnish
from agents.hypervisor.plan import Reboot
from bus import clock
from schema.compute.domain import Domain

log = structlog.get_logger()

ASK_AGAIN_SECONDS = 5.0
"""A guest that is still booting misses the power button: it is pressed again this often."""
LOOK_SECONDS = 0.2


async def start(guests: Guests, wanted: Domain) -> None:
    if guests.shared:
        await asyncio.to_thread(guests.reclaim, wanted.server_id)
        await furnish(guests, wanted)
    (guests.of(wanted.server_id) / moving.TPM).unlink(missing_ok=True)  # from now on it is out of date
    await guests.on(wanted.server_id, "starting it", lambda domain: _power_on(guests, domain, wanted))


async def stop(guests: Guests, id: str, timeout_seconds: float) -> None:
    if timeout_seconds > 0:
        await _shut_down(guests, id, timeout_seconds)
    await guests.on(id, "stopping it", libvirt_domain.power_off)


async def _shut_down(guests: Guests, id: str, timeout_seconds: float) -> None:
    """Press the power button, now and then again, until the guest is off or the time is over."""
    deadline = clock.monotonic() + timeout_seconds
    press = 0.0
    while await guests.on(id, "looking at it", libvirt_domain.listens):
        now = clock.monotonic()
        if now > deadline:
            log.info("the guest does not shut down; its power is cut", server=id, seconds=timeout_seconds)
            return
        if now >= press:
            await guests.on(id, "asking it to shut down", libvirt_domain.press_power_button)
            press = now + ASK_AGAIN_SECONDS
        guests.on_progress(id, "waiting for the guest to shut down")
        await asyncio.sleep(LOOK_SECONDS)


async def reboot(guests: Guests, step: Reboot) -> None:
    id = step.server_id
    if not step.hard and step.domain.stop_timeout_seconds:
        await _shut_down(guests, id, step.domain.stop_timeout_seconds)
    await guests.on(id, "stopping it", libvirt_domain.power_off)
    if step.hard:
        await define_again(guests, step.domain)
    await start(guests, step.domain)


def _power_on(guests: Guests, domain: Any, wanted: Domain) -> None:
    if not domain.isActive():
        libvirt_domain.remember(domain, boot=guests.boot, fenced=False)
        domain.create()
    if domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
        domain.resume()
    libvirt_domain.remember(domain, soft=wanted.reboots.soft, hard=wanted.reboots.hard)
