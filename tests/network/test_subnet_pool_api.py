"""Subnet pools and address scopes over HTTP: ranges come from them, none twice, and come back."""

import asyncio
import ipaddress
import uuid

from tests.network.routed import OTHERS


async def _pool(who, *prefixes, expect=201, **fields):
    answer = await who("POST", "/subnetpools", {"subnetpool": {"prefixes": list(prefixes), **fields}}, expect=expect)
    return answer["subnetpool"] if expect == 201 else answer["NeutronError"]


async def _network(who):
    return (await who("POST", "/networks", {"network": {}}, expect=201))["network"]["id"]


async def _subnet(who, expect=201, **fields):
    fields.setdefault("network_id", await _network(who))
    fields.setdefault("ip_version", 4)
    answer = await who("POST", "/subnets", {"subnet": fields}, expect=expect)
    return answer["subnet"] if expect == 201 else answer["NeutronError"]


async def test_a_pool_shows_what_neutron_shows_and_changes(member):
    made = await _pool(member, "10.0.1.0/24", "10.0.0.0/24", name="p", default_prefixlen=26)
    assert (made["prefixes"], made["ip_version"]) == (["10.0.0.0/23"], 4)
    assert (made["min_prefixlen"], made["max_prefixlen"], made["default_prefixlen"]) == ("8", "32", "26")
    assert (made["shared"], made["is_default"], made["default_quota"], made["revision_number"]) == (
        False,
        False,
        None,
        1,
    )
    one = f"/subnetpools/{made['id']}"
    change = {"name": "q", "min_prefixlen": 24, "prefixes": ["10.0.0.0/22"]}
    changed = (await member("PUT", one, {"subnetpool": change}))["subnetpool"]
    assert (changed["name"], changed["min_prefixlen"], changed["prefixes"]) == ("q", "24", ["10.0.0.0/22"])
    smaller = {"subnetpool": {"prefixes": ["10.0.0.0/24"]}}
    await member.refused("PUT", one, smaller, 400, "IllegalSubnetPoolPrefixUpdate")
    six = await _pool(member, "2001:db8::/48")
    assert (six["min_prefixlen"], six["max_prefixlen"], six["ip_version"]) == ("64", "128", 6)
    assert [it["id"] for it in (await member("GET", "/subnetpools?ip_version=6"))["subnetpools"]] == [six["id"]]
    await member("DELETE", one, expect=204)
    await member.refused("GET", one, None, 404, "SubnetPoolNotFound")


async def test_pools_that_make_no_sense_are_refused(member, admin):
    assert (await _pool(member, expect=400))["type"] == "EmptySubnetPoolPrefixList"
    assert (await _pool(member, "10.0.0.0/8", "2001:db8::/64", expect=400))["type"] == "PrefixVersionMismatch"
    bounds = {"min_prefixlen": 26, "max_prefixlen": 24}
    assert (await _pool(member, "10.0.0.0/8", expect=400, **bounds))["type"] == "IllegalSubnetPoolPrefixBounds"
    assert (await _pool(member, "10.0.0.0/8", expect=400, default_prefixlen=4))[
        "type"
    ] == "IllegalSubnetPoolPrefixBounds"
    assert (await _pool(member, "10.0.0.0/8", expect=400, max_prefixlen=33))["type"] == "UnsupportedMinSubnetPoolPrefix"
    await _pool(member, "10.0.0.0/8", expect=403, shared=True)
    await _pool(member, "10.0.0.0/8", expect=403, is_default=True)
    await _pool(admin, "10.0.0.0/8", is_default=True)
    assert (await _pool(admin, "10.0.0.0/8", is_default=True, expect=409))["type"] == "InvalidInput"


async def test_subnets_take_ranges_and_give_them_back(member):
    pool = await _pool(member, "10.0.0.0/24", default_prefixlen=26, min_prefixlen=25)
    first = await _subnet(member, subnetpool_id=pool["id"])
    assert (first["cidr"], first["subnetpool_id"], first["gateway_ip"]) == ("10.0.0.0/26", pool["id"], "10.0.0.1")
    large = await _subnet(member, subnetpool_id=pool["id"], prefixlen=25)
    assert large["cidr"] == "10.0.0.128/25"
    given = await _subnet(member, subnetpool_id=pool["id"], cidr="10.0.0.64/27")
    assert given["cidr"] == "10.0.0.64/27"
    assert (await _subnet(member, 409, subnetpool_id=pool["id"]))["type"] == "SubnetAllocationError"
    taken = await _subnet(member, 409, subnetpool_id=pool["id"], cidr="10.0.0.0/27")
    assert taken["type"] == "SubnetAllocationError"
    outside = await _subnet(member, 409, subnetpool_id=pool["id"], cidr="10.9.0.0/26")
    assert outside["type"] == "SubnetAllocationError"
    too_large = await _subnet(member, 400, subnetpool_id=pool["id"], prefixlen=24)
    assert too_large["type"] == "MinPrefixSubnetAllocationError"
    await member.refused("DELETE", f"/subnetpools/{pool['id']}", None, 400, "SubnetPoolDeleteError")
    await member("DELETE", f"/subnets/{first['id']}", expect=204)
    await member("DELETE", f"/networks/{large['network_id']}", expect=204)
    assert (await _subnet(member, subnetpool_id=pool["id"], prefixlen=25))["cidr"] == "10.0.0.128/25"
    six = await _pool(member, "2001:db8::/48")
    assert (await _subnet(member, subnetpool_id=six["id"], ip_version=6))["cidr"] == "2001:db8::/64"
    assert (await _subnet(member, 400, subnetpool_id=six["id"]))["type"] == "BadRequest"


