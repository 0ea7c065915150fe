"""Ports over HTTP: what Neutron's clients rely on."""

import asyncio
import uuid

import pytest

from bus.execute import Wish
from handlers.network.network import NETWORKS
from handlers.network.security_group import SECURITY_GROUPS
from handlers.network.subnet import SUBNETS
from schema.network.network import AddNetworkSubnet, ShareNetwork
from schema.network.port import PORT
from schema.network.security_group import CreateSecurityGroup
from schema.network.subnet import CreateSubnet, Pool
from tests.network.routed import OTHERS, addresses, network, subnet


@pytest.fixture
async def inner(served):
    """A network of the member's and its subnet."""
    id = await network(served.cloud)
    return id, await subnet(served.cloud, id, "10.0.0.0/24", "10.0.0.1", "10.0.0.2", "10.0.0.254")


async def _make(client, network_id, **fields):
    return (await client("POST", "/ports", {"port": {"network_id": network_id, **fields}}, expect=201))["port"]


async def _change(client, id, **fields):
    return (await client("PUT", f"/ports/{id}", {"port": fields}))["port"]


def _ips(port):
    return [it["ip_address"] for it in port["fixed_ips"]]


async def test_a_ports_life(served, member, admin, inner):
    network_id, subnet_id = inner
    made = await _make(member, network_id, name="eth0", tags=["red"])
    assert (made["status"], made["name"], made["tags"]) == ("DOWN", "eth0", ["red"])
    assert made["project_id"] == made["tenant_id"] == "p" * 32
    assert [it["subnet_id"] for it in made["fixed_ips"]] == [subnet_id]
    assert made["mac_address"].startswith("fa:16:3e:")
    assert len(made["security_groups"]) == 1
    assert made["binding:vnic_type"] == "normal"
    assert "binding:host_id" not in made
    [ip] = _ips(made)
    name = "host-" + ip.replace(".", "-")
    assert made["dns_assignment"] == [{"ip_address": ip, "hostname": name, "fqdn": f"{name}.openstacklocal."}]
    one = f"/ports/{made['id']}"
    assert (await member("GET", one))["port"] == made
    assert (await member("GET", "/ports"))["ports"] == [made]
    seen = (await admin("GET", one))["port"]
    assert (seen["binding:host_id"], seen["binding:vif_type"], seen["binding:profile"]) == ("", "unbound", {})
    changed = await _change(member, made["id"], name="eth1", admin_state_up=False, description="d")
    assert (changed["name"], changed["admin_state_up"], changed["description"]) == ("eth1", False, "d")
    assert (changed["revision_number"], changed["fixed_ips"]) == (made["revision_number"] + 1, made["fixed_ips"])
    assert await member("GET", f"{one}?fields=name") == {"port": {"name": "eth1"}}
    assert await addresses(served.cloud) == {ip: made["id"]}
    await member("DELETE", one, expect=204)
    await member.refused("GET", one, None, 404, "PortNotFound")
    assert await addresses(served.cloud) == {}


async def test_many_are_made_at_once_or_none(served, member, inner):
    network_id, subnet_id = inner
    each = [{"network_id": network_id, "name": f"p{n}"} for n in range(20)]
    body = {"ports": [*each[:10], *({"port": it} for it in each[10:])]}
    made = (await member("POST", "/ports", body, expect=201))["ports"]
    assert [it["name"] for it in made] == [f"p{n}" for n in range(20)]
    assert len({it["mac_address"] for it in made}) == len(await addresses(served.cloud)) == 20
    taken = _ips(made[0])[0]
    fixed = [{"subnet_id": subnet_id, "ip_address": taken}]
    body = {"ports": [{"network_id": network_id}, {"network_id": network_id, "fixed_ips": fixed}]}
    await member.refused("POST", "/ports", body, 409, "IpAddressAlreadyAllocated")
    assert len(await addresses(served.cloud)) == 20
    assert "'network_id' not specified" in await member.refused(
        "POST", "/ports", {"ports": [{}]}, 400, "HTTPBadRequest"
    )
    for body in ({}, {"ports": []}, {"port": {"network_id": network_id}, "ports": [{"network_id": network_id}]}):
        await member.refused("POST", "/ports", body, 400, "HTTPBadRequest")


