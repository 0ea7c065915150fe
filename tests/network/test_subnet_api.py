"""Subnets over HTTP: their ranges, who is told what in them, and the DHCP port that answers there."""

import asyncio

import pytest
from msgspec.structs import replace

from handlers.network.addressing import eui64
from schema.network.port import PORT
from schema.network.quota import NETWORK_USAGE, usage_id
from schema.network.subnet import SUBNET
from tests.network.routed import PROJECT, Client, port


@pytest.fixture
async def network(member):
    return (await member("POST", "/networks", {"network": {"name": "net"}}, expect=201))["network"]["id"]


def _body(network, cidr="10.0.0.0/24", **fields):
    return {"subnet": {"network_id": network, "ip_version": 6 if ":" in cidr else 4, "cidr": cidr, **fields}}


async def _make(client, network, cidr="10.0.0.0/24", **fields):
    return (await client("POST", "/subnets", _body(network, cidr, **fields), expect=201))["subnet"]


async def _dhcp(served):
    """The DHCP ports there are."""
    found = [it.state for it in await served.cloud.documents.find(PORT)]
    return [it for it in found if it.device_owner == "network:dhcp"]


async def _held(served, id):
    """Address → the port that has it."""
    allocation = (await served.cloud.documents.get(SUBNET, id)).state.allocation
    ports = [it.state for it in await served.cloud.documents.find(PORT)]
    held = {it.ip_address: port.id for port in ports for it in port.fixed_ips if it.subnet_id == id}
    assert len(allocation) == len(held)
    assert all(allocation.given_to(ip, port_id) for ip, port_id in held.items())
    return held


async def test_a_subnets_life(served, member, network):
    made = await _make(member, network, name="inner", description="d", dns_nameservers=["9.9.9.9", "8.8.8.8"])
    assert (made["gateway_ip"], made["ip_version"], made["enable_dhcp"]) == ("10.0.0.1", 4, True)
    assert made["allocation_pools"] == [{"start": "10.0.0.2", "end": "10.0.0.254"}]
    assert made["dns_nameservers"] == ["9.9.9.9", "8.8.8.8"]
    assert (made["host_routes"], made["service_types"], made["tags"]) == ([], [], [])
    assert made["ipv6_ra_mode"] is made["ipv6_address_mode"] is made["subnetpool_id"] is None
    assert made["project_id"] == made["tenant_id"] == PROJECT
    assert made["revision_number"] == 1
    assert "segment_id" not in made
    assert (await member("GET", f"/networks/{network}"))["network"]["subnets"] == [made["id"]]
    one = f"/subnets/{made['id']}"
    route = {"destination": "192.0.2.0/24", "nexthop": "10.0.0.9"}
    changed = await member("PUT", one, {"subnet": {"name": "x", "host_routes": [route], "dns_nameservers": []}})
    assert (changed["subnet"]["name"], changed["subnet"]["host_routes"]) == ("x", [route])
    assert (changed["subnet"]["dns_nameservers"], changed["subnet"]["revision_number"]) == ([], 2)
    assert (await member("GET", "/subnets?changed_since=2999-01-01T00:00:00"))["subnets"] == []
    assert len((await member("GET", f"/subnets?changed_since={made['created_at']}"))["subnets"]) == 1
    listed = await member("GET", f"/subnets?network_id={network}&cidr=10.0.0.0/24&ip_version=4&enable_dhcp=true")
    assert [it["id"] for it in listed["subnets"]] == [made["id"]]
    for name in ("cidr", "ip_version", "network_id", "ipv6_ra_mode"):
        message = await member.refused("PUT", one, {"subnet": {name: made[name]}}, 400, "HTTPBadRequest")
        assert f"Cannot update read-only attribute {name}" in message
    await member("DELETE", one, expect=204)
    await member.refused("GET", one, None, 404, "SubnetNotFound")
    assert (await member("GET", f"/networks/{network}"))["network"]["subnets"] == []
    assert await _dhcp(served) == []


