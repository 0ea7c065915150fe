"""What is particular to the Linux bridge driver: what it plans, what it asks of the kernel, and what it cannot do."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from agents.network import netlink
from agents.network.bridge_plan import Change, Forward, Know, Make, Remove, Seen, Step, Unforward, plan
from agents.network.bridge_wanted import Fabric, wanted
from agents.network.bridge_watch import ears
from agents.network.firewall import Firewall
from agents.network.forwarding import DELETE_NEIGHBOUR, EVERYBODY, NEW_NEIGHBOUR, Entry
from agents.network.links import MOST_LEARNED, Link
from agents.network.linux_bridge import LinuxBridge
from agents.network.switch import CannotWire, bridge_name, tunnel_name
from agents.network.world import World
from schema.network.wiring import Peer
from tests.network.dhcp_place import until
from tests.network.hosts import Fabric as Cables
from tests.network.hosts import Host, Noticed, network, peer, port

pytestmark = pytest.mark.live

PORTS = 200
OWN = Fabric(endpoint_ip="10.77.0.1", mtu=1500)


@pytest.fixture
def fabric() -> Iterator[Cables]:
    with Cables() as fabric:
        yield fabric


@pytest.fixture
async def host(fabric: Cables) -> AsyncIterator[Host]:
    host = fabric.host()
    host.switch = LinuxBridge(host.space, fabric="fabric")
    yield host
    await host.switch.close()


def elsewhere(number: int) -> Peer:
    it = port(network(), number)
    ips = tuple(address.ip for address in it.addresses)
    return Peer(id=it.id, network_id=it.network_id, mac_address=it.mac_address, ips=ips, endpoint_ip="10.77.0.9")


def test_what_is_in_place_needs_nothing_done():
    world = World({f"network/{network().id}": network(), "port/1": port(network(), 1), "peer/7": elsewhere(7)})
    asked = wanted(world, network().id, (), OWN)
    seen = Seen({"fabric": Link("fabric", "veth", 1500, True, index=1)}, {}, {})
    steps = plan([asked], seen, ())
    assert {type(step) for step in steps} == {Make, Change, Forward, Know}
    done(steps, seen)
    assert plan([asked], seen, ()) == []


def test_a_port_that_leaves_takes_its_tap_along_and_is_found_elsewhere():
    pieces = {f"network/{network().id}": network(), "port/7": port(network(), 7)}
    before, seen = wanted(World(pieces), network().id, (), OWN), Seen({}, {}, {})
    done(plan([before], seen, ()), seen)
    del pieces["port/7"]
    after = wanted(World(pieces | {"peer/7": elsewhere(7)}), network().id, (), OWN)
    steps = plan([after], seen, [port(network(), 7).tap])
    mac, tunnel = elsewhere(7).mac_address, tunnel_name(1001)
    assert [step.link.name for step in steps if isinstance(step, Remove)] == [port(network(), 7).tap]
    assert {(step.device, step.entry) for step in steps if isinstance(step, Forward)} == {
        (tunnel, Entry(mac)),
        (tunnel, Entry(mac, "10.77.0.9")),
    }


def test_a_peer_that_moves_is_replaced_in_one_step():
    pieces = {f"network/{network().id}": network(), "peer/7": elsewhere(7)}
    seen = Seen({}, {}, {})
    done(plan([wanted(World(pieces), network().id, (), OWN)], seen, ()), seen)
    moved = replace(elsewhere(7), endpoint_ip="10.77.0.8")
    steps = plan([wanted(World(pieces | {"peer/7": moved}), network().id, (), OWN)], seen, ())
    assert steps == [Forward(tunnel_name(1001), Entry(moved.mac_address, "10.77.0.8"), "peer/" + moved.id)]
    done(steps, seen)
    assert plan([wanted(World(pieces | {"peer/7": moved}), network().id, (), OWN)], seen, ()) == []


def test_a_tunnel_is_made_anew_when_its_endpoint_changes():
    world = World({f"network/{network().id}": replace(network(), endpoints=("10.77.0.9",)), "peer/7": elsewhere(7)})
    seen = Seen({}, {}, {})
    done(plan([wanted(world, network().id, (), OWN)], seen, ()), seen)
    moved = wanted(world, network().id, (), Fabric(endpoint_ip="10.77.0.2"))
    steps = plan([moved], seen, ())
    assert [step.link.name for step in steps if isinstance(step, Remove | Make)] == [tunnel_name(1001)] * 2
    assert {step.entry for step in steps if isinstance(step, Forward)} == set(moved.entries[tunnel_name(1001)])
    assert not [step for step in steps if isinstance(step, Unforward)]


@pytest.mark.parametrize(
    "of, words",
    [
        (network(2, network_type="vlan", physical_network="external"), ["VLAN", "8021q", "ovs"]),
        (network(3, segmentation_id=None), ["segmentation id"]),
        (network(4, network_type="flat", physical_network="far"), ["far", "network.interfaces"]),
        (network(5, endpoints=("10.77.0.9",)), ["network.fabric"]),
    ],
)
def test_a_network_that_cannot_be_had_is_refused_in_words(of, words):
    with pytest.raises(CannotWire) as refused:
        wanted(World({f"network/{of.id}": of}), of.id, (), Fabric())
    for word in words:
        assert word in str(refused.value)


def test_an_entry_that_follows_its_guest_is_left_where_it_is_until_it_is_known():
    mac, tunnel, tap = elsewhere(7).mac_address, tunnel_name(1001), port(network(), 7).tap
    world = World({f"network/{network().id}": network(), "port/7": port(network(), 7), "peer/7": elsewhere(7)})
    seen, asked = Seen({}, {}, {}), wanted(world, network().id, (), OWN)
    done(plan([asked], seen, ()), seen)
    assert Entry(mac, sticks=False) in seen.entries[tunnel]
    seen.entries[tunnel].discard(Entry(mac, sticks=False))
    seen.entries[tap] = {Entry(mac, sticks=False)}  # it was heard here
    assert plan([asked], seen, ()) == []
    here = wanted(World({f"network/{network().id}": network(), "port/7": port(network(), 7)}), network().id, (), OWN)
    steps = plan([here], seen, ())
    assert [step for step in steps if isinstance(step, Forward)] == [
        Forward(tap, Entry(mac), "port/" + elsewhere(7).id)
    ]
    assert [step.entry for step in steps if isinstance(step, Unforward)] == [Entry(mac, "10.77.0.9")]
    done(steps, seen)
    assert plan([here], seen, ()) == []


def done(steps: list[Step], seen: Seen) -> None:
    """As the kernel would."""
    for step in steps:
        if isinstance(step, Make):
            number = 2 + max((link.index for link in seen.links.values()), default=0)
            step = Make(replace(step.link, index=number), step.key)  # noqa: PLW2901
        seen.note(step)


@pytest.mark.parametrize(
    "spoil",
    [
        ("ip", "link", "delete", bridge_name(network().id)),
        ("ip", "link", "delete", tunnel_name(1001)),
        ("ip", "link", "set", tunnel_name(1001), "down"),
        ("ip", "link", "set", bridge_name(network().id), "down"),
        ("bridge", "link", "set", "dev", tunnel_name(1001), "isolated", "off"),
        ("bridge", "link", "set", "dev", tunnel_name(1001), "neigh_suppress", "off"),
        ("bridge", "fdb", "delete", elsewhere(7).mac_address, "dev", tunnel_name(1001), "dst", "10.77.0.9"),
        ("bridge", "fdb", "delete", elsewhere(7).mac_address, "dev", tunnel_name(1001), "master"),
        ("bridge", "fdb", "delete", EVERYBODY, "dev", tunnel_name(1001), "dst", "10.77.0.9"),
        ("bridge", "fdb", "append", EVERYBODY, "dev", tunnel_name(1001), "dst", "10.77.0.66"),
        ("bridge", "fdb", "replace", elsewhere(7).mac_address, "dev", tunnel_name(1001), "dst", "10.77.0.66"),
        ("ip", "neighbour", "flush", "dev", bridge_name(network().id), "nud", "permanent"),
        ("ip", "-6", "neighbour", "delete", elsewhere(7).ips[1], "dev", bridge_name(network().id)),
    ],
    ids=" ".join,
)
async def test_what_somebody_spoils_is_put_right_at_once(host, spoil):
    noticed = Noticed(host)
    await noticed.start()
    host.has(replace(network(), endpoints=("10.77.0.9",)), port(network(), 1), elsewhere(7), elsewhere(8))
    await host.sweep()
    before = state(host)
    host.run(*spoil)
    assert state(host) != before
    await noticed.healed()
    assert state(host) == before
    assert not noticed.anything


def state(host: Host) -> Any:
    """Links with their flags, entries and neighbours."""
    links = {
        it["ifname"]: (it["mtu"], it.get("master"), "UP" in it["flags"], it["linkinfo"].get("info_slave_data", {}))
        for it in host.links()
        if "linkinfo" in it and it["ifname"].startswith(("br", "vx", "tap"))
    }
    flags = {name: [it[3].get(flag) for flag in ("isolated", "neigh_suppress", "flood")] for name, it in links.items()}
    entries = sorted(it for it in host.run("bridge", "fdb", "show").splitlines() if "fa:16:3e" in it or EVERYBODY in it)
    neighbours = sorted(host.run("ip", "neighbour", "show", "nud", "permanent").splitlines())
    return {name: it[:3] for name, it in links.items()}, flags, entries, neighbours


class Counted:
    """Writes to the kernel, and what the kernel told of changes, of a namespace."""

    def __init__(self, host: Host) -> None:
        self._switch: Any = host.switch
        self._hears = host.space.call(netlink.Socket, netlink.LINKS | netlink.NEIGHBOURS)

    def writes(self) -> int:
        kernel = self._switch._kernel
        return kernel.writes if kernel else 0

    def changes(self) -> int:
        return len(list(self._hears.changes()))

    async def silence(self) -> None:
        """Until the kernel has told nothing for longer than it ever holds back what a carrier did: a second."""
        told = time.monotonic()
        while time.monotonic() - told < 1.5:
            if self.changes():
                told = time.monotonic()
            await asyncio.sleep(0.05)

    def close(self) -> None:
        self._hears.close()


async def test_steady_state_costs_one_dump_and_a_port_one_batch(host):
    await host.switch.start(lambda: None)
    host.has(
        replace(network(), endpoints=("10.77.0.9",)),
        *(port(network(), number) for number in range(1, PORTS + 1)),
        *(elsewhere(number) for number in range(1000, 1000 + PORTS)),
    )
    counted = Counted(host)
    try:
        await host.sweep()
        await asyncio.wait_for(counted.silence(), 30)
        before, started = counted.writes(), time.process_time()
        await host.sweep()
        assert counted.writes() - before == 1
        assert time.process_time() - started < 0.25
        assert counted.changes() == 0

        before = counted.writes()
        await host.wire(port(network(), 900))
        assert counted.writes() - before == 1

        before = counted.writes()
        await host.wire(elsewhere(901))
        assert counted.writes() - before == 1

        await host.switch.close()
        host.switch = LinuxBridge(host.space, fabric="fabric")
        await asyncio.wait_for(counted.silence(), 30)
        await host.sweep()
        assert counted.changes() == 0
    finally:
        counted.close()


async def test_no_guest_speaks_to_its_host(host):
    host.has(network(), port(network(), 1))
    guest = host.guest(port(network(), 1))
    await host.sweep()
    bridge = host.link(bridge_name(network().id))["address"]
    host.run("ip", "route", "add", "10.0.0.0/16", "dev", bridge_name(network().id))
    for to in (host.endpoint_ip, "10.77.0.0/24"):
        guest.run("ip", "route", "replace", to, "dev", "eth0")
    assert not guest.pings(host.endpoint_ip, seconds=1)
    guest.run("ip", "neighbour", "replace", host.endpoint_ip, "lladdr", bridge, "dev", "eth0", "nud", "permanent")
    assert guest.pings(host.endpoint_ip)
    assert await Firewall(host.space, host.switch.bridge_of).apply(host.world, None) == {}
    assert not guest.pings(host.endpoint_ip, seconds=1)


async def test_qemu_finds_a_tap_it_can_open_and_leaves_it_behind(host, tmp_path):
    host.has(network(), port(network(), 1))
    await host.sweep()
    tap = port(network(), 1).tap
    card = f"tap,id=n,ifname={tap},script=no,downscript=no,vnet_hdr=on"
    command = ("qemu-system-x86_64", "-M", "none,accel=tcg", "-S", "-display", "none", "-nodefaults", "-netdev", card)
    qemu = await asyncio.create_subprocess_exec(*host.space.command, *command, stderr=subprocess.PIPE)
    try:
        await until(lambda: host.links("dev", tap)[0]["operstate"] == "UP" or qemu.returncode is not None)
        assert qemu.returncode is None, qemu.stderr and await qemu.stderr.read()
    finally:
        if qemu.returncode is None:
            qemu.kill()
        await qemu.wait()
    await host.sweep()
    await until(lambda: host.links("dev", tap)[0]["operstate"] != "UP")


async def test_an_address_that_two_guests_share_is_reached_where_it_is(fabric, host):
    """As keepalived has it: a MAC and an address that nothing but allowed address pairs tells of, and that moves."""
    here, there = port(network(), 1), port(network(), 2)
    far = fabric.host()
    far.switch = LinuxBridge(far.space, fabric="fabric")
    for it, mine, theirs, where in ((host, here, there, far), (far, there, here, host)):
        it.has(replace(network(), endpoints=(where.endpoint_ip,)), mine, peer(theirs, where))
    one, other = host.guest(here), far.guest(there)
    await host.sweep()
    await far.sweep()
    virtual = ("10.0.0.77", "00:00:5e:00:01:4d")
    other.run("ip", "link", "add", "vrrp", "link", "eth0", "address", virtual[1], "type", "macvlan", "mode", "private")
    other.run("ip", "address", "add", f"{virtual[0]}/32", "dev", "vrrp")
    other.run("ip", "link", "set", "vrrp", "up")
    other.run("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1")  # at its own MAC, not at eth0's
    assert one.pings(virtual[0])
    assert virtual[1] in one.run("ip", "neighbour", "show", virtual[0])
    await far.switch.close()


async def test_a_guest_that_comes_running_is_found_before_anybody_tells_of_it(fabric, host):
    noticed = Noticed(host)
    await noticed.start()
    near, coming = port(network(), 1), port(network(), 7)
    host.has(replace(network(), endpoints=("10.77.0.9",)), near, coming, elsewhere(7))
    one, guest = host.guest(near), host.guest(coming)
    await host.sweep()
    assert guest.pings(one.ip)
    assert one.pings(guest.ip)
    assert not noticed.anything
    await host.sweep()
    assert one.pings(guest.ip)


async def test_tunnels_go_over_ipv6_as_well(fabric):
    hosts = [fabric.host(), fabric.host()]
    short = network(mtu=1430)
    ports = [port(short, 1), port(short, 2)]
    guests = []
    for host, mine, theirs, other in zip(hosts, ports, reversed(ports), ("fd77::2", "fd77::1"), strict=True):
        host.endpoint_ip = f"fd77::{host.number}"
        host.run("ip", "address", "add", f"{host.endpoint_ip}/64", "dev", "fabric", "nodad")
        host.switch = LinuxBridge(host.space, fabric=host.endpoint_ip)
        host.has(replace(short, endpoints=(other,)), mine, replace(peer(theirs, host), endpoint_ip=other))
        guests.append(host.guest(mine, 1430))
        await host.sweep()
        assert (await host.switch.facts()).endpoint_ip == host.endpoint_ip
    assert guests[0].pings(guests[1].ip, "-M", "do", "-s", str(1430 - 28))
    assert guests[1].pings(guests[0].ip6)
    assert [host.fragments() for host in hosts] == [0, 0]
    for host in hosts:
        await host.switch.close()
    long = network(2, mtu=1450)
    with pytest.raises(CannotWire, match="1520"):
        wanted(World({f"network/{long.id}": long}), long.id, (), Fabric(endpoint_ip="fd77::1", mtu=1500))


async def test_a_host_says_what_it_has(host):
    switch = LinuxBridge(host.space, fabric="fabric", interfaces={"external": "external", "far": "eth9"})
    facts = await switch.facts()
    assert (facts.driver, facts.endpoint_ip, facts.physical_networks) == ("linuxbridge", "10.77.0.1", ("external",))
    assert "vlan" not in facts.capabilities
    host.run("ip", "address", "replace", "10.77.9.9/24", "dev", "fabric")
    host.run("ip", "address", "delete", "10.77.0.1/24", "dev", "fabric")
    assert (await switch.facts()).endpoint_ip == "10.77.9.9"
    await switch.close()
    alone = LinuxBridge(host.space)
    assert (await alone.facts()).endpoint_ip == ""
    host.has(network(), port(network(), 1))
    assert await alone.apply(host.world, None) == {}
    assert host.has_link(port(network(), 1).tap)
    await alone.close()


async def test_a_guest_that_makes_up_addresses_fills_nothing_and_wakes_nobody(host):
    noticed = Noticed(host)
    await noticed.start()
    host.has(network(), port(network(), 1))
    guest = host.guest(port(network(), 1))
    await host.sweep()
    await until(lambda: "state UP" in guest.run("ip", "link", "show", "eth0"))
    counted = host.space.call(ears)
    try:
        frames = [bytes.fromhex(f"fa163e010009 02000000{it:04x} 88b5") + bytes(46) for it in range(MOST_LEARNED + 1000)]
        await asyncio.to_thread(guest.send, *frames)
        learned = host.run("bridge", "fdb", "show", "br", bridge_name(network().id)).count("02:00:00:00")
        assert MOST_LEARNED - 100 <= learned <= MOST_LEARNED
        assert not [kind for kind, _ in counted.changes() if kind in {NEW_NEIGHBOUR, DELETE_NEIGHBOUR}]
        assert not noticed.anything
    finally:
        counted.close()