async def test_subnets_made_at_once_never_overlap(member):
    pool = await _pool(member, "10.0.0.0/24", default_prefixlen=28)
    networks = [await _network(member) for _ in range(16)]
    made = await asyncio.gather(*(_subnet(member, subnetpool_id=pool["id"], network_id=it) for it in networks))
    ranges = [ipaddress.ip_network(it["cidr"]) for it in made]
    assert sum(it.num_addresses for it in ranges) == 256
    assert list(ipaddress.collapse_addresses(ranges)) == [ipaddress.ip_network("10.0.0.0/24")]


async def test_the_default_pool_serves_who_names_none(member, admin):
    await member("POST", "/subnets", {"subnet": {"network_id": await _network(member), "ip_version": 4}}, expect=400)
    assert (await _subnet(member, 400, use_default_subnetpool=True))["type"] == "BadRequest"
    pool = await _pool(admin, "10.4.0.0/16", is_default=True, shared=True, default_prefixlen=24)
    assert (await _subnet(member, use_default_subnetpool=True))["subnetpool_id"] == pool["id"]


async def test_a_project_takes_no_more_than_its_share(member, admin, stranger):
    pool = await _pool(admin, "10.0.0.0/24", default_prefixlen=26, default_quota=128, shared=True)
    for _ in range(2):
        await _subnet(member, subnetpool_id=pool["id"])
    assert (await _subnet(member, 409, subnetpool_id=pool["id"]))["type"] == "SubnetPoolQuotaExceeded"
    await _subnet(stranger, subnetpool_id=pool["id"])


async def test_a_networks_subnets_are_of_one_pool(member):
    pool, other = await _pool(member, "10.0.0.0/24", default_prefixlen=26), await _pool(member, "10.1.0.0/24")
    subnet = await _subnet(member, subnetpool_id=pool["id"])
    refused = await _subnet(member, 400, subnetpool_id=other["id"], prefixlen=26, network_id=subnet["network_id"])
    assert refused["type"] == "NetworkSubnetPoolAffinityError"
    await _subnet(member, subnetpool_id=pool["id"], network_id=subnet["network_id"])


async def test_prefixes_come_and_go(member):
    pool = await _pool(member, "10.0.0.0/24", default_prefixlen=25)
    one = f"/subnetpools/{pool['id']}"
    added = await member("PUT", f"{one}/add_prefixes", {"prefixes": ["10.0.1.0/24", "10.3.0.0/24"]})
    assert added == {"prefixes": ["10.0.0.0/23", "10.3.0.0/24"]}
    await _subnet(member, subnetpool_id=pool["id"])
    left = await member("PUT", f"{one}/remove_prefixes", {"prefixes": ["10.0.1.0/24"]})
    assert left == {"prefixes": ["10.0.0.0/24", "10.3.0.0/24"]}
    gone = {"prefixes": ["10.0.0.0/25"]}
    await member.refused("PUT", f"{one}/remove_prefixes", gone, 409, "IllegalSubnetPoolPrefixUpdate")


async def test_subnets_that_are_there_become_a_pools(member):
    pool = await _pool(member, "10.0.0.0/24")
    subnet = await _subnet(member, cidr="10.7.0.0/24")
    body = {"network_id": subnet["network_id"]}
    done = await member("PUT", f"/subnetpools/{pool['id']}/onboard_network_subnets", body)
    assert done == {"subnets": [{"id": subnet["id"], "cidr": "10.7.0.0/24"}]}
    shown = (await member("GET", f"/subnets/{subnet['id']}"))["subnet"]
    assert shown["subnetpool_id"] == pool["id"]
    assert (await member("GET", f"/subnetpools/{pool['id']}"))["subnetpool"]["prefixes"] == [
        "10.0.0.0/24",
        "10.7.0.0/24",
    ]


