"""Feet: where a namespace of the host (a router, DHCP) stands in a network, at a switch of either kind."""

from __future__ import annotations

import asyncio
import os

import pytest

from agents.network import namespace
from agents.network.switch import CannotWire
from tests.network.hosts import Guest, arrives, network, peer
from tests.network.switched import foot, standing

pytestmark = pytest.mark.live


async def test_a_local_foot_is_for_its_own_host(two, service):
    one, other = two.guests()
    await two.sweep()
    feet: list[Guest] = []
    for host in (two.a, two.b):
        inside = service()
        await host.switch.attach(foot(two.network, inside, local=True), host.world)
        feet.append(standing(foot(two.network, inside)))
    with feet[0].raw() as here, feet[1].raw() as there, other.raw() as guest:
        one.send(one.to_all(1), one.to_all(2))
        assert arrives(here, one.to_all(1), one.to_all(2))
        assert arrives(guest, one.to_all(1), one.to_all(2))
        other.send(other.to_all())
        assert not arrives(there, one.to_all(1), other.to_all())
    assert one.pings(feet[0].ip)
    assert other.pings(feet[1].ip)


async def test_a_foot_is_kept_until_it_is_detached(two, service):
    one, other = two.guests()
    await two.sweep()
    inside = service()
    asked = foot(two.network, inside)
    await two.a.switch.attach(asked, two.a.world)
    router = standing(asked)
    await two.b.wire(peer(router.port, two.a))
    assert one.pings(router.ip)
    assert other.pings(router.ip, "-M", "do", "-s", str(1450 - 28))
    await two.a.switch.attach(asked, two.a.world)
    await two.a.sweep()
    assert other.pings(router.ip)
    await two.a.switch.detach(asked.port_id)
    await two.a.sweep()
    assert not two.a.has_link(asked.outside)
    await two.a.switch.detach(asked.port_id)


async def test_a_foot_needs_its_namespace_and_its_network(two, service):
    await two.sweep()
    with pytest.raises(CannotWire, match="no namespace"):
        await two.a.switch.attach(foot(two.network, "cl-not-there"), two.a.world)
    with pytest.raises(CannotWire, match="no network"):
        await two.a.switch.attach(foot(network(9), service()), two.a.world)


async def test_a_namespace_that_was_made_anew_gets_its_foot_again(two, service):
    one, _ = two.guests()
    await two.sweep()
    inside = service()
    asked = foot(two.network, inside)
    await two.a.switch.attach(asked, two.a.world)
    opened = os.open(namespace.FOLDER / inside, os.O_RDONLY)  # as a daemon inside holds on to it
    try:
        namespace.remove(inside)
        namespace.create(inside)
        await two.a.switch.attach(asked, two.a.world)
    finally:
        os.close(opened)
    again = standing(asked)
    # Open vSwitch may let go of the device that is gone only now, and put down the one of its name: an agent hears it.
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(one.pings, again.ip):
            await two.a.sweep()
