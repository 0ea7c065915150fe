"""What every switch keeps to: hosts with a fabric between them, guests behind their ports, frames across."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether

from schema.network.wiring import AddressPair
from tests.network.dhcp_place import until
from tests.network.hosts import arrives, drained, network, peer, port, raw

pytestmark = pytest.mark.live


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