async def test_addresses_may_be_asked_for(served, member, inner):
    network_id, subnet_id = inner
    made = await _make(member, network_id, fixed_ips=[{"ip_address": "10.0.0.9"}, {"subnet_id": subnet_id}])
    assert _ips(made)[0] == "10.0.0.9"
    assert len(set(_ips(made))) == 2
    none = await _make(member, network_id, fixed_ips=[])
    assert (none["fixed_ips"], none["ip_allocation"], made["ip_allocation"]) == ([], "none", "immediate")
    other = await subnet(served.cloud, await network(served.cloud), "10.9.0.0/24", None, "10.9.0.2", "10.9.0.9")
    for fixed, status, type in [
        ({"ip_address": "10.0.0.9"}, 409, "IpAddressAlreadyAllocated"),
        ({"ip_address": "192.0.2.1"}, 400, "InvalidIpForNetwork"),
        ({"subnet_id": subnet_id, "ip_address": "192.0.2.1"}, 400, "InvalidIpForSubnet"),
        ({"subnet_id": other}, 400, "InvalidInput"),
        ({}, 400, "InvalidInput"),
        ({"ip_address": "ten"}, 400, "HTTPBadRequest"),
    ]:
        await member.refused("POST", "/ports", {"port": {"network_id": network_id, "fixed_ips": [fixed]}}, status, type)
    twice = [{"ip_address": "10.0.0.77"}] * 2
    await member.refused(
        "POST", "/ports", {"port": {"network_id": network_id, "fixed_ips": twice}}, 400, "HTTPBadRequest"
    )
    await member.refused("POST", "/ports", {"port": {"network_id": str(uuid.uuid4())}}, 404, "NetworkNotFound")
    assert set(await addresses(served.cloud)) == set(_ips(made))


async def test_addresses_change(served, member, inner):
    network_id, subnet_id = inner
    made = await _make(member, network_id, fixed_ips=[{"ip_address": "10.0.0.9"}])
    moved = await _change(member, made["id"], fixed_ips=[{"ip_address": "10.0.0.10"}, {"subnet_id": subnet_id}])
    assert "10.0.0.10" in _ips(moved)
    assert "10.0.0.9" in _ips(moved), "asked for by its subnet, what is there stays"
    left = await _change(member, made["id"], fixed_ips=[{"ip_address": "10.0.0.10"}])
    assert _ips(left) == ["10.0.0.10"]
    assert await addresses(served.cloud) == {"10.0.0.10": made["id"]}
    same = await _change(member, made["id"], fixed_ips=[{"subnet_id": subnet_id}])
    assert (same["fixed_ips"], same["revision_number"]) == (left["fixed_ips"], left["revision_number"])
    assert _ips(await _change(member, made["id"], fixed_ips=[])) == []
    assert await addresses(served.cloud) == {}


async def test_fifty_at_once_into_a_full_subnet(served, member):
    id = await network(served.cloud)
    await subnet(served.cloud, id, "10.0.0.0/27", "10.0.0.1", "10.0.0.2", "10.0.0.30")
    body = {"port": {"network_id": id}}
    answers = await asyncio.gather(
        *(served.call("POST", "/networking/v2.0/ports", body, token=member.token) for _ in range(50))
    )
    made = [_ips(answer.json["port"])[0] for answer in answers if answer.status == 201]
    refused = [answer.json["NeutronError"]["type"] for answer in answers if answer.status != 201]
    assert len(made) == len(set(made)) == 29
    assert refused == ["IpAddressGenerationFailure"] * 21
    assert set(await addresses(served.cloud)) == set(made)
    [port] = (await member("GET", f"/ports?fixed_ips=ip_address={made[0]}"))["ports"]
    await member("DELETE", f"/ports/{port['id']}", expect=204)
    assert _ips(await _make(member, id)) == [made[0]], "a released one returns"


