"""Two hosts with everything on them: guests find their addresses, each other and themselves, and stay found."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from agents.network import namespace, nft
from agents.network.switch import bridge_name, tunnel_name
from schema.compute.domain import Seed
from schema.network.wiring import InstanceData
from tests.network.dhcp_place import until
from tests.network.hosts import Guest, peer, run
from tests.network.whole_host import CLOSED, OPEN, SWEEP_SECONDS, WholeHost, guarded, served, whole_hosts

pytestmark = pytest.mark.live

HEALED_SECONDS = SWEEP_SECONDS + 3.0


class Pair:
    """A network on two hosts, with a guest on each, which took its address by DHCP."""

    def __init__(self, hosts: list[WholeHost], number: int = 1) -> None:
        self.a, self.b = hosts
        self.network = served(number)
        self.one, self.two = guarded(self.network, 1), guarded(self.network, 2)
        self.guests: list[Guest] = []

    async def wire(self, folder: Path) -> tuple[Guest, Guest]:
        for here, mine, there, other in ((self.a, self.one, self.b, self.two), (self.b, self.two, self.a, self.one)):
            self.guests.append(here.host.guest(mine, addressed=False))
            at = replace(self.network, endpoints=(there.host.endpoint_ip,))
            here.has(at, OPEN, CLOSED, mine, peer(other, there.host))
        await self.a.control.up(self.one.id)
        await self.b.control.up(self.two.id)
        for guest in self.guests:
            told = await asyncio.to_thread(guest.lease, folder)
            assert told["ip"] == guest.ip
        return self.guests[0], self.guests[1]


@pytest.fixture(params=["linuxbridge", "ovs"])
async def hosts(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[list[WholeHost]]:
    async with whole_hosts(tmp_path / "home", driver=request.param) as hosts:
        yield hosts


@pytest.fixture
async def pair(hosts: list[WholeHost]) -> Pair:
    return Pair(hosts)


async def test_guests_of_two_hosts_get_their_addresses_and_reach_each_other(pair, tmp_path):
    one, other = await pair.wire(tmp_path)
    assert await asyncio.to_thread(one.pings, other.ip)
    assert await asyncio.to_thread(other.pings, one.ip, "-M", "do", "-s", str(1450 - 28))
    for host in (pair.a, pair.b) if not pair.a.ovs else ():
        tracked = await host.host.space.run(Path("/proc/thread-self/net/nf_conntrack").read_text)
        assert "10.0.0." in tracked
        assert "dport=4789" not in tracked
    pair.b.has(replace(pair.two, group_ids=("closed",), generation=2))
    await pair.b.control.up(pair.two.id)
    assert not await asyncio.to_thread(one.pings, other.ip, seconds=1)
    assert await asyncio.to_thread(other.pings, one.ip)


async def test_a_guest_is_told_who_it_is(pair, tmp_path):
    pair.a.control.seeds[pair.one.id] = InstanceData(
        port_id=pair.one.id, server_id="server-1", seed=Seed(hostname="web")
    )
    one, other = await pair.wire(tmp_path)
    fetch = ("curl", "-s", "-m", "8", "http://169.254.169.254/latest/meta-data/hostname")
    assert await asyncio.to_thread(one.run, *fetch) == "web"
    assert "no server" in await asyncio.to_thread(other.run, *fetch)


def has_rules(host: WholeHost) -> bool:
    listed = [host.host.space.call(nft.listed, family, "cumulog") for family in ("bridge", "inet")]
    return all(it is not None and len(it) > 5 for it in listed)


async def test_what_is_deleted_behind_an_agents_back_comes_back_and_disturbs_nobody(pair, hosts, tmp_path):
    one, other = await pair.wire(tmp_path)
    second = Pair(hosts, 2)
    await second.wire(tmp_path)
    host = pair.a.host
    spare = guarded(pair.network, 9)
    pair.a.has(spare)
    await pair.a.control.up(spare.id)
    [dhcp] = namespace.names(f"{host.name}-d-{second.network.id[:8]}")
    bridge, tunnel = bridge_name(second.network.id), tunnel_name(second.network.segmentation_id or 0)
    pid_file = next((tmp_path / "home").glob(f"network/{host.name}/dhcp/{second.network.id}/pid"))

    def attached() -> bool:
        foot = f"q{second.network.dhcp_port_id[:11]}"
        return namespace.exists(dhcp) and foot in run(dhcp, "ip", "-o", "link", "show")

    def plugged_in() -> bool:
        return spare.tap in host.run("ovs-vsctl", pair.a.database, "list-ports", "br-int")

    of_bridges = {
        "bridge": (lambda: host.run("ip", "link", "delete", bridge), lambda: host.has_link(bridge)),
        "rules": (lambda: host.space.call(nft.apply, "delete table bridge cumulog"), lambda: has_rules(pair.a)),
        "state": (lambda: host.space.call(nft.apply, "delete table inet cumulog"), lambda: has_rules(pair.a)),
    }
    of_switches = {
        "plug": (lambda: host.run("ovs-vsctl", pair.a.database, "del-port", spare.tap), plugged_in),
    }
    sabotage = {
        "tap": (lambda: host.run("ip", "link", "delete", spare.tap), lambda: host.has_link(spare.tap)),
        "tunnel": (lambda: host.run("ip", "link", "delete", tunnel), lambda: host.has_link(tunnel)),
        "namespace": (lambda: namespace.remove(dhcp), attached),
        **(of_switches if pair.a.ovs else of_bridges),
        "dnsmasq": (
            lambda: os.kill(int(pid_file.read_text()), signal.SIGKILL),
            lambda: second.network.id in Path(f"/proc/{pid_file.read_text().strip()}/cmdline").read_text(),
        ),
    }
    with one.flood(other.ip) as flood, other.flood(one.ip) as back:
        for what, (spoil, healed) in sabotage.items():
            await asyncio.to_thread(spoil)
            try:
                await until(lambda healed=healed: _soon(healed), HEALED_SECONDS)
            except AssertionError:
                pytest.fail(f"{what} did not come back")
    assert flood.sent
    assert (flood.lost, back.lost) == (0, 0)
    assert await asyncio.to_thread(second.guests[1].pings, second.guests[0].ip)
    assert (await asyncio.to_thread(second.guests[0].lease, tmp_path))["ip"] == second.guests[0].ip


async def test_an_agent_that_starts_anew_disturbs_nobody(pair, tmp_path):
    one, other = await pair.wire(tmp_path)
    with one.flood(other.ip) as flood, other.flood(one.ip) as back:
        for host in (pair.a, pair.b):
            await host.stop()
            host.control.ports.clear()
            await host.start()
        await pair.a.control.up(pair.one.id)
        await pair.b.control.up(pair.two.id)
    assert flood.sent
    assert (flood.lost, back.lost) == (0, 0)


async def test_an_agent_that_was_killed_while_it_wired_goes_on(pair, tmp_path):
    for pieces in range(1, 6):
        spare = guarded(pair.network, 20 + pieces)
        pair.a.has(replace(pair.network), OPEN, spare)
        for _ in range(pieces * 3):
            await asyncio.sleep(0)
        await pair.a.stop()
        await pair.a.start()
    await pair.a.control.up(*(it.id for it in pair.a.host.world.ports.values()))
    one, other = await pair.wire(tmp_path)
    assert await asyncio.to_thread(one.pings, other.ip)


async def test_nothing_is_left_of_a_network_that_is_gone(pair, tmp_path):
    await pair.wire(tmp_path)
    host = pair.a.host
    pair.a.lacks(*host.pieces)
    await until(lambda: not [it for it in host.links() if it["ifname"][:3] in {"br0", "vx1", "tap", "h00"}])
    await until(lambda: not namespace.names(f"{host.name}-d-"))


def _soon(condition: Any) -> bool:
    try:
        return bool(condition())
    except (OSError, subprocess.CalledProcessError):
        return False
