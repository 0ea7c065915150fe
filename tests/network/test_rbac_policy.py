"""RBAC policies by their rules, and over HTTP: who may share what with whom, and that flags are policies too."""

import uuid

from bus import clock
from bus.execute import Wish
from handlers.network.port import PORTS
from handlers.network.rbac_policy import RBAC_POLICIES
from schema.network.port_command import CreatePort, DeletePort
from schema.network.rbac_policy import (
    CreateRbacPolicy,
    DeleteRbacPolicy,
    RbacPolicyCreated,
    RbacPolicyDeleted,
    RbacPolicyRetargeted,
    RetargetRbacPolicy,
)
from schema.refusal import NotFound
from tests.network.routed import OTHERS, PROJECT, Client
from tests.story import Story

policies = Story(RBAC_POLICIES)
facts = {
    "project_id": "p",
    "parent_id": "net",
    "object_type": "network",
    "action": "access_as_shared",
    "target_project": "q",
}
THIRD = "b" * 32


def test_a_policys_life():
    made = policies.given().when(CreateRbacPolicy(**facts)).then(RbacPolicyCreated(**facts))
    moved = made.when(RetargetRbacPolicy(target_project="r")).then(RbacPolicyRetargeted(target_project="r"))
    gone = moved.when(DeleteRbacPolicy()).then(RbacPolicyDeleted())
    gone.when(RetargetRbacPolicy(target_project="q")).refused("not found", NotFound)


async def _network(client, **fields):
    return (await client("POST", "/networks", {"network": fields}, expect=201))["network"]


async def _group(client, **fields):
    return (await client("POST", "/security-groups", {"security_group": fields}, expect=201))["security_group"]


def _policy(object_type, id, target=OTHERS, action="access_as_shared"):
    return {"rbac_policy": {"object_type": object_type, "object_id": id, "action": action, "target_tenant": target}}


async def _share(client, *args, **fields):
    return (await client("POST", "/rbac-policies", _policy(*args, **fields), expect=201))["rbac_policy"]


async def _port(served, network_id, *groups, project=OTHERS):
    id = clock.uuid4()
    command = CreatePort(
        project_id=project,
        parent_id=network_id,
        mac_address=f"fa:16:3e:{id[:2]}:{id[2:4]}:{id[4:6]}",
        security_group_ids=groups,
    )
    await served.cloud.executor.execute(Wish(PORTS, id, command))
    return id


async def test_a_network_is_shared_and_not_any_more(member, stranger):
    net = await _network(member, name="net")
    one = f"/networks/{net['id']}"
    await stranger.refused("GET", one, None, 404, "NetworkNotFound")
    policy = await _share(member, "network", net["id"])
    assert policy == {
        "id": policy["id"],
        "object_type": "network",
        "object_id": net["id"],
        "action": "access_as_shared",
        "target_tenant": OTHERS,
        "tenant_id": PROJECT,
        "project_id": PROJECT,
    }
    assert (await stranger("GET", one))["network"]["shared"] is True
    assert (await member("GET", "/rbac-policies"))["rbac_policies"] == [policy]
    assert (await stranger("GET", "/rbac-policies"))["rbac_policies"] == []
    at = f"/rbac-policies/{policy['id']}"
    await stranger.refused("GET", at, None, 404, "RbacPolicyNotFound")
    await member.refused("POST", "/rbac-policies", _policy("network", net["id"]), 409, "DuplicateRbacPolicy")
    moved = (await member("PUT", at, {"rbac_policy": {"target_tenant": THIRD}}))["rbac_policy"]
    assert moved == {**policy, "target_tenant": THIRD}
    await stranger.refused("GET", one, None, 404, "NetworkNotFound")
    await member("DELETE", at, expect=204)
    assert (await member("GET", "/rbac-policies"))["rbac_policies"] == []
    await member.refused("DELETE", at, None, 404, "RbacPolicyNotFound")


async def test_policies_are_filtered(admin):
    net = await _network(admin)
    group = await _group(admin, name="g")
    first, second = await _share(admin, "network", net["id"]), await _share(admin, "security_group", group["id"], THIRD)
    for query, found in (
        ("object_type=network", [first]),
        (f"object_id={group['id']}", [second]),
        (f"target_tenant={THIRD}", [second]),
        (f"target_project={OTHERS}", [first]),
        ("action=access_as_shared&sort_key=object_type", [first, second]),
        (f"id={first['id']}", [first]),
    ):
        assert (await admin("GET", f"/rbac-policies?{query}"))["rbac_policies"] == found, query


