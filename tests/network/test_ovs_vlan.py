"""What only the Open vSwitch driver can: VLANs of a physical network, and trunks with subports tagged on one tap."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import pytest
from msgspec.structs import replace
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1Q, Ether

from agents.network import namespace
from agents.network.switch import Attachment
from schema.network.wiring import Subport, WiredNetwork, WiredPort
from tests.network.cabling import ANYTHING_OUT, group, ingress
from tests.network.hosts import Fabric, Guest, Host, network, peer, port, raw
from tests.network.ovs_place import open_vswitches

pytestmark = pytest.mark.live

EVERYBODY = "ff:ff:ff:ff:ff:ff"
_PACKET, _AUXILIARY, _TAG_IS_VALID = 263, 8, 0x10
_ABOUT = struct.Struct("=IIIHHHH")


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric() as fabric:
        yield fabric


@pytest.fixture
async def hosts(fabric: Fabric) -> AsyncIterator[tuple[Host, Host]]:
    with open_vswitches(fabric="fabric", interfaces={"external": "external"}) as opened:
        one, other = fabric.host(), fabric.host()
        for host in (one, other):
            host.switch = opened(host.space)
        yield one, other
        for host in (one, other):
            await host.switch.close()


def wired(number: int, tag: int | None) -> WiredNetwork:
    """Of the physical network, a VLAN if there is a tag."""
    kind = "flat" if tag is None else "vlan"
    return network(number, network_type=kind, segmentation_id=tag, physical_network="external", mtu=1500)


def loose(of: WiredNetwork, number: int, **more: Any) -> WiredPort:
    return port(of, number, **({"secured": False} | more))


def packet(source: str, destination: str, word: str, dport: int = 9) -> IP:
    return IP(src=source, dst=destination) / UDP(sport=5, dport=dport) / word


def heard(by: socket.socket) -> tuple[int | None, bytes]:
    """(tag, what the frame carries): the kernel takes a tag out of a frame, and says it beside."""
    by.setsockopt(_PACKET, _AUXILIARY, 1)
    frame, beside, _, _ = by.recvmsg(65536, 256)
    tag = None
    for level, kind, data in beside:
        if (level, kind) == (_PACKET, _AUXILIARY):
            status, _, _, _, _, found, _ = _ABOUT.unpack_from(data)
            tag = found & 0xFFF if status & _TAG_IS_VALID else None
    return tag, frame[14:]


def among(by: socket.socket, last: IP) -> list[tuple[int | None, bytes]]:
    """What comes until that does."""
    found = [heard(by)]
    while not found[-1][1].startswith(bytes(last)):
        found.append(heard(by))
    return found


def carried(to: socket.socket, sender: Guest, frames: list[Ether], last: Ether) -> list[tuple[int | None, bytes]]:
    """What comes of these; another frame, which does come, tells that all had their chance.

    It is sent twice: a switch may turn round what came to it in one go.
    """
    found = []
    for words in (frames, []):
        sender.send(*words, last)
        found += among(to, last[IP])
    return found


async def test_a_vlan_is_one_network_on_all_hosts_and_shares_the_wire_with_others(hosts):
    one, other = hosts
    networks = [wired(1, 100), wired(2, 200), wired(3, None)]
    near = [one.guest(loose(it, 1), 1500) for it in networks]
    far = [other.guest(loose(it, 2), 1500) for it in networks]
    for it in networks:
        await one.wire(it, loose(it, 1), peer(loose(it, 2), other))
        await other.wire(it, loose(it, 2), peer(loose(it, 1), one))
    for here, there in zip(near, far, strict=True):
        assert here.pings(there.ip)
        assert here.pings(there.ip6)
        assert here.pings(there.ip, "-M", "do", "-s", str(1500 - 28))
    (red, blue, plain), tags = near, []
    with raw(other.name, "external") as wire, far[1].raw() as theirs:
        for guest, word in ((red, "red"), (plain, "plain"), (blue, "blue")):
            said = packet(guest.ip, "10.0.255.17", word)
            guest.send(Ether(src=guest.port.mac_address, dst=EVERYBODY) / said)
            tags.append(among(wire, said)[-1][0])
        assert [it for it in carried(theirs, blue, [], blue.to_all(18)) if b"red" in it[1]] == []
    assert tags == [100, None, 200]


async def test_what_is_for_the_host_itself_is_for_no_guest(hosts):
    """The wire is the host's own interface as well, and keeps its address."""
    one, other = hosts
    plain = wired(3, None)
    guest = one.guest(loose(plain, 1), 1500)
    await one.wire(plain, loose(plain, 1))
    for host, number in ((one, 1), (other, 2)):
        host.run("ip", "address", "add", f"192.0.2.{number}/24", "dev", "external")
    with guest.raw() as hearing:
        assert "1 received" in other.run("ping", "-c", "1", "192.0.2.1")
        guest.send(guest.to_all(1))
        hearing.setblocking(False)
        heard = []
        with suppress(BlockingIOError):
            while True:
                heard.append(hearing.recv(2000))
    assert not [it for it in heard if Ether(it).type == 0x0800 and Ether(it)[IP].dst == "192.0.2.1"]


