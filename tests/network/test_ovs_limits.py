"""Bandwidth limits where an Open vSwitch is the switch: buckets toward guests, meters for what comes from them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from agents.network.ovs import meters, openflow
from agents.network.ovs.meters import Limit
from agents.network.shaping import Shaping
from schema.network.wiring import BandwidthLimit, Quality
from tests.network.ovs_place import OvsSite
from tests.network.test_shaping import iperf, limited

MBIT_TOWARD, MBIT_AWAY = 40, 15


@pytest.fixture
async def site() -> AsyncIterator[OvsSite]:
    with OvsSite() as site:
        yield site
        await site.firewall.close()


def world(*ports: Any) -> Any:
    return SimpleNamespace(ports={it.id: it for it in ports})


def test_what_comes_from_guests_is_metered_and_what_goes_to_subports() -> None:
    both = Quality(
        limits=(limited(8, 0).limits[0], BandwidthLimit(direction="egress", max_kbps=800, max_burst_kbps=99))
    )
    tap = SimpleNamespace(id="tap", quality=both, parent_id="")
    subport = SimpleNamespace(id="sub", quality=both, parent_id="tap")
    assert meters.wanted(world(tap, subport)) == {
        ("tap", "egress"): Limit(800, 160),
        ("sub", "egress"): Limit(800, 160),
        ("sub", "ingress"): Limit(8000, 1600),
    }


def test_meters_are_made_before_flows_name_them_and_go_after() -> None:
    listing = (
        "OFPST_METER_CONFIG reply (OF1.5) (xid=0x2):\nmeter=7 kbps burst bands=\ntype=drop rate=800 burst_size=160\n"
    )
    seen = meters.read(listing)
    assert seen == {7: Limit(800, 160)}
    assert meters.plan(seen, seen) == ([], [])
    assert meters.plan({7: Limit(900, 160), 8: Limit(1, 1)}, seen) == (
        [
            "mod-meter meter=7,kbps,burst,band=type=drop,rate=900,burst_size=160",
            "add-meter meter=8,kbps,burst,band=type=drop,rate=1,burst_size=1",
        ],
        [],
    )
    assert meters.plan({}, seen) == ([], ["del-meter meter=7"])


def test_no_two_limits_share_a_meter() -> None:
    names = [(f"port-{number}", "egress") for number in range(2000)]
    numbers = meters.numbered(names)  # type: ignore[arg-type]
    assert len(set(numbers.values())) == 2000
    assert meters.numbered(reversed(names)) == numbers  # type: ignore[arg-type]


@pytest.mark.live
@pytest.mark.slow
async def test_traffic_is_held_to_the_limits_both_ways(site: OvsSite) -> None:
    network = site.network()
    a = site.guest(network, 1, secured=False, quality=limited(MBIT_TOWARD, MBIT_AWAY))
    b = site.guest(network, 2, secured=False)
    shaping = Shaping(site.space, both_ways=False)
    assert await site.sweep() == {}
    assert await shaping.apply(site.world, None) == {}
    assert await iperf(a, b) == pytest.approx(MBIT_AWAY, rel=0.2)
    assert await iperf(b, a) == pytest.approx(MBIT_TOWARD, rel=0.2)
    assert await site.sweep() == {}
    assert await site.apply(replace(a.port, quality=limited(0, MBIT_TOWARD))) == {}
    assert await shaping.apply(site.world, frozenset({f"port/{a.port.id}"})) == {}
    assert await iperf(a, b) == pytest.approx(MBIT_TOWARD, rel=0.2)
    assert await iperf(b, a, seconds=2) > 2 * MBIT_TOWARD


@pytest.mark.live
async def test_meters_are_put_back_and_go_with_the_limit(site: OvsSite) -> None:
    network = site.network()
    a = site.guest(network, 1, quality=limited(8, 8))
    assert await site.sweep() == {}
    [(number, limit)] = (await openflow.metered(site.firewall.openflow)).items()
    assert limit == Limit(8000, 1600)
    await openflow.tell(site.firewall.openflow, [f"del-meter meter={number}"])
    assert await site.sweep() == {}
    assert await openflow.metered(site.firewall.openflow) == {number: limit}
    await site.restart()
    assert await site.sweep() == {}
    assert site.firewall.commands == []
    assert await site.apply(replace(a.port, quality=Quality())) == {}
    assert await openflow.metered(site.firewall.openflow) == {}