async def test_pools_of_a_scope_do_not_overlap(member, admin, stranger):
    scope = (await member("POST", "/address-scopes", {"address_scope": {"ip_version": 4}}, expect=201))["address_scope"]
    one = f"/address-scopes/{scope['id']}"
    assert (scope["ip_version"], scope["shared"], scope["name"]) == (4, False, "")
    pool = await _pool(member, "10.0.0.0/24", address_scope_id=scope["id"], default_prefixlen=26)
    clash = await _pool(member, "10.0.0.9/25", address_scope_id=scope["id"], expect=409)
    assert clash["type"] == "AddressScopePrefixConflict"
    wrong = await _pool(member, "2001:db8::/48", address_scope_id=scope["id"], expect=400)
    assert wrong["type"] == "IllegalSubnetPoolIpVersionAssociationToAddressScope"
    foreign = await _pool(stranger, "10.8.0.0/24", address_scope_id=scope["id"], expect=404)
    assert foreign["type"] == "AddressScopeNotFound"
    absent = await _pool(member, "10.8.0.0/24", address_scope_id=str(uuid.uuid4()), expect=404)
    assert absent["type"] == "AddressScopeNotFound"
    await member.refused("DELETE", one, None, 409, "AddressScopeInUse")
    subnet = await _subnet(member, subnetpool_id=pool["id"])
    network = (await member("GET", f"/networks/{subnet['network_id']}"))["network"]
    assert (network["ipv4_address_scope"], network["ipv6_address_scope"]) == (scope["id"], None)
    body = {"subnetpool": {"address_scope_id": None}}
    assert (await member("PUT", f"/subnetpools/{pool['id']}", body))["subnetpool"]["address_scope_id"] is None
    await member("DELETE", one, expect=204)


async def test_a_pool_in_the_scope_of_others_is_theirs_to_widen(member, admin, stranger):
    shared = {"address_scope": {"ip_version": 4, "shared": True}}
    scope = (await admin("POST", "/address-scopes", shared, expect=201))["address_scope"]["id"]
    one = f"/subnetpools/{(await _pool(stranger, '20.0.0.0/18'))['id']}"
    await admin("PUT", one, {"subnetpool": {"address_scope_id": scope}})
    wider = {"subnetpool": {"prefixes": ["20.0.0.0/18", "40.0.0.0/18"]}}
    await stranger.refused("PUT", one, wider, 400, "IllegalSubnetPoolUpdate")
    assert (await admin("PUT", one, wider))["subnetpool"]["prefixes"] == ["20.0.0.0/18", "40.0.0.0/18"]


async def test_a_pool_is_shared_no_farther_than_its_scope(member, stranger):
    scope = (await member("POST", "/address-scopes", {"address_scope": {"ip_version": 4}}, expect=201))["address_scope"]
    pool = await _pool(member, "10.0.0.0/24", address_scope_id=scope["id"])
    policy = {"object_type": "subnetpool", "object_id": pool["id"], "action": "access_as_shared"}
    body = {"rbac_policy": {**policy, "target_tenant": OTHERS}}
    await member.refused("POST", "/rbac-policies", body, 400, "InvalidInput")
    opened = {**policy, "object_type": "address_scope", "object_id": scope["id"], "target_tenant": OTHERS}
    await member("POST", "/rbac-policies", {"rbac_policy": opened}, expect=201)
    await member("POST", "/rbac-policies", body, expect=201)
    body = {"address_scope": {"shared": False, "name": "mine"}}
    await member.refused("PUT", f"/address-scopes/{scope['id']}", body, 403, "PolicyNotAuthorized")


async def test_shared_pools_and_scopes_are_seen_by_those_they_are_shared_with(member, admin, stranger):
    pool = await _pool(member, "10.0.0.0/24", default_prefixlen=26)
    await stranger.refused("GET", f"/subnetpools/{pool['id']}", None, 404, "SubnetPoolNotFound")
    assert (await _subnet(stranger, 404, subnetpool_id=pool["id"]))["type"] == "SubnetPoolNotFound"
    policy = {
        "object_type": "subnetpool",
        "object_id": pool["id"],
        "action": "access_as_shared",
        "target_tenant": OTHERS,
    }
    made = (await member("POST", "/rbac-policies", {"rbac_policy": policy}, expect=201))["rbac_policy"]
    assert (await stranger("GET", f"/subnetpools/{pool['id']}"))["subnetpool"]["shared"]
    subnet = await _subnet(stranger, subnetpool_id=pool["id"])
    await member.refused("DELETE", f"/rbac-policies/{made['id']}", None, 409, "RbacPolicyInUse")
    await stranger("DELETE", f"/subnets/{subnet['id']}", expect=204)
    await member("DELETE", f"/rbac-policies/{made['id']}", expect=204)
    scope = {"ip_version": 6, "shared": True}
    await member("POST", "/address-scopes", {"address_scope": scope}, expect=403)
    shared = (await admin("POST", "/address-scopes", {"address_scope": scope}, expect=201))["address_scope"]
    assert (await stranger("GET", f"/address-scopes/{shared['id']}"))["address_scope"]["shared"]
    body = {"address_scope": {"shared": False}}
    await admin.refused("PUT", f"/address-scopes/{shared['id']}", body, 400, "AddressScopeUpdateError")
