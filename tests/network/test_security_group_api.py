"""Security groups and their rules over HTTP: what Neutron's clients rely on."""

import asyncio
import uuid

from bus import clock
from bus.execute import Wish
from handlers.network.port import PORTS
from handlers.network.security_group import SECURITY_GROUPS, standing
from schema.network.port_command import CreatePort, DeletePort
from schema.network.security_group import ShareSecurityGroup
from tests.network.routed import OTHERS, PROJECT


async def _make(client, **fields):
    return (await client("POST", "/security-groups", {"security_group": fields}, expect=201))["security_group"]


async def _rule(client, group, **fields):
    body = {"security_group_rule": {"direction": "ingress", "security_group_id": group["id"], **fields}}
    return (await client("POST", "/security-group-rules", body, expect=201))["security_group_rule"]


async def _port_in(served, *group_ids):
    id = clock.uuid4()
    command = CreatePort(
        parent_id="n", mac_address=f"fa:16:3e:{id[:2]}:{id[2:4]}:{id[4:6]}", security_group_ids=group_ids
    )
    await served.cloud.executor.execute(Wish(PORTS, id, command), *standing(group_ids))
    return id


async def test_asking_for_groups_makes_the_projects_default_group(member, admin):
    [default] = (await member("GET", "/security-groups"))["security_groups"]
    assert (default["name"], default["project_id"], default["tenant_id"]) == ("default", PROJECT, PROJECT)
    assert (default["stateful"], default["shared"], default["description"]) == (True, False, "Default security group")
    rules = default["security_group_rules"]
    assert sorted((it["direction"], it["ethertype"], it["remote_group_id"]) for it in rules) == [
        ("egress", "IPv4", None),
        ("egress", "IPv6", None),
        ("ingress", "IPv4", default["id"]),
        ("ingress", "IPv6", default["id"]),
    ]
    assert all(it["belongs_to_default_sg"] for it in rules)
    assert [it["id"] for it in (await member("GET", "/security-groups"))["security_groups"]] == [default["id"]]
    others = (await admin("GET", f"/security-groups?project_id={OTHERS}"))["security_groups"]
    assert [(it["name"], it["project_id"]) for it in others] == [("default", OTHERS)]
    assert len((await admin("GET", f"/security-group-rules?project_id={'r' * 32}"))["security_group_rules"]) == 4


async def test_a_groups_life(member):
    made = await _make(member, name="web", description="d")
    assert made.keys() == {
        "id",
        "name",
        "description",
        "stateful",
        "shared",
        "tenant_id",
        "project_id",
        "created_at",
        "updated_at",
        "revision_number",
        "tags",
        "security_group_rules",
    }
    assert [(it["direction"], it["ethertype"]) for it in made["security_group_rules"]] == [
        ("egress", "IPv4"),
        ("egress", "IPv6"),
    ]
    one = f"/security-groups/{made['id']}"
    changed = (await member("PUT", one, {"security_group": {"name": "www", "stateful": False}}))["security_group"]
    assert (changed["name"], changed["stateful"], changed["revision_number"]) == ("www", False, 2)
    assert (await member("GET", one))["security_group"] == changed
    await member("PUT", f"{one}/tags", {"tags": ["red"]})
    for query in (
        "name=www",
        f"id={made['id']}",
        "stateful=false",
        "tags=red",
        "description=d",
        "shared=false&name=www",
    ):
        found = (await member("GET", f"/security-groups?{query}"))["security_groups"]
        assert [it["name"] for it in found] == ["www"], query
    assert (await member("GET", "/security-groups?shared=true"))["security_groups"] == []
    await member("DELETE", one, expect=204)
    await member.refused("GET", one, None, 404, "SecurityGroupNotFound")


