"""Guests ask a real dnsmasq, in namespaces of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from agents.network import namespace
from agents.network.dhcp import Dhcp
from schema.network.wiring import DhcpOption, HostRoute, Peer
from tests.network.dhcp6 import ask_for_address, ask_for_information
from tests.network.dhcp_place import Place, network, port, subnet, until, world

pytestmark = pytest.mark.live

FOUR = subnet(
    "s4", "10.1.0.0/24", gateway_ip="10.1.0.1", host_routes=(HostRoute(destination="10.9.0.0/16", nexthop="10.1.0.7"),)
)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place()
    yield made
    made.remove(tmp_path)


@asynccontextmanager
async def serving(place: Place, folder: Path) -> AsyncIterator[Dhcp]:
    dhcp = Dhcp(place.inside, place.tag, place.switch, folder / "dhcp")
    try:
        yield dhcp
    finally:
        await dhcp.close()


def pid_of(folder: Path, network_id: str) -> int:
    return int((folder / "dhcp" / network_id / "pid").read_text())


def runs(pid: int) -> bool:
    path = Path(f"/proc/{pid}/cmdline")
    return path.exists() and path.read_bytes() != b""


async def test_a_guest_gets_its_address_and_what_its_subnet_says(place, tmp_path):
    net = network("n1", FOUR, dns_domain="example.org.")
    one = port(
        "p1",
        net,
        10,
        hostname="web",
        dhcp_options=(DhcpOption(name="bootfile-name", value="pxe.0"), DhcpOption(name="150", value="192.0.2.9")),
    )
    place.network("n1")
    async with serving(place, tmp_path) as dhcp:
        assert await dhcp.apply(world(net, one), None) == {}
        guest = place.guest(one)
        told = await asyncio.to_thread(guest.lease, tmp_path, "bootfile", "150")
        assert told["ip"] == "10.1.0.10"
        assert told["mask"] == "24"
        assert told["mtu"] == "1400"
        assert told["dns"] == "10.1.0.2"
        assert told["domain"] == "example.org"
        assert told["hostname"] == "web"
        assert told["lease"] == "86400"
        assert "10.9.0.0/16 10.1.0.7" in told["staticroutes"]
        assert "169.254.169.254/32 10.1.0.2" in told["staticroutes"]
        assert "0.0.0.0/0 10.1.0.1" in told["staticroutes"]
        assert told["bootfile"] == "pxe.0"
        assert told["opt150"] == "c0000209"


async def test_nobody_else_is_answered(place, tmp_path):
    net = network("n1", FOUR)
    place.network("n1")
    async with serving(place, tmp_path) as dhcp:
        await dhcp.apply(world(net, port("p1", net, 10)), None)
        stranger = place.guest(port("p2", net, 11))
        assert await asyncio.to_thread(stranger.lease, tmp_path, tries=2) == {}


async def test_names_resolve_both_ways_and_nothing_is_asked_elsewhere(place, tmp_path):
    net = network("n1", FOUR, dns_domain="example.org.")
    one = port("p1", net, 10, hostname="web")
    peer = Peer(id="p2", network_id="n1", mac_address="fa:16:3e:00:01:0b", ips=("10.1.0.11",), hostname="db")
    place.network("n1")
    async with serving(place, tmp_path) as dhcp:
        await dhcp.apply(world(net, one, peer), None)
        guest = place.guest(one)
        guest.give("10.1.0.10/24")
        assert "10.1.0.10" in await asyncio.to_thread(guest.resolve, "web.example.org", "10.1.0.2")
        assert "10.1.0.11" in await asyncio.to_thread(guest.resolve, "db.example.org", "10.1.0.2")
        assert "db.example.org" in await asyncio.to_thread(guest.resolve, "10.1.0.11", "10.1.0.2")
        assert "REFUSED" in await asyncio.to_thread(guest.resolve, "example.com", "10.1.0.2")
        renamed = Peer(id="p2", network_id="n1", mac_address=peer.mac_address, ips=peer.ips, hostname="mail")
        await dhcp.apply(world(net, one, renamed), frozenset({"peer/p2"}))
        await until(lambda: "10.1.0.11" in guest.resolve("mail.example.org", "10.1.0.2"))
        await until(lambda: "10.1.0.11" not in guest.resolve("db.example.org", "10.1.0.2"))


async def test_a_new_port_is_served_at_once_by_the_same_process(place, tmp_path):
    net = network("n1", FOUR)
    one = port("p1", net, 10)
    place.network("n1")
    async with serving(place, tmp_path) as dhcp:
        await dhcp.apply(world(net, one), None)
        before = pid_of(tmp_path, "n1")
        took = []
        for number in range(11, 16):
            ports = [port(f"p{n}", net, n) for n in range(11, number + 1)]
            began = time.perf_counter()
            assert await dhcp.apply(world(net, one, *ports), frozenset({f"port/p{number}"})) == {}
            took.append(time.perf_counter() - began)
        assert sorted(took)[2] < 0.020
        told = await asyncio.to_thread(place.guest(ports[-1]).lease, tmp_path)
        assert told["ip"] == "10.1.0.15"
        assert pid_of(tmp_path, "n1") == before


async def test_an_address_can_go_from_one_port_to_another(place, tmp_path):
    net = network("n1", FOUR)
    keep, old = port("p1", net, 10), port("p2", net, 11)
    new = port("p3", net, 12, addresses=old.addresses)
    place.network("n1")
    async with serving(place, tmp_path) as dhcp:
        await dhcp.apply(world(net, keep, old), None)
        assert (await asyncio.to_thread(place.guest(old).lease, tmp_path))["ip"] == "10.1.0.11"
        await dhcp.apply(world(net, keep), frozenset({"port/p2"}))
        await dhcp.apply(world(net, keep, new), frozenset({"port/p3"}))
        assert (await asyncio.to_thread(place.guest(new).lease, tmp_path))["ip"] == "10.1.0.11"


async def test_what_was_killed_or_deleted_comes_back(place, tmp_path):
    net = network("n1", FOUR)
    one = port("p1", net, 10)
    place.network("n1")
    async with serving(place, tmp_path) as dhcp:
        await dhcp.apply(world(net, one), None)
        guest = place.guest(one)
        first = pid_of(tmp_path, "n1")
        os.kill(first, signal.SIGKILL)
        await until(lambda: not runs(first))
        (tmp_path / "dhcp/n1/hosts/p1").unlink()
        assert await dhcp.apply(world(net, one), None) == {}
        assert pid_of(tmp_path, "n1") != first
        assert (await asyncio.to_thread(guest.lease, tmp_path))["ip"] == "10.1.0.10"
        namespace.remove(dhcp.namespace_of("n1"))
        assert await dhcp.apply(world(net, one), None) == {}
        assert (await asyncio.to_thread(guest.lease, tmp_path))["ip"] == "10.1.0.10"


async def test_the_next_agent_adopts_the_process(place, tmp_path):
    net = network("n1", FOUR)
    one = port("p1", net, 10)
    place.network("n1")
    async with serving(place, tmp_path) as dhcp:
        await dhcp.apply(world(net, one), None)
        first = pid_of(tmp_path, "n1")
    async with serving(place, tmp_path) as dhcp:
        assert await dhcp.apply(world(net, one), None) == {}
        assert pid_of(tmp_path, "n1") == first
        (tmp_path / "dhcp/n1/pid").unlink()
        await dhcp.apply(world(net, one), None)
        assert pid_of(tmp_path, "n1") == first
        other = network("n1", subnet("s4", "10.1.0.0/24", gateway_ip="10.1.0.254"))
        await dhcp.apply(world(other, one), frozenset({"network/n1"}))
        assert pid_of(tmp_path, "n1") != first
        assert not runs(first)


async def test_it_goes_with_the_last_port(place, tmp_path):
    net = network("n1", FOUR)
    one = port("p1", net, 10)
    place.network("n1")
    async with serving(place, tmp_path) as dhcp:
        await dhcp.apply(world(net, one), None)
        pid = pid_of(tmp_path, "n1")
        await dhcp.apply(world(net), frozenset({"port/p1"}))
        assert not namespace.exists(dhcp.namespace_of("n1"))
        assert not (tmp_path / "dhcp/n1").exists()
        assert not runs(pid)


async def test_leftovers_of_another_agent_go(place, tmp_path):
    net, other = network("n1", FOUR), network("n2", FOUR)
    place.network("n1")
    place.network("n2")
    async with serving(place, tmp_path) as dhcp:
        await dhcp.apply(world(net, port("p1", net, 10), other, port("p2", other, 10)), None)
    async with serving(place, tmp_path) as dhcp:
        await dhcp.apply(world(), None)
        assert namespace.exists(dhcp.namespace_of("n2"))
        await dhcp.apply(world(net, port("p1", net, 10)), None)
        assert not namespace.exists(dhcp.namespace_of("n2"))
        assert namespace.exists(dhcp.namespace_of("n1"))


async def test_a_subnet_that_cannot_be_served_is_a_fault_of_the_network(place, tmp_path):
    net = network("n1", FOUR, subnet("s5", "10.5.0.0/24"))
    lacking = msgspec.structs.replace(net, dhcp_addresses=net.dhcp_addresses[:1])
    place.network("n1")
    async with serving(place, tmp_path) as dhcp:
        faults = await dhcp.apply(world(lacking, port("p1", net, 10)), None)
        assert "10.5.0.0/24" in faults["network/n1"]


async def test_slaac_guests_make_their_own_address(place, tmp_path):
    six = subnet("s6", "2001:db8:1::/64", gateway_ip="2001:db8:1::1", ipv6_ra_mode="slaac", ipv6_address_mode="slaac")
    net = network("n1", six)
    one = port("p1", net, 10)
    place.network("n1")
    async with serving(place, tmp_path) as dhcp:
        guest = place.guest(one)
        assert await dhcp.apply(world(net, one), None) == {}
        await until(lambda: "2001:db8:1:0:f816:3eff:fe00:10a" in guest.addresses())
        routes = (await asyncio.to_thread(guest.run, "ip", "-6", "route")).stdout
        assert "default" not in routes
        assert (await asyncio.to_thread(guest.run, "ip", "-6", "route", "get", "2001:db8:1::5")).returncode == 0


async def test_where_a_router_speaks_for_a_subnet_dhcp_is_silent(place, tmp_path):
    six = subnet("s6", "2001:db8:1::/64", gateway_ip="2001:db8:1::1", ipv6_ra_mode="slaac", ipv6_address_mode="slaac")
    net = network("n1", six)
    one = port("p1", net, 10)
    router = Peer(id="r1", network_id="n1", mac_address="fa:16:3e:00:01:01", ips=("2001:db8:1::1",))
    place.network("n1")
    async with serving(place, tmp_path) as dhcp:
        assert await dhcp.apply(world(net, one, router), None) == {}
        guest = place.guest(one)
        await dhcp.apply(world(net, one, router), frozenset({"peer/r1"}))
        await until(guest.addresses)
        assert not any(it.startswith("2001") for it in guest.addresses())
        await dhcp.apply(world(net, one), frozenset({"peer/r1"}))
        await until(lambda: any(it.startswith("2001:db8:1:") for it in guest.addresses()))


async def test_dhcpv6_gives_the_allotted_address(place, tmp_path):
    six = subnet(
        "s6",
        "2001:db8:2::/64",
        gateway_ip="2001:db8:2::1",
        ipv6_ra_mode="dhcpv6-stateful",
        ipv6_address_mode="dhcpv6-stateful",
    )
    net = network("n1", FOUR, six, dns_domain="example.org.")
    one = port("p1", net, 10, dhcp_options=(DhcpOption(name="ntp-server", value="[2001:db8::7b]", ip_version=6),))
    place.network("n1")
    async with serving(place, tmp_path) as dhcp:
        assert await dhcp.apply(world(net, one), None) == {}
        guest = place.guest(one)
        told = await asyncio.to_thread(ask_for_address, guest.namespace, one.mac_address)
        assert told.address == "2001:db8:2::a"
        assert told.nameservers == ["2001:db8:2::2"]
        assert told.search == ["example.org"]
        assert told.ntp == ["2001:db8::7b"]
        assert (await asyncio.to_thread(guest.lease, tmp_path))["ip"] == "10.1.0.10"


async def test_dhcpv6_without_state_tells_nameservers(place, tmp_path):
    six = subnet(
        "s6",
        "2001:db8:3::/64",
        ipv6_ra_mode="dhcpv6-stateless",
        ipv6_address_mode="dhcpv6-stateless",
        dns_nameservers=("2001:db8::53",),
    )
    net = network("n1", six)
    one = port("p1", net, 10)
    place.network("n1")
    async with serving(place, tmp_path) as dhcp:
        assert await dhcp.apply(world(net, one), None) == {}
        guest = place.guest(one)
        told = await asyncio.to_thread(ask_for_information, guest.namespace, one.mac_address)
        assert told.nameservers == ["2001:db8::53"]
        assert told.address == ""
        await until(lambda: "2001:db8:3:0:f816:3eff:fe00:10a" in guest.addresses())
