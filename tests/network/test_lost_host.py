"""A host is lost and with it a router: its floating IPs answer again elsewhere, from the request to the packets."""

from __future__ import annotations

import asyncio
import subprocess
import time

import pytest

from bus import clock
from bus.execute import Wish
from handlers.network.network import NETWORKS
from schema.network.network import CreateNetwork, Segment
from schema.network.router import ROUTER
from tests.network.hosts import Flood
from tests.network.routed import Client, network, subnet
from tests.network.steered import Steered, steered
from tests.network.wiring import until

pytestmark = [pytest.mark.live, pytest.mark.slow]

AGAIN_SECONDS = 10.0
EVERY_SECONDS = 0.01


@pytest.fixture
async def site(settings, fresh_database):
    async with steered(settings, fresh_database, "h1", "h2") as it:
        yield it


async def home_of(site: Steered, router: str) -> str:
    return str((await site.cloud.documents.get(ROUTER, router)).state.host)


async def test_a_floating_ip_answers_again_within_ten_seconds(site: Steered):
    member = Client(site.served, await site.served.token("member"))
    inner = await network(site.cloud)
    inside = await subnet(site.cloud, inner, "10.0.0.0/24", "10.0.0.1", "10.0.0.2", "10.0.0.254")
    public = clock.uuid4()
    segment = Segment(id="s", network_type="flat", physical_network="external")
    command = CreateNetwork(name="public", project_id="operators", segments=(segment,), external_for=("*",))
    await site.cloud.executor.execute(Wish(NETWORKS, public, command))
    await subnet(site.cloud, public, "172.24.4.0/24", "172.24.4.1", "172.24.4.10", "172.24.4.200", "operators")
    body = {"router": {"external_gateway_info": {"network_id": public}}}
    router = (await member("POST", "/routers", body, expect=201))["router"]["id"]
    await member("PUT", f"/routers/{router}/add_router_interface", {"subnet_id": inside})

    async def placed() -> bool:
        return await home_of(site, router) != ""

    await until(placed, 20.0)
    home = await home_of(site, router)
    other = next(it for it in ("h1", "h2") if it != home)
    guest = await site.guest(inner, inside, "10.0.0.11", other, "10.0.0.1")
    body = {"floatingip": {"floating_network_id": public, "port_id": guest.port_id}}
    ip = (await member("POST", "/floatingips", body, expect=201))["floatingip"]["floating_ip_address"]
    outside = site.outside()
    await until(lambda: asyncio.to_thread(pings, site, ip), 20.0)
    with Flood.of(site.fabric.outside, ip, EVERY_SECONDS) as flood:
        began = time.monotonic()
        await site.lose(home)

        async def moved() -> bool:
            return await home_of(site, router) == other

        await until(moved, AGAIN_SECONDS)
        await until(lambda: asyncio.to_thread(pings, site, ip), AGAIN_SECONDS)
        assert time.monotonic() - began < AGAIN_SECONDS
    assert flood.lost * EVERY_SECONDS < AGAIN_SECONDS
    assert await asyncio.to_thread(guest.pings, outside.ip)


def pings(site: Steered, ip: str) -> bool:
    inside = ("nsenter", f"--net=/run/netns/{site.fabric.outside}", "--")
    command = [*inside, "ping", "-q", "-c", "1", "-W", "1", ip]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
