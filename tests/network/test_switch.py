"""What every switch keeps to: hosts with a fabric between them, guests behind their ports, frames across."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from msgspec.structs import replace
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether

from agents.network import namespace
from agents.network.linux_bridge import LinuxBridge
from agents.network.ovs.switch import OvsSwitch
from agents.network.switch import Attachment, CannotWire, Switch, bridge_name
from schema.network.wiring import AddressPair, WiredNetwork
from tests.network.dhcp_place import until
from tests.network.hosts import Fabric, Guest, Host, Noticed, arrives, drained, network, peer, port, raw
from tests.network.ovs_place import open_vswitches

pytestmark = pytest.mark.live

Make = Callable[[Host], Switch]


PLACE: dict[str, Any] = {"fabric": "fabric", "interfaces": {"external": "external"}}


@pytest.fixture(params=["linuxbridge", "ovs"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(kind: str) -> Iterator[Make]:
    if kind == "linuxbridge":
        yield lambda host: LinuxBridge(host.space, **PLACE)
    else:
        with open_vswitches(**PLACE, protecting=False) as opened:
            yield lambda host: opened(host.space)


def unplug(host: Host, interface: str) -> None:
    """Somebody does."""
    if isinstance(host.switch, OvsSwitch):
        host.run("ovs-vsctl", f"--db={host.switch.database}", "del-port", interface)
    else:
        host.run("ip", "link", "set", interface, "nomaster")


def own_interfaces(kind: str, *networks: WiredNetwork) -> set[str]:
    """Those that a switch of that kind needs for itself."""
    return {bridge_name(it.id) for it in networks} if kind == "linuxbridge" else {"br-int", "ovs-netdev"}


class Two:
    """Two hosts with a network, a guest of which is on each."""

    def __init__(self, fabric: Fabric, make: Make, mtu: int = 1450) -> None:
        self.a, self.b = fabric.host(), fabric.host()
        self.network = network(mtu=mtu)
        self.one, self.two = port(self.network, 1), port(self.network, 2)
        for host, here, there, other in ((self.a, self.one, self.two, self.b), (self.b, self.two, self.one, self.a)):
            host.switch = make(host)
            host.has(replace(self.network, endpoints=(other.endpoint_ip,)), here, peer(there, other))

    def guests(self, mtu: int = 1450) -> tuple[Guest, Guest]:
        return self.a.guest(self.one, mtu), self.b.guest(self.two, mtu)

    async def sweep(self) -> None:
        await self.a.sweep()
        await self.b.sweep()

    async def close(self) -> None:
        await self.a.switch.close()
        await self.b.switch.close()


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric() as fabric:
        yield fabric


@pytest.fixture
async def two(fabric: Fabric, make: Make) -> AsyncIterator[Two]:
    two = Two(fabric, make)
    yield two
    await two.close()


async def test_guests_of_two_hosts_reach_each_other_with_whole_packets(two):
    one, other = two.guests()
    await two.sweep()
    assert one.pings(other.ip)
    assert one.pings(other.ip6)
    with raw(two.a.name, "fabric") as fabric:
        assert one.pings(other.ip, "-M", "do", "-s", str(1450 - 28))
        assert other.pings(one.ip6, "-M", "do", "-s", str(1450 - 48))
        assert not one.pings(other.ip, "-M", "do", "-s", str(1451 - 28))
        assert max(len(frame) for frame in drained(fabric)) == 1500 + 14
    assert two.a.fragments() == two.b.fragments() == 0


async def test_frames_to_nobody_stay_on_their_host(two):
    one, other = two.guests()
    await two.sweep()
    unknown = Ether(src=two.one.mac_address, dst="fa:16:3e:99:99:99") / IP(src=one.ip, dst="10.0.9.9") / ICMP()
    with other.raw() as heard:
        one.send(unknown, one.to_all())
        assert not arrives(heard, unknown, one.to_all())


async def test_who_has_an_address_elsewhere_is_answered_here(two):
    one, other = two.guests()
    await two.sweep()
    question = Ether(src=two.one.mac_address, dst="ff:ff:ff:ff:ff:ff") / ARP(
        op=1, hwsrc=two.one.mac_address, psrc=one.ip, pdst=other.ip
    )
    answer = Ether(src=two.two.mac_address, dst=two.one.mac_address) / ARP(
        op=2, hwsrc=two.two.mac_address, psrc=other.ip, hwdst=two.one.mac_address, pdst=one.ip
    )
    with one.raw() as here, other.raw() as there:
        one.send(question, one.to_all())
        assert not arrives(there, question, one.to_all())
        other.send(other.to_all())
        assert arrives(here, answer, other.to_all())
    with other.raw() as there:
        assert one.pings(other.ip6)
        asked = bytes.fromhex(two.one.mac_address.replace(":", "")) + b"\x86\xdd"
        solicitation = b"\x87"
        assert not [it for it in drained(there) if it[6:14] == asked and it[54:55] == solicitation]


async def test_a_mac_that_several_may_have_is_found_where_it_was_last_seen(two):
    one, other = two.guests()
    shared = "00:00:5e:00:01:07"
    await two.sweep()
    await two.b.wire(replace(two.two, address_pairs=(AddressPair(ip="10.0.9.9", mac_address=shared),)))
    here = Ether(src=shared, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=shared, psrc="10.0.9.9", pdst="10.0.9.1")
    word = Ether(src=two.one.mac_address, dst=shared) / IP(src=one.ip, dst="10.0.9.9") / ICMP()
    with one.raw() as near, other.raw() as far:
        other.send(here)
        assert arrives(near, here, here)
        one.send(word)
        assert arrives(far, word, word)
    await two.sweep()
    with other.raw() as far:
        one.send(word)
        assert arrives(far, word, word)


async def test_macs_of_address_pairs_are_known_before_they_are_heard(two):
    one, other = two.guests()
    another = "fa:16:3e:77:00:01"
    two.two = replace(two.two, address_pairs=(AddressPair(ip="10.0.9.9", mac_address=another),))
    two.b.has(two.two)
    two.a.has(peer(two.two, two.b))
    await two.sweep()
    word = Ether(src=two.one.mac_address, dst=another) / IP(src=one.ip, dst="10.0.9.9") / ICMP()
    with other.raw() as far:
        one.send(word)
        assert arrives(far, word, word)
    await two.a.wire(replace(peer(two.two, two.b), more_macs=()))
    with other.raw() as far:
        one.send(word, one.to_all())
        assert not arrives(far, word, one.to_all())


async def test_who_takes_over_a_shared_address_is_heard_everywhere(two):
    one, other = two.guests()
    shared = "10.0.9.9"
    pair = AddressPair(ip=shared, mac_address=two.two.mac_address)
    await two.sweep()
    await two.b.wire(replace(two.two, address_pairs=(pair,)))
    everybody = "ff:ff:ff:ff:ff:ff"
    telling = [
        Ether(src=two.two.mac_address, dst=everybody)
        / ARP(op=op, hwsrc=two.two.mac_address, psrc=shared, hwdst=everybody, pdst=shared)
        for op in (1, 2)
    ]
    with one.raw() as near:
        for it in telling:
            other.send(it)
            assert arrives(near, it, it)


async def test_networks_do_not_mix(two, make):
    one, other = two.guests()
    second = network(2)
    third, fourth = port(second, 2), port(second, 1)
    await two.sweep()
    here, there = two.a.guest(third), two.b.guest(fourth)
    await two.a.wire(replace(second, endpoints=(two.b.endpoint_ip,)), third, peer(fourth, two.b))
    await two.b.wire(replace(second, endpoints=(two.a.endpoint_ip,)), fourth, peer(third, two.a))
    assert one.pings(other.ip)
    assert here.pings(there.ip)
    stray = Ether(src=two.one.mac_address, dst=fourth.mac_address) / IP(src=one.ip, dst=there.ip) / ICMP()
    with here.raw() as near, there.raw() as far:
        one.send(stray, one.to_all(1))
        here.send(here.to_all(2))
        assert not arrives(far, one.to_all(1), here.to_all(2))
        there.send(there.to_all(3))
        assert not arrives(near, one.to_all(1), there.to_all(3))
        one.send(stray)
        here.send(here.to_all(4))
        assert not arrives(far, stray, here.to_all(4))


async def test_a_port_that_moves_is_followed(two, fabric, make):
    one, other = two.guests()
    third_host = fabric.host()
    third_host.switch = make(third_host)
    await two.sweep()
    assert one.pings(other.ip)
    moved = third_host.guest(two.two)
    third_host.has(replace(two.network, endpoints=(two.a.endpoint_ip,)), two.two, peer(two.one, two.a))
    await third_host.sweep()
    await two.b.unwire(f"port/{two.two.id}", f"peer/{two.one.id}", f"network/{two.network.id}")
    assert not two.b.has_link(two.two.tap)
    await two.a.wire(replace(two.network, endpoints=(third_host.endpoint_ip,)), peer(two.two, third_host))
    assert one.pings(moved.ip)
    assert one.pings(moved.ip6)
    assert moved.pings(one.ip)
    await third_host.switch.close()


async def test_a_port_that_comes_here_is_not_looked_for_elsewhere(two):
    one, _ = two.guests()
    await two.sweep()
    await two.b.unwire(f"port/{two.two.id}")
    here = two.a.guest(two.two)
    two.a.lacks(f"peer/{two.two.id}")
    keys = two.a.has(two.two) | {f"peer/{two.two.id}"}
    assert await two.a.switch.apply(two.a.world, keys) == {}
    assert one.pings(here.ip)
    await two.b.wire(peer(two.two, two.a))
    assert here.pings(one.ip)


async def test_who_left_is_not_spoken_to(two):
    one, other = two.guests()
    await two.sweep()
    assert one.pings(other.ip)
    keys = two.a.lacks(f"peer/{two.two.id}") | two.a.has(replace(two.network, endpoints=()))
    assert await two.a.switch.apply(two.a.world, keys) == {}
    with raw(two.a.name, "fabric") as fabric:
        one.send(one.to_all())
        assert not one.pings(other.ip, seconds=1)
        assert not [it for it in drained(fabric) if bytes(one.to_all()) in it]


async def test_a_cable_that_was_pulled_carries_again_when_it_is_back(two, fabric):
    one, other = two.guests()
    await two.sweep()
    assert one.pings(other.ip)
    fabric.cut(two.a.number, up=False)
    assert not one.pings(other.ip, seconds=1)
    await two.sweep()
    fabric.cut(two.a.number, up=True)
    await until(lambda: one.pings(other.ip, seconds=1))


async def test_nobody_takes_over_the_mac_of_another(two):
    """Were it not for anti-spoofing: here a guest with port security off, say."""
    one, other = two.guests()
    third = two.a.guest(port(two.network, 3))
    await two.a.wire(third.port)
    await two.b.wire(peer(third.port, two.a))
    await two.sweep()
    stolen = Ether(src=two.one.mac_address, dst="ff:ff:ff:ff:ff:ff") / IP(src=other.ip, dst="10.0.255.9") / ICMP()
    for thief, sees in ((other, third), (third, other)):
        with sees.raw() as heard:
            thief.send(stolen, thief.to_all())
            arrives(heard, stolen, thief.to_all())
        assert third.pings(one.ip)
        assert other.pings(one.ip)


async def test_a_port_that_may_come_here_is_where_it_is_until_it_comes(two):
    """A live migration: the port is here already, with its tap, and its guest still runs elsewhere."""
    one, other = two.guests()
    await two.sweep()
    third = two.a.guest(port(two.network, 3))
    await two.a.wire(third.port)
    await two.b.wire(peer(third.port, two.a))
    coming = two.a.guest(two.two)
    await two.a.wire(two.two)  # it is a peer as well
    await two.a.sweep()
    assert third.pings(other.ip)
    assert one.pings(other.ip6)
    await two.a.unwire(f"peer/{two.two.id}")
    await two.b.unwire(f"port/{two.two.id}", f"peer/{two.one.id}", f"peer/{third.port.id}", f"network/{two.network.id}")
    assert third.pings(coming.ip)
    assert one.pings(coming.ip6)
    await two.a.sweep()
    assert coming.pings(one.ip)


async def test_a_flat_network_is_what_is_outside(fabric, make):
    a, b = fabric.host(), fabric.host()
    outside = network(3, network_type="flat", physical_network="external", segmentation_id=None, mtu=1500)
    first, second = port(outside, 1), port(outside, 2)
    guests = []
    for host, mine in ((a, first), (b, second)):
        host.switch = make(host)
        host.has(outside, mine)
        guests.append(host.guest(mine, 1500))
        await host.sweep()
    assert guests[0].pings(guests[1].ip, "-M", "do", "-s", "1472")
    assert guests[1].pings(guests[0].ip6)
    await a.unwire(f"port/{first.id}", f"network/{outside.id}")
    assert a.has_link("external")
    for host in (a, b):
        await host.switch.close()


async def test_what_cannot_be_wired_says_why(fabric, make):
    host = fabric.host()
    host.switch = make(host)
    nowhere = network(4, network_type="flat", physical_network="nowhere", segmentation_id=None)
    long = network(5, mtu=1500)
    host.has(nowhere, port(nowhere, 1), long, port(long, 1), network(1), port(network(1), 1))
    faults = await host.switch.apply(host.world, None)
    assert set(faults) == {f"network/{nowhere.id}", f"network/{long.id}"}
    assert "nowhere" in faults[f"network/{nowhere.id}"]
    assert "1550" in faults[f"network/{long.id}"]
    assert host.has_link(port(network(1), 1).tap)
    await host.switch.close()


async def test_a_port_that_is_down_is_silent(two):
    one, other = two.guests()
    await two.sweep()
    await two.b.wire(replace(two.two, admin_up=False))
    assert not one.pings(other.ip, seconds=1)
    await two.b.wire(two.two)
    await until(lambda: one.pings(other.ip, seconds=1))  # the guest's card takes a while to see that it is up


# Somebody else's doings


async def test_a_switch_does_not_notice_its_own_doings(two, service):
    noticed = Noticed(two.a)
    await noticed.start()
    two.guests()
    await two.a.sweep()
    for number in range(10, 20):
        await two.a.wire(port(two.network, number))
    await two.a.switch.attach(foot(two.network, service()), two.a.world)
    await two.a.wire(replace(two.one, admin_up=False))
    await two.a.unwire(f"port/{port(two.network, 11).id}", f"peer/{two.two.id}")
    await two.a.switch.detach(port(two.network, 200).id)
    await two.a.sweep()
    await two.a.unwire(*two.a.pieces)
    two.a.run("ip", "link", "add", "stranger", "type", "bridge")
    await until(lambda: two.a.has_link("stranger"))
    await two.a.sweep()
    assert not noticed.anything


@pytest.mark.parametrize("what", ["tap", "port moved", "mtu", "down"])
async def test_a_changed_tap_is_put_right_at_once(two, what):
    one, other = two.guests()
    noticed = Noticed(two.a)
    await noticed.start()
    await two.sweep()
    spare = port(two.network, 9)
    await two.a.wire(spare)
    tap = spare.tap if what == "tap" else two.one.tap
    before = two.a.link(tap)
    with other.flood(one.ip) if what == "tap" else nullcontext() as flood:
        match what:
            case "tap":
                two.a.run("ip", "link", "delete", tap)
            case "port moved":
                unplug(two.a, tap)
            case "mtu":
                two.a.run("ip", "link", "set", tap, "mtu", "1300")
            case "down":
                two.a.run("ip", "link", "set", tap, "down")
        await noticed.healed()
    assert flood is None or flood.lost == 0
    after = two.a.link(tap)
    assert [after.get(it) for it in ("mtu", "master", "flags")] == [before.get(it) for it in ("mtu", "master", "flags")]
    assert other.pings(one.ip)
    assert not noticed.anything


async def test_a_tap_that_a_guest_has_open_is_never_made_anew(two, make):
    noticed = Noticed(two.a)
    await noticed.start()
    other = two.b.guest(two.two)
    await two.sweep()
    with two.a.opened(two.one.tap) as guest:
        index = two.a.link(two.one.tap)["ifindex"]
        unplug(two.a, two.one.tap)
        await noticed.healed()
        smaller = replace(two.network, mtu=1400, endpoints=(two.b.endpoint_ip,))
        await two.a.wire(replace(two.one, generation=2), smaller)
        again = make(two.a)
        assert await again.apply(two.a.world, None) == {}
        await again.close()
        assert two.a.link(two.one.tap)["ifindex"] == index
        assert two.a.link(two.one.tap)["mtu"] == 1400
        frame = bytes(Ether(src=two.one.mac_address, dst="ff:ff:ff:ff:ff:ff") / IP(dst="10.0.255.255") / ICMP())
        with other.raw() as heard:
            os.write(guest, frame)
            assert arrives(heard, frame, frame)


async def test_restarting_the_agent_loses_nothing(two, make):
    one, other = two.guests()
    await two.sweep()
    assert one.pings(other.ip)
    with one.flood(other.ip) as flood, other.flood(one.ip6) as back:
        for host in (two.a, two.b):
            for _ in range(3):
                await host.switch.close()
                host.switch = make(host)
                await host.sweep()
    assert flood.sent
    assert (flood.lost, back.lost) == (0, 0)


async def test_what_is_wired_stays_while_nothing_is_known(two, make):
    two.guests()
    await two.sweep()
    await two.a.switch.close()
    two.a.switch = make(two.a)
    two.a.pieces = {}
    await two.a.sweep()
    assert two.a.has_link(two.one.tap)


async def test_what_nobody_wants_any_more_goes_when_the_agent_is_back(two, make, kind):
    await two.sweep()
    await two.a.switch.close()
    two.a.switch = make(two.a)
    two.a.pieces = {}
    two.a.has(network(2))
    await two.a.sweep()
    wanted = {"lo", "fabric", "external", "vx1002"} | own_interfaces(kind, network(2))
    assert {it["ifname"] for it in two.a.links()} == wanted


# Feet


def foot(of: WiredNetwork, inside: str, number: int = 200, **more: Any) -> Attachment:
    own = port(of, number)
    return Attachment(port_id=own.id, network_id=of.id, mac_address=own.mac_address, mtu=1450, namespace=inside, **more)


@pytest.fixture
def service(fabric: Fabric) -> Callable[[], str]:
    def make() -> str:
        name = f"{fabric.tag}-s{os.urandom(2).hex()}"
        namespace.create(name)
        return name

    return make


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


def standing(of: Attachment) -> Guest:
    """Whoever has that foot."""
    guest = Guest(of.namespace, port(network(), 200), of.inside)
    guest.settle()
    return guest
