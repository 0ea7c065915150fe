"""The network cards of a guest of libvirt's, as far as somebody is to be waited for: the network, or the guest."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection

from agents.hypervisor import libvirt_domain
from agents.hypervisor.driver import StepFailed
from agents.hypervisor.libvirt_guests import Guests
from agents.hypervisor.plan import AwaitTaps
from agents.network.namespace import Namespace
from bus import clock
from schema.compute.domain import Nic

TAP_SECONDS = 60.0
"""How long the network agent may take to make a guest's taps."""
TAP_LOOK_SECONDS = 0.05
UNPLUG_SECONDS = 60.0
"""How long a running guest may take to let go of a card: one that still boots does not hear of it."""
ASK_AGAIN_SECONDS = 5.0
LOOK_SECONDS = 0.2


async def await_taps(guests: Guests, inside: Namespace, step: AwaitTaps) -> None:
    """Until the network agent has made them all. It makes a port's rules before its tap."""
    deadline = clock.monotonic() + TAP_SECONDS
    while lacking := await _lacking(inside, step.nics):
        if clock.monotonic() > deadline:
            ports = ", ".join(f"{nic.port_id} ({nic.tap})" for nic in lacking)
            raise StepFailed(
                f"the network agent of host {guests.host} has not wired port {ports} within {TAP_SECONDS:.0f} s; "
                "does it run, and what does it say of the port?"
            )
        guests.on_progress(step.server_id, f"waiting for the network: {', '.join(nic.tap for nic in lacking)}")
        await asyncio.sleep(TAP_LOOK_SECONDS)


async def _lacking(inside: Namespace, nics: Collection[Nic]) -> list[Nic]:
    there = {name for _, name in await inside.run(socket.if_nameindex)}
    return [nic for nic in nics if nic.tap not in there]


async def unplug(guests: Guests, id: str, tap: str) -> None:
    """Ask the guest to let go of it, now and then again, until it has."""
    deadline = clock.monotonic() + UNPLUG_SECONDS
    press = 0.0
    while tap in await guests.on(id, "looking at its cards", libvirt_domain.taps):
        now = clock.monotonic()
        if now > deadline:
            raise StepFailed(f"the guest has not let go of the card {tap} within {UNPLUG_SECONDS:.0f} s")
        if now >= press:
            await guests.on(id, "unplugging a card", lambda domain: libvirt_domain.unplug(domain, tap))
            press = now + ASK_AGAIN_SECONDS
        guests.on_progress(id, f"waiting for the guest to let go of the card {tap}")
        await asyncio.sleep(LOOK_SECONDS)