async def test_several_at_once(member):
    body = {"security_groups": [{"name": "a"}, {"security_group": {"name": "b"}}]}
    made = (await member("POST", "/security-groups", body, expect=201))["security_groups"]
    assert [it["name"] for it in made] == ["a", "b"]
    rules = [
        {
            "direction": "ingress",
            "security_group_id": made[0]["id"],
            "protocol": "tcp",
            "port_range_min": p,
            "port_range_max": p,
        }
        for p in (22, 80)
    ]
    added = await member("POST", "/security-group-rules", {"security_group_rules": rules}, expect=201)
    assert [it["port_range_min"] for it in added["security_group_rules"]] == [22, 80]
    twice = {"security_group_rules": [{**rules[0], "port_range_min": 1}, {**rules[0], "port_range_min": 1}]}
    await member.refused("POST", "/security-group-rules", twice, 409, "DuplicateSecurityGroupRuleInPost")
    rules[1]["security_group_id"] = made[1]["id"]
    body = {"security_group_rules": rules}
    await member.refused("POST", "/security-group-rules", body, 400, "SecurityGroupNotSingleGroupRules")


async def test_the_default_group_keeps_its_name_and_stays(member, admin):
    [default] = (await member("GET", "/security-groups"))["security_groups"]
    one = f"/security-groups/{default['id']}"
    await member.refused("PUT", one, {"security_group": {"name": "x"}}, 409, "SecurityGroupCannotUpdateDefault")
    assert (await member("PUT", one, {"security_group": {"description": "x"}}))["security_group"]["description"] == "x"
    await member.refused("DELETE", one, None, 409, "SecurityGroupCannotRemoveDefault")
    for name in ("default", "Default"):
        body = {"security_group": {"name": name}}
        await member.refused("POST", "/security-groups", body, 409, "SecurityGroupDefaultAlreadyExists")
    await admin("DELETE", one, expect=204)
    [another] = (await member("GET", "/security-groups"))["security_groups"]
    assert another["id"] != default["id"]


async def test_a_group_in_use_stays_and_keeps_its_state(served, member):
    made = await _make(member, name="web")
    one = f"/security-groups/{made['id']}"
    port = await _port_in(served, made["id"])
    message = await member.refused("DELETE", one, None, 409, "SecurityGroupInUse")
    assert message == f"Security Group {made['id']} in use."
    await member.refused("PUT", one, {"security_group": {"stateful": False}}, 409, "SecurityGroupInUse")
    await member("PUT", one, {"security_group": {"stateful": True, "name": "www"}})
    await served.cloud.executor.execute(Wish(PORTS, port, DeletePort()))
    await member("PUT", one, {"security_group": {"stateful": False}})
    await member("DELETE", one, expect=204)


async def test_a_port_is_not_in_stateful_and_stateless_groups_at_once(member):
    follows, does_not = await _make(member, name="a"), await _make(member, name="b", stateful=False)
    net = (await member("POST", "/networks", {"network": {}}, expect=201))["network"]
    body = {"port": {"network_id": net["id"], "security_groups": [follows["id"], does_not["id"]]}}
    subnet = {"subnet": {"network_id": net["id"], "ip_version": 4, "cidr": "10.0.0.0/24"}}
    await member("POST", "/subnets", subnet, expect=201)
    assert "stateful and stateless" in await member.refused("POST", "/ports", body, 409, "SecurityGroupConflict")
    body["port"]["security_groups"] = [follows["id"]]
    port = (await member("POST", "/ports", body, expect=201))["port"]
    both = {"port": {"security_groups": [follows["id"], does_not["id"]]}}
    await member.refused("PUT", f"/ports/{port['id']}", both, 409, "SecurityGroupConflict")
    await member("PUT", f"/ports/{port['id']}", {"port": {"security_groups": [does_not["id"]]}})