async def test_flags_of_networks_are_policies_for_everybody(admin, member):
    net = await _network(admin, shared=True, **{"router:external": True})
    mine = f"/rbac-policies?object_id={net['id']}&sort_key=action"
    listed = (await admin("GET", mine))["rbac_policies"]
    assert [(it["action"], it["target_tenant"]) for it in listed] == [
        ("access_as_external", "*"),
        ("access_as_shared", "*"),
    ]
    await admin.refused("POST", "/rbac-policies", _policy("network", net["id"], "*"), 409, "DuplicateRbacPolicy")
    await admin("DELETE", f"/rbac-policies/{listed[1]['id']}", expect=204)
    assert (await admin("GET", f"/networks/{net['id']}"))["network"]["shared"] is False
    await admin("PUT", f"/networks/{net['id']}", {"network": {"router:external": False, "shared": True}})
    assert [it["action"] for it in (await admin("GET", mine))["rbac_policies"]] == ["access_as_shared"]
    await admin("PUT", f"/networks/{net['id']}", {"network": {"shared": False}})
    assert (await admin("GET", mine))["rbac_policies"] == []
    await _share(admin, "network", net["id"], "*", action="access_as_external")
    assert (await member("GET", f"/networks/{net['id']}"))["network"]["router:external"] is True


async def test_an_outside_network_for_everybody_becomes_one_projects(admin, member, stranger):
    net = await _network(admin, **{"router:external": True})
    [policy] = (await admin("GET", f"/rbac-policies?object_id={net['id']}"))["rbac_policies"]
    changed = await admin("PUT", f"/rbac-policies/{policy['id']}", {"rbac_policy": {"target_tenant": OTHERS}})
    assert changed["rbac_policy"]["id"] == policy["id"]
    assert (await stranger("GET", f"/networks/{net['id']}"))["network"]["router:external"] is True
    other = Client(member.served, await member.served.token("member", project=THIRD))
    await other.refused("GET", f"/networks/{net['id']}", None, 404, "NetworkNotFound")


async def test_whom_a_network_is_outside_for_takes_floating_ips_of_it(admin, stranger):
    net = await _network(admin)
    subnet = {"subnet": {"network_id": net["id"], "ip_version": 4, "cidr": "203.0.113.0/24", "enable_dhcp": False}}
    await admin("POST", "/subnets", subnet, expect=201)
    body = {"floatingip": {"floating_network_id": net["id"]}}
    await stranger.refused("POST", "/floatingips", body, 404, "NetworkNotFound")
    await _share(admin, "network", net["id"])
    assert "not a valid external network" in await stranger.refused("POST", "/floatingips", body, 400, "BadRequest")
    policy = await _share(admin, "network", net["id"], action="access_as_external")
    floating = (await stranger("POST", "/floatingips", body, expect=201))["floatingip"]
    await admin.refused("DELETE", f"/rbac-policies/{policy['id']}", None, 409, "RbacPolicyInUse")
    await stranger("DELETE", f"/floatingips/{floating['id']}", expect=204)
    await admin("DELETE", f"/rbac-policies/{policy['id']}", expect=204)


async def test_a_default_outside_network_stays_open_to_everybody(admin):
    net = await _network(admin, is_default=True, **{"router:external": True})
    [policy] = (await admin("GET", f"/rbac-policies?object_id={net['id']}"))["rbac_policies"]
    message = await admin.refused("DELETE", f"/rbac-policies/{policy['id']}", None, 409, "RbacPolicyInUse")
    assert "Default external networks must be shared to everyone" in message


async def test_policies_go_with_what_they_share(admin):
    net = await _network(admin, shared=True)
    group = await _group(admin, name="g")
    await _share(admin, "security_group", group["id"])
    addresses = (await admin("POST", "/address-groups", {"address_group": {}}, expect=201))["address_group"]
    await _share(admin, "address_group", addresses["id"])
    body = {"policy": {"name": "q", "shared": True}}
    quality = (await admin("POST", "/qos/policies", body, expect=201))["policy"]
    assert len((await admin("GET", "/rbac-policies"))["rbac_policies"]) == 4
    for path in ("networks/" + net["id"], "security-groups/" + group["id"], "address-groups/" + addresses["id"]):
        await admin("DELETE", "/" + path, expect=204)
    await admin("DELETE", f"/qos/policies/{quality['id']}", expect=204)
    assert (await admin("GET", "/rbac-policies"))["rbac_policies"] == []
    assert (await admin("GET", f"/quotas/{PROJECT}/details"))["quota"]["rbac_policy"]["used"] == 0


