"""Networks over HTTP: what Neutron's clients rely on."""

import asyncio
import uuid

import msgspec
import pytest

from api.network.service import SERVICE
from bus.execute import Wish
from handlers.network.host import NETWORK_HOSTS
from schema.network.host import RegisterNetworkHost
from schema.network.port import PORT
from schema.network.subnet import SUBNET
from schema.network.wiring import NetworkHostFacts
from tests.network.routed import PROJECT, Client, network, port
from tests.serving import serving


async def _make(client, **fields):
    return (await client("POST", "/networks", {"network": fields}, expect=201))["network"]


async def _subnet(client, network, cidr="10.0.0.0/24", **fields):
    body = {"network_id": network["id"], "ip_version": 6 if ":" in cidr else 4, "cidr": cidr, **fields}
    return (await client("POST", "/subnets", {"subnet": body}, expect=201))["subnet"]


async def test_a_networks_life(member):
    made = await _make(member, name="private", description="d", dns_domain="Here.Example.", tags=["red"])
    assert made["status"] == "ACTIVE"
    assert made["project_id"] == made["tenant_id"] == PROJECT
    assert (made["subnets"], made["mtu"], made["revision_number"]) == ([], 1450, 1)
    assert (made["shared"], made["router:external"], made["is_default"]) == (False, False, False)
    assert (made["port_security_enabled"], made["admin_state_up"], made["vlan_transparent"]) == (True, True, False)
    assert (made["dns_domain"], made["tags"]) == ("here.example.", ["red"])
    assert made["ipv4_address_scope"] is made["ipv6_address_scope"] is made["qos_policy_id"] is None
    assert not [name for name in made if name.startswith("provider:")]
    one = f"/networks/{made['id']}"
    changed = (await member("PUT", one, {"network": {"name": "inner", "mtu": 1400}}))["network"]
    assert (changed["name"], changed["mtu"], changed["revision_number"]) == ("inner", 1400, 2)
    assert (await member("PUT", one, {"network": {"mtu": 0}}))["network"]["mtu"] == 1450
    assert [it["id"] for it in (await member("GET", "/networks?name=inner&mtu=1450"))["networks"]] == [made["id"]]
    assert (await member("GET", "/networks?tags=blue"))["networks"] == []
    await member("DELETE", one, expect=204)
    await member.refused("GET", one, None, 404, "NetworkNotFound")
    await member.refused("DELETE", one, None, 404, "NetworkNotFound")


async def test_networks_by_the_dozen(member):
    bodies = [{"name": f"n{n}"} for n in range(12)]
    made = (await member("POST", "/networks", {"networks": bodies}, expect=201))["networks"]
    assert [it["name"] for it in made] == [it["name"] for it in bodies]
    assert "Resources required" in await member.refused("POST", "/networks", {"networks": []}, 400, "HTTPBadRequest")
    assert "Unable to find 'network'" in await member.refused("POST", "/networks", {}, 400, "HTTPBadRequest")
    await member.refused("POST", "/networks", {"networks": [{"name": "ok"}, {"mtu": 9999}]}, 400, "InvalidInput")
    assert (await member("GET", "/networks?name=ok"))["networks"] == [], "all or none"


