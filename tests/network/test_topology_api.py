"""Auto-allocated topology over HTTP: networking for who wants none in particular."""

import asyncio

import pytest

from schema.network.port import PORT
from tests.network.routed import PROJECT, Client, port

MINE = f"/auto-allocated-topology/{PROJECT}"


@pytest.fixture
async def admin(served):
    return Client(served, await served.token("admin", project="o" * 32))


@pytest.fixture
async def outside(admin):
    body = {"network": {"router:external": True, "is_default": True}}
    network = (await admin("POST", "/networks", body, expect=201))["network"]["id"]
    subnet = {"network_id": network, "ip_version": 4, "cidr": "203.0.113.0/27", "enable_dhcp": False}
    await admin("POST", "/subnets", {"subnet": subnet}, expect=201)
    return network


async def test_without_a_way_out_there_is_none(member):
    for path in (MINE, f"{MINE}?fields=dry-run"):
        message = await member.refused("GET", path, None, 409, "AutoAllocationFailure")
        assert "No default router:external network" in message
    await member("DELETE", MINE, expect=204)


async def test_it_is_made_whole_and_once(served, member, outside):
    dry = (await member("GET", f"{MINE}?fields=dry-run"))["auto_allocated_topology"]
    assert (dry["id"], dry["tenant_id"]) == ("dry-run=pass", PROJECT)
    assert (await member("GET", "/networks?router:external=false"))["networks"] == []
    made = await asyncio.gather(
        *(member("GET", MINE) for _ in range(6)), member("GET", "/auto-allocated-topology/None")
    )
    [id] = {it["auto_allocated_topology"]["id"] for it in made}
    network = (await member("GET", f"/networks/{id}"))["network"]
    [subnet_id] = network["subnets"]
    subnet = (await member("GET", f"/subnets/{subnet_id}"))["subnet"]
    assert (subnet["cidr"], subnet["gateway_ip"], subnet["enable_dhcp"]) == ("10.0.0.0/24", "10.0.0.1", True)
    [router] = (await member("GET", "/routers"))["routers"]
    assert router["external_gateway_info"]["network_id"] == outside
    [foot] = (await member("GET", f"/ports?device_id={router['id']}&device_owner=network:router_interface"))["ports"]
    assert foot["fixed_ips"] == [{"subnet_id": subnet_id, "ip_address": "10.0.0.1"}]


async def test_it_goes_whole_unless_somebody_is_in_it(served, member, outside):
    id = (await member("GET", MINE))["auto_allocated_topology"]["id"]
    guest = await port(served.cloud, id, {})
    assert guest in await member.refused("DELETE", MINE, None, 409, "NetworkInUse")
    assert len((await member("GET", "/routers"))["routers"]) == 1
    await member("DELETE", f"/ports/{guest}", expect=204)
    await member("DELETE", MINE, expect=204)
    assert (await member("GET", "/networks?router:external=false"))["networks"] == []
    assert (await member("GET", "/routers"))["routers"] == []
    assert await served.cloud.documents.find(PORT) == []
    again = (await member("GET", MINE))["auto_allocated_topology"]["id"]
    assert again != id


async def test_others_have_their_own(served, admin, member, outside):
    stranger = Client(served, await served.token("member", project="q" * 32))
    await stranger.refused("GET", MINE, None, 403, "PolicyNotAuthorized")
    await stranger.refused("DELETE", MINE, None, 403, "PolicyNotAuthorized")
    mine = (await member("GET", MINE))["auto_allocated_topology"]
    theirs = (await stranger("GET", f"/auto-allocated-topology/{'q' * 32}"))["auto_allocated_topology"]
    assert mine["id"] != theirs["id"]
    assert (await admin("GET", MINE))["auto_allocated_topology"] == mine
