"""Routers in real namespaces: ways out, ways in, and what becomes of them when somebody or something interferes."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from agents.network import namespace, nft
from agents.network.namespace import enter
from agents.network.router_rules import TABLE
from schema.network.wiring import (
    FloatingAddress,
    Forwarding,
    HostRoute,
    WiredRouter,
)
from tests.network.dhcp_place import Place, apart, network, subnet, until
from tests.network.router_place import ONE, PUBLIC, TWO, Host, Line, foot, in_thread, join, router
from tests.network.test_shaping import iperf, limited

pytestmark = pytest.mark.live

GATEWAY = foot(PUBLIC, 10)


def floating(number: int, fixed: str, **more: object) -> FloatingAddress:
    return FloatingAddress(id=f"f{number}", floating_ip=f"203.0.113.{number}", fixed_ip=fixed, **more)


def forwarding(number: int, first: int, ip: str, inner: int, *, ports: int = 1, protocol: str = "tcp") -> Forwarding:
    return Forwarding(
        id=f"w{first}",
        floating_ip=f"203.0.113.{number}",
        protocol=protocol,
        external_port=first,
        external_port_end=first + ports - 1,
        internal_ip=ip,
        internal_port=inner,
        internal_port_end=inner + ports - 1,
    )


@pytest.fixture
def places(tmp_path: Path) -> Iterator[list[Place]]:
    made: list[Place] = []
    yield made
    for it in made:
        it.remove(tmp_path)


@pytest.fixture
async def host(places: list[Place]):
    places.append(Place())
    made = Host(places[0], ONE, TWO, PUBLIC)
    await made.routers.start(made.note)
    yield made
    await made.routers.close()


@pytest.fixture
def near(host):
    guest = host.guest(ONE, 5)
    guest.leads_by("10.1.0.1")
    yield guest
    guest.close()


@pytest.fixture
def far(host):
    guest = host.guest(TWO, 6)
    guest.leads_by("10.2.0.1")
    yield guest
    guest.close()


@pytest.fixture
def outside(host):
    someone = host.guest(PUBLIC, 1)
    yield someone
    someone.close()


def run_inside(host: Host, *command: str, id: str = "r1") -> str:
    path = f"--net=/run/netns/{host.routers.namespace_of(id)}"
    return subprocess.run(["nsenter", path, "--", *command], capture_output=True, text=True, check=False).stdout


async def bring(host: Host, of: WiredRouter, *more, touched=None) -> None:
    assert await host.apply(ONE, TWO, PUBLIC, of, *more, touched=touched) == {}


async def test_networks_are_joined_and_everybody_goes_out_as_the_gateway(host, near, far, outside):
    await bring(host, router(foot(ONE, 1), foot(TWO, 1), gateway=GATEWAY))
    assert await in_thread(far.sees, near, "10.2.0.6", 80) == "10.1.0.5"
    assert await in_thread(outside.sees, near, "203.0.113.1", 80) == "203.0.113.10"
    assert await in_thread(near.pings, "203.0.113.1")
    assert not await in_thread(outside.pings, "10.1.0.5", seconds=1)


async def test_without_a_gateway_networks_are_joined_and_nobody_goes_out(host, near, far, outside):
    await bring(host, router(foot(ONE, 1), foot(TWO, 1), gateway=GATEWAY))
    await bring(host, router(foot(ONE, 1), foot(TWO, 1)), touched=frozenset({"router/r1"}))
    assert await in_thread(far.sees, near, "10.2.0.6", 80) == "10.1.0.5"
    assert not await in_thread(near.pings, "203.0.113.1", seconds=1)
    assert not await in_thread(outside.pings, "203.0.113.10", seconds=1)


async def test_without_snat_addresses_stay_as_they_are(host, near, outside):
    await bring(host, router(foot(ONE, 1), gateway=GATEWAY, snat=False))
    outside.leads_by("203.0.113.10", to="10.1.0.0/24")
    assert await in_thread(outside.sees, near, "203.0.113.1", 80) == "10.1.0.5"
    assert await in_thread(near.sees, outside, "10.1.0.5", 80) == "203.0.113.1"


async def test_a_floating_ip_leads_in_and_out(host, near, far, outside):
    of = router(foot(ONE, 1), foot(TWO, 1), gateway=GATEWAY, floating=(floating(20, "10.1.0.5"),))
    await bring(host, of)
    assert await in_thread(near.sees, outside, "203.0.113.20", 22) == "203.0.113.1"
    assert await in_thread(outside.sees, near, "203.0.113.1", 80) == "203.0.113.20"
    assert await in_thread(outside.sees, far, "203.0.113.1", 80) == "203.0.113.10"
    assert await in_thread(outside.pings, "203.0.113.20")
    off = replace(of, snat=False)
    await bring(host, off, touched=frozenset({"router/r1"}))
    assert await in_thread(near.sees, outside, "203.0.113.20", 22) == "203.0.113.1"
    assert await in_thread(outside.sees, near, "203.0.113.1", 80) == "203.0.113.20"


async def test_neighbours_reach_each_other_by_floating_ips(host, near, far, outside):
    beside = host.guest(ONE, 7)
    beside.leads_by("10.1.0.1")
    ips = (floating(20, "10.1.0.5"), floating(21, "10.1.0.7"), floating(22, "10.2.0.6"))
    await bring(host, router(foot(ONE, 1), foot(TWO, 1), gateway=GATEWAY, floating=ips))
    assert await in_thread(beside.sees, near, "203.0.113.21", 80) == "203.0.113.20"
    assert await in_thread(far.sees, near, "203.0.113.22", 80) == "203.0.113.20"
    assert await in_thread(near.sees, near, "203.0.113.20", 80) == "203.0.113.20"
    await bring(host, router(foot(ONE, 1), foot(TWO, 1), gateway=GATEWAY, floating=ips[:1]))
    assert await in_thread(near.sees, beside, "203.0.113.20", 80) == "203.0.113.10"
    beside.close()


async def test_ports_are_forwarded_one_by_one_and_in_ranges(host, near, far, outside):
    rules = (
        forwarding(30, 2201, "10.1.0.5", 22),
        forwarding(30, 8000, "10.2.0.6", 9000, ports=3),
        forwarding(30, 2201, "10.2.0.6", 53, protocol="udp"),
    )
    await bring(host, router(foot(ONE, 1), foot(TWO, 1), gateway=GATEWAY, forwardings=rules))
    assert await in_thread(near.sees, outside, "203.0.113.30", 2201, at=22) == "203.0.113.1"
    for number in range(3):
        assert await in_thread(far.sees, outside, "203.0.113.30", 8000 + number, at=9000 + number) == "203.0.113.1"
    assert await in_thread(far.sees, near, "203.0.113.30", 8001, at=9001) == "203.0.113.10"
    assert await in_thread(near.sees, outside, "203.0.113.30", 22) == ""
    assert await in_thread(outside.sees, near, "203.0.113.1", 80) == "203.0.113.10"


async def test_a_lost_floating_ip_cuts_what_went_by_it_and_nothing_else(host, near, far, outside):
    ips = (floating(20, "10.1.0.5"), floating(21, "10.2.0.6"))
    of = router(foot(ONE, 1), foot(TWO, 1), gateway=GATEWAY, floating=ips)
    await bring(host, of)
    with ExitStack() as lines:
        inwards, kept = Line(outside, near, "203.0.113.20", 22), Line(outside, far, "203.0.113.21", 22)
        outwards, between = Line(near, outside, "203.0.113.1", 80), Line(near, far, "10.2.0.6", 81)
        for it in (inwards, kept, outwards, between):
            lines.callback(it.close)
            assert it.alive()
        await bring(host, replace(of, floating=ips[1:]), touched=frozenset({"router/r1"}))
        assert [it.alive() for it in (inwards, outwards)] == [False, False]
        assert [it.alive() for it in (kept, between)] == [True, True]
        assert await in_thread(outside.sees, near, "203.0.113.1", 82) == "203.0.113.10"


async def test_extra_routes_lead_by_a_guest(host, near, far, outside):
    behind = "192.0.2.7"
    near.give(f"{behind}/32")
    route = HostRoute(destination="192.0.2.0/24", nexthop="10.1.0.5")
    await bring(host, router(foot(ONE, 1), foot(TWO, 1), gateway=GATEWAY, routes=(route,)))
    assert await in_thread(far.pings, behind)
    assert await in_thread(near.sees, far, behind, 80, own=behind) == "10.2.0.6"
    assert await in_thread(outside.pings, "203.0.113.10")
    await bring(host, router(foot(ONE, 1), foot(TWO, 1), gateway=GATEWAY), touched=frozenset({"router/r1"}))
    assert not await in_thread(far.pings, behind, seconds=1)
    lost = HostRoute(destination="198.51.100.0/24", nexthop="172.16.0.1")
    faults = await host.apply(ONE, TWO, PUBLIC, router(foot(ONE, 1), routes=(lost,)))
    assert "198.51.100.0/24 via 172.16.0.1" in faults["router/r1"]


async def test_what_lies_beside_the_gateway_on_its_link_is_reached_there(host, near):
    public = replace(PUBLIC, subnets=(*PUBLIC.subnets, subnet("sq", "198.51.100.0/24", dhcp=False)))
    beside = host.guest(replace(public, subnets=public.subnets[1:]), 9)
    of = router(
        foot(ONE, 1),
        gateway=GATEWAY,
        floating=(FloatingAddress(id="f", floating_ip="198.51.100.20", fixed_ip="10.1.0.5"),),
    )
    assert await host.apply(ONE, public, of) == {}
    assert await in_thread(near.sees, beside, "198.51.100.20", 22) == "198.51.100.9"
    beside.close()


@pytest.mark.slow
async def test_floating_ips_and_gateways_are_held_to_their_limits(host, near, far, outside):
    ip = floating(20, "10.1.0.5", quality=limited(16, 8))
    of = router(foot(ONE, 1), foot(TWO, 1), gateway=GATEWAY, floating=(ip,), quality=limited(0, 24))
    await bring(host, of)
    way_in = SimpleNamespace(space=near.space, ip="203.0.113.20")
    assert await iperf(outside, way_in) == pytest.approx(16, rel=0.15)
    assert await iperf(near, outside) == pytest.approx(8, rel=0.15)
    assert await iperf(far, outside) == pytest.approx(24, rel=0.15)
    await bring(host, replace(of, floating=(replace(ip, quality=limited(0, 0)),)), touched=frozenset({"router/r1"}))
    assert await iperf(near, outside, seconds=2) > 100


async def test_ipv6_is_routed_and_advertised(places):
    places.append(Place())
    six = {"ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}
    inner = network("n6", subnet("s6", "2001:db8:1::/64", gateway_ip="2001:db8:1::1", **six))
    public = network("public", subnet("sp", "2001:db8:ff::/64", gateway_ip="2001:db8:ff::1", dhcp=False))
    host = Host(places[0], inner, public)
    guest, outside = places[0].guest(port_without_addresses(inner)), host.guest(public, 1)
    outside.leads_by("2001:db8:ff::a", to="2001:db8:1::/64")
    of = router(foot(inner, 1), gateway=foot(public, 10), gateway_ips=("2001:db8:ff::1",))
    try:
        assert await host.apply(inner, public, of) == {}
        await until(lambda: any(it.startswith("2001:db8:1:") for it in guest.addresses()))
        routes = await in_thread(guest.run, "ip", "-6", "route")
        assert "default via fe80::" in routes.stdout
        assert (await in_thread(guest.run, "ping", "-6", "-c", "1", "-W", "2", "2001:db8:ff::1")).returncode == 0
        seen = next(it for it in guest.addresses() if it.startswith("2001:db8:1:"))
        assert await in_thread(outside.pings, seen)
    finally:
        await host.routers.close()
        outside.close()


def port_without_addresses(of):
    from tests.network.dhcp_place import port

    return port("p6", of, 9, addresses=())


async def test_a_packet_too_big_is_answered(host, near, outside):
    narrow = replace(PUBLIC, mtu=1200)
    await bring(host, router(foot(ONE, 1), gateway=foot(narrow, 10)), narrow)
    said = await in_thread(near.run, "ping", "-c", "1", "-W", "2", "-M", "do", "-s", "1250", "203.0.113.1")
    assert "mtu = 1200" in said.stdout.replace("mtu=", "mtu = ")


async def test_what_somebody_takes_away_comes_back(host, near, outside):
    of = router(foot(ONE, 1), gateway=GATEWAY, floating=(floating(20, "10.1.0.5"),))
    await bring(host, of)
    table = f"table inet {TABLE}"

    def delete_rules() -> None:
        nft.apply(f"delete {table}")

    harms = (
        lambda: run_inside(host, "ip", "addr", "del", "203.0.113.20/32", "dev", "qfpublic"),
        lambda: run_inside(host, "ip", "addr", "flush", "dev", "qfn1"),
        lambda: run_inside(host, "ip", "route", "del", "default"),
        lambda: run_inside(host, "ip", "route", "add", "203.0.113.1/32", "via", "10.1.0.77"),
        lambda: run_inside(host, "ip", "link", "set", "qfn1", "down"),
        lambda: run_inside(host, "ip", "link", "del", "qfpublic"),
        lambda: inside(host, delete_rules),
    )
    for harm in harms:
        heard = host.changes
        await in_thread(harm)
        await until(lambda before=heard: host.changes > before)
        await bring(host, of)
        assert await in_thread(near.sees, outside, "203.0.113.20", 22) == "203.0.113.1"
    namespace.remove(host.routers.namespace_of("r1"))
    await bring(host, of)
    assert await in_thread(near.sees, outside, "203.0.113.20", 22) == "203.0.113.1"
    heard = host.changes
    await bring(host, of)
    await asyncio.sleep(0)
    assert host.changes == heard


@apart
def inside(host: Host, function) -> None:
    with enter(host.routers.namespace_of("r1")):
        function()


async def test_the_next_agent_takes_over_without_a_packet_lost(host, near, outside):
    of = router(foot(ONE, 1), gateway=GATEWAY, floating=(floating(20, "10.1.0.5"),))
    await bring(host, of)
    line = Line(outside, near, "203.0.113.20", 22)
    try:
        await host.routers.close()
        host.routers = host.agent()
        await bring(host, of)
        assert line.alive()
        await host.routers.close()
        host.routers = host.agent()
        assert await host.apply() == {}
        assert namespace.exists(host.routers.namespace_of("r1"))
        assert await host.apply(ONE) == {}
        assert not namespace.exists(host.routers.namespace_of("r1"))
    finally:
        line.close()


async def test_one_that_is_fenced_is_silent_at_once(host, near, outside):
    of = router(foot(ONE, 1), gateway=GATEWAY)
    await bring(host, of)
    assert await in_thread(outside.pings, "203.0.113.10")
    await host.routers.fence()
    assert not await in_thread(outside.pings, "203.0.113.10", seconds=1)
    await host.apply(ONE, TWO, PUBLIC)
    assert not namespace.exists(host.routers.namespace_of("r1"))
    assert (await host.routers.routers()) == {}
    await bring(host, of)
    assert await in_thread(outside.pings, "203.0.113.10")
    await host.routers.fence()
    assert not await in_thread(outside.pings, "203.0.113.10", seconds=1)
    await bring(host, of)  # the lease came back in time
    assert await in_thread(outside.pings, "203.0.113.10")
    assert await in_thread(outside.sees, near, "203.0.113.1", 80) == "203.0.113.10"


async def test_one_that_is_switched_off_is_not_there(host, near, outside):
    of = router(foot(ONE, 1), gateway=GATEWAY)
    await bring(host, of)
    await bring(host, replace(of, admin_up=False), touched=frozenset({"router/r1"}))
    assert not await in_thread(outside.pings, "203.0.113.10", seconds=1)
    assert (await host.routers.routers())["r1"].up is False
    await bring(host, of, touched=frozenset({"router/r1"}))
    assert await in_thread(near.pings, "203.0.113.1")


async def test_a_router_that_moved_answers_at_once(places):
    places += [Place(), Place()]
    here, there = Host(places[0], ONE, PUBLIC), Host(places[1], ONE, PUBLIC)
    for it in (ONE, PUBLIC):
        join(places[0], places[1], it.id)
    outside, near = here.guest(PUBLIC, 1), here.guest(ONE, 5)
    near.leads_by("10.1.0.1")
    of = router(foot(ONE, 1), gateway=GATEWAY, floating=(floating(20, "10.1.0.5"),))
    moved = replace(of, gateway=replace(GATEWAY, mac_address="fa:16:3e:99:99:99"))
    try:
        assert await here.apply(ONE, PUBLIC, of) == {}
        assert await in_thread(outside.pings, "203.0.113.20")
        await here.routers.fence()
        assert not await in_thread(outside.pings, "203.0.113.20", seconds=1)
        assert await there.apply(ONE, PUBLIC, moved) == {}
        assert await in_thread(outside.pings, "203.0.113.20", seconds=1)
        neighbours = await in_thread(outside.run, "ip", "neigh")
        assert "203.0.113.20 dev eth0 lladdr fa:16:3e:99:99:99" in neighbours.stdout
        assert await in_thread(near.pings, "203.0.113.1", seconds=1)
    finally:
        for it in (here, there):
            await it.routers.close()
        outside.close()
        near.close()


async def test_address_scopes_are_kept_apart_and_translated_only_where_they_end(host, near, far):
    outside = host.guest(PUBLIC, 1)
    outside.leads_by("203.0.113.10", to="10.1.0.0/24")
    outside.leads_by("203.0.113.10", to="10.2.0.0/24")
    plain = router(foot(ONE, 1), foot(TWO, 1), gateway=GATEWAY)
    assert await host.apply(ONE, TWO, PUBLIC, plain) == {}
    await until(lambda: near.pings("10.2.0.6"))
    scoped = replace(plain, generation=2, scopes={"s1": "here", "sp": "here"})
    assert await host.apply(ONE, TWO, PUBLIC, scoped) == {}
    assert not await in_thread(near.pings, "10.2.0.6", seconds=1)
    assert not await in_thread(far.pings, "10.1.0.5", seconds=1)
    assert await in_thread(outside.sees, near, "203.0.113.1", 80) == "10.1.0.5"
    assert await in_thread(outside.sees, far, "203.0.113.1", 80) == "203.0.113.10"
    assert await in_thread(near.sees, outside, "10.1.0.5", 80) == "203.0.113.1"
    assert not await in_thread(outside.pings, "10.2.0.6", seconds=1)
    reached = replace(scoped, generation=3, floating=(floating(20, "10.2.0.6"),))
    assert await host.apply(ONE, TWO, PUBLIC, reached) == {}
    assert await in_thread(far.sees, outside, "203.0.113.20", 80) == "203.0.113.1"
    assert await in_thread(far.sees, near, "203.0.113.20", 80) == "203.0.113.10"
    assert await in_thread(outside.sees, far, "203.0.113.1", 80) == "203.0.113.20"
    outside.close()
