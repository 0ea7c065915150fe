"""DSCP marks on real frames: what a marked port sends carries its mark, of both families, and nothing else does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether

from schema.network.wiring import Quality, WiredPort
from tests.network.cabling import ANYTHING_OUT, Guest, Site, group, ingress
from tests.network.ovs_place import OvsSite

pytestmark = pytest.mark.live

OUT = group("out", *ANYTHING_OUT)
OPEN = group("open", ingress(), ingress(ethertype="IPv6"), *ANYTHING_OUT)


@pytest.fixture(params=[Site, OvsSite], ids=["linuxbridge", "ovs"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    with request.param() as site:
        yield site
        await site.firewall.close()


def four(a: Guest, b: Guest, mark: int = 0, ecn: int = 0, payload: Any = None) -> Ether:
    inner = payload or ICMP(type=8) / b"ping"
    return Ether(src=a.mac, dst=b.mac) / IP(src=a.ip, dst=b.ip, tos=mark << 2 | ecn) / inner


def six(a: Guest, b: Guest, mark: int = 0, ecn: int = 0) -> Ether:
    return (
        Ether(src=a.mac, dst=b.mac) / IPv6(src=a.ip6, dst=b.ip6, tc=mark << 2 | ecn) / ICMPv6EchoRequest(data=b"ping")
    )


def received(a: Guest, b: Guest, frame: Ether) -> bytes:
    """What comes of a frame at the other end."""
    length = len(bytes(frame))
    with b._raw() as hearing:
        hearing.settimeout(5)
        a.send(frame)
        while True:
            got = hearing.recv(2000)[:length]
            if got[6:12] == bytes(frame)[6:12]:
                return got


@pytest.mark.parametrize("mark", [8, 46, 56])
@pytest.mark.parametrize("secured", [True, False])
async def test_packets_of_both_families_are_marked_and_whole(site: Site, mark: int, secured: bool) -> None:
    network = site.network()
    quality = Quality(dscp_mark=mark)
    a = site.guest(network, 1, *([OUT] if secured else []), kernel=False, secured=secured, quality=quality)
    b = site.guest(network, 2, OPEN, kernel=False)
    assert await site.sweep() == {}
    # The bytes are the same as of a packet that was born with the mark: checksums are right.
    assert received(a, b, four(a, b)) == bytes(four(a, b, mark))
    assert received(a, b, six(a, b)) == bytes(six(a, b, mark))


async def test_what_a_guest_marked_itself_is_overwritten_and_congestion_bits_stay(site: Site) -> None:
    network = site.network()
    a = site.guest(network, 1, OUT, kernel=False, quality=Quality(dscp_mark=10))
    b = site.guest(network, 2, OPEN, kernel=False)
    await site.sweep()
    assert received(a, b, four(a, b, 46, ecn=1)) == bytes(four(a, b, 10, ecn=1))
    assert received(a, b, six(a, b, 46, ecn=2)) == bytes(six(a, b, 10, ecn=2))
    syn = TCP(sport=9, dport=22, flags="S")
    assert received(a, b, four(a, b, payload=syn)) == bytes(four(a, b, 10, payload=syn))


async def test_a_mark_is_the_senders_alone_and_goes_with_its_policy(site: Site) -> None:
    network = site.network()
    a = site.guest(network, 1, OPEN, kernel=False, quality=Quality(dscp_mark=46))
    b = site.guest(network, 2, OPEN, kernel=False)
    await site.sweep()
    assert received(b, a, four(b, a)) == bytes(four(b, a))

    async def changed(mark: int | None) -> None:
        port: WiredPort = replace(a.port, quality=Quality(dscp_mark=mark))
        assert await site.apply(port) == {}

    await changed(0)
    assert received(a, b, six(a, b, 20)) == bytes(six(a, b, 0))
    await changed(None)
    assert received(a, b, four(a, b, 20)) == bytes(four(a, b, 20))