async def test_how_it_is_carried_is_the_operators(member, admin):
    body = {"network": {"provider:network_type": "vxlan"}}
    await member.refused("POST", "/networks", body, 403, "PolicyNotAuthorized")
    await member.refused("POST", "/networks", {"network": {"shared": True}}, 403, "PolicyNotAuthorized")
    await member.refused("POST", "/networks", {"network": {"router:external": True}}, 403, "PolicyNotAuthorized")
    await _make(member, shared=False, is_default=False, **{"router:external": False})
    made = await _make(admin)
    assert (made["provider:network_type"], made["provider:physical_network"]) == ("vxlan", None)
    assert 1 <= made["provider:segmentation_id"] < 1 << 24
    vlan = {"provider:network_type": "vlan", "provider:physical_network": "external"}
    tagged = await _make(admin, **vlan, **{"provider:segmentation_id": "42"})
    assert (tagged["provider:segmentation_id"], tagged["mtu"]) == (42, 1500)
    listed = await admin("GET", "/networks?provider:network_type=vlan&provider:segmentation_id=42")
    assert [it["id"] for it in listed["networks"]] == [tagged["id"]]
    assert [it["id"] for it in (await admin("GET", "/networks?provider:network_type=vxlan"))["networks"]] != []
    again = {"network": {**vlan, "provider:segmentation_id": 42}}
    assert "The VLAN 42 on physical network external is in use" in await admin.refused(
        "POST", "/networks", again, 409, "VlanIdInUse"
    )
    assert (await _make(admin, **vlan))["provider:segmentation_id"] in range(1, 4095)
    change = {"network": {"provider:segmentation_id": 7}}
    await member.refused("PUT", f"/networks/{made['id']}", change, 403, "PolicyNotAuthorized")
    await admin.refused("PUT", f"/networks/{made['id']}", change, 400, "InvalidInput")


@pytest.mark.parametrize(
    "fields, why",
    [
        ({"network_type": "gre"}, "network_type value 'gre' not supported"),
        ({"segmentation_id": 7}, "network_type required"),
        ({"network_type": "flat"}, "physical_network required"),
        ({"network_type": "flat", "physical_network": "moon"}, "physical_network 'moon' unknown for flat"),
        ({"network_type": "flat", "physical_network": "external", "segmentation_id": 1}, "prohibited for flat"),
        ({"network_type": "vlan", "segmentation_id": 7}, "segmentation_id requires physical_network"),
        ({"network_type": "vlan", "physical_network": "moon"}, "unknown for VLAN"),
        ({"network_type": "vlan", "physical_network": "external", "segmentation_id": 4095}, "1 through 4094"),
        ({"network_type": "vxlan", "physical_network": "external"}, "specified for vxlan"),
        ({"network_type": "vxlan", "segmentation_id": 1 << 24}, "out of range"),
        ({"network_type": "local", "segmentation_id": 7}, "prohibited for local"),
    ],
)
async def test_what_nothing_carries_is_refused(admin, fields, why):
    body = {"network": {f"provider:{name}": value for name, value in fields.items()}}
    assert why in await admin.refused("POST", "/networks", body, 400, "InvalidInput")


async def test_a_network_of_several_segments(admin, member):
    segments = [
        {"provider:network_type": "vxlan", "provider:segmentation_id": 5},
        {"provider:network_type": "vlan", "provider:physical_network": "external", "provider:segmentation_id": 6},
    ]
    made = await _make(admin, segments=segments)
    assert [it["provider:segmentation_id"] for it in made["segments"]] == [5, 6]
    assert (made["mtu"], "provider:network_type" in made) == (1450, False)
    await member.refused("POST", "/networks", {"network": {"segments": segments}}, 403, "PolicyNotAuthorized")
    both = {"segments": segments, "provider:network_type": "vxlan"}
    await admin.refused("POST", "/networks", {"network": both}, 400, "HTTPBadRequest")


async def test_vlans_are_for_hosts_that_carry_them(served, admin):
    facts = NetworkHostFacts(physical_networks=("datacentre",), endpoint_ip="192.0.2.1")
    await served.cloud.executor.execute(Wish(NETWORK_HOSTS, "h1", RegisterNetworkHost(agent_id="a", facts=facts)))
    flat = {"provider:network_type": "flat", "provider:physical_network": "datacentre"}
    await _make(admin, **flat)
    await admin.refused("POST", "/networks", {"network": flat}, 409, "FlatNetworkInUse")
    vlan = {"network": {"provider:network_type": "vlan", "provider:physical_network": "datacentre"}}
    await admin.refused("POST", "/networks", vlan, 400, "InvalidInput")
    facts = NetworkHostFacts(driver="ovs", capabilities=("vlan",), endpoint_ip="192.0.2.2")
    await served.cloud.executor.execute(Wish(NETWORK_HOSTS, "h2", RegisterNetworkHost(agent_id="b", facts=facts)))
    await admin("POST", "/networks", vlan, expect=201)
    found = (await admin("GET", "/availability_zones"))["availability_zones"]
    assert {(it["name"], it["resource"], it["state"]) for it in found} == {
        ("nova", "network", "available"),
        ("nova", "router", "available"),
    }


