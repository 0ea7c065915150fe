"""A guest that moves while it runs, by the Open vSwitch driver: it is heard before the host it left is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from tests.network.hosts import Fabric, drained, network, peer, port, raw
from tests.network.ovs_place import open_vswitches

pytestmark = pytest.mark.live


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric() as fabric:
        yield fabric


async def test_who_left_is_found_where_it_may_go(fabric: Fabric) -> None:
    """And by no other host, though one has the network."""
    net = network()
    stays, moves = port(net, 1), port(net, 2)
    with open_vswitches(fabric="fabric", protecting=False) as opened:
        source, target, third = hosts = [fabric.host() for _ in range(3)]
        for host in hosts:
            host.switch = opened(host.space)
            host.has(replace(net, endpoints=tuple(it.endpoint_ip for it in hosts if it is not host)))
        going = replace(moves, bound_for=(target.endpoint_ip,))
        source.has(stays, moves)
        target.has(going, peer(stays, source), peer(moves, source))
        third.has(peer(stays, source), peer(moves, source))
        one, before, after = source.guest(stays), source.guest(moves), target.guest(moves)
        for host in hosts:
            await host.sweep()
        after.run("ip", "link", "set", "eth0", "down")
        assert one.pings(before.ip)
        await source.wire(going)
        assert one.pings(before.ip)
        before.run("ip", "link", "set", "eth0", "down")
        after.run("ip", "link", "set", "eth0", "up")
        with raw(third.name, "fabric") as elsewhere:
            assert one.pings(after.ip)
            assert after.pings(one.ip)
            head = bytes.fromhex(f"{moves.mac_address}{stays.mac_address}".replace(":", ""))
            assert not [it for it in drained(elsewhere) if head in it]
        for host in hosts:
            await host.switch.close()
