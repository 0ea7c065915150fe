"""Frames of guests on one host: who may send what, to whom, by which rules; with real bridges and a real kernel."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Advertise
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.sctp import SCTP, SCTPChunkInit

from agents.network.firewall_rules import link_local
from schema.network.wiring import AddressPair, Members
from tests.network.cabling import ANYTHING_OUT, Guest, Site, group, ingress
from tests.network.ovs_place import OvsSite

pytestmark = pytest.mark.live

EVERYBODY = "ff:ff:ff:ff:ff:ff"
OPEN = group("open", *ANYTHING_OUT, ingress(), ingress(ethertype="IPv6"))
OUT_ONLY = group("out", *ANYTHING_OUT)


@pytest.fixture(params=[Site, OvsSite], ids=["linuxbridge", "ovs"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    with request.param() as site:
        yield site
        await site.firewall.close()


def syn(sender: Guest, receiver: Guest, port: int, **ip: str) -> Ether:
    return (
        Ether(src=sender.mac, dst=receiver.mac) / IP(**({"src": sender.ip, "dst": receiver.ip} | ip)) / TCP(dport=port)
    )


async def test_a_guest_sends_only_from_its_own_mac_and_addresses(site: Site) -> None:
    network = site.network()
    pair = AddressPair(ip="10.0.7.0/24", mac_address="")
    vip = AddressPair(ip="10.0.9.9", mac_address="00:00:5e:00:01:07")
    a = site.guest(network, 1, OPEN, kernel=False, address_pairs=(pair, vip))
    b = site.guest(network, 2, OPEN, kernel=False)
    assert await site.sweep() == {}

    def udp(mac: str, ip: str) -> Ether:
        return Ether(src=mac, dst=b.mac) / IP(src=ip, dst=b.ip) / UDP(sport=5, dport=9) / b"x"

    def arp(mac: str, hw: str, ip: str) -> Ether:
        return Ether(src=mac, dst=EVERYBODY) / ARP(op=2, hwsrc=hw, psrc=ip, hwdst=b.mac, pdst=b.ip)

    def udp6(mac: str, ip: str) -> Ether:
        return Ether(src=mac, dst=b.mac) / IPv6(src=ip, dst=b.ip6) / UDP(sport=5, dport=9) / b"x"

    stranger = "fa:16:3e:99:99:99"
    good = [
        udp(a.mac, a.ip),
        udp(a.mac, "10.0.7.200"),
        udp(vip.mac_address, "10.0.9.9"),
        arp(a.mac, a.mac, a.ip),
        arp(a.mac, a.mac, "10.0.7.3"),
        arp(vip.mac_address, vip.mac_address, "10.0.9.9"),
        arp(a.mac, a.mac, "0.0.0.0"),
        udp6(a.mac, a.ip6),
        udp6(a.mac, link_local(a.mac)),
    ]
    assert a.arrivals(*good, at=b) == [True] * len(good)
    bad = [
        udp(stranger, a.ip),
        udp(a.mac, b.ip),
        udp(a.mac, "10.0.9.9"),
        udp(a.mac, "10.0.8.1"),
        udp(a.mac, "0.0.0.0"),
        arp(stranger, a.mac, a.ip),
        arp(a.mac, stranger, a.ip),
        arp(a.mac, a.mac, b.ip),
        arp(a.mac, a.mac, "10.0.9.9"),
        udp6(a.mac, "fd00::77"),
        udp6(a.mac, link_local(b.mac)),
        udp6(stranger, a.ip6),
        Ether(src=a.mac, dst=b.mac, type=0x88B5) / b"neither ARP nor IP",
        Ether(src=a.mac, dst=b.mac) / Dot1Q(vlan=7) / IP(src=a.ip, dst=b.ip) / UDP(dport=9),
    ]
    assert a.arrivals(*bad, at=b) == [False] * len(bad)
    counters = await site.counters()
    assert counters["spoofed-mac"] == 3
    assert counters["spoofed-ip"] == 6
    assert counters["spoofed-arp"] == 3
    assert counters["other-protocol"] == 2


async def test_neighbours_cannot_be_claimed_for_others(site: Site) -> None:
    network = site.network()
    a, b = site.guest(network, 1, OPEN, kernel=False), site.guest(network, 2, OPEN, kernel=False)
    await site.sweep()

    def advert(source: str, target: str) -> Ether:
        body = ICMPv6ND_NA(tgt=target) / ICMPv6NDOptDstLLAddr(lladdr=a.mac)
        return Ether(src=a.mac, dst="33:33:00:00:00:01") / IPv6(src=source, dst="ff02::1", hlim=255) / body

    def probe(target: str) -> Ether:
        head = IPv6(src="::", dst="ff02::1:ff00:1", hlim=255)
        return Ether(src=a.mac, dst="33:33:ff:00:00:01") / head / ICMPv6ND_NS(tgt=target)

    local = link_local(a.mac)
    assert a.arrivals(
        advert(a.ip6, a.ip6), advert(local, local), advert(local, b.ip6), advert(a.ip6, "fd00::fe"), at=b
    ) == [True, True, False, False]
    assert a.arrivals(probe(a.ip6), probe(local), probe("fd00::99"), at=b) == [True, True, False]
    assert (await site.counters())["spoofed-nd"] == 3


async def test_a_guest_is_no_dhcp_server_and_no_router(site: Site) -> None:
    network = site.network()
    a, b = site.guest(network, 1, OPEN, kernel=False), site.guest(network, 2, OPEN, kernel=False)
    server = await site.foot(network, 3, kernel=False)
    await site.sweep()

    def offer(of: Guest) -> Ether:
        head = Ether(src=of.mac, dst=b.mac) / IP(src=of.ip, dst=b.ip) / UDP(sport=67, dport=68)
        return head / BOOTP(op=2, yiaddr=b.ip) / DHCP(options=[("message-type", "offer"), "end"])

    def advertise(of: Guest) -> Ether:
        head = Ether(src=of.mac, dst=b.mac) / IPv6(src=link_local(of.mac), dst=link_local(b.mac))
        return head / UDP(sport=547, dport=546) / DHCP6_Advertise()

    def announce(of: Guest) -> Ether:
        head = Ether(src=of.mac, dst="33:33:00:00:00:01") / IPv6(src=link_local(of.mac), dst="ff02::1", hlim=255)
        return head / ICMPv6ND_RA()

    assert a.arrivals(offer(a), advertise(a), announce(a), at=b) == [False] * 3
    assert server.arrivals(offer(server), advertise(server), announce(server), at=b) == [True] * 3
    counters = await site.counters()
    assert (counters["rogue-dhcp"], counters["rogue-router"]) == (2, 1)


async def test_a_guest_without_any_rule_still_gets_its_addresses(site: Site) -> None:
    network = site.network()
    a = site.guest(network, 1, kernel=False)
    server = await site.foot(network, 3, kernel=False)
    await site.sweep()
    local = link_local(a.mac)
    discover = (
        Ether(src=a.mac, dst=EVERYBODY) / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / BOOTP()
    )
    solicit = Ether(src=a.mac, dst="33:33:00:01:00:02") / IPv6(src=local, dst="ff02::1:2") / UDP(sport=546, dport=547)
    ask_router = Ether(src=a.mac, dst="33:33:00:00:00:02") / IPv6(src=local, dst="ff02::2", hlim=255) / ICMPv6ND_RS()
    assert a.arrivals(discover, solicit, ask_router, syn(a, server, 80), at=server) == [True, True, True, False]


async def test_each_protocol_passes_as_the_rules_say(site: Site) -> None:
    network = site.network()
    rules = group(
        "rules",
        ingress("tcp", 22),
        ingress("tcp", 8000, 8010),
        ingress("udp", 53),
        ingress("icmp", 8, 0),
        ingress("ipv6-icmp", 128, ethertype="IPv6"),
        ingress("sctp", 36412),
        ingress("47"),
        ingress("tcp", 443, ethertype="IPv6"),
        ingress("tcp", 3306, remote_prefix="10.0.0.64/26"),
    )
    a, b = site.guest(network, 1, OUT_ONLY, kernel=False), site.guest(network, 2, rules, kernel=False)
    near = site.guest(network, 70, OUT_ONLY, kernel=False)
    assert await site.sweep() == {}
    head = Ether(src=a.mac, dst=b.mac)
    four, six = head / IP(src=a.ip, dst=b.ip), head / IPv6(src=a.ip6, dst=b.ip6)
    allowed = [
        four / TCP(dport=22),
        four / TCP(dport=8000),
        four / TCP(dport=8010),
        four / UDP(sport=1, dport=53) / b"q",
        four / ICMP(type=8) / b"ping",
        six / ICMPv6EchoRequest(data=b"ping"),
        four / SCTP(sport=5, dport=36412) / SCTPChunkInit(),
        head / IP(src=a.ip, dst=b.ip, proto=47) / b"gre",
        six / TCP(dport=443),
    ]
    assert a.arrivals(*allowed, at=b) == [True] * len(allowed)
    denied = [
        four / TCP(dport=23),
        four / TCP(dport=8011),
        four / TCP(dport=443),
        four / UDP(sport=1, dport=22) / b"q",
        four / ICMP(type=13),
        six / TCP(dport=22),
        four / SCTP(sport=5, dport=36413) / SCTPChunkInit(),
        head / IP(src=a.ip, dst=b.ip, proto=50) / b"esp",
        four / TCP(dport=3306),
    ]
    assert a.arrivals(*denied, at=b) == [False] * len(denied)
    assert near.arrivals(syn(near, b, 3306), at=b) == [True]


async def test_two_protected_guests_on_one_host_need_leave_of_both(site: Site) -> None:
    """The frame passes the kernel once: the sender's and the receiver's rules are both asked."""
    network = site.network()
    quiet = group("quiet", ingress("tcp", 80), ingress("tcp", 80, ethertype="IPv6"))
    web = group("web", *ANYTHING_OUT, ingress("tcp", 80), ingress("tcp", 80, ethertype="IPv6"))
    mute = site.guest(network, 1, quiet)
    a, b = site.guest(network, 2, OUT_ONLY), site.guest(network, 3, web)
    await site.sweep()
    for six in (False, True):
        with b.listen(80, six=six), b.listen(81, six=six), mute.listen(80, six=six), a.listen(80, six=six):
            assert a.reaches(b, 80, six=six)
            assert a.reaches(mute, 80, six=six)
            assert b.reaches(mute, 80, six=six)
            assert not a.reaches(b, 81, six=six, seconds=0.5)
            assert not b.reaches(a, 80, six=six, seconds=0.5)
            assert not mute.reaches(b, 80, six=six, seconds=0.5)


async def test_what_a_router_hands_on_is_judged_by_the_guests_rules(site: Site) -> None:
    network = site.network()
    b = site.guest(network, 2, group("web", ingress("tcp", 80)))
    router = await site.foot(network, 9)
    await site.sweep()
    with b.listen(80), b.listen(81):
        assert router.reaches(b, 80)
        assert not router.reaches(b, 81, seconds=0.5)


async def test_a_port_without_port_security_may_send_and_get_anything(site: Site) -> None:
    network = site.network()
    a, b = site.guest(network, 1, kernel=False, secured=False), site.guest(network, 2, kernel=False, secured=False)
    await site.sweep()
    anything = [
        syn(a, b, 80, src="192.0.2.1"),
        Ether(src="fa:16:3e:99:99:99", dst=b.mac) / ARP(op=2, psrc=b.ip),
        Ether(src=a.mac, dst=b.mac, type=0x88B5) / b"anything",
        Ether(src=a.mac, dst=b.mac) / IP(src=a.ip, dst=b.ip) / UDP(sport=67, dport=68) / BOOTP(op=2),
    ]
    assert a.arrivals(*anything, at=b) == [True] * 4


async def test_stateless_rules_know_no_connections(site: Site) -> None:
    network = site.network()
    plain = group("plain", ingress("tcp", 80), *ANYTHING_OUT, stateful=False)
    a, b = site.guest(network, 1, OUT_ONLY, kernel=False), site.guest(network, 2, plain, kernel=False)
    c = site.guest(network, 3, plain, kernel=False)
    await site.sweep()
    server = await site.foot(network, 9, kernel=False)

    def exchange(guest: Guest) -> bool:
        ask = Ether(src=guest.mac, dst=server.mac) / IP(src=guest.ip, dst=server.ip) / UDP(sport=5000, dport=53) / b"q"
        tell = Ether(src=server.mac, dst=guest.mac) / IP(src=server.ip, dst=guest.ip) / UDP(sport=53, dport=5000) / b"a"
        assert guest.arrivals(ask, at=server) == [True]
        return server.arrivals(tell, at=guest) == [True]

    assert exchange(a)
    assert not exchange(b)
    # What a stateful guest asked a stateless one is answered, though: its own connections are tracked.
    asked = Ether(src=a.mac, dst=c.mac) / IP(src=a.ip, dst=c.ip) / TCP(sport=50001, dport=80, flags="S", seq=1)
    reply = Ether(src=c.mac, dst=a.mac) / IP(src=c.ip, dst=a.ip) / TCP(sport=80, dport=50001, flags="SA", seq=9, ack=2)
    assert a.arrivals(asked, at=c) == [True]
    assert c.arrivals(reply, at=a) == [True]


async def test_a_group_let_in_grows_by_element(site: Site) -> None:
    network = site.network()
    inner = group("inner", *ANYTHING_OUT, ingress(remote_members="inner"))
    a, b = site.guest(network, 1, inner, kernel=False), site.guest(network, 2, inner, kernel=False)
    stranger = site.guest(network, 3, OUT_ONLY, kernel=False)
    site.pieces["members/inner"] = Members(id="inner", addresses=tuple(f"10.1.{i >> 8}.{i & 255}" for i in range(500)))
    await site.sweep()
    assert a.arrivals(syn(a, b, 80), at=b) == [False]
    members = site.world.members["inner"].addresses
    await site.apply(Members(id="inner", addresses=(*members, a.ip)))
    assert site.firewall.commands == site.grown("inner", a.ip)
    assert a.arrivals(syn(a, b, 81), at=b) == [True]
    assert stranger.arrivals(syn(stranger, b, 81), at=b) == [False]
    await site.apply(Members(id="inner", addresses=(*members, a.ip, "10.0.0.3/32", "10.2.0.0/16")))
    assert stranger.arrivals(syn(stranger, b, 82), at=b) == [True]


async def test_the_same_addresses_in_two_networks_share_nothing(site: Site) -> None:
    one, two = site.network(1), site.network(2)
    web = group("web", ingress("tcp", 80))
    a, b = site.guest(one, 1, OUT_ONLY, kernel=False), site.guest(one, 2, OUT_ONLY, kernel=False)
    a2, b2 = site.guest(two, 1, OUT_ONLY, kernel=False), site.guest(two, 2, web, kernel=False)
    await site.sweep()

    def question(sender: Guest, receiver: Guest) -> Ether:
        head = Ether(src=sender.mac, dst=receiver.mac) / IP(src=sender.ip, dst=receiver.ip)
        return head / UDP(sport=5000, dport=53) / b"q"

    def answer(sender: Guest, receiver: Guest) -> Ether:
        head = Ether(src=sender.mac, dst=receiver.mac) / IP(src=sender.ip, dst=receiver.ip)
        return head / UDP(sport=53, dport=5000) / b"a"

    foot = await site.foot(one, 9, kernel=False)
    asked = Ether(src=a.mac, dst=foot.mac) / IP(src=a.ip, dst=foot.ip) / UDP(sport=5000, dport=53) / b"q"
    assert a.arrivals(asked, at=foot) == [True]
    assert foot.arrivals(answer(foot, a), at=a) == [True]
    foot2 = await site.foot(two, 9, kernel=False)
    assert foot2.arrivals(answer(foot2, a2), at=a2) == [False]
    assert (a.ip, b.ip) == (a2.ip, b2.ip)