async def test_rules_of_others_that_name_a_group_go_with_it(member):
    named, web = await _make(member, name="named"), await _make(member, name="web")
    rule = await _rule(member, web, remote_group_id=named["id"])
    details = f"/quotas/{PROJECT}/details"
    before = (await member("GET", details))["quota"]["security_group_rule"]["used"]
    await member("DELETE", f"/security-groups/{named['id']}", expect=204)
    await member.refused("GET", f"/security-group-rules/{rule['id']}", None, 404, "SecurityGroupRuleNotFound")
    rules = (await member("GET", f"/security-groups/{web['id']}"))["security_group"]["security_group_rules"]
    assert len(rules) == 2
    assert (await member("GET", details))["quota"]["security_group_rule"]["used"] == before - 3


async def test_rules_and_the_end_of_what_they_name_at_once(served, member):
    web = await _make(member, name="web")
    for _ in range(5):
        named = await _make(member, name="named")
        body = {"direction": "ingress", "security_group_id": web["id"], "remote_group_id": named["id"]}
        answers = await asyncio.gather(
            *(
                served.call(
                    "POST",
                    "/networking/v2.0/security-group-rules",
                    {"security_group_rule": {**body, "protocol": str(p)}},
                    token=member.token,
                )
                for p in range(3)
            ),
            served.call("DELETE", f"/networking/v2.0/security-groups/{named['id']}", token=member.token),
        )
        assert answers[-1].status == 204
        assert {it.status for it in answers[:-1]} <= {201, 404}
        rules = (await member("GET", f"/security-groups/{web['id']}"))["security_group"]["security_group_rules"]
        assert len(rules) == 2


async def test_a_rules_life(member):
    group = await _make(member, name="web")
    rule = await _rule(
        member,
        group,
        protocol="TCP",
        port_range_min="22",
        port_range_max=22,
        remote_ip_prefix="10.1.2.3/8",
        description="ssh",
    )
    expected = {
        "security_group_id": group["id"],
        "project_id": PROJECT,
        "tenant_id": PROJECT,
        "direction": "ingress",
        "ethertype": "IPv4",
        "protocol": "tcp",
        "port_range_min": 22,
        "port_range_max": 22,
        "remote_ip_prefix": "10.1.2.3/8",
        "normalized_cidr": "10.0.0.0/8",
        "remote_group_id": None,
        "remote_address_group_id": None,
        "belongs_to_default_sg": False,
        "description": "ssh",
        "revision_number": 0,
    }
    assert rule.items() >= expected.items()
    one = f"/security-group-rules/{rule['id']}"
    assert (await member("GET", one))["security_group_rule"] == rule
    assert await member("GET", f"{one}?fields=protocol") == {"security_group_rule": {"protocol": "tcp"}}
    await member("DELETE", one, expect=204)
    await member.refused("GET", one, None, 404, "SecurityGroupRuleNotFound")
    await member.refused("DELETE", one, None, 404, "SecurityGroupRuleNotFound")


async def test_rules_are_filtered_sorted_and_paged(member):
    group = await _make(member, name="web")
    for port in (80, 22, 443):
        await _rule(member, group, protocol="tcp", port_range_min=port, port_range_max=port)
    mine = f"security_group_id={group['id']}"

    async def ports(query):
        answer = await member("GET", f"/security-group-rules?{mine}&{query}")
        return [it["port_range_min"] for it in answer["security_group_rules"]]

    assert await ports("sort_key=port_range_min&direction=ingress") == [22, 80, 443]
    assert await ports("sort_key=port_range_min&sort_dir=desc&protocol=tcp") == [443, 80, 22]
    assert await ports("port_range_min=22&port_range_min=80&sort_key=port_range_min") == [22, 80]
    assert await ports("direction=egress") == [None, None]
    assert await ports("belongs_to_default_sg=True") == []
    assert await ports(f"project_id={PROJECT}&ethertype=IPv6") == [None]
    seen, path = [], f"/security-group-rules?{mine}&limit=2&sort_key=port_range_min"
    while path:
        page = await member("GET", path)
        seen += [it["port_range_min"] for it in page["security_group_rules"]]
        following = [it["href"] for it in page.get("security_group_rules_links", []) if it["rel"] == "next"]
        path = following[0].partition("/networking/v2.0")[2] if following else ""
    assert seen == [None, None, 22, 80, 443]
    await member.refused("GET", "/security-group-rules?colour=red", None, 400, "HTTPBadRequest")
    await member.refused("GET", "/security-group-rules?sort_key=colour", None, 400, "HTTPBadRequest")
    for path in ("/security-groups", "/security-group-rules"):
        for limit in ("many", "--5", "1.5"):
            await member.refused("GET", f"{path}?limit={limit}", None, 400, "HTTPBadRequest")
    everything = (await member("GET", "/security-group-rules"))["security_group_rules"]
    assert len(everything) == 4 + 5


