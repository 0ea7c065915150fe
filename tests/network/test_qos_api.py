"""QoS over HTTP: what Neutron's clients rely on."""

import asyncio
import uuid

import pytest

from bus.execute import Wish
from handlers.network.port import PORTS
from handlers.network.qos_policy import default_policy, using
from schema.network.port import PORT
from schema.network.port_command import UpdatePort
from schema.network.qos_policy import QOS_POLICY
from schema.refusal import NotFound
from tests.network.routed import PROJECT, Client, network, port, subnet

LIMITS, MARKS = "bandwidth_limit_rules", "dscp_marking_rules"


@pytest.fixture
async def admin(served):
    return Client(served, await served.token("admin", project="o" * 32))


async def _policy(client, **fields):
    return (await client("POST", "/qos/policies", {"policy": fields}, expect=201))["policy"]


async def _limit(client, policy, **fields):
    body = {"bandwidth_limit_rule": {"max_kbps": 1000, **fields}}
    return (await client("POST", f"/qos/policies/{policy['id']}/{LIMITS}", body, expect=201))["bandwidth_limit_rule"]


async def test_a_policys_life(admin):
    made = await _policy(admin, name="gold", description="d")
    assert made["rules"] == []
    assert (made["shared"], made["is_default"], made["revision_number"]) == (False, False, 1)
    assert made["project_id"] == made["tenant_id"] == "o" * 32
    one = f"/qos/policies/{made['id']}"
    changed = (await admin("PUT", one, {"policy": {"name": "silver", "shared": True}}))["policy"]
    assert (changed["name"], changed["shared"]) == ("silver", True)
    assert await admin("GET", f"{one}?fields=name") == {"policy": {"name": "silver"}}
    assert [it["id"] for it in (await admin("GET", "/qos/policies?shared=true"))["policies"]] == [made["id"]]
    assert (await admin("GET", "/qos/policies?shared=false"))["policies"] == []
    for tags in (f"/policies/{made['id']}/tags", f"{one}/tags"):
        assert await admin("PUT", tags, {"tags": ["red"]}) == {"tags": ["red"]}
    assert len((await admin("GET", "/qos/policies?tags=red"))["policies"]) == 1
    await admin("DELETE", one, expect=204)
    await admin.refused("GET", one, None, 404, "QosPolicyNotFound")


async def test_rules_below_their_policy(admin):
    policy = await _policy(admin, name="gold")
    made = await _limit(admin, policy, max_burst_kbps=100)
    assert made == {"id": made["id"], "max_kbps": 1000, "max_burst_kbps": 100, "direction": "egress"}
    into = await _limit(admin, policy, direction="ingress")
    every = f"/qos/policies/{policy['id']}/{LIMITS}"
    conflict = {"bandwidth_limit_rule": {"max_kbps": 5}}
    assert made["id"] in await admin.refused("POST", every, conflict, 409, "QoSRulesConflict")
    marks = f"/qos/policies/{policy['id']}/{MARKS}"
    mark = (await admin("POST", marks, {"dscp_marking_rule": {"dscp_mark": 46}}, expect=201))["dscp_marking_rule"]
    assert (await admin("GET", every))[LIMITS] == [made, into]
    assert (await admin("GET", f"{every}?direction=ingress"))[LIMITS] == [into]
    shown = (await admin("GET", f"/qos/policies/{policy['id']}"))["policy"]
    assert shown["revision_number"] == 4
    assert shown["rules"][0] == {**made, "type": "bandwidth_limit", "qos_policy_id": policy["id"]}
    assert shown["rules"][2] == {**mark, "type": "dscp_marking", "qos_policy_id": policy["id"]}
    one = f"{every}/{made['id']}"
    assert (await admin("PUT", one, {"bandwidth_limit_rule": {"max_kbps": 7}}))["bandwidth_limit_rule"]["max_kbps"] == 7
    assert (await admin("GET", one))["bandwidth_limit_rule"] == {**made, "max_kbps": 7}
    turned = {"bandwidth_limit_rule": {"direction": "ingress"}}
    await admin.refused("PUT", one, turned, 409, "QoSRulesConflict")
    await admin.refused("GET", f"{marks}/{made['id']}", None, 404, "QosRuleNotFound")
    await admin("DELETE", one, expect=204)
    await admin.refused("DELETE", one, None, 404, "QosRuleNotFound")
    await admin("DELETE", f"/qos/policies/{policy['id']}", expect=204)
    await admin.refused("POST", every, conflict, 404, "QosPolicyNotFound")


