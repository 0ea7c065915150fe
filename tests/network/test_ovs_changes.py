"""An Open vSwitch that somebody does something to: it is noticed where it can be, and put right by the next look."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether

from agents.network.ovs.pipeline import CUT_COOKIE
from schema.network.wiring import Peer, Quality
from tests.network.cabling import ANYTHING_OUT, Guest, eventually, group, ingress
from tests.network.ovs_place import OvsSite

pytestmark = pytest.mark.live

OUT_ONLY = group("out", *ANYTHING_OUT)
SERVER = group("server", ingress("tcp", 22))


@pytest.fixture
async def site() -> AsyncIterator[OvsSite]:
    with OvsSite() as site:
        yield site
        await site.firewall.close()


def two(site: OvsSite) -> tuple[Guest, Guest]:
    network = site.network()
    return site.guest(network, 1, OUT_ONLY, kernel=False), site.guest(network, 2, SERVER, kernel=False)


def fine(a: Guest, b: Guest) -> bool:
    """What is allowed passes, and nothing else."""
    head = Ether(src=a.mac, dst=b.mac) / IP(src=a.ip, dst=b.ip)
    spoofed = Ether(src=a.mac, dst=b.mac) / IP(src=b.ip, dst=b.ip) / TCP(dport=22)
    return a.arrivals(head / TCP(dport=22), head / TCP(dport=23), spoofed, at=b) == [True, False, False]


def ofctl(site: OvsSite, *words: str) -> str:
    command, *rest = words
    done = subprocess.run(
        ["ovs-ofctl", "-OOpenFlow15", command, site.firewall.openflow, *rest],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def appctl(site: OvsSite, command: str) -> None:
    subprocess.run(["ovs-appctl", "-t", f"{site.firewall.folder}/switch.ctl", command], check=True)


def vsctl(site: OvsSite, *words: str) -> None:
    subprocess.run(["ovs-vsctl", f"--db={site.firewall.database}", *words], check=True)


def kill(site: OvsSite, name: str) -> None:
    pid = int((Path(site.firewall.folder) / f"{name}.pid").read_text())
    os.kill(pid, 9)
    eventually(lambda: not Path(f"/proc/{pid}/exe").exists())


@pytest.mark.parametrize(
    "harm",
    [
        ("del-flows",),
        ("del-flows", "table=10"),
        ("del-flows", "table=32"),
        ("add-flow", "priority=60000,actions=NORMAL"),
        ("add-flow", "table=50,priority=60000,actions=resubmit(,60)"),
        ("mod-flows", "table=31,actions=drop"),
        ("mod-flows", "table=51,actions=resubmit(,60)"),
    ],
    ids=" ".join,
)
async def test_what_somebody_did_to_the_flows_is_put_right(site: OvsSite, harm: tuple[str, ...]) -> None:
    a, b = two(site)
    assert await site.sweep() == {}
    assert await site.sweep() == {}
    assert fine(a, b)
    ofctl(site, *harm)
    assert await site.sweep() == {}
    assert fine(a, b)
    quiet = await site.stamp()
    site.firewall.commands = []
    assert await site.sweep() == {}
    assert site.firewall.commands == []
    assert await site.stamp() == quiet


@pytest.mark.parametrize(
    "harm", ["port", "bridge", "fail mode", "tag", "number", "switch killed", "database killed", "both killed", "tap"]
)
async def test_what_somebody_did_to_the_switch_is_noticed_and_put_right(site: OvsSite, harm: str) -> None:
    noticed = asyncio.Event()
    await site.firewall.start(noticed.set)
    a, b = two(site)
    assert await site.sweep() == {}
    assert fine(a, b)
    assert not noticed.is_set()
    match harm:
        case "port":
            vsctl(site, "del-port", b.port.tap)
        case "bridge":
            vsctl(site, "del-br", "br-int")
        case "fail mode":
            vsctl(site, "set-fail-mode", "br-int", "standalone")
        case "tag":
            vsctl(site, "set", "port", b.port.tap, "tag=7")
        case "number":
            vsctl(site, "set", "interface", b.port.tap, "ofport_request=99")
        case "switch killed":
            kill(site, "switch")
        case "database killed":
            kill(site, "db")
        case "both killed":
            kill(site, "switch")
            kill(site, "db")
        case "tap":
            site.space.call(_down, b.port.tap)
    async with asyncio.timeout(5):
        await noticed.wait()
    assert await site.sweep() == {}
    assert fine(a, b)
    noticed.clear()
    assert await site.sweep() == {}
    assert not noticed.is_set()


async def test_the_switch_outlives_its_agents(site: OvsSite) -> None:
    a, b = two(site)
    await site.sweep()
    before = {name: (Path(site.firewall.folder) / f"{name}.pid").read_text() for name in ("db", "switch")}
    await site.restart()
    assert fine(a, b)
    assert await site.sweep() == {}
    assert site.firewall.commands == []
    assert {name: (Path(site.firewall.folder) / f"{name}.pid").read_text() for name in before} == before


async def test_a_service_keeps_its_foot_while_the_agent_is_away(site: OvsSite) -> None:
    network = site.network()
    a = site.guest(network, 1, OUT_ONLY, kernel=False)
    await site.sweep()
    service = await site.foot(network, 9, kernel=False)
    word = Ether(src=a.mac, dst=service.mac) / IP(src=a.ip, dst=service.ip) / UDP(dport=67) / b"word"
    assert a.arrivals(word, at=service) == [True]
    before = await site.stamp()
    await site.restart()
    assert await site.sweep() == {}
    assert site.firewall.commands == []
    assert await site.stamp() == before
    assert a.arrivals(word, at=service) == [True]
    await site.firewall.detach(service.port.id)
    assert str(await site.stamp()) != str(before)
    await site.restart()
    await site.sweep()
    assert f"h{service.port.id[:11]}" not in site.space.call(_interfaces)


async def test_a_port_that_goes_takes_its_tap_and_connections_with_it(site: OvsSite) -> None:
    a, b = two(site)
    await site.sweep()
    assert fine(a, b)
    assert await site.drop(f"port/{b.port.id}") == {}
    assert b.port.tap not in site.space.call(_interfaces)
    assert "tp_dst=22" not in str(await site.stamp())


async def test_a_revocation_is_done_when_no_packet_goes_by_what_was_decided_before(site: OvsSite) -> None:
    network = site.network()
    a, b = site.guest(network, 1, OUT_ONLY), site.guest(network, 2, SERVER)
    await site.sweep()
    with b.listen(22) as listening, a.socket() as near:
        near.connect((b.ip, 22))
        far, _ = listening.accept()
        with far:
            near.send(b"before")
            assert far.recv(100) == b"before"
            appctl(site, "revalidator/pause")
            revoking = asyncio.create_task(site.apply(replace(SERVER, rules=())))
            await asyncio.to_thread(eventually, lambda: f"cookie={CUT_COOKIE}," in ofctl(site, "dump-flows"))
            near.send(b"meanwhile")  # by no flow that is there
            assert await asyncio.to_thread(far.recv, 100) == b"meanwhile"
            assert not revoking.done()
            appctl(site, "revalidator/resume")
            assert await revoking == {}
            far.settimeout(1.0)
            near.send(b"after")
            with pytest.raises(TimeoutError):
                far.recv(100)


async def test_a_piece_that_cannot_be_said_spoils_no_other(site: OvsSite) -> None:
    a, b = two(site)
    marked = replace(a.port, id=f"{a.port.id[:-1]}7", tap="tap-odd", quality=Quality(dscp_mark=99))
    odd = Peer(id="odd", network_id=a.port.network_id, mac_address="no MAC", ips=("10.0.0.9",), endpoint_ip="10.9.9.9")
    site.pieces |= {f"port/{marked.id}": marked, "peer/odd": odd}
    faults = await site.sweep()
    assert list(faults) == [f"port/{marked.id}"]
    assert "99" in faults[f"port/{marked.id}"]
    assert fine(a, b)


async def test_guests_do_not_reach_their_host(site: OvsSite) -> None:
    """The kernel gets a copy of each frame, and must overlook it."""
    network = site.network()
    a = site.guest(network, 1, secured=False, kernel=False)
    await site.sweep()
    site.space.call(_address, "198.51.100.7")
    asks = Ether(src=a.mac, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=a.mac, psrc=a.ip, pdst="198.51.100.7")
    b = site.guest(network, 2, secured=False, kernel=False)
    await site.sweep()
    with a._raw() as hearing:
        a.send(asks)
        assert b.arrivals(Ether(src=b.mac, dst=a.mac, type=0x88B5) / b"after", at=a) == [True]
        hearing.setblocking(False)
        heard = []
        try:
            while True:
                heard.append(Ether(hearing.recv(2000)))
        except BlockingIOError:
            pass
    assert not [it for it in heard if ARP in it and it[ARP].op == 2]


async def test_a_host_without_pieces_starts_and_has_nothing(site: OvsSite) -> None:
    assert await site.sweep() == {}
    assert (await site.firewall.facts()).driver == "ovs"


def _down(tap: str) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        netlink.link("set", index=netlink.link_lookup(ifname=tap)[0], state="down")


def _address(ip: str) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        netlink.addr("add", index=netlink.link_lookup(ifname="lo")[0], address=ip, prefixlen=32)


def _interfaces() -> set[str]:
    import socket

    return {name for _, name in socket.if_nameindex()}
