"""Segments, addresses left, zones and extensions over HTTP."""

import pytest

from bus.execute import Wish
from handlers.network.host import NETWORK_HOSTS
from schema.network.host import RegisterNetworkHost
from schema.network.wiring import NetworkHostFacts
from tests.network.routed import port


@pytest.fixture
async def network(member):
    return (await member("POST", "/networks", {"network": {"name": "net"}}, expect=201))["network"]["id"]


async def test_segments_one_by_one(admin, member, network):
    [first] = (await admin("GET", f"/segments?network_id={network}"))["segments"]
    assert (first["network_type"], first["revision_number"]) == ("vxlan", 0)
    body = {"network_id": network, "network_type": "vlan", "physical_network": "external", "name": "second"}
    made = (await admin("POST", "/segments", {"segment": body}, expect=201))["segment"]
    assert made["segmentation_id"] in range(1, 4095)
    assert made["created_at"] is not None
    one = f"/segments/{made['id']}"
    changed = (await admin("PUT", one, {"segment": {"name": None, "description": "d"}}))["segment"]
    assert (changed["name"], changed["description"], changed["revision_number"]) == (None, "d", 1)
    assert (await admin("GET", one))["segment"] == changed
    assert (await admin("GET", "/segments?network_type=vlan&fields=id"))["segments"] == [{"id": made["id"]}]
    shown = (await admin("GET", f"/networks/{network}"))["network"]
    assert [it["provider:network_type"] for it in shown["segments"]] == ["vxlan", "vlan"]
    taken = {"segment": {**body, "segmentation_id": made["segmentation_id"]}}
    await admin.refused("POST", "/segments", taken, 409, "VlanIdInUse")
    lost = {"segment": {**body, "network_id": made["id"]}}
    await admin.refused("POST", "/segments", lost, 404, "NetworkNotFound")
    await admin("DELETE", one, expect=204)
    await admin.refused("GET", one, None, 404, "SegmentNotFound")
    assert "no other" in await admin.refused("DELETE", f"/segments/{first['id']}", None, 409, "SegmentInUse")
    assert await member("GET", "/segments") == {"segments": []}


async def test_a_segment_with_subnets_stays(admin, network):
    body = {"network_id": network, "network_type": "vlan", "physical_network": "external"}
    segment = (await admin("POST", "/segments", {"segment": body}, expect=201))["segment"]["id"]
    body = {"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24", "segment_id": segment}
    subnet = (await admin("POST", "/subnets", {"subnet": body}, expect=201))["subnet"]
    assert subnet["segment_id"] == segment
    assert (await admin("GET", f"/networks/{network}"))["network"]["l2_adjacency"] is False
    assert subnet["id"] in await admin.refused("DELETE", f"/segments/{segment}", None, 409, "SegmentInUse")
    await admin("DELETE", f"/subnets/{subnet['id']}", expect=204)
    await admin("DELETE", f"/segments/{segment}", expect=204)


async def test_how_many_addresses_are_left(served, admin, member, network):
    for cidr, version in (("10.0.0.0/28", 4), ("fd00::/126", 6)):
        body = {"network_id": network, "ip_version": version, "cidr": cidr, "name": f"s{version}"}
        await member("POST", "/subnets", {"subnet": body}, expect=201)
    one = f"/network-ip-availabilities/{network}"
    found = (await admin("GET", one))["network_ip_availability"]
    assert (found["network_name"], found["used_ips"], found["total_ips"]) == ("net", 2, 13 + 2)
    parts = {it["subnet_name"]: it for it in found["subnet_ip_availability"]}
    assert (parts["s4"]["total_ips"], parts["s4"]["used_ips"], parts["s4"]["cidr"]) == (13, 1, "10.0.0.0/28")
    [listed] = (await admin("GET", "/network-ip-availabilities?network_name=net&ip_version=6"))[
        "network_ip_availabilities"
    ]
    assert (listed["network_id"], listed["total_ips"]) == (network, 2)
    await port(served.cloud, network, {parts["s4"]["subnet_id"]: "10.0.0.9"})
    assert (await admin("GET", one))["network_ip_availability"]["used_ips"] == 3
    await member.refused("GET", one, None, 403, "PolicyNotAuthorized")
    assert await member("GET", "/network-ip-availabilities") == {"network_ip_availabilities": []}


