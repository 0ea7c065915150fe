"""What routers on hosts cost: python bench/routers.py        (as root: it makes network namespaces)

Two hosts in namespaces with everything on them, a guest on each, and somebody outside. Times are from the word told to
the agent to the first answered ping (asked anew every few milliseconds), or to the end of what is measured. Guests that
are measured with iperf3 are namespaces behind the taps of their ports.
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

sys.path.insert(0, str(Path(__file__).parents[1]))

import structlog
from msgspec.structs import replace

from agents.network import namespace
from schema.network.wiring import FloatingAddress, WiredRouter
from tests.network.dhcp_place import Place, network, subnet
from tests.network.hosts import Flood, Guest, run
from tests.network.router_place import PUBLIC as OUTER
from tests.network.router_place import Host, foot, router
from tests.network.test_routed_hosts import FLOATING, OUTSIDE, ROUTER, guests, outside_of, settle
from tests.network.whole_host import WholeHost, whole_hosts

ROUNDS = 10
ROUTERS = 50
EVERY_SECONDS = 0.005
SECONDS = 2


async def main(folder: Path) -> None:
    await _many()
    async with whole_hosts(folder) as hosts:
        outside = outside_of(hosts)
        run(outside, "ip", "address", "add", f"{OUTSIDE}/24", "dev", "external")
        web, _ = await guests(hosts)
        _tell("a router is told of → its floating IP answers outside", await _made(hosts, outside))
        _tell("a floating IP comes to a router → it answers outside", await _floating(hosts, outside))
        _tell("a router goes to the other host: its floating IP does not answer for", await _moved(hosts, outside))
        await _throughput(web, outside)


async def _many() -> None:
    """Routers alone, on a switch of bare bridges."""
    place = Place()
    host = Host(place, OUTER)
    networks = [
        network(f"n{it}", subnet(f"s{it}", f"10.{it}.0.0/24", gateway_ip=f"10.{it}.0.1")) for it in range(ROUTERS)
    ]
    routers = [
        router(foot(it, 1), gateway=foot(OUTER, 10 + number, id=f"g{number}"), id=f"r{number}")
        for number, it in enumerate(networks)
    ]
    try:
        for it in networks:
            place.network(it.id)
        world = host.world(OUTER, *networks, *routers)
        for what in (f"{ROUTERS} routers from nothing", f"a sweep over {ROUTERS} routers"):
            started, used = time.perf_counter(), time.process_time()
            assert await host.routers.apply(world, None) == {}
            took, cpu = (time.perf_counter() - started) * 1000, (time.process_time() - used) * 1000
            print(f"{what:68} {took / ROUTERS:7.2f} ms each, {cpu / ROUTERS:.2f} ms of CPU")
        started = time.perf_counter()
        await host.routers.fence()
        _tell(f"{ROUTERS} routers silent after the lease lapsed", [(time.perf_counter() - started) * 1000])
    finally:
        await host.routers.close()
        place.remove(Path("/nonexistent"))


async def _made(hosts: list[WholeHost], outside: str) -> list[float]:
    times = []
    for _ in range(ROUNDS):
        hosts[0].lacks(f"router/{ROUTER.id}")
        await _answers(outside, FLOATING, wanted=False)
        started = time.perf_counter()
        settle(*hosts)
        await _answers(outside, FLOATING)
        times.append((time.perf_counter() - started) * 1000)
    return times


async def _floating(hosts: list[WholeHost], outside: str) -> list[float]:
    times = []
    for number in range(ROUNDS):
        ip = f"172.24.4.{100 + number}"
        started = time.perf_counter()
        hosts[0].has(_with(FloatingAddress(id="f", floating_ip=ip, fixed_ip=ROUTER.floating[0].fixed_ip)))
        await _answers(outside, ip)
        times.append((time.perf_counter() - started) * 1000)
    hosts[0].has(ROUTER)
    return times


async def _moved(hosts: list[WholeHost], outside: str) -> list[float]:
    """By the pings that are lost."""
    times = []
    for number in range(ROUNDS):
        await _answers(outside, FLOATING)
        home, elsewhere = hosts[1 - number % 2], hosts[number % 2]
        with Flood.of(outside, FLOATING, EVERY_SECONDS) as flood:
            settle(home, elsewhere)
            while namespace.names(f"{elsewhere.host.name}-r-"):  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.005)
            await _answers(outside, FLOATING)
        times.append(flood.lost * EVERY_SECONDS * 1000)
    return times


async def _throughput(web: Guest, outside: str) -> None:
    for what, server, client, ip in (
        ("out of a guest by its floating IP, firewall and all", outside, web.name, OUTSIDE),
        ("into a guest by its floating IP, firewall and all", web.name, outside, FLOATING),
    ):
        rates = [await asyncio.to_thread(_iperf, server, client, ip) for _ in range(3)]
        print(f"TCP {what:64} p50 {statistics.median(rates) / 1e9:7.2f} Gbit/s")


def _with(floating: FloatingAddress) -> WiredRouter:
    return replace(ROUTER, generation=ROUTER.generation + 1, floating=(floating,))


async def _answers(outside: str, ip: str, *, wanted: bool = True) -> None:
    until = time.monotonic() + 20
    while await asyncio.to_thread(_ping, outside, ip) != wanted:
        assert time.monotonic() < until, f"{ip} {'does not answer' if wanted else 'answers still'}"


def _ping(name: str, ip: str) -> bool:
    command = ["nsenter", f"--net=/run/netns/{name}", "--", "ping", "-q", "-c", "1", "-W", "0.02", ip]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _iperf(server: str, client: str, ip: str) -> float:
    """Bits per second."""
    with subprocess.Popen(["nsenter", f"--net=/run/netns/{server}", "--", "iperf3", "-s", "-1"], stdout=-3) as serving:
        until = time.monotonic() + 5
        while ":5201" not in run(server, "ss", "-ltn"):
            assert time.monotonic() < until, "iperf3 does not listen"
        said = json.loads(run(client, "iperf3", "-J", "-c", ip, "-t", str(SECONDS)))
        serving.wait(10)
    return float(said["end"]["sum_received"]["bits_per_second"])


def _tell(what: str, milliseconds: list[float]) -> None:
    p50, worst = statistics.median(milliseconds), max(milliseconds)
    print(f"{what:68} p50 {p50:7.1f} ms   worst {worst:7.1f} ms")


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as home:
        print(f"load {os.getloadavg()[0]:.1f}")
        asyncio.run(main(Path(home)))
