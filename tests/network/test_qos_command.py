"""QoS and trunks through the `openstack` command."""

import pytest

JSON = ("-f", "json")


@pytest.mark.slow
async def test_qos_policies_and_rules(openstack):
    policy, rule = ("network", "qos", "policy"), ("network", "qos", "rule")
    made = await openstack(*policy, "create", "gold", "--share", "--default", *JSON)
    assert (made["name"], made["shared"], made["is_default"], made["rules"]) == ("gold", True, True, [])
    limit = await openstack(
        *rule, "create", "gold", "--type", "bandwidth-limit", "--max-kbps", "1000", "--max-burst-kbits", "200", *JSON
    )
    assert (limit["max_kbps"], limit["max_burst_kbps"], limit["direction"]) == (1000, 200, "egress")
    mark = await openstack(*rule, "create", "gold", "--type", "dscp-marking", "--dscp-mark", "46", *JSON)
    await openstack(*rule, "set", "gold", limit["id"], "--max-kbps", "2000", "--ingress")
    shown = await openstack(*rule, "show", "gold", limit["id"], *JSON)
    assert (shown["max_kbps"], shown["direction"]) == (2000, "ingress")
    listed = await openstack(*rule, "list", "gold", *JSON)
    assert {it["ID"] for it in listed} == {limit["id"], mark["id"]}
    await openstack(*rule, "delete", "gold", mark["id"])
    network = await openstack("network", "create", "net", "--qos-policy", "gold", *JSON)
    assert network["qos_policy_id"] == made["id"]
    assert "is used by network" in await openstack.refused(*policy, "delete", "gold")
    port = await openstack("port", "create", "--network", "net", "--qos-policy", "gold", "p", *JSON)
    assert (port["qos_policy_id"], port["qos_network_policy_id"]) == (made["id"], made["id"])
    await openstack("port", "unset", "--qos-policy", "p")
    await openstack("port", "delete", "p")
    await openstack("network", "set", "--no-qos-policy", "net")
    await openstack(*policy, "set", "gold", "--no-share", "--no-default", "--name", "silver")
    [only] = await openstack(*policy, "list", *JSON)
    assert (only["Name"], only["Shared"], only["Default"]) == ("silver", False, False)
    types = await openstack(*rule, "type", "list", *JSON)
    assert [it["Type"] for it in types] == ["bandwidth_limit", "dscp_marking"]
    assert (await openstack(*rule, "type", "show", "dscp_marking", *JSON))["rule_type_name"] == "dscp_marking"
    await openstack(*policy, "delete", "silver")
    assert await openstack(*policy, "list", *JSON) == []


@pytest.mark.slow
async def test_trunks(openstack):
    await openstack("network", "create", "net")
    for name in ("parent", "one", "two"):
        await openstack("port", "create", "--network", "net", name)
    trunk = ("network", "trunk")
    sub = ("--subport", "port=one,segmentation-type=vlan,segmentation-id=10")
    made = await openstack(*trunk, "create", "t", "--parent-port", "parent", *sub, *JSON)
    assert (made["name"], made["status"], made["is_admin_state_up"]) == ("t", "DOWN", True)
    await openstack(*trunk, "set", "t", "--subport", "port=two,segmentation-type=vlan,segmentation-id=20")
    listed = await openstack("network", "subport", "list", "--trunk", "t", *JSON)
    assert {it["Segmentation ID"] for it in listed} == {10, 20}
    shown = await openstack("port", "show", "parent", *JSON)
    assert shown["trunk_details"]["trunk_id"] == made["id"]
    assert "is currently a parent port" in await openstack.refused("port", "delete", "parent")
    await openstack(*trunk, "unset", "t", "--subport", "two")
    await openstack(*trunk, "set", "t", "--name", "u", "--disable")
    [only] = await openstack(*trunk, "list", "--long", *JSON)
    assert (only["Name"], only["Status"]) == ("u", "DOWN")
    assert "disabled" in await openstack.refused(*trunk, "delete", "u")
    await openstack(*trunk, "set", "u", "--enable")
    await openstack(*trunk, "delete", "u")
    await openstack("port", "delete", "parent", "one", "two")
