"""What routers say of themselves, as a guest's kernel takes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.network.advertising import Advertiser, advertisement, packed
from agents.network.namespace import create, enter, sysctl
from agents.network.switch import bridge_name
from tests.network.dhcp_place import Guest, Place, apart, network, plug, port, subnet, until

ROUTER_MAC = "fa:16:3e:00:00:01"
SLAAC = subnet(
    "s6", "2001:db8:7::/64", ipv6_ra_mode="slaac", ipv6_address_mode="slaac", dns_nameservers=("2001:db8::53",)
)
LEASED = subnet("s7", "2001:db8:8::/64", ipv6_ra_mode="dhcpv6-stateful", ipv6_address_mode="dhcpv6-stateful")


def test_only_what_openstack_is_to_advertise_is_advertised():
    outside = subnet("s8", "2001:db8:9::/64", ipv6_address_mode="slaac")
    four = subnet("s4", "10.0.0.0/24")
    assert advertisement([outside, four], 1400, routes=True) is None
    said = advertisement([outside, four, SLAAC, LEASED], 1400, routes=True)
    assert [(it.cidr, it.autonomous) for it in said.prefixes] == [("2001:db8:7::/64", True), ("2001:db8:8::/64", False)]
    assert (said.managed, said.other, said.lifetime_seconds) == (True, True, 1800)
    assert advertisement([SLAAC], 1400, routes=False).lifetime_seconds == 0


def test_an_advertisement_is_as_rfc_4861_has_it():
    data = packed(advertisement([SLAAC], 1400, routes=True), ROUTER_MAC)
    assert data[:8] == bytes([134, 0, 0, 0, 64, 0]) + (1800).to_bytes(2, "big")
    assert data[16:24] == bytes([1, 1]) + bytes.fromhex(ROUTER_MAC.replace(":", ""))
    assert data[24:32] == bytes([5, 1, 0, 0]) + (1400).to_bytes(4, "big")
    assert data[32:36] == bytes([3, 4, 64, 0xC0])
    assert data[64:66] == bytes([25, 3])
    assert len(data) == 88


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place()
    yield made
    made.remove(tmp_path)


@apart
def router_foot(place: Place, name: str) -> None:
    create(name)
    with enter(name):
        sysctl("net/ipv6/conf/default/accept_dad", 0)
        sysctl("net/ipv6/conf/all/forwarding", 1)
    plug(place.host, "hr", bridge_name("n1"), name, "qr", ROUTER_MAC)


def default_routes(guest: Guest) -> list[dict[str, object]]:
    return json.loads(guest.run("ip", "-j", "-6", "route", "show", "default").stdout or "[]")


@pytest.mark.live
async def test_a_router_is_the_way_out_until_it_takes_that_back(place):
    net = network("n1", SLAAC)
    place.network("n1")
    router = f"cl-{place.tag}-r-1"
    await asyncio.to_thread(router_foot, place, router)
    advertiser = Advertiser()
    try:
        said = advertisement([SLAAC], 1360, routes=True)
        await advertiser.say(router, "qr", ROUTER_MAC, said)
        guest = place.guest(port("p1", net, 10))  # comes later, and asks
        await until(lambda: default_routes(guest))
        assert default_routes(guest)[0]["gateway"] == "fe80::f816:3eff:fe00:1"
        assert "2001:db8:7:0:f816:3eff:fe00:10a" in guest.addresses()
        await advertiser.say(router, "qr", ROUTER_MAC, None)
        await until(lambda: not default_routes(guest))
    finally:
        advertiser.close()
