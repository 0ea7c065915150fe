"""Routers over HTTP: what Neutron's clients rely on."""

import asyncio
import uuid

import pytest

from schema.network.port import PORT
from tests.network.routed import Client, addresses, network, port, subnet


@pytest.fixture
async def outside(served):
    """An outside network with a subnet of thirty addresses."""
    id = await network(served.cloud, external=True, project="operators")
    await subnet(served.cloud, id, "203.0.113.0/27", "203.0.113.1", "203.0.113.2", "203.0.113.30", "operators")
    return id


@pytest.fixture
async def inner(served):
    """A network of the member's and its subnet."""
    id = await network(served.cloud)
    return id, await subnet(served.cloud, id, "10.0.0.0/24", "10.0.0.1", "10.0.0.2", "10.0.0.254")


async def _make(client, **fields):
    return (await client("POST", "/routers", {"router": fields}, expect=201))["router"]


async def test_a_routers_life(member, admin):
    made = await _make(member, name="edge", description="d")
    assert made["status"] == "ACTIVE"
    assert made["project_id"] == made["tenant_id"] == "p" * 32
    assert made["external_gateway_info"] is None
    assert made["routes"] == []
    assert made["revision_number"] == 1
    assert "ha" not in made
    one = f"/routers/{made['id']}"
    changed = (await member("PUT", one, {"router": {"name": "core", "admin_state_up": False}}))["router"]
    assert (changed["name"], changed["admin_state_up"], changed["revision_number"]) == ("core", False, 2)
    assert (await admin("GET", one))["router"]["ha"] is False
    assert await member("GET", f"{one}?fields=name") == {"router": {"name": "core"}}
    assert [it["id"] for it in (await member("GET", "/routers?name=core"))["routers"]] == [made["id"]]
    assert (await member("GET", "/routers?name=edge"))["routers"] == []
    await member("DELETE", one, expect=204)
    await member.refused("GET", one, None, 404, "RouterNotFound")


async def test_a_router_goes_out_with_an_address_of_its_own(served, member, admin, outside):
    made = await _make(member, external_gateway_info={"network_id": outside})
    way = made["external_gateway_info"]
    assert way["network_id"] == outside
    assert way["enable_snat"] is True
    [fixed] = way["external_fixed_ips"]
    [document] = await served.cloud.documents.find(PORT)
    assert (document.state.device_owner, document.state.device_id) == ("network:router_gateway", made["id"])
    assert await addresses(served.cloud) == {fixed["ip_address"]: document.id}
    one = f"/routers/{made['id']}"
    body = {"router": {"external_gateway_info": {"network_id": outside, "enable_snat": False}}}
    await member.refused("PUT", one, body, 403, "PolicyNotAuthorized")
    changed = (await admin("PUT", one, body))["router"]["external_gateway_info"]
    assert changed["enable_snat"] is False
    assert changed["external_fixed_ips"] == [fixed]
    other = {"ip_address": "203.0.113.20"}
    body = {"router": {"external_gateway_info": {"network_id": outside, "external_fixed_ips": [other]}}}
    moved = (await admin("PUT", one, body))["router"]["external_gateway_info"]["external_fixed_ips"]
    assert [it["ip_address"] for it in moved] == ["203.0.113.20"]
    assert set(await addresses(served.cloud)) == {"203.0.113.20"}
    cleared = await member("PUT", one, {"router": {"external_gateway_info": {}}})
    assert cleared["router"]["external_gateway_info"] is None
    assert await addresses(served.cloud) == {}
    assert await served.cloud.documents.find(PORT) == []


async def test_a_way_out_leads_through_an_outside_network(member, inner):
    body = {"router": {"external_gateway_info": {"network_id": inner[0]}}}
    assert "is not an external network" in await member.refused("POST", "/routers", body, 400, "BadRequest")
    body = {"router": {"external_gateway_info": {"network_id": str(uuid.uuid4())}}}
    await member.refused("POST", "/routers", body, 404, "NetworkNotFound")


