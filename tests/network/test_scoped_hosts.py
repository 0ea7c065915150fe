"""Address scopes from the requests to the packets: in one as it is, out of it translated, apart otherwise."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from schema.network.router import ROUTER
from tests.network.hosts import run
from tests.network.routed import Client
from tests.network.steered import Steered, steered
from tests.network.wiring import until

pytestmark = [pytest.mark.live, pytest.mark.slow]

SOON_SECONDS = 20.0


@pytest.fixture
async def site(settings, fresh_database):
    async with steered(settings, fresh_database, "h1", "h2") as it:
        yield it


async def test_a_subnet_in_the_scope_of_the_outside_keeps_its_addresses(site: Steered):
    admin = Client(site.served, await site.served.token("admin"))

    async def make(path: str, what: str, **fields: Any) -> str:
        return str((await admin("POST", path, {what: fields}, expect=201))[what]["id"])

    async def pool(prefix: str, **fields: Any) -> str:
        return await make("/subnetpools", "subnetpool", prefixes=[prefix], name=prefix, **fields)

    async def net(pool_id: str, cidr: str, **fields: Any) -> tuple[str, str]:
        id = await make("/networks", "network", **fields)
        said = {"network_id": id, "ip_version": 4, "subnetpool_id": pool_id, "cidr": cidr}
        return id, await make("/subnets", "subnet", **said, enable_dhcp=False)

    scope = await make("/address-scopes", "address_scope", name="world", ip_version=4)
    outer = await pool("172.24.4.0/24", address_scope_id=scope)
    inner = await pool("10.1.0.0/24", address_scope_id=scope)
    apart = await pool("10.2.0.0/24")
    flat = {"provider:network_type": "flat", "provider:physical_network": "external", "router:external": True}
    public, _ = await net(outer, "172.24.4.0/24", **flat)
    one, one_subnet = await net(inner, "10.1.0.0/24")
    two, two_subnet = await net(apart, "10.2.0.0/24")
    router = await make("/routers", "router", external_gateway_info={"network_id": public})
    for subnet in (one_subnet, two_subnet):
        await admin("PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})

    async def placed() -> bool:
        return bool((await site.cloud.documents.get(ROUTER, router)).state.host)

    await until(placed, SOON_SECONDS)
    near = await site.guest(one, one_subnet, "10.1.0.5", "h1", "10.1.0.1")
    far = await site.guest(two, two_subnet, "10.2.0.5", "h2", "10.2.0.1")
    outside = site.outside()

    def pings(guest: Any, ip: str) -> Any:
        return asyncio.to_thread(guest.pings, ip, seconds=1)

    await until(lambda: pings(far, outside.ip), SOON_SECONDS)
    await until(lambda: pings(near, "10.1.0.1"), SOON_SECONDS)
    assert not await pings(near, outside.ip)  # nobody out there knows the way back yet
    assert not await pings(near, far.ip)
    shown = (await admin("GET", f"/routers/{router}"))["router"]["external_gateway_info"]
    [own] = [it["ip_address"] for it in shown["external_fixed_ips"]]
    run(site.fabric.outside, "ip", "route", "replace", "10.1.0.0/24", "via", own)
    await until(lambda: pings(near, outside.ip), SOON_SECONDS)
    run(site.fabric.outside, "ip", "route", "del", "10.1.0.0/24")
    assert not await pings(near, outside.ip)
    await admin("PUT", f"/subnetpools/{inner}", {"subnetpool": {"address_scope_id": None}})
    await until(lambda: pings(near, outside.ip), SOON_SECONDS)
    await until(lambda: pings(near, far.ip), SOON_SECONDS)
