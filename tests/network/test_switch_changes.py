"""What somebody else does to a switch is put right, and what nobody touches stays as it is."""

from __future__ import annotations

import os
from contextlib import nullcontext

import pytest
from msgspec.structs import replace
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether

from tests.network.dhcp_place import until
from tests.network.hosts import Noticed, arrives, network, port
from tests.network.switched import foot, own_interfaces, unplug

pytestmark = pytest.mark.live


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