async def test_a_router_joins_a_subnet_at_its_gateways_address(served, member, inner):
    network_id, subnet_id = inner
    router = await _make(member)
    one = f"/routers/{router['id']}"
    joined = await member("PUT", f"{one}/add_router_interface", {"subnet_id": subnet_id})
    assert (joined["id"], joined["network_id"]) == (router["id"], network_id)
    assert (joined["subnet_id"], joined["subnet_ids"]) == (subnet_id, [subnet_id])
    document = await served.cloud.documents.get(PORT, joined["port_id"])
    assert document.state.device_owner == "network:router_interface"
    assert await addresses(served.cloud) == {"10.0.0.1": joined["port_id"]}
    assert "already has a port" in await member.refused(
        "PUT", f"{one}/add_router_interface", {"subnet_id": subnet_id}, 400, "BadRequest"
    )
    await member.refused("DELETE", one, None, 409, "RouterInUse")
    parted = await member("PUT", f"{one}/remove_router_interface", {"subnet_id": subnet_id})
    assert parted["port_id"] == joined["port_id"]
    assert await addresses(served.cloud) == {}
    await member.refused(
        "PUT", f"{one}/remove_router_interface", {"subnet_id": subnet_id}, 404, "RouterInterfaceNotFoundForSubnet"
    )
    await member.refused(
        "PUT", f"{one}/remove_router_interface", {"port_id": joined["port_id"]}, 404, "RouterInterfaceNotFound"
    )
    await member("DELETE", one, expect=204)


async def test_a_router_joins_by_a_port(served, member, inner):
    network_id, subnet_id = inner
    id = await port(served.cloud, network_id, {subnet_id: "10.0.0.77"})
    router, other = await _make(member), await _make(member)
    joined = await member("PUT", f"/routers/{router['id']}/add_router_interface", {"port_id": id})
    assert (joined["port_id"], joined["subnet_ids"]) == (id, [subnet_id])
    await member.refused("PUT", f"/routers/{other['id']}/add_router_interface", {"port_id": id}, 409, "PortInUse")
    for body in ({}, {"port_id": id, "subnet_id": subnet_id}):
        await member.refused("PUT", f"/routers/{router['id']}/add_router_interface", body, 400, "BadRequest")
    await member("PUT", f"/routers/{router['id']}/remove_router_interface", {"port_id": id})
    assert await served.cloud.documents.find(PORT) == []


async def test_overlapping_subnets_do_not_meet_on_a_router(served, member, inner):
    other = await network(served.cloud)
    overlapping = await subnet(served.cloud, other, "10.0.0.128/25", "10.0.0.129", "10.0.0.130", "10.0.0.200")
    router = await _make(member)
    path = f"/routers/{router['id']}/add_router_interface"
    await member("PUT", path, {"subnet_id": inner[1]})
    assert "overlaps" in await member.refused("PUT", path, {"subnet_id": overlapping}, 400, "BadRequest")


async def test_ipv6_subnets_of_a_network_share_a_port(served, member):
    id = await network(served.cloud)
    a = await subnet(served.cloud, id, "fd00:a::/64", "fd00:a::1", "fd00:a::2", "fd00:a::ffff")
    b = await subnet(served.cloud, id, "fd00:b::/64", "fd00:b::1", "fd00:b::2", "fd00:b::ffff")
    router = await _make(member)
    one = f"/routers/{router['id']}"
    first = await member("PUT", f"{one}/add_router_interface", {"subnet_id": a})
    second = await member("PUT", f"{one}/add_router_interface", {"subnet_id": b})
    assert first["port_id"] == second["port_id"]
    document = await served.cloud.documents.get(PORT, first["port_id"])
    assert [it.ip_address for it in document.state.fixed_ips] == ["fd00:a::1", "fd00:b::1"]
    await member("PUT", f"{one}/remove_router_interface", {"subnet_id": a})
    document = await served.cloud.documents.get(PORT, first["port_id"])
    assert [it.ip_address for it in document.state.fixed_ips] == ["fd00:b::1"]
    await member("PUT", f"{one}/remove_router_interface", {"port_id": first["port_id"]})
    assert await addresses(served.cloud) == {}


async def test_extra_routes(member, inner):
    router = await _make(member)
    one = f"/routers/{router['id']}"
    await member("PUT", f"{one}/add_router_interface", {"subnet_id": inner[1]})
    first, second = (
        {"destination": "192.0.2.0/24", "nexthop": "10.0.0.9"},
        {"destination": "198.51.100.0/24", "nexthop": "10.0.0.9"},
    )
    assert (await member("PUT", one, {"router": {"routes": [first]}}))["router"]["routes"] == [first]
    added = await member("PUT", f"{one}/add_extraroutes", {"router": {"routes": [first, second]}})
    assert added["router"]["routes"] == [first, second]
    left = await member("PUT", f"{one}/remove_extraroutes", {"router": {"routes": [first]}})
    assert left["router"]["routes"] == [second]
    far = {"destination": "192.0.2.0/24", "nexthop": "172.16.0.1"}
    await member.refused("PUT", one, {"router": {"routes": [far]}}, 400, "InvalidRoutes")
    await member.refused(
        "PUT", f"{one}/remove_router_interface", {"subnet_id": inner[1]}, 409, "RouterInterfaceInUseByRoute"
    )
    assert (await member("PUT", one, {"router": {"routes": []}}))["router"]["routes"] == []