async def test_a_vlan_needs_its_wire_and_its_tag(hosts):
    one, _ = hosts
    for it, words in (
        (network(1, network_type="vlan", segmentation_id=5, physical_network="nowhere"), "no interface for"),
        (network(1, network_type="vlan", segmentation_id=None, physical_network="external"), "without a segm"),
    ):
        one.has(it)
        faults = await one.switch.apply(one.world, None)
        assert words in faults[f"network/{it.id}"]


async def test_tcp_crosses_a_vlan_whole(hosts):
    one, other = hosts
    red = wired(1, 100)
    near, far = one.guest(loose(red, 1), 1500), other.guest(loose(red, 2), 1500)
    await one.wire(red, loose(red, 1))
    await other.wire(red, loose(red, 2))
    server = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", far.name, "iperf3", "-s", "-1", "--forceflush", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert server.stdout
        while b"listening" not in await asyncio.wait_for(server.stdout.readline(), 10):
            pass
        await asyncio.to_thread(near.run, "iperf3", "-c", far.ip, "-n", "20M")
        await asyncio.wait_for(server.wait(), 10)
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()


class Trunk:
    """A guest on one host with a parent and two subports, and a guest in each of their networks on another host."""

    def __init__(self, one: Host, other: Host, **of_subports: Any) -> None:
        self.one, self.other = one, other
        self.networks = [network(number) for number in (1, 2, 3)]
        outer, *inner = self.networks
        named = [
            Subport(port_id=port(it, 11).id, segmentation_id=tag) for it, tag in zip(inner, (101, 102), strict=True)
        ]
        self.parent = loose(outer, 1, subports=tuple(named))
        self.red, self.blue = (
            loose(it, 11, parent_id=self.parent.id, segmentation_id=of.segmentation_id, **of_subports)
            for it, of in zip(inner, named, strict=True)
        )
        self.guest = one.guest(self.parent)
        self.far = [other.guest(loose(it, 2)) for it in self.networks]

    async def wire(self, *more: Any) -> None:
        near = [replace(it, endpoints=(self.other.endpoint_ip,)) for it in self.networks]
        far = [replace(it, endpoints=(self.one.endpoint_ip,)) for it in self.networks]
        mine, theirs = (self.parent, self.red, self.blue), [it.port for it in self.far]
        await self.one.wire(*near, *mine, *(peer(it, self.other) for it in theirs), *more)
        await self.other.wire(*far, *theirs, *(peer(it, self.one) for it in mine))

    def from_subport(self, subport: WiredPort, carries: IP, to: str = EVERYBODY) -> Ether:
        return Ether(src=subport.mac_address, dst=to) / Dot1Q(vlan=subport.segmentation_id) / carries


def ip(of: WiredPort) -> str:
    return of.addresses[0].ip


async def test_a_trunk_carries_each_subport_by_its_tag(hosts):
    trunk = Trunk(*hosts)
    await trunk.wire()
    assert trunk.guest.pings(trunk.far[0].ip)
    for subport, there, others in ((trunk.red, trunk.far[1], trunk.blue), (trunk.blue, trunk.far[2], trunk.red)):
        mine = packet(ip(subport), "10.0.255.1", f"from {subport.segmentation_id}")
        tagged, after = trunk.from_subport(subport, mine), packet(ip(others), "10.0.255.1", "after")
        with there.raw() as hearing:
            assert carried(hearing, trunk.guest, [], tagged)[-1] == (None, bytes(mine))
        elsewhere = trunk.far[2] if subport is trunk.red else trunk.far[1]
        with elsewhere.raw() as hearing:
            came = carried(hearing, trunk.guest, [tagged], trunk.from_subport(others, after))
            assert (None, bytes(mine)) not in came
        with trunk.guest.raw() as hearing:
            answer = Ether(src=there.port.mac_address, dst=subport.mac_address) / packet(there.ip, ip(subport), "back")
            there.send(answer)
            assert among(hearing, answer[IP])[-1] == (subport.segmentation_id, bytes(answer[IP]))


