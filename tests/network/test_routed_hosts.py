"""A router on one host and guests on another, everything as it is in a cloud: out, in, and elsewhere at once."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from agents.network import namespace
from schema.compute.domain import Seed
from schema.network.wiring import (
    Address,
    FloatingAddress,
    InstanceData,
    Peer,
    RouterPort,
    WiredNetwork,
    WiredRouter,
    WiredSubnet,
)
from tests.network.dhcp_place import until
from tests.network.hosts import Guest, network, peer, port, run
from tests.network.test_whole_host import OPEN
from tests.network.whole_host import WholeHost, whole_hosts

pytestmark = pytest.mark.live

OUTSIDE, OWN, FLOATING = "172.24.4.1", "172.24.4.10", "172.24.4.20"
INNER = network(
    1,
    subnets=(
        WiredSubnet(id="four", cidr="10.0.0.0/16", ip_version=4, gateway_ip="10.0.0.1", dhcp=False),
        WiredSubnet(id="six", cidr="fd00::/64", ip_version=6, gateway_ip="fd00::1", ipv6_ra_mode="slaac"),
    ),
)
PUBLIC = WiredNetwork(
    id="0000000f-0000-4000-8000-000000000000",
    network_type="flat",
    physical_network="external",
    mtu=1500,
    external=True,
    subnets=(WiredSubnet(id="public", cidr="172.24.4.0/24", ip_version=4, gateway_ip=OUTSIDE, dhcp=False),),
)
FOOT = RouterPort(
    port_id="aaaaaaaa-aaaa-4000-8000-000000000000",
    network_id=INNER.id,
    mac_address="fa:16:3e:aa:00:01",
    addresses=(
        Address(ip="10.0.0.1", subnet_id="four", prefix_length=16),
        Address(ip="fd00::1", subnet_id="six", prefix_length=64),
    ),
    mtu=1450,
)
GATEWAY = RouterPort(
    port_id="bbbbbbbb-bbbb-4000-8000-000000000000",
    network_id=PUBLIC.id,
    mac_address="fa:16:3e:bb:00:01",
    addresses=(Address(ip=OWN, subnet_id="public", prefix_length=24),),
    mtu=1500,
)
WEB, DB = (port(INNER, number, group_ids=(OPEN.id,), device_id=f"server-{number}") for number in (5, 6))
ROUTER = WiredRouter(
    id="cccccccc-cccc-4000-8000-000000000000",
    generation=1,
    ports=(FOOT,),
    gateway=GATEWAY,
    gateway_ips=(OUTSIDE,),
    floating=(FloatingAddress(id="f", floating_ip=FLOATING, fixed_ip=WEB.addresses[0].ip),),
)


@pytest.fixture(params=["linuxbridge", "ovs"])
async def hosts(request: pytest.FixtureRequest, short_folder: Path) -> AsyncIterator[list[WholeHost]]:
    async with whole_hosts(short_folder, driver=request.param) as made:
        fabric = made[0].host.name.rpartition("-")[0] + "-f"
        run(fabric, "ip", "address", "add", f"{OUTSIDE}/24", "dev", "external")
        yield made


def outside_of(hosts: list[WholeHost]) -> str:
    return hosts[0].host.name.rpartition("-")[0] + "-f"


def foot_peer(host: WholeHost) -> Peer:
    return Peer(
        id=FOOT.port_id,
        network_id=INNER.id,
        mac_address=FOOT.mac_address,
        ips=tuple(it.ip for it in FOOT.addresses),
        endpoint_ip=host.host.endpoint_ip,
    )


def reaches(name: str, ip: str, *, seconds: int = 1) -> bool:
    command = ["nsenter", f"--net={namespace.FOLDER / name}", "--", "ping", "-c", "1", "-W", str(seconds), ip]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


async def guests(hosts: list[WholeHost]) -> list[Guest]:
    """One on each host; no router yet."""
    one, other = hosts
    endpoints = {it: replace(INNER, endpoints=(them.host.endpoint_ip,)) for it, them in ((one, other), (other, one))}
    made = [one.host.guest(WEB), other.host.guest(DB)]
    one.has(endpoints[one], OPEN, WEB, peer(DB, other.host))
    other.has(endpoints[other], OPEN, DB, peer(WEB, one.host))
    await one.control.up(WEB.id)
    await other.control.up(DB.id)
    for it in made:
        it.run("ip", "route", "replace", "default", "via", "10.0.0.1")
    return made


def settle(home: WholeHost, elsewhere: WholeHost) -> None:
    """The router lives at home from now on."""
    elsewhere.lacks(f"router/{ROUTER.id}", f"network/{PUBLIC.id}")
    elsewhere.has(foot_peer(home))
    home.lacks(f"peer/{FOOT.port_id}")
    home.has(PUBLIC, ROUTER)


async def test_guests_of_both_hosts_go_out_come_in_and_know_themselves(hosts):
    one, other = hosts
    web, db = await guests(hosts)
    settle(other, one)
    for it in (web, db):
        await until(lambda guest=it: reaches(guest.name, OUTSIDE))
    await until(lambda: reaches(outside_of(hosts), FLOATING))
    other.control.seeds = {
        it.id: InstanceData(
            port_id=it.id, server_id=it.device_id, seed=Seed(name=it.id, hostname=f"host-{it.device_id}")
        )
        for it in (WEB, DB)
    }
    for it in (web, db):
        said = await asyncio.to_thread(
            it.run, "curl", "-s", "-m", "5", "http://169.254.169.254/latest/meta-data/hostname"
        )
        assert said == f"host-{it.port.device_id}"
    for it in (web, db):
        await until(lambda guest=it: "default via fe80::" in guest.run("ip", "-6", "route"))


async def test_a_router_that_moves_answers_at_once(hosts):
    one, other = hosts
    web, _ = await guests(hosts)
    settle(other, one)
    await until(lambda: reaches(outside_of(hosts), FLOATING))
    await until(lambda: reaches(web.name, OUTSIDE))
    began = time.monotonic()
    settle(one, other)
    await until(lambda: reaches(outside_of(hosts), FLOATING))
    assert time.monotonic() - began < 2
    await until(lambda: reaches(web.name, OUTSIDE))
    assert time.monotonic() - began < 3
    await until(lambda: not namespace.names(f"{other.host.name}-r-"))


async def test_a_host_without_a_lease_is_silent_and_another_answers(hosts):
    one, other = hosts
    web, _ = await guests(hosts)
    settle(other, one)
    await until(lambda: reaches(outside_of(hosts), FLOATING))
    other.control.away = True
    began = time.monotonic()
    await until(lambda: not reaches(outside_of(hosts), FLOATING))
    one.lacks(f"peer/{FOOT.port_id}")
    one.has(PUBLIC, ROUTER)
    await until(lambda: reaches(outside_of(hosts), FLOATING) and reaches(web.name, OUTSIDE))
    assert time.monotonic() - began < 10
    neighbours = run(outside_of(hosts), "ip", "neigh", "show", OWN)
    assert GATEWAY.mac_address in neighbours
    other.lacks(f"router/{ROUTER.id}", f"network/{PUBLIC.id}")
    other.has(foot_peer(one))
    other.control.away = False
    await until(lambda: not namespace.names(f"{other.host.name}-r-"))
    assert reaches(outside_of(hosts), FLOATING)


async def test_what_is_taken_away_on_either_side_is_put_back(hosts):
    one, other = hosts
    web, _ = await guests(hosts)
    settle(other, one)
    await until(lambda: reaches(outside_of(hosts), FLOATING))
    (space,) = namespace.names(f"{other.host.name}-r-")
    gateway = f"q{GATEWAY.port_id[:11]}"
    harms = (
        lambda: run(space, "ip", "link", "del", gateway),
        lambda: run(space, "ip", "addr", "flush", "dev", gateway),
        lambda: run(space, "sysctl", "-q", "-w", "net.ipv4.ip_forward=0"),
        lambda: run(space, "ip", "route", "flush", "table", "main"),
        lambda: run(other.host.name, "ip", "link", "del", f"h{GATEWAY.port_id[:11]}"),
        lambda: namespace.remove(space),
    )
    for harm in harms:
        await asyncio.to_thread(harm)
        await until(lambda: reaches(outside_of(hosts), FLOATING) and reaches(web.name, OUTSIDE))