async def test_rules_by_their_id_alone(admin):
    policy = await _policy(admin, name="gold")
    made = await _limit(admin, policy)
    alias = f"/qos/alias-bandwidth-limit-rules/{made['id']}"
    assert (await admin("GET", alias))["alias_bandwidth_limit_rule"] == made
    changed = await admin("PUT", alias, {"alias_bandwidth_limit_rule": {"max_kbps": 5}})
    assert changed["alias_bandwidth_limit_rule"]["max_kbps"] == 5
    await admin.refused("GET", f"/qos/alias-dscp-marking-rules/{made['id']}", None, 404, "QosRuleNotFound")
    await admin("DELETE", alias, expect=204)
    await admin.refused("GET", alias, None, 404, "QosRuleNotFound")


async def test_what_no_rule_may_say_is_refused(admin):
    policy = await _policy(admin, name="gold")
    marks, limits = (f"/qos/policies/{policy['id']}/{it}" for it in (MARKS, LIMITS))
    for mark in (-1, 1, 19, 42, 57, 58):
        await admin.refused("POST", marks, {"dscp_marking_rule": {"dscp_mark": mark}}, 400, "HTTPBadRequest")
    for body in ({}, {"max_kbps": -1}, {"max_kbps": 2**31}, {"max_kbps": 1, "direction": "up"}, {"kbps": 1}):
        await admin.refused("POST", limits, {"bandwidth_limit_rule": body}, 400, "HTTPBadRequest")
    assert (await _limit(admin, policy, max_kbps="900"))["max_kbps"] == 900


async def test_operators_write_policies_and_projects_read_theirs(served, admin, member, stranger):
    policy = await _policy(admin, name="gold", project_id=PROJECT)
    one = f"/qos/policies/{policy['id']}"
    assert (await member("GET", one))["policy"]["id"] == policy["id"]
    await member.refused("PUT", one, {"policy": {"name": "x"}}, 403, "PolicyNotAuthorized")
    await member.refused("POST", "/qos/policies", {"policy": {}}, 403, "PolicyNotAuthorized")
    await member.refused("POST", "/qos/policies", {"policy": {"name": "x" * 256}}, 400, "HTTPBadRequest")
    body = {"bandwidth_limit_rule": {"max_kbps": 1}}
    await member.refused("POST", f"{one}/{LIMITS}", body, 403, "PolicyNotAuthorized")
    await stranger.refused("GET", one, None, 404, "QosPolicyNotFound")
    await stranger.refused("PUT", one, {"policy": {"name": "x"}}, 404, "QosPolicyNotFound")
    # As Neutron has it: rules are not for everybody to make, wherever; what is there to change is looked for first.
    rule = await _limit(admin, policy)
    await stranger.refused("POST", f"{one}/{LIMITS}", body, 403, "PolicyNotAuthorized")
    await stranger.refused("PUT", f"{one}/{LIMITS}/{rule['id']}", body, 404, "QosPolicyNotFound")
    await member.refused("PUT", f"{one}/{LIMITS}/{rule['id']}", body, 403, "PolicyNotAuthorized")
    await admin("PUT", one, {"policy": {"shared": True}})
    assert (await stranger("GET", one))["policy"]["shared"] is True
    assert len((await stranger("GET", "/qos/policies"))["policies"]) == 1