NONSENSE = [
    ({"protocol": "teleport"}, "SecurityGroupRuleInvalidProtocol"),
    ({"protocol": 256}, "SecurityGroupRuleInvalidProtocol"),
    ({"protocol": -1}, "SecurityGroupRuleInvalidProtocol"),
    ({"ethertype": "IPv5"}, "SecurityGroupRuleInvalidEtherType"),
    ({"ethertype": None}, "SecurityGroupRuleInvalidEtherType"),
    ({"port_range_min": 1, "port_range_max": 2}, "SecurityGroupProtocolRequiredWithPorts"),
    ({"protocol": "tcp", "port_range_min": 2, "port_range_max": 1}, "SecurityGroupInvalidPortRange"),
    ({"protocol": "tcp", "port_range_min": 2}, "SecurityGroupInvalidPortRange"),
    ({"protocol": "tcp", "port_range_min": 0, "port_range_max": 1}, "SecurityGroupInvalidPortValue"),
    ({"protocol": "tcp", "port_range_min": 1, "port_range_max": 65536}, "SecurityGroupInvalidPortValue"),
    ({"protocol": "tcp", "port_range_min": -1, "port_range_max": 1}, "SecurityGroupInvalidPortValue"),
    ({"protocol": "tcp", "port_range_min": "http", "port_range_max": 1}, "SecurityGroupInvalidPortValue"),
    ({"protocol": "icmp", "port_range_min": 256}, "SecurityGroupInvalidIcmpValue"),
    ({"protocol": "icmp", "port_range_min": 1, "port_range_max": 256}, "SecurityGroupInvalidIcmpValue"),
    ({"protocol": "icmp", "port_range_max": 1}, "SecurityGroupMissingIcmpType"),
    ({"protocol": "gre", "port_range_min": 1, "port_range_max": 1}, "SecurityGroupInvalidProtocolForPort"),
    ({"protocol": "icmpv6"}, "SecurityGroupEthertypeConflictWithProtocol"),
    ({"protocol": "58"}, "SecurityGroupEthertypeConflictWithProtocol"),
    ({"remote_ip_prefix": "fd00::/64"}, "SecurityGroupRuleParameterConflict"),
    ({"remote_ip_prefix": "nowhere"}, "InvalidCIDR"),
    ({"remote_ip_prefix": "10.0.0.0/8", "remote_group_id": "x"}, "SecurityGroupMultipleRemoteEntites"),
    ({"remote_address_group_id": "y", "remote_group_id": "x"}, "SecurityGroupMultipleRemoteEntites"),
    ({"direction": "sideways"}, "HTTPBadRequest"),
    ({"colour": "red"}, "HTTPBadRequest"),
]


async def test_rules_that_make_no_sense(member):
    group = await _make(member, name="web")
    for fields, type in NONSENSE:
        body = {"security_group_rule": {"direction": "ingress", "security_group_id": group["id"], **fields}}
        await member.refused("POST", "/security-group-rules", body, 400, type)