async def test_a_networks_revision_rises_with_its_subnets(member, network):
    body = {"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24"}
    subnet = (await member("POST", "/subnets", {"subnet": body}, expect=201))["subnet"]["id"]
    before = (await member("GET", f"/networks/{network}"))["network"]["revision_number"]
    await member("PUT", f"/subnets/{subnet}", {"subnet": {"name": "x"}})
    assert (await member("GET", f"/networks/{network}"))["network"]["revision_number"] == before + 1
    await member("PUT", f"/subnets/{subnet}", {"subnet": {"name": "x"}})
    assert (await member("GET", f"/networks/{network}"))["network"]["revision_number"] == before + 1


async def test_extensions_and_the_root(served, member):
    found = (await member("GET", "/extensions"))["extensions"]
    aliases = [it["alias"] for it in found]
    assert len(set(aliases)) == len(aliases)
    assert {"provider", "external-net", "net-mtu", "segment"} <= set(aliases)
    one = (await member("GET", "/extensions/provider"))["extension"]
    assert one == next(it for it in found if it["alias"] == "provider")
    assert set(one) == {"alias", "name", "description", "updated", "links"}
    message = await member.refused("GET", "/extensions/magic", None, 404, "HTTPNotFound")
    assert "Extension with alias magic does not exist" in message
    resources = (await member("GET", "/"))["resources"]
    assert {it["collection"] for it in resources} >= {"networks", "subnets", "ports"}
    assert resources[0]["links"] == [{"rel": "self", "href": f"{served.url}/networking/v2.0/networks"}]
    assert (await served.call("GET", "/networking/v2.0/")).status == 401
    assert (await served.call("GET", "/networking/")).json["versions"][0]["id"] == "v2.0"


async def test_a_port_of_a_routed_network_has_addresses_of_where_it_is_bound(served, admin):
    """Neutron's deferred allocation: until somebody says where, nobody knows of which segment."""
    for host, rack in (("h1", "external"), ("h2", "elsewhere"), ("h3", "nowhere")):
        facts = NetworkHostFacts(physical_networks=(rack,), capabilities=("vlan",))
        command = RegisterNetworkHost(agent_id=f"agent-{host}", facts=facts)
        await served.cloud.executor.execute(Wish(NETWORK_HOSTS, host, command))
    body = {"name": "racks", "provider:network_type": "vlan", "provider:physical_network": "external"}
    network = (await admin("POST", "/networks", {"network": body}, expect=201))["network"]["id"]
    body = {"network_id": network, "network_type": "vlan", "physical_network": "elsewhere"}
    await admin("POST", "/segments", {"segment": body}, expect=201)
    segments = (await admin("GET", f"/segments?network_id={network}"))["segments"]
    subnets = {}
    for number, segment in enumerate(segments):
        body = {"network_id": network, "ip_version": 4, "cidr": f"10.0.{number}.0/24", "segment_id": segment["id"]}
        subnet = (await admin("POST", "/subnets", {"subnet": body}, expect=201))["subnet"]["id"]
        subnets[segment["physical_network"]] = subnet

    async def made(**fields):
        return (await admin("POST", "/ports", {"port": {"network_id": network, **fields}}, expect=201))["port"]

    def places(port):
        return [it["subnet_id"] for it in port["fixed_ips"]]

    late = await made()
    assert (late["fixed_ips"], late["ip_allocation"]) == ([], "deferred")
    bound = (await admin("PUT", f"/ports/{late['id']}", {"port": {"binding:host_id": "h2"}}))["port"]
    assert (places(bound), bound["ip_allocation"]) == ([subnets["elsewhere"]], "immediate")
    again = (await admin("PUT", f"/ports/{late['id']}", {"port": {"binding:host_id": "h1"}}))["port"]
    assert again["fixed_ips"] == bound["fixed_ips"]
    assert places(await made(**{"binding:host_id": "h1"})) == [subnets["external"]]
    assert places(await made(fixed_ips=[{"subnet_id": subnets["elsewhere"]}])) == [subnets["elsewhere"]]
    assert (await made(fixed_ips=[]))["ip_allocation"] == "none"
    body = {"port": {"network_id": network, "binding:host_id": "h3"}}
    words = await admin.refused("POST", "/ports", body, 409, "HostNotConnectedToAnySegment")
    assert f"Host h3 is not connected to any segments on routed provider network '{network}'" in words
    used = (await admin("GET", f"/network-ip-availabilities/{network}"))["network_ip_availability"]
    assert used["used_ips"] == 3 + len(subnets)
