"""Bandwidth limits, measured with real traffic; and rules of the plan that need none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace
from pyroute2 import IPRoute

from agents.network import netlink, traffic_control
from agents.network.shaping import Rate, Seen, Shape, Shaping, Step, plan, rate_of, router_limits, shape_of
from schema.network.wiring import (
    BandwidthLimit,
    FloatingAddress,
    Quality,
    RouterPort,
    WiredPort,
    WiredRouter,
)
from tests.network.cabling import Guest, Site

TAP, IFB = "tap00000001-aa", "ifb00000001-aa"
RATE = Rate(1_000_000, 20_000)
MBIT_TOWARD, MBIT_AWAY = 40, 15


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    with Site() as site:
        yield site


def limited(toward_mbit: int = 0, away_mbit: int = 0) -> Quality:
    toward = BandwidthLimit(direction="ingress", max_kbps=toward_mbit * 1000)
    away = BandwidthLimit(direction="egress", max_kbps=away_mbit * 1000)
    return Quality(limits=tuple(it for it in (toward, away) if it.max_kbps))


def test_the_lowest_limit_of_a_direction_counts() -> None:
    both = Quality(
        limits=(
            BandwidthLimit(direction="egress", max_kbps=8000, max_burst_kbps=4000),
            BandwidthLimit(direction="egress", max_kbps=16000),
        )
    )
    assert rate_of(both, "egress") == Rate(1_000_000, 500_000)
    assert rate_of(both, "ingress") is None


def test_only_ports_with_limits_and_a_tap_of_their_own_are_shaped() -> None:
    port = WiredPort(id="00000001-aaaa", network_id="n", generation=1, tap=TAP, mac_address="fa:16:3e:00:00:01")
    assert shape_of(port) is None
    assert shape_of(replace(port, quality=limited(8, 8))) == Shape(RATE, RATE, IFB)
    assert shape_of(replace(port, quality=limited(8, 8), parent_id="trunk")) is None


def test_what_is_as_it_should_be_is_left_alone() -> None:
    links = {TAP: 1, IFB: 2, "eth0": 3}
    there = Seen(links, {TAP: RATE, IFB: RATE, "eth0": RATE}, frozenset({TAP}), {TAP: IFB})
    assert plan({TAP: Shape(RATE, RATE, IFB)}, [TAP], there) == []
    assert plan({}, [TAP], there) == [Step("leave incoming", TAP), Step("unlimit", TAP), Step("remove ifb", IFB)]


def test_what_is_somebody_elses_is_never_touched() -> None:
    theirs = Seen({TAP: 1, "eth0": 2, "ifb0": 3}, {"eth0": RATE}, frozenset({"eth0", TAP}), {"eth0": "ifb0", TAP: ""})
    assert plan({}, [TAP], theirs) == []


async def iperf(sender: Guest, receiver: Guest, seconds: int = 3) -> float:
    """Mbit/s of TCP that arrive."""
    server = await asyncio.create_subprocess_exec(
        *receiver.space.command, "iperf3", "-s", "-1", "--forceflush", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert server.stdout
        while b"listening" not in await asyncio.wait_for(server.stdout.readline(), 10):
            pass
        client = await asyncio.create_subprocess_exec(
            *sender.space.command,
            *("iperf3", "-c", receiver.ip, "-t", str(seconds), "-O", "1", "-J"),
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await asyncio.wait_for(client.communicate(), seconds + 20)
        await asyncio.wait_for(server.wait(), 10)
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()
    return float(json.loads(said)["end"]["sum_received"]["bits_per_second"]) / 1e6


@pytest.mark.live
@pytest.mark.slow
async def test_traffic_is_held_to_the_limits_both_ways(site: Site) -> None:
    network = site.network()
    a = site.guest(network, 1, secured=False, quality=limited(MBIT_TOWARD, MBIT_AWAY))
    b = site.guest(network, 2, secured=False)
    shaping = Shaping(site.space)
    assert await shaping.apply(site.world, None) == {}
    assert await iperf(a, b) == pytest.approx(MBIT_AWAY, rel=0.15)
    assert await iperf(b, a) == pytest.approx(MBIT_TOWARD, rel=0.15)
    port = replace(a.port, quality=limited(0, MBIT_TOWARD))
    site.pieces[f"port/{port.id}"] = port
    assert await shaping.apply(site.world, frozenset({f"port/{port.id}"})) == {}
    assert await iperf(a, b) == pytest.approx(MBIT_TOWARD, rel=0.15)
    assert await iperf(b, a, seconds=2) > 2 * MBIT_TOWARD


@pytest.mark.live
async def test_limits_are_put_back_and_go_with_the_port(site: Site) -> None:
    network = site.network()
    a = site.guest(network, 1, quality=limited(8, 8))
    tap, ifb = a.port.tap, f"ifb{a.port.id[:11]}"
    shaping = Shaping(site.space)

    def there() -> tuple[set[str], str]:
        with netlink.Socket() as kernel:
            names = {index: name for name, index in traffic_control.interfaces(kernel).items()}
            buckets = {names[device] for device, kind, _ in traffic_control.buckets(kernel) if kind == "tbf"}
            return buckets, names.get(
                traffic_control.redirection(kernel, next(k for k in names if names[k] == tap)), ""
            )

    def harm(what: str) -> None:
        with netlink.Socket() as kernel:
            index = traffic_control.interfaces(kernel)
            harms = {
                "bucket": traffic_control.unlimit(index[tap]),
                "incoming": traffic_control.leave_incoming(index[tap]),
                "ifb": traffic_control.remove_ifb(index[ifb]),
            }
            assert [answer.number for answer in kernel.send([harms[what]])] == [0]

    wired = ({tap, ifb}, ifb)
    await shaping.apply(site.world, None)
    assert site.space.call(there) == wired
    for what in ("bucket", "incoming", "ifb"):
        site.space.call(harm, what)
        assert site.space.call(there) != wired
        assert await shaping.apply(site.world, None) == {}
        assert site.space.call(there) == wired
    port = replace(a.port, quality=Quality())
    site.pieces[f"port/{port.id}"] = port
    await shaping.apply(site.world, frozenset({f"port/{port.id}"}))
    assert site.space.call(there) == (set(), "")


@pytest.mark.live
async def test_a_limit_whose_tap_is_missing_is_a_fault(site: Site) -> None:
    network = site.network()
    a = site.guest(network, 1, quality=limited(8, 8))
    a.space.call(_unplug)
    faults = await Shaping(site.space).apply(site.world, None)
    assert list(faults) == [f"port/{a.port.id}"]
    assert "tap is not there" in faults[f"port/{a.port.id}"]


def _unplug() -> None:
    with IPRoute() as kernel:
        kernel.link("del", index=kernel.link_lookup(ifname="eth0")[0])


def test_router_limits_are_rules_of_its_own_table() -> None:
    gateway = RouterPort(port_id="p", network_id="n", mac_address="m", addresses=())
    floating = FloatingAddress(id="f", floating_ip="203.0.113.9", fixed_ip="10.0.0.5", quality=limited(8, 0))
    router = WiredRouter(id="r", generation=1, gateway=gateway, floating=(floating,), quality=limited(0, 16))
    assert router_limits(router, "qp") == [
        'iifname "qp" ip daddr 10.0.0.5 limit rate over 1000000 bytes/second burst 200000 bytes drop',
        'oifname "qp" ip saddr { 10.0.0.5 } accept',
        'oifname "qp" limit rate over 2000000 bytes/second burst 400000 bytes drop',
    ]