async def test_numbers_are_given_once_however_many_ask(served, admin):
    settings = served.cloud.settings
    network = msgspec.structs.replace(settings.network, vxlan_ids="100:119")
    served.cloud.settings = msgspec.structs.replace(settings, network=network)
    made = await asyncio.gather(*(_make(admin) for _ in range(20)))
    assert {it["provider:segmentation_id"] for it in made} == set(range(100, 120))
    body = {"network": {"name": "one too many"}}
    message = await admin.refused("POST", "/networks", body, 503, "NoNetworkAvailable")
    assert "No tenant network is available" in message
    await admin("DELETE", f"/networks/{made[0]['id']}", expect=204)
    assert (await _make(admin))["provider:segmentation_id"] == made[0]["provider:segmentation_id"]
    taken = {"network": {"provider:network_type": "vxlan", "provider:segmentation_id": 105}}
    await admin.refused("POST", "/networks", taken, 409, "TunnelIdInUse")


async def test_shared_networks(admin, member, stranger):
    network = await _make(admin, name="common", shared=True, project_id=PROJECT)
    one = f"/networks/{network['id']}"
    seen = (await stranger("GET", one))["network"]
    assert seen["shared"] is True
    assert [it["id"] for it in (await stranger("GET", "/networks?shared=true"))["networks"]] == [network["id"]]
    assert (await stranger("GET", "/networks?shared=false"))["networks"] == []
    await stranger.refused("PUT", one, {"network": {"name": "mine"}}, 403, "PolicyNotAuthorized")
    await stranger.refused("DELETE", one, None, 403, "PolicyNotAuthorized")
    await member.refused("PUT", one, {"network": {"shared": False}}, 403, "PolicyNotAuthorized")
    body = {"network_id": network["id"], "ip_version": 4, "cidr": "10.0.0.0/24"}
    await stranger.refused("POST", "/subnets", {"subnet": body}, 403, "PolicyNotAuthorized")
    subnet = await _subnet(admin, network)
    assert (await stranger("GET", f"/subnets/{subnet['id']}"))["subnet"]["id"] == subnet["id"]


async def test_a_network_somebody_else_is_in_stays_shared(served, admin):
    network = await _make(admin, shared=True)
    id = await port(served.cloud, network["id"], {}, project="q" * 32)
    body = {"network": {"shared": False}}
    message = await admin.refused("PUT", f"/networks/{network['id']}", body, 409, "InvalidSharedSetting")
    assert "Multiple tenants are using it" in message
    message = await admin.refused("DELETE", f"/networks/{network['id']}", None, 409, "NetworkInUse")
    assert id in message