async def test_only_types_that_can_be_true_are_offered(admin, member):
    types = (await member("GET", "/qos/rule-types"))["rule_types"]
    assert types == [{"type": "bandwidth_limit"}, {"type": "dscp_marking"}]
    detail = (await admin("GET", "/qos/rule-types/bandwidth_limit"))["rule_type"]
    assert set(detail) == {"type", "drivers"}
    await member.refused("GET", "/qos/rule-types/bandwidth_limit", None, 403, "PolicyNotAuthorized")
    await admin.refused("GET", "/qos/rule-types/minimum_bandwidth", None, 404, "QosRuleTypeNotFound")


async def test_a_minimum_may_be_said_and_is_given_to_nothing(member, admin):
    policy = await _policy(admin, shared=True)
    every = f"/qos/policies/{policy['id']}/minimum_bandwidth_rules"
    body = {"minimum_bandwidth_rule": {"min_kbps": 100}}
    made = (await admin("POST", every, body, expect=201))["minimum_bandwidth_rule"]
    assert made == {"id": made["id"], "min_kbps": 100, "direction": "egress"}
    network = {"network": {"qos_policy_id": policy["id"]}}
    await member.refused("POST", "/networks", network, 409, "QosRuleNotSupported")
    limit = {"bandwidth_limit_rule": {"max_kbps": 99}}
    await admin.refused("POST", f"/qos/policies/{policy['id']}/{LIMITS}", limit, 409, "QoSRuleParameterConflict")
    await admin("DELETE", f"/qos/alias-minimum-bandwidth-rules/{made['id']}", expect=204)
    used = (await member("POST", "/networks", network, expect=201))["network"]
    text = await admin.refused("POST", every, body, 409, "QosRuleNotSupported")
    assert text == f"Rule minimum_bandwidth is not supported by network {used['id']}"


async def test_a_project_has_one_default_policy(served, admin):
    first = await _policy(admin, name="a", is_default=True)
    other = await _policy(admin, name="b")
    assert await default_policy(served.cloud, "o" * 32) == first["id"]
    body = {"policy": {"is_default": True}}
    await admin.refused("POST", "/qos/policies", body, 409, "QoSPolicyDefaultAlreadyExists")
    text = await admin.refused("PUT", f"/qos/policies/{other['id']}", body, 409, "QoSPolicyDefaultAlreadyExists")
    assert text == f"A default QoS policy exists for project {'o' * 32}."
    await admin("PUT", f"/qos/policies/{first['id']}", {"policy": {"is_default": False}})
    await admin("PUT", f"/qos/policies/{other['id']}", body)
    assert await default_policy(served.cloud, "o" * 32) == other["id"]
    assert await default_policy(served.cloud, PROJECT) is None


@pytest.fixture
async def routed(served, member):
    """A router with a way out, and a port behind it."""
    outside = await network(served.cloud, external=True, project="operators")
    await subnet(served.cloud, outside, "203.0.113.0/27", "203.0.113.1", "203.0.113.2", "203.0.113.30", "operators")
    inner = await network(served.cloud)
    inside = await subnet(served.cloud, inner, "10.0.0.0/24", "10.0.0.1", "10.0.0.2", "10.0.0.254")
    made = await port(served.cloud, inner, {inside: "10.0.0.9"})
    body = {"router": {"external_gateway_info": {"network_id": outside}}}
    router = (await member("POST", "/routers", body, expect=201))["router"]
    await member("PUT", f"/routers/{router['id']}/add_router_interface", {"subnet_id": inside})
    return outside, inner, made, router["id"]