async def test_macs(member, admin, inner):
    network_id, _ = inner
    made = await _make(member, network_id, mac_address="FA-16-3E-00-00-01")
    assert made["mac_address"] == "fa:16:3e:00:00:01"
    body = {"port": {"network_id": network_id, "mac_address": made["mac_address"]}}
    assert "The mac address fa:16:3e:00:00:01 is in use" in await member.refused(
        "POST", "/ports", body, 409, "MacAddressInUse"
    )
    other = await _make(member, network_id)
    change = {"port": {"mac_address": made["mac_address"]}}
    await member.refused("PUT", f"/ports/{other['id']}", change, 403, "PolicyNotAuthorized")
    await admin.refused("PUT", f"/ports/{other['id']}", change, 409, "MacAddressInUse")
    changed = await _change(admin, other["id"], mac_address="fa:16:3e:00:00:02")
    assert changed["mac_address"] == "fa:16:3e:00:00:02"
    another = (await _change(admin, other["id"], mac_address=None))["mac_address"]
    assert another not in {"fa:16:3e:00:00:02", other["mac_address"]}
    body["port"]["mac_address"] = "nonsense"
    await member.refused("POST", "/ports", body, 400, "HTTPBadRequest")


async def test_addresses_that_follow_the_mac(served, member, admin, inner):
    network_id, _ = inner
    command = CreateSubnet(
        project_id="p" * 32,
        parent_id=network_id,
        cidr="2001:db8::/64",
        ip_version=6,
        gateway_ip="2001:db8::1",
        pools=(Pool(start="2001:db8::2", end="2001:db8::ffff"),),
        ipv6_address_mode="slaac",
        ipv6_ra_mode="slaac",
    )
    slaac = str(uuid.uuid4())
    await served.cloud.executor.execute(
        Wish(SUBNETS, slaac, command), Wish(NETWORKS, network_id, AddNetworkSubnet(subnet_id=slaac))
    )
    made = await _make(member, network_id, mac_address="fa:16:3e:00:00:01")
    assert _ips(made)[1] == "2001:db8::f816:3eff:fe00:1"
    fewer = await _change(member, made["id"], fixed_ips=[])
    assert _ips(fewer) == ["2001:db8::f816:3eff:fe00:1"], "it stays whatever is asked for"
    moved = await _change(admin, made["id"], mac_address="fa:16:3e:00:00:02")
    assert _ips(moved) == ["2001:db8::f816:3eff:fe00:2"]
    assert set(await addresses(served.cloud)) == set(_ips(moved))
    said = {"port": {"network_id": network_id, "fixed_ips": [{"ip_address": "2001:db8::77"}]}}
    await member.refused("POST", "/ports", said, 400, "AllocationOnAutoAddressSubnet")


async def test_port_security(served, member, inner):
    network_id, _ = inner
    made = await _make(member, network_id)
    one = f"/ports/{made['id']}"
    body = {"port": {"port_security_enabled": False}}
    await member.refused("PUT", one, body, 409, "PortSecurityPortHasSecurityGroup")
    opened = await _change(member, made["id"], port_security_enabled=False, security_groups=[])
    assert (opened["port_security_enabled"], opened["security_groups"]) == (False, [])
    body = {"port": {"security_groups": made["security_groups"]}}
    await member.refused("PUT", one, body, 400, "PortSecurityAndIPRequiredForSecurityGroups")
    pair = [{"ip_address": "192.0.2.0/24"}]
    body = {"port": {"allowed_address_pairs": pair}}
    await member.refused("PUT", one, body, 409, "AddressPairAndPortSecurityRequired")
    body = {"port": {"network_id": network_id, "port_security_enabled": False, "allowed_address_pairs": pair}}
    await member.refused("POST", "/ports", body, 409, "AddressPairAndPortSecurityRequired")
    secured = await _change(member, made["id"], port_security_enabled=True, allowed_address_pairs=pair)
    assert secured["allowed_address_pairs"] == [{"ip_address": "192.0.2.0/24", "mac_address": made["mac_address"]}]
    assert (await _change(member, made["id"], allowed_address_pairs=[]))["allowed_address_pairs"] == []
    for pairs, type in [
        ([{}], "AllowedAddressPairsMissingIP"),
        (pair * 2, "DuplicateAddressPairInRequest"),
        ([{"ip_address": f"192.0.2.{n}"} for n in range(11)], "AllowedAddressPairExhausted"),
        ([{"ip_address": "192.0.2.0/33"}], "HTTPBadRequest"),
    ]:
        await member.refused("PUT", one, {"port": {"allowed_address_pairs": pairs}}, 400, type)


