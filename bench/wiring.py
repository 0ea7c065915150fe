"""What a host's networking costs: python bench/wiring.py [PORTS [ovs]]        (as root: it makes network namespaces)

Two hosts in namespaces with a fabric between them, everything on them: agent, firewall, switch, DHCP, metadata. Times
are from the word told to the agent to its report, or to the kernel's answer. Guests that are measured with iperf3 are
namespaces behind the taps of their ports; a plain bridge with two such guests is what they are compared with.
"""

import asyncio
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).parents[1]))

import structlog
from msgspec.structs import replace

from agents.network import nft
from agents.network.ovs import openflow
from schema.network.wiring import WiredGroup, WiredNetwork, WiredPort, WiredRule
from tests.network.hosts import Guest, peer, run
from tests.network.whole_host import OPEN, WholeHost, guarded, served, whole_hosts

ROUNDS = 30
SECONDS = 1


async def main(count: int, driver: Literal["linuxbridge", "ovs"], folder: Path) -> None:
    async with whole_hosts(folder, driver=driver) as (a, b):
        network = served()
        a.has(replace(network, endpoints=(b.host.endpoint_ip,)), OPEN)
        first = [guarded(network, number) for number in range(1, count + 1)]
        started = time.perf_counter()
        a.has(*first)
        await a.control.up(*(it.id for it in first), seconds=60)
        _tell(f"first wiring of {count} ports, network and all", [(time.perf_counter() - started) * 1000])
        _tell(f"one more port beside {count}: told → wired, rules in, DHCP ready", await _ports(a, network, count))
        _tell("first port of a network: bridge, tunnel, namespace, dnsmasq too", await _networks(a))
        _tell(f"one rule of a group of {count} ports changed: told → in the kernel", await _rules(a))
        await _restart(a, b, network, first)
        await _throughput(a, b, network)


async def _ports(host: WholeHost, network: WiredNetwork, count: int) -> list[float]:
    times = []
    for number in range(count + 1, count + 1 + ROUNDS):
        port = guarded(network, number)
        started = time.perf_counter()
        host.has(port)
        await host.control.up(port.id)
        times.append((time.perf_counter() - started) * 1000)
    return times


async def _networks(host: WholeHost) -> list[float]:
    times = []
    for number in range(2, 12):
        network = served(number)
        port = guarded(network, 1)
        started = time.perf_counter()
        host.has(network, port)
        await host.control.up(port.id)
        times.append((time.perf_counter() - started) * 1000)
    return times


async def _rules(host: WholeHost) -> list[float]:
    times = []
    for number in range(ROUNDS):
        rule = WiredRule(
            id="door", direction="ingress", ethertype="IPv4", protocol="tcp", port_min=number + 1, port_max=number + 1
        )
        before = await _generation(host)
        started = time.perf_counter()
        host.has(WiredGroup(id="open", rules=(*OPEN.rules, rule)))
        while await _generation(host) == before:  # noqa: ASYNC110  the kernel tells of it by no event of ours
            await asyncio.sleep(0.001)
        times.append((time.perf_counter() - started) * 1000)
    return times


async def _generation(host: WholeHost) -> object:
    """Another one after each change of the rules. Of an Open vSwitch it takes some ms to ask for it."""
    if host.ovs:
        return await openflow.listed(f"unix:{host.folder}/ovs/br-int.mgmt", "table=32")
    return await host.host.space.run(nft.generation)


async def _restart(a: WholeHost, b: WholeHost, network: WiredNetwork, first: list[WiredPort]) -> None:
    near, far = guarded(network, 60_001), guarded(network, 60_002)
    guests = [a.host.guest(near), b.host.guest(far)]
    a.has(near, peer(far, b.host))
    b.has(replace(network, endpoints=(a.host.endpoint_ip,)), OPEN, far, peer(near, a.host))
    await a.control.up(near.id)
    await b.control.up(far.id)
    with guests[0].flood(guests[1].ip) as flood:
        started = time.perf_counter()
        await a.stop()
        a.control.ports.clear()
        await a.start()
        await a.control.up(*(it.id for it in first), seconds=60)
        took = (time.perf_counter() - started) * 1000
    _tell(f"agent restarted, {len(first)} ports: all told to be in place", [took])
    print(f"{'':2}pings of a running guest meanwhile: {flood.sent} sent, {flood.lost} lost")