async def test_bodies_that_do_not_fit_are_refused(member, admin):
    assert "Unrecognized attribute(s) 'colour'" in await member.refused(
        "POST", "/routers", {"router": {"colour": "red"}}, 400, "HTTPBadRequest"
    )
    await member.refused("POST", "/routers", {"router": {"name": "n" * 256}}, 400, "HTTPBadRequest")
    await member.refused("POST", "/routers", {}, 400, "HTTPBadRequest")
    await member.refused("POST", "/routers", {"router": {"ha": True}}, 403, "PolicyNotAuthorized")
    await admin.refused("POST", "/routers", {"router": {"ha": True}}, 400, "BadRequest")
    await _make(admin, ha=False, distributed=False)
    await member.refused("POST", "/routers", {"router": {"project_id": "q" * 32}}, 400, "HTTPBadRequest")
    assert (await _make(admin, tenant_id="q" * 32))["project_id"] == "q" * 32


async def test_others_do_not_see_it(served, member):
    router = await _make(member)
    stranger = Client(served, await served.token("member", project="q" * 32))
    await stranger.refused("GET", f"/routers/{router['id']}", None, 404, "RouterNotFound")
    assert (await stranger("GET", "/routers"))["routers"] == []
    reader = Client(served, await served.token("reader"))
    await reader("GET", f"/routers/{router['id']}")
    await reader.refused("DELETE", f"/routers/{router['id']}", None, 403, "PolicyNotAuthorized")


async def test_tags_revisions_and_pages(member):
    routers = [await _make(member, name=f"r{n}") for n in range(5)]
    one = f"/routers/{routers[0]['id']}"
    await member("PUT", f"{one}/tags/red", expect=201)
    assert await member("PUT", f"{one}/tags", {"tags": ["red", "blue"]}) == {"tags": ["red", "blue"]}
    await member("GET", f"{one}/tags/red", expect=204)
    assert [it["name"] for it in (await member("GET", "/routers?tags=red,blue"))["routers"]] == ["r0"]
    assert len((await member("GET", "/routers?not-tags=red"))["routers"]) == 4
    await member("DELETE", f"{one}/tags/red", expect=204)
    await member.refused("DELETE", f"{one}/tags/red", None, 404, "TagNotFound")
    await member("DELETE", f"{one}/tags", expect=204)
    revision = (await member("GET", one))["router"]["revision_number"]
    await member("PUT", one, {"router": {"name": "x"}}, expect=412, If_Match=f"revision_number={revision - 1}")
    await member("PUT", one, {"router": {"name": "r0"}}, If_Match=f"revision_number={revision}")
    seen, path = [], "/routers?limit=2&sort_key=name&sort_dir=desc"
    while path:
        page = await member("GET", path)
        seen += [it["name"] for it in page["routers"]]
        following = [it["href"] for it in page.get("routers_links", []) if it["rel"] == "next"]
        path = following[0].partition("/networking/v2.0")[2] if following else ""
    assert seen == ["r4", "r3", "r2", "r1", "r0"]
    back = await member("GET", f"/routers?limit=2&sort_key=name&page_reverse=True&marker={routers[4]['id']}")
    assert [it["name"] for it in back["routers"]] == ["r2", "r3"]
    await member.refused("GET", "/routers?colour=red", None, 400, "HTTPBadRequest")
    await member.refused("GET", "/routers?sort_key=colour", None, 400, "HTTPBadRequest")


async def test_one_of_two_routers_gets_a_subnets_gateway_address(served, member, inner):
    routers = [await _make(member) for _ in range(4)]
    answers = await asyncio.gather(
        *(
            served.call(
                "PUT",
                f"/networking/v2.0/routers/{router['id']}/add_router_interface",
                {"subnet_id": inner[1]},
                token=member.token,
            )
            for router in routers
        )
    )
    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409]
    assert list(await addresses(served.cloud)) == ["10.0.0.1"]
    assert len(await served.cloud.documents.find(PORT)) == 1


async def test_changes_of_a_way_out_at_once_leave_no_port_behind(served, member, outside):
    other = await network(served.cloud, external=True, project="operators")
    await subnet(served.cloud, other, "198.51.100.0/27", "198.51.100.1", "198.51.100.2", "198.51.100.30", "operators")
    router = await _make(member)
    bodies = [{"network_id": outside}, {"network_id": other}, {}] * 4
    await asyncio.gather(
        *(member("PUT", f"/routers/{router['id']}", {"router": {"external_gateway_info": body}}) for body in bodies)
    )
    way = (await member("GET", f"/routers/{router['id']}"))["router"]["external_gateway_info"]
    ports = await served.cloud.documents.find(PORT)
    assert len(ports) == (0 if way is None else 1)
    assert len(await addresses(served.cloud)) == len(ports)