async def test_a_tag_that_nobody_was_given_is_nobodys(hosts):
    trunk = Trunk(*hosts)
    await trunk.wire()
    stray = packet(ip(trunk.red), "10.0.255.1", "stray")
    frame = Ether(src=trunk.red.mac_address, dst=EVERYBODY) / Dot1Q(vlan=999) / stray
    after = packet(ip(trunk.red), "10.0.255.1", "after")
    with trunk.far[0].raw() as outer, trunk.far[1].raw() as red:
        came = carried(red, trunk.guest, [frame], trunk.from_subport(trunk.red, after))
        came += carried(outer, trunk.guest, [frame], trunk.guest.to_all(9))
    assert not [it for it in came if bytes(stray) in it[1]]


async def test_a_subport_has_rules_of_its_own(hosts):
    web = group("web", ingress("udp", 80), *ANYTHING_OUT)
    trunk = Trunk(*hosts, secured=True, group_ids=("web",))
    await trunk.wire(web)
    red, there = trunk.red, trunk.far[1]

    def question(dport: int) -> Ether:
        body = packet(there.ip, ip(red), f"to {dport}", dport)
        return Ether(src=there.port.mac_address, dst=red.mac_address) / body

    with trunk.guest.raw() as hearing:
        came = carried(hearing, there, [question(81)], question(80))
    assert (101, bytes(question(80)[IP])) in came
    assert (101, bytes(question(81)[IP])) not in came
    spoofed, after = packet("10.0.9.9", "10.0.255.1", "spoofed"), packet(ip(red), "10.0.255.1", "after")
    with there.raw() as hearing:
        came = carried(hearing, trunk.guest, [trunk.from_subport(red, spoofed)], trunk.from_subport(red, after))
    assert (None, bytes(after)) in came
    assert (None, bytes(spoofed)) not in came


async def test_subports_come_and_go_and_the_others_lose_nothing(hosts):
    trunk = Trunk(*hosts)
    await trunk.wire()
    with trunk.guest.flood(trunk.far[0].ip) as flood:
        await trunk.one.wire(replace(trunk.parent, subports=trunk.parent.subports[:1], generation=2))
        await trunk.one.unwire(f"port/{trunk.blue.id}")
        await trunk.one.wire(replace(trunk.parent, generation=3), trunk.blue)
        await trunk.one.unwire(f"port/{trunk.red.id}", f"port/{trunk.blue.id}")
    assert flood.sent
    assert flood.lost == 0


async def test_a_service_of_the_host_is_reached_from_a_subport(hosts, fabric):
    trunk = Trunk(*hosts)
    await trunk.wire()
    inside = f"{fabric.tag}-s{os.urandom(2).hex()}"
    namespace.create(inside)
    own = port(trunk.networks[1], 200)
    names = {"port_id": own.id, "network_id": own.network_id, "mac_address": own.mac_address}
    foot = Attachment(**names, mtu=1450, namespace=inside, local=True)
    await trunk.one.switch.attach(foot, trunk.one.world)
    asks = packet(ip(trunk.red), ip(own), "hello", 67)
    with raw(inside, foot.inside) as hearing:
        trunk.guest.send(trunk.from_subport(trunk.red, asks, own.mac_address))
        assert among(hearing, asks)[-1] == (None, bytes(asks))


async def test_a_subport_without_its_trunk_is_a_fault(hosts):
    one, _ = hosts
    net = network(1)
    alone = loose(net, 5, parent_id="gone", segmentation_id=7)
    one.has(net, alone)
    faults = await one.switch.apply(one.world, None)
    assert "trunk" in faults[f"port/{alone.id}"]


async def test_what_the_driver_can_is_told(hosts):
    facts = await hosts[0].switch.facts()
    assert facts.driver == "ovs"
    assert set(facts.capabilities) >= {"vlan", "trunk"}
    assert facts.physical_networks == ("external",)
    assert facts.endpoint_ip == hosts[0].endpoint_ip