async def test_a_floating_ip_has_a_policy(member, admin, routed):
    policy, hidden = await _policy(admin, shared=True), await _policy(admin)
    body = {"floating_network_id": routed[0], "qos_policy_id": hidden["id"]}
    await member.refused("POST", "/floatingips", {"floatingip": body}, 404, "QosPolicyNotFound")
    body["qos_policy_id"] = policy["id"]
    made = (await member("POST", "/floatingips", {"floatingip": body}, expect=201))["floatingip"]
    assert made["qos_policy_id"] == policy["id"]
    text = await admin.refused("DELETE", f"/qos/policies/{policy['id']}", None, 409, "QosPolicyInUse")
    assert text == f"QoS Policy {policy['id']} is used by floatingip {made['id']}."
    one = f"/floatingips/{made['id']}"
    await member.refused("PUT", one, {"floatingip": {"qos_policy_id": hidden["id"]}}, 404, "QosPolicyNotFound")
    body = {"floatingip": {"qos_policy_id": None, "port_id": routed[2]}}
    assert (await member("PUT", one, body))["floatingip"]["qos_policy_id"] is None
    await admin("DELETE", f"/qos/policies/{policy['id']}", expect=204)


async def test_floating_ips_show_their_networks_policy(member, admin, routed):
    policy = await _policy(admin)
    await admin("PUT", f"/networks/{routed[0]}", {"network": {"qos_policy_id": policy["id"]}})
    body = {"floatingip": {"floating_network_id": routed[0]}}
    made = (await member("POST", "/floatingips", body, expect=201))["floatingip"]
    assert (made["qos_policy_id"], made["qos_network_policy_id"]) == (None, policy["id"])


async def test_a_way_out_has_a_policy(member, admin, routed):
    policy = await _policy(admin, shared=True)
    one = f"/routers/{routed[3]}"
    body = {"router": {"external_gateway_info": {"network_id": routed[0], "qos_policy_id": policy["id"]}}}
    assert (await member("PUT", one, body))["router"]["external_gateway_info"]["qos_policy_id"] == policy["id"]
    text = await admin.refused("DELETE", f"/qos/policies/{policy['id']}", None, 409, "QosPolicyInUse")
    assert text == f"QoS Policy {policy['id']} is used by router {routed[3]}."
    await admin.refused("PUT", f"/qos/policies/{policy['id']}", {"policy": {"shared": False}}, 409, "RbacPolicyInUse")
    body = {"router": {"external_gateway_info": {"network_id": routed[0], "qos_policy_id": str(uuid.uuid4())}}}
    await member.refused("PUT", one, body, 404, "QosPolicyNotFound")
    await member("PUT", one, {"router": {"external_gateway_info": {}}})
    await admin("PUT", f"/qos/policies/{policy['id']}", {"policy": {"shared": False}})
    await admin("DELETE", f"/qos/policies/{policy['id']}", expect=204)


async def test_what_an_operator_gave_is_not_a_members_to_take_off(member, admin, routed):
    hidden = await _policy(admin)
    body = {"floatingip": {"floating_network_id": routed[0], "project_id": PROJECT, "qos_policy_id": hidden["id"]}}
    made = (await admin("POST", "/floatingips", body, expect=201))["floatingip"]
    one = f"/floatingips/{made['id']}"
    body = {"floatingip": {"qos_policy_id": None}}
    await member.refused("PUT", one, body, 403, "PolicyRemoveAuthorizationError")
    await member("PUT", one, {"floatingip": {"description": "mine"}})
    assert (await admin("PUT", one, body))["floatingip"]["qos_policy_id"] is None


async def test_ports_have_policies(member, admin, routed):
    policy, hidden = await _policy(admin, shared=True), await _policy(admin)
    body = {"port": {"network_id": routed[1], "qos_policy_id": hidden["id"]}}
    await member.refused("POST", "/ports", body, 404, "QosPolicyNotFound")
    one = f"/ports/{routed[2]}"
    given = (await member("PUT", one, {"port": {"qos_policy_id": policy["id"]}}))["port"]
    assert (given["qos_policy_id"], given["qos_network_policy_id"]) == (policy["id"], None)
    text = await admin.refused("DELETE", f"/qos/policies/{policy['id']}", None, 409, "QosPolicyInUse")
    assert text == f"QoS Policy {policy['id']} is used by port {routed[2]}."
    assert [it["id"] for it in (await member("GET", f"/ports?qos_policy_id={policy['id']}"))["ports"]] == [routed[2]]
    await admin("PUT", one, {"port": {"qos_policy_id": hidden["id"]}})
    await member.refused("PUT", one, {"port": {"qos_policy_id": None}}, 403, "PolicyRemoveAuthorizationError")
    await admin("PUT", one, {"port": {"qos_policy_id": None}})
    for it in (policy, hidden):
        await admin("DELETE", f"/qos/policies/{it['id']}", expect=204)


