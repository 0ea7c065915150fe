"""Security groups, address groups, RBAC policies and quotas through the `openstack` command."""

import pytest

JSON = ("-f", "json")


@pytest.mark.slow
async def test_security_groups_and_rules(openstack):
    group = ("security", "group")
    [default] = await openstack(*group, "list", *JSON)
    assert default["Name"] == "default"
    made = await openstack(*group, "create", "web", "--description", "d", "--tag", "red", *JSON)
    assert (made["name"], made["description"], made["stateful"]) == ("web", "d", True)
    await openstack(*group, "set", "web", "--name", "www", "--stateless")
    shown = await openstack(*group, "show", "www", *JSON)
    assert (shown["stateful"], shown["tags"], len(shown["rules"])) == (False, ["red"], 2)
    rule = await openstack(
        *group, "rule", "create", "www", "--protocol", "tcp", "--dst-port", "22:23", "--remote-ip", "10.0.0.0/8", *JSON
    )
    assert (rule["port_range_min"], rule["port_range_max"], rule["remote_ip_prefix"]) == (22, 23, "10.0.0.0/8")
    ping = ("--protocol", "icmp", "--icmp-type", "8", "--remote-group", "default")
    await openstack(*group, "rule", "create", "www", *ping, *JSON)
    v6 = ("--protocol", "icmpv6", "--ethertype", "IPv6", "--egress")
    assert (await openstack(*group, "rule", "create", "www", *v6, *JSON))["protocol"] == "ipv6-icmp"
    assert "already exists" in await openstack.refused(*group, "rule", "create", "www", *ping)
    rules = await openstack(*group, "rule", "list", "www", *JSON)
    assert len(rules) == 5
    assert len(await openstack(*group, "rule", "list", "www", "--protocol", "tcp", *JSON)) == 1
    await openstack(*group, "rule", "delete", rule["id"])
    await openstack(*group, "delete", "www")
    template = ("default", *group, "rule")
    assert len(await openstack(*template, "list", *JSON)) == 4
    made = await openstack(*template, "create", "--protocol", "tcp", "--dst-port", "80", "--for-default-sg", *JSON)
    assert (made["protocol"], made["used_in_default_sg"]) == ("tcp", True)
    await openstack(*template, "delete", made["id"])


@pytest.mark.slow
async def test_address_groups(openstack):
    group = ("address", "group")
    made = await openstack(*group, "create", "offices", "--address", "10.0.0.1", "--address", "10.1.0.0/16", *JSON)
    assert made["addresses"] == ["10.0.0.1/32", "10.1.0.0/16"]
    await openstack(*group, "set", "offices", "--name", "homes", "--address", "10.2.0.0/16")
    await openstack(*group, "unset", "homes", "--address", "10.0.0.1/32")
    [only] = await openstack(*group, "list", *JSON)
    assert (only["Name"], only["Addresses"]) == ("homes", ["10.1.0.0/16", "10.2.0.0/16"])
    await openstack("security", "group", "create", "web")
    rule = ("security", "group", "rule")
    made = await openstack(*rule, "create", "web", "--remote-address-group", "homes", *JSON)
    assert "in use" in await openstack.refused(*group, "delete", "homes")
    await openstack(*rule, "delete", made["id"])
    await openstack(*group, "delete", "homes")


@pytest.mark.slow
async def test_rbac_policies(openstack):
    await openstack("project", "create", "others")
    await openstack("network", "create", "net", "--share")
    rbac = ("network", "rbac")
    [flag] = await openstack(*rbac, "list", "--long", *JSON)
    assert (flag["Object Type"], flag["Action"]) == ("network", "access_as_shared")
    await openstack("security", "group", "create", "web")
    what = ("web", "--type", "security_group", "--action", "access_as_shared")
    made = await openstack(*rbac, "create", *what, "--target-project", "others", *JSON)
    assert made["object_type"] == "security_group"
    await openstack(*rbac, "set", made["id"], "--target-project", "admin")
    shown = await openstack(*rbac, "show", made["id"], *JSON)
    assert shown["target_project_id"] != made["target_project_id"]
    assert len(await openstack(*rbac, "list", "--type", "security_group", *JSON)) == 1
    await openstack(*rbac, "delete", made["id"])
    await openstack("network", "set", "net", "--no-share")
    assert await openstack(*rbac, "list", *JSON) == []


@pytest.mark.slow
async def test_quotas(openstack):
    await openstack("project", "create", "others")
    quota = ("quota",)
    await openstack(*quota, "set", "others", "--networks", "1", "--secgroup-rules", "7")
    shown = {it["Resource"]: it["Limit"] for it in await openstack(*quota, "show", "--network", "others", *JSON)}
    assert (shown["networks"], shown["security_group_rules"], shown["ports"]) == (1, 7, 500)
    defaults = await openstack(*quota, "show", "--network", "--default", *JSON)
    assert {it["Resource"]: it["Limit"] for it in defaults}["networks"] == 100
    used = await openstack(*quota, "show", "--network", "--usage", "others", *JSON)
    assert {it["Resource"]: it["In Use"] for it in used}["networks"] == 0
    await openstack("network", "create", "one", "--project", "others")
    assert "Quota exceeded" in await openstack.refused("network", "create", "two", "--project", "others")
    assert "greater than or equal" in await openstack.refused(*quota, "set", "others", "--networks", "0")
    await openstack(*quota, "set", "others", "--networks", "0", "--force")
    assert [it["Networks"] for it in await openstack(*quota, "list", "--network", *JSON)] == [0]
    await openstack(*quota, "delete", "--network", "others")
    shown = {it["Resource"]: it["Limit"] for it in await openstack(*quota, "show", "--network", "others", *JSON)}
    assert shown["networks"] == 100