@pytest.mark.parametrize(
    "cidr, gateway, pools",
    [
        ("10.0.0.0/24", {"gateway_ip": "10.0.0.254"}, [("10.0.0.1", "10.0.0.253")]),
        ("10.0.0.0/24", {"gateway_ip": "10.0.0.100"}, [("10.0.0.1", "10.0.0.99"), ("10.0.0.101", "10.0.0.254")]),
        ("10.0.0.0/24", {"gateway_ip": None}, [("10.0.0.1", "10.0.0.254")]),
        ("10.0.0.0/24", {"gateway_ip": "192.0.2.1"}, [("10.0.0.1", "10.0.0.254")]),
        ("fd00::/64", {}, [("fd00::2", "fd00::ffff:ffff:ffff:ffff")]),
        ("10.0.0.0/30", {}, [("10.0.0.2", "10.0.0.2")]),
        ("10.0.0.0/31", {"enable_dhcp": False}, [("10.0.0.0", "10.0.0.0")]),
    ],
)
async def test_pools_are_around_the_gateway(member, network, cidr, gateway, pools):
    made = await _make(member, network, cidr, **gateway)
    assert [(it["start"], it["end"]) for it in made["allocation_pools"]] == pools


IN_USE = {"start": "10.0.0.5", "end": "10.0.0.9"}


@pytest.mark.parametrize(
    "said, cidr", [("10.0.0.77/24", "10.0.0.0/24"), ("10.99.99.0/16", "10.99.0.0/16"), ("fd00::5/64", "fd00::/64")]
)
async def test_bits_beyond_the_prefix_are_cut_off(member, network, said, cidr):
    assert (await _make(member, network, said))["cidr"] == cidr