FORMS = [
    ({"protocol": "any"}, {"protocol": None}),
    ({"protocol": 6, "port_range_min": 1, "port_range_max": 65535}, {"protocol": "6", "port_range_min": None}),
    ({"protocol": "icmp", "ethertype": "ipv6"}, {"protocol": "ipv6-icmp", "ethertype": "IPv6"}),
    ({"protocol": "icmpv6", "ethertype": "IPv6"}, {"protocol": "ipv6-icmp"}),
    ({"protocol": "1", "ethertype": "IPv6"}, {"protocol": "58"}),
    ({"protocol": "icmp", "port_range_min": 8, "port_range_max": 0}, {"port_range_min": 8, "port_range_max": 0}),
    ({"protocol": "icmp", "port_range_min": 8}, {"port_range_min": 8, "port_range_max": None}),
    ({"remote_ip_prefix": "192.0.2.7"}, {"remote_ip_prefix": "192.0.2.7/32"}),
    ({"remote_ip_prefix": "0.0.0.0/0"}, {"remote_ip_prefix": "0.0.0.0/0", "normalized_cidr": "0.0.0.0/0"}),
    ({"remote_ip_prefix": "FD00::/64", "ethertype": "IPv6"}, {"remote_ip_prefix": "fd00::/64"}),
    ({"description": None}, {"description": ""}),
]


async def test_rules_are_kept_in_one_form(member):
    for fields, kept in FORMS:
        group = await _make(member)
        assert (await _rule(member, group, **fields)).items() >= kept.items()
        await member("DELETE", f"/security-groups/{group['id']}", expect=204)


async def test_no_two_rules_let_the_same_through(member):
    group = await _make(member, name="web")
    rule = await _rule(member, group, protocol="tcp", port_range_min=22, port_range_max=22)
    for again in ({"protocol": "6"}, {"protocol": "tcp", "remote_ip_prefix": "0.0.0.0/0"}, {"protocol": "TCP"}):
        body = {
            "security_group_rule": {
                "direction": "ingress",
                "security_group_id": group["id"],
                "port_range_min": 22,
                "port_range_max": 22,
                **again,
            }
        }
        message = await member.refused("POST", "/security-group-rules", body, 409, "SecurityGroupRuleExists")
        assert message == f"Security group rule already exists. Rule id is {rule['id']}."


async def test_what_a_rule_names_must_be_there(member, stranger):
    group, theirs = await _make(member, name="web"), await _make(stranger, name="theirs")
    for id in (str(uuid.uuid4()), theirs["id"]):
        body = {"security_group_rule": {"direction": "ingress", "security_group_id": id}}
        await member.refused("POST", "/security-group-rules", body, 404, "SecurityGroupNotFound")
        body["security_group_rule"] |= {"security_group_id": group["id"], "remote_group_id": id}
        await member.refused("POST", "/security-group-rules", body, 404, "SecurityGroupNotFound")
        del body["security_group_rule"]["remote_group_id"]
        body["security_group_rule"] |= {"remote_address_group_id": id}
        await member.refused("POST", "/security-group-rules", body, 404, "AddressGroupNotFound")


async def test_others_see_only_what_is_shared_with_them_and_change_nothing(served, member, stranger):
    group = await _make(member, name="web")
    one = f"/security-groups/{group['id']}"
    await stranger.refused("GET", one, None, 404, "SecurityGroupNotFound")
    rule = group["security_group_rules"][0]
    await stranger.refused("GET", f"/security-group-rules/{rule['id']}", None, 404, "SecurityGroupRuleNotFound")
    await served.cloud.executor.execute(Wish(SECURITY_GROUPS, group["id"], ShareSecurityGroup(project_id=OTHERS)))
    assert (await stranger("GET", one))["security_group"]["shared"] is True
    assert (await member("GET", one))["security_group"]["shared"] is False
    for _ in range(2):
        for client, is_shared in ((stranger, True), (member, False)):
            listed = (await client("GET", f"/security-groups?id={group['id']}"))["security_groups"]
            assert [(it["id"], it["shared"]) for it in listed] == [(group["id"], is_shared)]
    assert len((await stranger("GET", "/security-groups?shared=true"))["security_groups"]) == 1
    await stranger.refused("PUT", one, {"security_group": {"name": "x"}}, 403, "PolicyNotAuthorized")
    body = {"security_group_rule": {"direction": "ingress", "security_group_id": group["id"]}}
    await stranger.refused("POST", "/security-group-rules", body, 403, "PolicyNotAuthorized")
    await stranger.refused("DELETE", f"/security-group-rules/{rule['id']}", None, 403, "PolicyNotAuthorized")
    mine = await _make(stranger, name="mine")
    assert (await _rule(stranger, mine, remote_group_id=group["id"]))["remote_group_id"] == group["id"]