async def _throughput(a: WholeHost, b: WholeHost, network: WiredNetwork) -> None:
    one, two, other = (guarded(network, number) for number in (50_001, 50_002, 50_003))
    bare, far = (guarded(network, number, secured=False, group_ids=()) for number in (50_004, 50_005))
    guests = [host.host.guest(it) for host, it in ((a, one), (a, two), (b, other), (a, bare), (b, far))]
    a.has(one, two, bare, peer(other, b.host), peer(far, b.host))
    at_b = replace(network, endpoints=(a.host.endpoint_ip,))
    b.has(at_b, OPEN, other, far, peer(one, a.host), peer(bare, a.host))
    await a.control.up(one.id, two.id, bare.id)
    await b.control.up(other.id, far.id)
    plain = await asyncio.to_thread(_plain, a, network)
    ways = (
        ("two guests on one plain bridge", plain),
        ("two guests on one host, firewall and all", (guests[0], guests[1])),
        ("two guests on two hosts, over VXLAN, firewall and all", (guests[0], guests[2])),
        ("two guests on two hosts, over VXLAN, without port security", (guests[3], guests[4])),
    )
    found: dict[str, list[float]] = {what: [] for what, _ in ways}
    for _ in range(8):  # in turn, for whatever else runs here takes its share
        for what, (client, server) in ways:
            found[what].append(await asyncio.to_thread(_iperf, client, server))
    first = found[ways[0][0]]
    for what, rates in found.items():
        middle, best = statistics.median(rates), max(rates)
        shares = f"{middle / statistics.median(first):4.0%}   best {best / 1e9:6.2f} Gbit/s {best / max(first):4.0%}"
        print(f"TCP, {what:63} p50 {middle / 1e9:6.2f} Gbit/s {shares}")


def _plain(host: WholeHost, network: WiredNetwork) -> tuple[Guest, Guest]:
    """Two guests on a bridge with nothing else."""
    space = f"{host.host.name}-p"
    subprocess.run(["ip", "netns", "add", space], check=True)
    run(space, "ip", "link", "add", "plain", "mtu", str(network.mtu), "type", "bridge")
    run(space, "ip", "link", "set", "plain", "up")
    made = []
    for number in (40_001, 40_002):
        port = guarded(network, number)
        guest = Guest(f"{space}{number}", port)
        ends = ("ip", "link", "add", port.tap, "mtu", str(network.mtu), "type", "veth", "peer", "name", "eth0")
        run(space, *ends, "mtu", str(network.mtu), "address", port.mac_address, "netns", guest.name)
        run(space, "ip", "link", "set", port.tap, "master", "plain", "up")
        guest.settle()
        made.append(guest)
    return made[0], made[1]


def _iperf(client: Guest, server: Guest) -> float:
    """Bits per second."""
    inside = ["nsenter", f"--net=/run/netns/{server.name}", "--"]
    with subprocess.Popen([*inside, "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL) as serving:
        until = time.monotonic() + 5
        while ":5201" not in run(server.name, "ss", "-ltn"):
            assert time.monotonic() < until, "iperf3 does not listen"
        said = json.loads(client.run("iperf3", "-J", "-c", server.ip, "-t", str(SECONDS)))
        serving.wait(10)
    return float(said["end"]["sum_received"]["bits_per_second"])


def _tell(what: str, milliseconds: list[float]) -> None:
    p50, worst = statistics.median(milliseconds), max(milliseconds)
    print(f"{what:68} p50 {p50:7.1f} ms   worst {worst:7.1f} ms")


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as home:
        print(f"load {os.getloadavg()[0]:.1f}")
        count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
        asyncio.run(main(count, "ovs" if "ovs" in sys.argv else "linuxbridge", Path(home)))