async def test_address_pairs_come_and_go_one_by_one(member, inner):
    made = await _make(member, inner[0])
    one = f"/ports/{made['id']}"
    ips = [f"192.0.2.{n}" for n in range(1, 11)]

    async def change(verb, *ips):
        body = {"port": {"allowed_address_pairs": [{"ip_address": ip} for ip in ips]}}
        answer = await member("PUT", f"{one}/{verb}_allowed_address_pairs", body)
        return {it["ip_address"] for it in answer["port"]["allowed_address_pairs"]}

    await asyncio.gather(*(change("add", ip) for ip in ips))
    assert await change("add", ips[0]) == set(ips)
    body = {"port": {"allowed_address_pairs": [{"ip_address": "192.0.2.99"}]}}
    await member.refused("PUT", f"{one}/add_allowed_address_pairs", body, 400, "AllowedAddressPairExhausted")
    assert await change("remove", *ips[1:], "192.0.2.99") == {ips[0]}


async def test_the_state_of_the_data_plane_is_for_who_watches_it(member, admin, inner):
    made = await _make(member, inner[0])
    body = {"port": {"data_plane_status": "DOWN"}}
    await member.refused("PUT", f"/ports/{made['id']}", body, 403, "PolicyNotAuthorized")
    assert made["data_plane_status"] is None
    assert (await _change(admin, made["id"], data_plane_status="DOWN"))["data_plane_status"] == "DOWN"
    body["port"]["data_plane_status"] = "SIDEWAYS"
    await admin.refused("PUT", f"/ports/{made['id']}", body, 400, "HTTPBadRequest")


async def test_security_groups_are_the_projects_or_shared_with_it(served, member, inner):
    network_id, _ = inner
    for id, project in (("1", "p" * 32), ("2", OTHERS)):
        command = CreateSecurityGroup(name=f"g{id}", project_id=project)
        await served.cloud.executor.execute(Wish(SECURITY_GROUPS, str(uuid.UUID(int=int(id))), command))
    mine, theirs = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
    made = await _make(member, network_id, security_groups=[mine])
    assert made["security_groups"] == [mine]
    twice = {"port": {"security_groups": [mine, mine]}}
    await member.refused("PUT", f"/ports/{made['id']}", twice, 400, "HTTPBadRequest")
    for id in (theirs, str(uuid.uuid4())):
        body = {"port": {"security_groups": [mine, id]}}
        await member.refused("PUT", f"/ports/{made['id']}", body, 404, "SecurityGroupNotFound")
    assert [it["id"] for it in (await member("GET", f"/ports?security_groups={mine}"))["ports"]] == [made["id"]]
    assert (await _make(member, network_id, security_groups=[]))["security_groups"] == []


async def test_dhcp_options_are_added_changed_and_taken_away(member, inner):
    first = {"opt_name": "bootfile-name", "opt_value": "pxelinux.0"}
    made = await _make(member, inner[0], extra_dhcp_opts=[first])
    assert made["extra_dhcp_opts"] == [{**first, "ip_version": 4}]
    change = [{"opt_name": "bootfile-name", "opt_value": "other.0"}, {"opt_name": "mtu", "opt_value": "1400"}]
    changed = await _change(member, made["id"], extra_dhcp_opts=change)
    assert {it["opt_name"]: it["opt_value"] for it in changed["extra_dhcp_opts"]} == {
        "bootfile-name": "other.0",
        "mtu": "1400",
    }
    left = await _change(member, made["id"], extra_dhcp_opts=[{"opt_name": "bootfile-name", "opt_value": None}])
    assert [it["opt_name"] for it in left["extra_dhcp_opts"]] == ["mtu"]


async def test_names(member, inner):
    made = await _make(member, inner[0], dns_name="Web")
    [assigned] = made["dns_assignment"]
    assert (made["dns_name"], assigned["hostname"], assigned["fqdn"]) == ("web", "web", "web.openstacklocal.")
    for name in ("-web", "w" * 64, "a..b", "web_1"):
        await member.refused("PUT", f"/ports/{made['id']}", {"port": {"dns_name": name}}, 400, "HTTPBadRequest")


