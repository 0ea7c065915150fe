"""Trunks from a request to tagged frames: a driver that can carries them between hosts, one that cannot says so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Dot1Q, Ether

from tests.network.hosts import drained
from tests.network.routed import Client, network, subnet
from tests.network.steered import Steered, steered
from tests.network.wiring import until

pytestmark = pytest.mark.live

PATIENCE_SECONDS = 20.0
TAG = 10


@pytest.fixture(params=["ovs", "linuxbridge"])
async def site(request, settings, fresh_database):
    async with steered(settings, fresh_database, "h1", "h2", driver=request.param) as it:
        it.metered = request.param == "ovs"
        yield it


async def trunk(site: Steered, member: Client) -> tuple[str, Any, Any, Any]:
    """A trunk whose parent is on h1, and somebody on h2 in its subport's network."""
    outer, inner = await network(site.cloud), await network(site.cloud)
    s1 = await subnet(site.cloud, outer, "10.1.0.0/24", "10.1.0.1", "10.1.0.2", "10.1.0.254")
    s2 = await subnet(site.cloud, inner, "10.2.0.0/24", "10.2.0.1", "10.2.0.2", "10.2.0.254")
    parent, sub, other = (
        await site.port(outer, s1, "10.1.0.11"),
        await site.port(inner, s2, "10.2.0.11"),
        await site.port(inner, s2, "10.2.0.12"),
    )
    subport = {"port_id": sub.id, "segmentation_type": "vlan", "segmentation_id": TAG}
    body = {"trunk": {"port_id": parent.id, "sub_ports": [subport]}}
    made = (await member("POST", "/trunks", body, expect=201))["trunk"]["id"]
    return made, await site.plugged(parent, "h1"), sub, await site.plugged(other, "h2")


async def test_a_trunk_carries_tagged_frames_or_says_that_its_host_cannot(site: Steered) -> None:
    member = Client(site.served, await site.served.token("member"))
    made, near, sub, far = await trunk(site, member)

    async def shown() -> str:
        return str((await member("GET", f"/trunks/{made}"))["trunk"]["status"])

    async def settled() -> bool:
        return await shown() in {"ACTIVE", "DEGRADED"}

    await until(settled, PATIENCE_SECONDS)
    if not site.metered:
        assert await shown() == "DEGRADED"
        port = (await member("GET", f"/ports/{sub.id}"))["port"]
        assert (port["status"], port["device_owner"]) == ("DOWN", "trunk:subport")
        return
    assert await shown() == "ACTIVE"
    await until(lambda: site.active(far.port_id), PATIENCE_SECONDS)
    there = IP(src="10.2.0.11", dst=far.ip) / ICMP(type=0, id=7) / b"tagged"
    back = IP(src=far.ip, dst="10.2.0.11") / ICMP(type=0, id=8) / b"plain"
    sent = Ether(src=sub.mac_address, dst=far.mac) / Dot1Q(vlan=TAG) / there
    arriving = bytes(Ether(src=sub.mac_address, dst=far.mac) / there)
    answer = Ether(src=far.mac, dst=sub.mac_address) / back
    tagged = bytes(back)

    def crosses() -> bool:
        with far.raw() as heard:
            near.send(sent)
            return any(frame[: len(arriving)] == arriving for frame in waited(heard))

    def comes_back() -> bool:
        with near.raw() as heard:
            far.send(answer)
            return any(tagged in frame for frame in waited(heard))

    await until(lambda: asyncio.to_thread(crosses), PATIENCE_SECONDS)
    await until(lambda: asyncio.to_thread(comes_back), PATIENCE_SECONDS)


def waited(heard: Any, seconds: float = 0.5) -> list[bytes]:
    """What comes within that time."""
    heard.settimeout(seconds)
    found: list[bytes] = []
    try:
        while True:
            found.append(heard.recv(65536))
    except TimeoutError:
        return found + drained(heard)