async def test_groups_and_rules_count(member, admin):
    await member("GET", "/security-groups")
    await admin("PUT", f"/quotas/{PROJECT}", {"quota": {"security_group": 2, "security_group_rule": 7}})
    group = await _make(member, name="web")
    message = await member.refused("POST", "/security-groups", {"security_group": {}}, 409, "OverQuota")
    assert message == "Quota exceeded for resources: ['security_group']."
    await _rule(member, group)
    body = {"security_group_rule": {"direction": "ingress", "security_group_id": group["id"], "ethertype": "IPv6"}}
    await member.refused("POST", "/security-group-rules", body, 409, "OverQuota")
    await member("DELETE", f"/security-groups/{group['id']}", expect=204)
    details = (await member("GET", f"/quotas/{PROJECT}/details"))["quota"]
    assert (details["security_group"]["used"], details["security_group_rule"]["used"]) == (1, 4)


async def test_what_new_groups_begin_with(member, admin):
    path = "/default-security-group-rules"
    assert len((await member("GET", path))["default_security_group_rules"]) == 4
    body = {
        "default_security_group_rule": {
            "direction": "ingress",
            "protocol": "tcp",
            "port_range_min": 22,
            "port_range_max": 22,
            "remote_group_id": "PARENT",
        }
    }
    await member.refused("POST", path, body, 403, "PolicyNotAuthorized")
    rule = (await admin("POST", path, body, expect=201))["default_security_group_rule"]
    assert (rule["used_in_default_sg"], rule["used_in_non_default_sg"]) == (False, True)
    await admin.refused("POST", path, body, 409, "DefaultSecurityGroupRuleExists")
    body["default_security_group_rule"] |= {"used_in_default_sg": True, "used_in_non_default_sg": False}
    second = (await admin("POST", path, body, expect=201))["default_security_group_rule"]
    found = await member("GET", f"{path}?used_in_default_sg=true&protocol=tcp")
    assert [it["id"] for it in found["default_security_group_rules"]] == [second["id"]]
    group = await _make(member, name="web")
    [ssh] = [it for it in group["security_group_rules"] if it["protocol"] == "tcp"]
    assert ssh["remote_group_id"] == group["id"]
    await admin("DELETE", f"{path}/{rule['id']}", expect=204)
    await admin.refused("GET", f"{path}/{rule['id']}", None, 404, "DefaultSecurityGroupRuleNotFound")
    assert len((await _make(member, name="later"))["security_group_rules"]) == 2


async def test_what_was_so_is_shown_and_not_made_anew(served, member, admin):
    group = await _make(member, name="web")
    rule = group["security_group_rules"][0]
    then = await served.cloud.log.head()
    await member("DELETE", f"/security-group-rules/{rule['id']}", expect=204)
    await admin("PUT", f"/quotas/{PROJECT}", {"quota": {"port": 7}})
    assert (await member("GET", f"/security-group-rules/{rule['id']}?as_of={then}"))["security_group_rule"] == rule
    assert (await member("GET", f"/security-groups/{group['id']}?as_of={then}"))["security_group"] == group
    assert (await member("GET", f"/quotas/{PROJECT}?as_of={then}"))["quota"]["port"] == 500
    head = await served.cloud.log.head()
    assert (await admin("GET", f"/security-groups?as_of={then}&project_id={OTHERS}"))["security_groups"] == []
    assert await served.cloud.log.head() == head