async def test_who_may_say_what(served, member, admin, stranger, inner):
    network_id, subnet_id = inner
    body = {"port": {"network_id": network_id}}
    await stranger.refused("POST", "/ports", body, 404, "NetworkNotFound")
    await served.cloud.executor.execute(Wish(NETWORKS, network_id, ShareNetwork(project_id=OTHERS)))
    theirs = await _make(stranger, network_id, fixed_ips=[{"subnet_id": subnet_id}])
    for fields in (
        {"fixed_ips": [{"ip_address": "10.0.0.9"}]},
        {"mac_address": "fa:16:3e:00:00:09"},
        {"port_security_enabled": False},
        {"allowed_address_pairs": [{"ip_address": "192.0.2.1"}]},
        {"device_owner": "network:dhcp"},
    ):
        await stranger.refused(
            "POST", "/ports", {"port": {"network_id": network_id, **fields}}, 403, "PolicyNotAuthorized"
        )
        await _make(member, network_id, **fields)
    for fields in ({"binding:host_id": "h1"}, {"binding:profile": {"a": "b"}}, {"trusted": True}):
        await member.refused(
            "POST", "/ports", {"port": {"network_id": network_id, **fields}}, 403, "PolicyNotAuthorized"
        )
    await member.refused("POST", "/ports", {"port": {**body["port"], "project_id": OTHERS}}, 400, "HTTPBadRequest")
    assert (await _make(admin, network_id, tenant_id=OTHERS))["project_id"] == OTHERS
    assert theirs["id"] in {it["id"] for it in (await member("GET", "/ports"))["ports"]}, "the network is theirs"
    await member.refused("PUT", f"/ports/{theirs['id']}", {"port": {"name": "x"}}, 403, "PolicyNotAuthorized")
    mine = await _make(member, network_id)
    await stranger.refused("GET", f"/ports/{mine['id']}", None, 404, "PortNotFound")
    await stranger.refused("DELETE", f"/ports/{mine['id']}", None, 404, "PortNotFound")
    await member("DELETE", f"/ports/{theirs['id']}", expect=204)


async def test_where_it_is_plugged_is_for_administrators(member, admin, inner):
    made = await _make(admin, inner[0], **{"binding:host_id": "nowhere", "binding:profile": {"a": 1}})
    assert (made["binding:host_id"], made["binding:vif_type"]) == ("nowhere", "binding_failed")
    assert made["binding:profile"] == {"a": 1}
    freed = await _change(admin, made["id"], **{"binding:host_id": "", "binding:vnic_type": "direct"})
    assert (freed["binding:host_id"], freed["binding:vif_type"]) == ("", "unbound")
    assert (freed["binding:vnic_type"], freed["binding:profile"]) == ("direct", {"a": 1})


async def test_who_is_trusted_is_in_the_profile(member, admin, inner):
    made = await _make(admin, inner[0])
    assert (made["trusted"], made["binding:profile"]) == (None, {})
    trusted = await _change(admin, made["id"], trusted=True)
    assert (trusted["trusted"], trusted["binding:profile"]) == (True, {"trusted": True})
    kept = await _change(admin, made["id"], **{"binding:profile": {"a": 1}})
    assert (kept["trusted"], kept["binding:profile"]) == (True, {"trusted": True, "a": 1})
    assert (await _change(admin, made["id"], trusted=False))["binding:profile"] == {"trusted": False, "a": 1}
    assert (await _make(admin, inner[0], trusted=False))["trusted"] is False
    assert "trusted" not in (await member("GET", f"/ports/{made['id']}"))["port"]


async def test_a_routers_port_goes_with_the_router(served, member, inner):
    router = (await member("POST", "/routers", {"router": {}}, expect=201))["router"]
    joined = await member("PUT", f"/routers/{router['id']}/add_router_interface", {"subnet_id": inner[1]})
    one = f"/ports/{joined['port_id']}"
    message = await member.refused("DELETE", one, None, 409, "ServicePortInUse")
    assert message.endswith("cannot be deleted directly via the port API: has device owner network:router_interface.")
    await member.refused("PUT", one, {"port": {"device_id": "other"}}, 409, "PortInUse")
    same = await _change(member, joined["port_id"], fixed_ips=[{"subnet_id": inner[1]}])
    assert _ips(same) == ["10.0.0.1"]
    moved = await _change(member, joined["port_id"], fixed_ips=[{"ip_address": "10.0.0.200"}])
    assert _ips(moved) == ["10.0.0.200"]
    await member("PUT", f"/routers/{router['id']}/remove_router_interface", {"subnet_id": inner[1]})
    assert await addresses(served.cloud) == {}


