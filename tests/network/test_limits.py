"""Limits from a request to the packets: of ports, networks and floating IPs, of guests on two hosts, both ways."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from bus import clock
from bus.execute import Wish
from handlers.network.network import NETWORKS
from handlers.network.port import PORTS
from handlers.network.qos_policy import using
from schema.network.network import CreateNetwork, Segment
from schema.network.port_command import UpdatePort
from schema.network.wiring import BandwidthLimit
from tests.network.routed import Client, network, subnet
from tests.network.steered import Steered, steered
from tests.network.test_shaping import iperf
from tests.network.wiring import until

pytestmark = [pytest.mark.live, pytest.mark.slow]

PATIENCE_SECONDS = 20.0
WITHIN = 0.2


@pytest.fixture(params=["linuxbridge", "ovs"])
async def site(request, settings, fresh_database):
    async with steered(settings, fresh_database, "h1", "h2", driver=request.param) as it:
        it.metered = request.param == "ovs"
        yield it


async def policy(admin: Client, *, toward_mbit: int, away_mbit: int) -> str:
    made = (await admin("POST", "/qos/policies", {"policy": {"shared": True}}, expect=201))["policy"]["id"]
    for direction, mbit in (("ingress", toward_mbit), ("egress", away_mbit)):
        rule = {"bandwidth_limit_rule": {"max_kbps": mbit * 1000, "direction": direction}}
        await admin("POST", f"/qos/policies/{made}/bandwidth_limit_rules", rule, expect=201)
    return str(made)


async def held(site: Steered, guest: SimpleNamespace, host: str, toward_mbit: int, away_mbit: int) -> None:
    # Open vSwitch meters what comes from a guest; its meters are there before the bucket of the other way is.
    wanted = (toward_mbit * 1000, 0 if site.metered else away_mbit * 1000)
    await until(lambda: asyncio.to_thread(lambda: site.rates(host, guest.port_id) == wanted), PATIENCE_SECONDS)


async def test_guests_of_two_hosts_are_held_to_what_policies_say(site: Steered):
    admin = Client(site.served, await site.served.token("admin", project="o" * 32))
    member = Client(site.served, await site.served.token("member"))
    inner = await network(site.cloud)
    inside = await subnet(site.cloud, inner, "10.0.0.0/24", "10.0.0.1", "10.0.0.2", "10.0.0.254")
    a = await site.guest(inner, inside, "10.0.0.11", "h1", "10.0.0.1")
    b = await site.guest(inner, inside, "10.0.0.12", "h2", "10.0.0.1")
    for guest in (a, b):
        await until(lambda id=guest.port_id: site.active(id), PATIENCE_SECONDS)
    await until(lambda: asyncio.to_thread(a.pings, b.ip), PATIENCE_SECONDS)

    # The network's policy holds every guest of it.
    wide = await policy(admin, toward_mbit=40, away_mbit=20)
    await member("PUT", f"/networks/{inner}", {"network": {"qos_policy_id": wide}})
    for guest, host in ((a, "h1"), (b, "h2")):
        await held(site, guest, host, 40, 20)
    assert await iperf(a, b) == pytest.approx(20, rel=WITHIN)
    assert await iperf(b, a) == pytest.approx(20, rel=WITHIN)

    # A port's own goes before it, and changes with its rules.
    own = await policy(admin, toward_mbit=10, away_mbit=5)
    await site.cloud.executor.execute(
        Wish(PORTS, b.port_id, UpdatePort(qos_policy_id=own)), *using(own, "", operator=True)
    )
    await held(site, b, "h2", 10, 5)
    assert await iperf(a, b) == pytest.approx(10, rel=WITHIN)
    assert await iperf(b, a) == pytest.approx(5, rel=WITHIN)
    [rule, _] = (await admin("GET", f"/qos/policies/{own}"))["policy"]["rules"]
    await admin(
        "PUT", f"/qos/alias-bandwidth-limit-rules/{rule['id']}", {"alias_bandwidth_limit_rule": {"max_kbps": 16000}}
    )
    await held(site, b, "h2", 16, 5)
    assert await iperf(a, b) == pytest.approx(16, rel=WITHIN)

    # Where no policy limits a port, its server's flavor does.
    narrow = tuple(BandwidthLimit(direction=way, max_kbps=12_000) for way in ("ingress", "egress"))
    await site.cloud.executor.execute(Wish(PORTS, a.port_id, UpdatePort(card_limits=narrow)))
    await held(site, a, "h1", 40, 20)
    await member("PUT", f"/networks/{inner}", {"network": {"qos_policy_id": None}})
    await held(site, a, "h1", 12, 12)
    assert await iperf(a, b) == pytest.approx(12, rel=WITHIN)
    await site.cloud.executor.execute(Wish(PORTS, a.port_id, UpdatePort(card_limits=())))
    await held(site, a, "h1", 0, 0)

    # A floating IP's holds what passes its router, whatever host the guest is on.
    public = clock.uuid4()
    segment = Segment(id="s", network_type="flat", physical_network="external")
    command = CreateNetwork(name="public", project_id="operators", segments=(segment,), external_for=("*",))
    await site.cloud.executor.execute(Wish(NETWORKS, public, command))
    await subnet(site.cloud, public, "172.24.4.0/24", "172.24.4.1", "172.24.4.10", "172.24.4.200", "operators")
    body = {"router": {"external_gateway_info": {"network_id": public}}}
    router = (await member("POST", "/routers", body, expect=201))["router"]["id"]
    await member("PUT", f"/routers/{router}/add_router_interface", {"subnet_id": inside})
    body = {"floatingip": {"floating_network_id": public, "port_id": a.port_id, "qos_policy_id": wide}}
    floating = (await member("POST", "/floatingips", body, expect=201))["floatingip"]
    await until(lambda: asyncio.to_thread(lambda: site.limits_of_router(router) == 2), PATIENCE_SECONDS)
    outside, way_in = site.outside(), SimpleNamespace(space=a.space, ip=floating["floating_ip_address"])
    await until(lambda: asyncio.to_thread(a.pings, outside.ip), PATIENCE_SECONDS)
    assert await iperf(outside, way_in) == pytest.approx(40, rel=WITHIN)
    assert await iperf(a, outside) == pytest.approx(20, rel=WITHIN)
    await member("PUT", f"/floatingips/{floating['id']}", {"floatingip": {"qos_policy_id": None}})
    await until(lambda: asyncio.to_thread(lambda: site.limits_of_router(router) == 0), PATIENCE_SECONDS)
    assert await iperf(a, outside, seconds=2) > 60