@pytest.mark.parametrize(
    "cidr, fields, status, type, why",
    [
        ("10.0.0.0/24", {"allocation_pools": [IN_USE, IN_USE]}, 409, "OverlappingAllocationPools", "10.0.0.5-10.0.0.9"),
        (
            "10.0.0.0/24",
            {"allocation_pools": [{"start": "10.0.0.9", "end": "10.0.0.5"}]},
            400,
            "InvalidAllocationPool",
            "10.0.0.9-10.0.0.5 is not valid",
        ),
        (
            "10.0.0.0/24",
            {"allocation_pools": [{"start": "10.0.0.250", "end": "10.0.1.5"}]},
            400,
            "OutOfBoundsAllocationPool",
            "spans beyond the subnet cidr 10.0.0.0/24",
        ),
        (
            "10.0.0.0/24",
            {"allocation_pools": [IN_USE], "gateway_ip": "10.0.0.7"},
            409,
            "GatewayConflictWithAllocationPools",
            "Gateway ip 10.0.0.7 conflicts with allocation pool 10.0.0.5-10.0.0.9",
        ),
        ("10.0.0.0/24", {"gateway_ip": "10.0.0.0"}, 400, "InvalidInput", "Gateway is not valid on subnet"),
        ("10.0.0.0/24", {"gateway_ip": "fd00::1"}, 400, "InvalidInput", "does not match the ip_version '4'"),
        ("10.0.0.0/24", {"ip_version": 6}, 400, "InvalidInput", "does not match the ip_version '6'"),
        ("10.0.0.0/24", {"ip_version": 5}, 400, "HTTPBadRequest", "ip_version"),
        ("10.0.0.0/33", {}, 400, "HTTPBadRequest", "Invalid input for cidr"),
        ("10.0.0.0", {}, 400, "HTTPBadRequest", "Invalid input for cidr"),
        ("0.0.0.0/0", {}, 400, "InvalidInput", "0 is not allowed as CIDR prefix length"),
        ("10.0.0.0/31", {}, 400, "InvalidInput", "incompatible with DHCP"),
        ("224.0.0.0/24", {}, 400, "InvalidInput", "Multicast IP subnet is not supported"),
        ("127.0.0.0/24", {}, 400, "InvalidInput", "Loopback IP subnet is not supported"),
        ("10.0.0.0/24", {"dns_nameservers": ["fd00::1"]}, 400, "InvalidInput", "dns_nameserver 'fd00::1'"),
        ("10.0.0.0/24", {"dns_nameservers": ["9.9.9.9"] * 2}, 400, "HTTPBadRequest", "Duplicate nameserver"),
        ("10.0.0.0/24", {"dns_nameservers": ["a.example"]}, 400, "HTTPBadRequest", "not a valid IP address"),
        (
            "10.0.0.0/24",
            {"dns_nameservers": [f"9.9.9.{n}" for n in range(6)]},
            400,
            "DNSNameServersExhausted",
            "exceeds the limit 5",
        ),
        (
            "10.0.0.0/24",
            {"host_routes": [{"destination": f"192.0.2.{n}/32", "nexthop": "10.0.0.9"} for n in range(21)]},
            400,
            "HostRoutesExhausted",
            "exceeds the limit 20",
        ),
        ("10.0.0.0/24", {"ipv6_ra_mode": "slaac"}, 400, "InvalidInput", "not valid when ip_version is 4"),
        ("fd00::/64", {"ipv6_ra_mode": "radvd"}, 400, "HTTPBadRequest", "ipv6_ra_mode"),
        ("fd00::/64", {"ipv6_ra_mode": "slaac", "enable_dhcp": False}, 400, "InvalidInput", "enable_dhcp"),
        (
            "fd00::/64",
            {"ipv6_ra_mode": "slaac", "ipv6_address_mode": "dhcpv6-stateful"},
            400,
            "InvalidInput",
            "they must be the same value",
        ),
        ("fd00::/80", {"ipv6_address_mode": "slaac"}, 400, "InvalidInput", "requires the prefix to be /64"),
        ("10.0.0.0/24", {"subnetpool_id": "5" * 32}, 404, "SubnetPoolNotFound", "could not be found"),
        ("10.0.0.0/24", {"cidr": None}, 400, "BadRequest", "a subnetpool must be specified"),
        ("10.0.0.0/24", {"use_default_subnetpool": True}, 400, "BadRequest", "No default subnetpool found for IPv4"),
    ],
)
async def test_what_cannot_be_is_refused(member, network, cidr, fields, status, type, why):
    body = _body(network, cidr)
    body["subnet"] |= fields
    assert why in await member.refused("POST", "/subnets", body, status, type)


async def test_ranges_of_a_network_do_not_overlap(member, network):
    await _make(member, network)
    message = await member.refused("POST", "/subnets", _body(network, "10.0.0.128/25"), 400, "InvalidInput")
    assert f"Requested subnet with cidr: 10.0.0.128/25 for network: {network} overlaps with another subnet" in message
    both = {"subnets": [_body(network, it)["subnet"] for it in ("10.1.0.0/24", "10.1.0.0/25")]}
    await member.refused("POST", "/subnets", both, 400, "InvalidInput")
    asked = [
        member.served.call("POST", "/networking/v2.0/subnets", _body(network, "10.2.0.0/24"), token=member.token)
        for _ in range(5)
    ]
    assert sorted(it.status for it in await asyncio.gather(*asked)) == [201, 400, 400, 400, 400]


async def test_several_at_once(served, member, network):
    bodies = {"subnets": [_body(network, f"10.{n}.0.0/24", name=f"s{n}")["subnet"] for n in range(4)]}
    made = (await member("POST", "/subnets", bodies, expect=201))["subnets"]
    assert [it["name"] for it in made] == ["s0", "s1", "s2", "s3"]
    [dhcp] = await _dhcp(served)
    assert {it.ip_address for it in dhcp.fixed_ips} == {f"10.{n}.0.2" for n in range(4)}