async def test_what_somebody_uses_stays_shared_with_them(served, admin, member):
    net, group = await _network(member), await _group(member, name="g")
    shared = await _share(member, "network", net["id"])
    grouped = await _share(member, "security_group", group["id"])
    port = await _port(served, net["id"], group["id"])
    for policy in (shared, grouped):
        message = await member.refused("DELETE", f"/rbac-policies/{policy['id']}", None, 409, "RbacPolicyInUse")
        assert message.startswith(f"RBAC policy on object {policy['object_id']} cannot be removed because other")
        body = {"rbac_policy": {"target_tenant": THIRD}}
        await member.refused("PUT", f"/rbac-policies/{policy['id']}", body, 409, "RbacPolicyInUse")
    wild = await _share(admin, "security_group", group["id"], "*")
    await member("DELETE", f"/rbac-policies/{grouped['id']}", expect=204)
    await admin.refused("DELETE", f"/rbac-policies/{wild['id']}", None, 409, "RbacPolicyInUse")
    await served.cloud.executor.execute(Wish(PORTS, port, DeletePort()))
    await admin("DELETE", f"/rbac-policies/{wild['id']}", expect=204)
    await member("DELETE", f"/rbac-policies/{shared['id']}", expect=204)


async def test_an_address_group_is_shared(member, stranger):
    body = {"address_group": {"addresses": ["10.0.0.0/8"]}}
    addresses = (await member("POST", "/address-groups", body, expect=201))["address_group"]
    policy = await _share(member, "address_group", addresses["id"])
    one = f"/address-groups/{addresses['id']}"
    assert (await stranger("GET", one))["address_group"]["shared"] is True
    await stranger.refused("PUT", one, {"address_group": {"name": "x"}}, 404, "HTTPNotFound")
    group = await _group(stranger, name="g")
    rule = {"direction": "ingress", "security_group_id": group["id"], "remote_address_group_id": addresses["id"]}
    made = await stranger("POST", "/security-group-rules", {"security_group_rule": rule}, expect=201)
    await member.refused("DELETE", f"/rbac-policies/{policy['id']}", None, 409, "RbacPolicyInUse")
    await stranger("DELETE", f"/security-group-rules/{made['security_group_rule']['id']}", expect=204)
    await member("DELETE", f"/rbac-policies/{policy['id']}", expect=204)


async def test_who_may_share_what(member, stranger):
    net = await _network(member)
    await member.refused("POST", "/rbac-policies", _policy("network", net["id"], "*"), 403, "PolicyNotAuthorized")
    message = await stranger.refused("POST", "/rbac-policies", _policy("network", net["id"]), 400, "InvalidInput")
    assert "Only admins can manipulate policies on objects they do not own" in message
    policy = await _share(member, "network", net["id"])
    body = {"rbac_policy": {"target_tenant": "*"}}
    await member.refused("PUT", f"/rbac-policies/{policy['id']}", body, 403, "PolicyNotAuthorized")


async def test_policies_that_make_no_sense(member):
    net = await _network(member)
    for body, status, type in (
        (_policy("spaceship", net["id"]), 400, "InvalidInput"),
        (_policy("network", net["id"], "nobody"), 400, "InvalidInput"),
        (_policy("network", net["id"], action="access_as_owner"), 400, "InvalidActionForType"),
        (_policy("security_group", net["id"]), 404, "SecurityGroupNotFound"),
        (_policy("network", str(uuid.uuid4())), 404, "NetworkNotFound"),
        ({"rbac_policy": {"object_type": "network", "object_id": net["id"]}}, 400, "HTTPBadRequest"),
    ):
        await member.refused("POST", "/rbac-policies", body, status, type)


async def test_policies_count(member, admin):
    net = await _network(member)
    await admin("PUT", f"/quotas/{PROJECT}", {"quota": {"rbac_policy": 1}})
    policy = await _share(member, "network", net["id"])
    await member.refused("POST", "/rbac-policies", _policy("network", net["id"], THIRD), 409, "OverQuota")
    await member("DELETE", f"/rbac-policies/{policy['id']}", expect=204)
    await _share(member, "network", net["id"], THIRD)