async def test_outside_networks(admin, member, stranger):
    outside = await _make(admin, is_default=True, **{"router:external": True})
    assert (outside["router:external"], outside["is_default"], outside["shared"]) == (True, True, False)
    subnet = await _subnet(admin, outside, "203.0.113.0/27")
    listed = await stranger("GET", "/networks?router:external=True")
    assert [it["id"] for it in listed["networks"]] == [outside["id"]]
    assert (await stranger("GET", "/networks?router:external=False"))["networks"] == []
    assert (await stranger("GET", f"/subnets/{subnet['id']}"))["subnet"]["router:external"] is True
    assert [it["id"] for it in (await admin("GET", "/subnets?router:external=true"))["subnets"]] == [subnet["id"]]
    body = {"network": {"router:external": True, "is_default": True}}
    await admin.refused("POST", "/networks", body, 409, "DefaultExternalNetworkExists")
    gateway = {"external_gateway_info": {"network_id": outside["id"]}}
    router = (await member("POST", "/routers", {"router": gateway}, expect=201))["router"]
    one = f"/networks/{outside['id']}"
    await admin.refused("PUT", one, {"network": {"router:external": False}}, 409, "ExternalNetworkInUse")
    await admin.refused("DELETE", one, None, 409, "NetworkInUse")
    await admin.refused("DELETE", f"/subnets/{subnet['id']}", None, 409, "SubnetInUse")
    inner = {"subnet": {"network_id": outside["id"], "ip_version": 4, "cidr": "10.0.0.0/24"}}
    await stranger.refused("POST", "/subnets", inner, 403, "PolicyNotAuthorized")
    await member("DELETE", f"/routers/{router['id']}", expect=204)
    inner = (await admin("PUT", one, {"network": {"router:external": False}}))["network"]
    assert inner["router:external"] is False


async def test_floating_ips_that_lead_nowhere_go_with_an_outside_network(served, admin, member):
    outside = await _make(admin, **{"router:external": True})
    await _subnet(admin, outside, "203.0.113.0/27")
    body = {"floatingip": {"floating_network_id": outside["id"]}}
    await member("POST", "/floatingips", body, expect=201)
    await admin("DELETE", f"/networks/{outside['id']}", expect=204)
    assert (await member("GET", "/floatingips"))["floatingips"] == []
    assert await served.cloud.documents.find(PORT) == []


async def test_it_takes_its_subnets_and_its_dhcp_port_along(served, member):
    network = await _make(member)
    await _subnet(member, network)
    await _subnet(member, network, "fd00::/64", ipv6_ra_mode="slaac", ipv6_address_mode="slaac")
    [document] = await served.cloud.documents.find(PORT)
    assert len(document.state.fixed_ips) == 2
    await member("DELETE", f"/networks/{network['id']}", expect=204)
    assert await served.cloud.documents.find(PORT) == []
    assert await served.cloud.documents.find(SUBNET) == []


async def test_bodies_that_do_not_fit_are_refused(member, admin):
    for fields, why in (
        ({"colour": "red"}, "Unrecognized attribute(s) 'colour'"),
        ({"name": "n" * 256}, "Invalid input for name"),
        ({"mtu": -1}, "Invalid input for mtu"),
        ({"admin_state_up": "perhaps"}, "Invalid input for admin_state_up"),
        ({"dns_domain": "no-dot"}, "is not a FQDN"),
    ):
        assert why in await member.refused("POST", "/networks", {"network": fields}, 400, "HTTPBadRequest")
    hints = {"network": {"availability_zone_hints": ["moon"]}}
    await member.refused("POST", "/networks", hints, 404, "AvailabilityZoneNotFound")
    await member.refused("POST", "/networks", {"network": {"mtu": 1501}}, 400, "InvalidInput")
    opaque = {"network": {"vlan_transparent": True}}
    await member.refused("POST", "/networks", opaque, 409, "VlanTransparencyDriverError")
    await member.refused("POST", "/networks", {"network": {"project_id": "q" * 32}}, 400, "HTTPBadRequest")
    assert (await _make(admin, tenant_id="q" * 32))["project_id"] == "q" * 32
    await member.refused("GET", f"/networks/{uuid.uuid4()}", None, 404, "NetworkNotFound")


async def test_others_do_not_see_it(served, member, stranger):
    network = await _make(member)
    await stranger.refused("GET", f"/networks/{network['id']}", None, 404, "NetworkNotFound")
    await stranger.refused("DELETE", f"/networks/{network['id']}", None, 404, "NetworkNotFound")
    assert (await stranger("GET", "/networks"))["networks"] == []
    body = {"network_id": network["id"], "ip_version": 4, "cidr": "10.0.0.0/24"}
    await stranger.refused("POST", "/subnets", {"subnet": body}, 404, "NetworkNotFound")
    reader = Client(served, await served.token("reader"))
    await reader("GET", f"/networks/{network['id']}")
    await reader.refused("POST", "/networks", {"network": {}}, 403, "PolicyNotAuthorized")