async def test_dhcp_is_answered_at_one_port(served, member, network):
    first = await _make(member, network)
    [dhcp] = await _dhcp(served)
    assert (dhcp.status, dhcp.project_id, dhcp.device_id.endswith(f"-{network}")) == ("ACTIVE", PROJECT, True)
    assert await _held(served, first["id"]) == {"10.0.0.2": dhcp.id}
    usage = await served.cloud.documents.get(NETWORK_USAGE, usage_id(PROJECT, "port"))
    assert usage.state.used == 1
    silent = await _make(member, network, "10.1.0.0/24", enable_dhcp=False)
    assert await _held(served, silent["id"]) == {}
    one, other = f"/subnets/{first['id']}", f"/subnets/{silent['id']}"
    await member("PUT", other, {"subnet": {"enable_dhcp": True}})
    [dhcp] = await _dhcp(served)
    assert [it.ip_address for it in dhcp.fixed_ips] == ["10.0.0.2", "10.1.0.2"]
    await member("PUT", one, {"subnet": {"enable_dhcp": False}})
    assert await _held(served, first["id"]) == {}
    await member("DELETE", other, expect=204)
    assert await _dhcp(served) == []
    usage = await served.cloud.documents.get(NETWORK_USAGE, usage_id(PROJECT, "port"))
    assert usage.state.used == 0
    await member("PUT", one, {"subnet": {"enable_dhcp": True}})
    [again] = await _dhcp(served)
    assert (again.id != dhcp.id, await _held(served, first["id"])) == (True, {"10.0.0.2": again.id})


async def test_however_many_come_at_once_there_is_one_dhcp_port(served, member, network):
    made = await asyncio.gather(*(_make(member, network, f"10.{n}.0.0/24") for n in range(8)))
    [dhcp] = await _dhcp(served)
    assert {it.ip_address for it in dhcp.fixed_ips} == {f"10.{n}.0.2" for n in range(8)}
    await asyncio.gather(*(member("DELETE", f"/subnets/{it['id']}", expect=204) for it in made))
    assert await _dhcp(served) == []


async def test_a_subnet_whose_addresses_are_held_stays(served, member, network):
    made = await _make(member, network)
    id = await port(served.cloud, network, {made["id"]: "10.0.0.77"})
    message = await member.refused("DELETE", f"/subnets/{made['id']}", None, 409, "SubnetInUse")
    assert "One or more ports have an IP allocation from this subnet" in message
    assert id in await member.refused("DELETE", f"/networks/{network}", None, 409, "NetworkInUse")
    assert len(await _dhcp(served)) == 1


async def test_pools_and_gateway_change(served, member, network):
    made = await _make(member, network, allocation_pools=[{"start": "10.0.0.10", "end": "10.0.0.20"}])
    one = f"/subnets/{made['id']}"
    pools = [{"start": "10.0.0.30", "end": "10.0.0.40"}]
    assert (await member("PUT", one, {"subnet": {"allocation_pools": pools}}))["subnet"]["allocation_pools"] == pools
    conflict = {"subnet": {"gateway_ip": "10.0.0.33"}}
    await member.refused("PUT", one, conflict, 409, "GatewayConflictWithAllocationPools")
    router = (await member("POST", "/routers", {"router": {}}, expect=201))["router"]
    await member("PUT", f"/routers/{router['id']}/add_router_interface", {"subnet_id": made["id"]})
    message = await member.refused("PUT", one, {"subnet": {"gateway_ip": "10.0.0.2"}}, 409, "GatewayIpInUse")
    assert "Current gateway ip 10.0.0.1 already in use by port" in message
    await member.refused("DELETE", one, None, 409, "SubnetInUse")
    await member("PUT", f"/routers/{router['id']}/remove_router_interface", {"subnet_id": made["id"]})
    assert (await member("PUT", one, {"subnet": {"gateway_ip": None}}))["subnet"]["gateway_ip"] is None