async def test_networks_have_policies(member, admin):
    policy, hidden = await _policy(admin, shared=True), await _policy(admin)
    body = {"network": {"qos_policy_id": hidden["id"]}}
    await member.refused("POST", "/networks", body, 404, "QosPolicyNotFound")
    made = (await member("POST", "/networks", {"network": {"qos_policy_id": policy["id"]}}, expect=201))["network"]
    one = f"/networks/{made['id']}"
    assert made["qos_policy_id"] == policy["id"]
    text = await admin.refused("DELETE", f"/qos/policies/{policy['id']}", None, 409, "QosPolicyInUse")
    assert text == f"QoS Policy {policy['id']} is used by network {made['id']}."
    await member.refused("PUT", one, body, 404, "QosPolicyNotFound")
    assert (await admin("PUT", one, body))["network"]["qos_policy_id"] == hidden["id"]
    body = {"network": {"qos_policy_id": None}}
    await member.refused("PUT", one, body, 403, "PolicyRemoveAuthorizationError")
    assert (await admin("PUT", one, body))["network"]["qos_policy_id"] is None
    for it in (policy, hidden):
        await admin("DELETE", f"/qos/policies/{it['id']}", expect=204)


async def test_a_policy_is_taken_from_all_only_when_nobody_relies_on_it(admin):
    policy = await _policy(admin, shared=True)
    one, unshared = f"/qos/policies/{policy['id']}", {"policy": {"shared": False}}
    made = (await admin("POST", "/networks", {"network": {"qos_policy_id": policy["id"]}}, expect=201))["network"]
    await admin.refused("PUT", one, unshared, 409, "RbacPolicyInUse")
    await admin("DELETE", f"/networks/{made['id']}", expect=204)
    assert (await admin("PUT", one, unshared))["policy"]["shared"] is False


async def test_new_networks_have_their_projects_default_policy(member, admin):
    default = await _policy(admin, is_default=True, project_id=PROJECT)
    made = (await member("POST", "/networks", {"networks": [{}, {"qos_policy_id": None}]}, expect=201))["networks"]
    assert [it["qos_policy_id"] for it in made] == [default["id"]] * 2
    theirs = (await admin("POST", "/networks", {"network": {"project_id": PROJECT}}, expect=201))["network"]
    assert theirs["qos_policy_id"] == default["id"]
    own = (await admin("POST", "/networks", {"network": {}}, expect=201))["network"]
    assert own["qos_policy_id"] is None
    await admin.refused("DELETE", f"/qos/policies/{default['id']}", None, 409, "QosPolicyInUse")


async def test_a_policy_that_is_taken_while_it_ends_is_either_there_or_not_had(served, admin, routed):
    for _ in range(12):
        policy = await _policy(admin)
        take = Wish(PORTS, routed[2], UpdatePort(qos_policy_id=policy["id"]))

        async def taken(take=take, id=policy["id"]):
            try:
                await served.cloud.executor.execute(*using(id, "", operator=True), take)
            except NotFound:
                return False
            return True

        path = f"/networking/v2.0/qos/policies/{policy['id']}"
        got, ended = await asyncio.gather(taken(), served.call("DELETE", path, token=admin.token))
        had = (await served.cloud.documents.get(PORT, routed[2])).state.qos_policy_id == policy["id"]
        there = bool(await served.cloud.documents.find(QOS_POLICY))
        assert (had, there, ended.status) == ((True, True, 409) if got else (False, False, 204))
        await served.cloud.executor.execute(Wish(PORTS, routed[2], UpdatePort(qos_policy_id=None)))
        if there:
            await admin("DELETE", f"/qos/policies/{policy['id']}", expect=204)