async def test_filters_sorting_and_pages(member, inner):
    network_id, subnet_id = inner
    made = [
        await _make(member, network_id, name=f"p{n}", device_id=f"d{n}", device_owner="compute:az") for n in range(5)
    ]
    other = await _make(member, network_id, name="other", fixed_ips=[{"ip_address": "10.0.0.254"}])

    async def names(query):
        return [it["name"] for it in (await member("GET", f"/ports?{query}"))["ports"]]

    assert await names("device_id=d3") == ["p3"]
    assert await names(f"mac_address={made[2]['mac_address']}") == ["p2"]
    assert await names(f"network_id={network_id}&device_owner=compute:az&sort_key=name&sort_dir=desc&limit=2") == [
        "p4",
        "p3",
    ]
    assert await names("fixed_ips=ip_address=10.0.0.254") == ["other"]
    assert await names("fixed_ips=ip_address_substr=0.254") == ["other"]
    assert len(await names(f"fixed_ips=subnet_id={subnet_id}")) == 6
    assert await names(f"fixed_ips=subnet_id={subnet_id}&fixed_ips=ip_address=10.0.0.254") == ["other"]
    assert await names(f"fixed_ips=subnet_id={uuid.uuid4()}&fixed_ips=ip_address=10.0.0.254") == []
    assert await names("status=ACTIVE") == []
    assert await names("device_id=") == ["other"]
    assert len(await names("binding:vnic_type=normal&binding:vif_type=unbound")) == 6
    assert await names("ip_allocation=none") == []
    page = await member("GET", "/ports?limit=4&sort_key=name&fields=name")
    assert page["ports"] == [{"name": name} for name in ("other", "p0", "p1", "p2")]
    next = page["ports_links"][0]["href"].partition("/networking/v2.0")[2]
    assert [it["name"] for it in (await member("GET", next))["ports"]] == ["p3", "p4"]
    await member("DELETE", f"/ports/{other['id']}", expect=204)
    assert await names("name=other") == []


async def test_revisions_and_tags(member, inner):
    made = await _make(member, inner[0])
    one = f"/ports/{made['id']}"
    await member("PUT", f"{one}/tags/blue", expect=201)
    stale = f"revision_number={made['revision_number']}"
    answer = await member("PUT", one, {"port": {"name": "x"}}, expect=412, If_Match=stale)
    assert answer["NeutronError"]["type"] == "RevisionNumberConstraintFailed"
    await member("DELETE", one, expect=412, If_Match=stale)
    await member("PUT", one, {"port": {"name": "x"}}, If_Match=f"revision_number={made['revision_number'] + 1}")
    assert (await member("GET", "/ports?tags=blue"))["ports"][0]["name"] == "x"


async def test_the_list_shows_what_is_so_now(served, member, admin, inner):
    made = await _make(member, inner[0])
    assert "binding:host_id" not in (await member("GET", "/ports"))["ports"][0]
    assert "binding:host_id" in (await admin("GET", "/ports"))["ports"][0]
    await _change(member, made["id"], name="later")
    assert [it["name"] for it in (await member("GET", "/ports"))["ports"]] == ["later"]
    assert await served.cloud.documents.find(PORT) != []


async def test_a_repeated_request_makes_nothing_twice(served, member, inner):
    body = {"ports": [{"network_id": inner[0], "name": name} for name in ("a", "b")]}
    first, again = [
        (await member("POST", "/ports", body, expect=201, Idempotency_Key="once"))["ports"] for _ in range(2)
    ]
    assert [it["id"] for it in first] == [it["id"] for it in again]
    assert len(await addresses(served.cloud)) == 2


async def test_a_list_of_then_shows_what_was_so_then(served, member, stranger, inner):
    network_id, _ = inner
    await served.cloud.executor.execute(Wish(NETWORKS, network_id, ShareNetwork(project_id=OTHERS)))
    theirs = await _make(stranger, network_id, name="before")
    position = await served.cloud.log.head()
    await _change(stranger, theirs["id"], name="after")
    then = (await member("GET", f"/ports?as_of={position}"))["ports"]
    assert [it["name"] for it in then] == ["before"]
    assert [it["name"] for it in (await member("GET", "/ports"))["ports"]] == ["after"]