async def test_ports_get_an_address_when_slaac_comes(served, member, network):
    first = await _make(member, network)
    id = await port(served.cloud, network, {first["id"]: "10.0.0.77"})
    slaac = await _make(member, network, "fd00:1::/64", ipv6_ra_mode="slaac", ipv6_address_mode="slaac")
    guest = (await served.cloud.documents.get(PORT, id)).state
    [dhcp] = await _dhcp(served)
    mine, its = eui64("fd00:1::/64", guest.mac_address), eui64("fd00:1::/64", dhcp.mac_address)
    assert [it.ip_address for it in guest.fixed_ips] == ["10.0.0.77", mine]
    assert await _held(served, slaac["id"]) == {mine: id, its: dhcp.id}
    await member("DELETE", f"/subnets/{slaac['id']}", expect=204)
    assert [it.ip_address for it in (await served.cloud.documents.get(PORT, id)).state.fixed_ips] == ["10.0.0.77"]
    stateful = {"ipv6_ra_mode": "dhcpv6-stateful", "ipv6_address_mode": "dhcpv6-stateful"}
    await _make(member, network, "fd00:2::/64", **stateful)
    assert [it.ip_address for it in (await served.cloud.documents.get(PORT, id)).state.fixed_ips] == ["10.0.0.77"]


async def test_ipv6_wants_room(member, network):
    await member("PUT", f"/networks/{network}", {"network": {"mtu": 1200}})
    await member.refused("POST", "/subnets", _body(network, "fd00::/64"), 409, "NetworkMTUSubnetConflict")
    await member("PUT", f"/networks/{network}", {"network": {"mtu": 1280}})
    await _make(member, network, "fd00::/64")
    await member.refused("PUT", f"/networks/{network}", {"network": {"mtu": 1279}}, 409, "NetworkMTUSubnetConflict")


async def test_service_types_and_segments(member, admin, network):
    made = await _make(member, network, service_types=["compute:nova", "network:dhcp"])
    assert made["service_types"] == ["compute:nova", "network:dhcp"]
    assert (await admin("GET", f"/subnets/{made['id']}"))["subnet"]["segment_id"] is None
    wrong = _body(network, "10.1.0.0/24", service_types=["nova"])
    await admin.refused("POST", "/subnets", wrong, 400, "InvalidSubnetServiceType")
    lost = _body(network, "10.1.0.0/24", segment_id="5" * 32)
    await admin.refused("POST", "/subnets", lost, 404, "SegmentNotFound")
    await member.refused("POST", "/subnets", lost, 403, "PolicyNotAuthorized")


async def test_a_networks_owner_rules_its_subnets(served, admin, member, network):
    made = await _make(admin, network, project_id="q" * 32)
    changed = await member("PUT", f"/subnets/{made['id']}", {"subnet": {"name": "mine after all"}})
    assert changed["subnet"]["project_id"] == "q" * 32
    stranger = Client(served, await served.token("member", project="r" * 32))
    await stranger.refused("GET", f"/subnets/{made['id']}", None, 404, "SubnetNotFound")
    assert (await stranger("GET", "/subnets"))["subnets"] == []


async def test_there_are_no_more_than_the_quota(served, member, network):
    settings = served.cloud.settings
    served.cloud.settings = replace(settings, network_quota=replace(settings.network_quota, network=1, subnet=1))
    await member.refused("POST", "/networks", {"network": {}}, 409, "OverQuota")
    made = await _make(member, network)
    await member.refused("POST", "/subnets", _body(network, "10.1.0.0/24"), 409, "OverQuota")
    await member("DELETE", f"/subnets/{made['id']}", expect=204)
    await _make(member, network, "10.1.0.0/24")
    await member("DELETE", f"/networks/{network}", expect=204)
    await member("POST", "/networks", {"network": {}}, expect=201)