async def test_who_provides_what(member):
    found = (await member("GET", "/service-providers"))["service_providers"]
    assert [it["service_type"] for it in found] == ["L3_ROUTER_NAT", "VPN"]
    assert (await member("GET", "/service-providers?service_type=VPN"))["service_providers"] == found[1:]


async def test_tags_revisions_and_pages(member):
    networks = [await _make(member, name=f"n{n}") for n in range(5)]
    one = f"/networks/{networks[0]['id']}"
    assert await member("PUT", f"{one}/tags", {"tags": ["red", "blue"]}) == {"tags": ["red", "blue"]}
    assert [it["name"] for it in (await member("GET", "/networks?tags=red,blue"))["networks"]] == ["n0"]
    more = await member("POST", f"{one}/tags", {"tags": ["green", "red"]}, expect=201)
    assert more == {"tags": ["blue", "green", "red"]}
    revision = (await member("GET", one))["network"]["revision_number"]
    await member("PUT", one, {"network": {"name": "x"}}, expect=412, If_Match=f"revision_number={revision - 1}")
    await member("PUT", one, {"network": {"name": "x"}}, If_Match=f"revision_number={revision}")
    insisting = {"If-Match": f"revision_number={revision + 1}"}
    path = f"/networking/v2.0{one}"
    outcomes = await asyncio.gather(
        *(
            member.served.call("PUT", path, {"network": {"description": who}}, token=member.token, headers=insisting)
            for who in ("ada", "bob", "eve")
        )
    )
    assert sorted(it.status for it in outcomes) == [200, 412, 412]
    assert len((await member("GET", "/networks?changed_since=2020-01-01T00:00:00Z"))["networks"]) == 5
    assert (await member("GET", "/networks?changed_since=2999-01-01T00:00:00"))["networks"] == []
    await member.refused("GET", "/networks?changed_since=yesterday", None, 400, "InvalidInput")
    page = await member("GET", "/networks?limit=2&sort_key=name&sort_dir=desc")
    assert [it["name"] for it in page["networks"]] == ["x", "n4"]
    assert [it["rel"] for it in page["networks_links"]] == ["next", "previous"]
    last = await member("GET", "/networks?limit=9&sort_key=name")
    assert [it["rel"] for it in last["networks_links"]] == ["previous"]
    beyond = await member("GET", f"/networks?limit=2&sort_key=name&marker={last['networks'][-1]['id']}")
    [back] = beyond["networks_links"]
    there = await member("GET", back["href"].partition("/networking/v2.0")[2])
    assert (beyond["networks"], [it["name"] for it in there["networks"]]) == ([], ["n4", "x"])
    assert await member("GET", f"{one}?fields=name") == {"network": {"name": "x"}}


async def test_a_list_longer_than_the_longest_page_says_where_it_goes_on(settings, fresh_database):
    async with serving(msgspec.structs.replace(settings, page_limit=3), fresh_database, [SERVICE]) as served:
        member = Client(served, await served.token("member"))
        network_id = await network(served.cloud)
        for _ in range(7):
            await member("POST", "/ports", {"port": {"network_id": network_id}}, expect=201)
        for _ in range(3):
            await member("POST", "/networks", {"network": {}}, expect=201)
        for plural, count in (("ports", 7), ("networks", 4)):
            found, path = [], f"/{plural}"
            while path:
                page = await member("GET", path)
                found += [it["id"] for it in page[plural]]
                ways = {it["rel"]: it["href"] for it in page.get(f"{plural}_links", [])}
                path = ways.get("next", "").partition("/networking/v2.0")[2]
            assert len(found) == len(set(found)) == count
