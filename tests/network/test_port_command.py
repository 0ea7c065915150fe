"""Ports through the `openstack` command."""

import pytest

JSON = ("-f", "json")


@pytest.fixture
async def openstack(openstack):
    await openstack("network", "create", "net")
    await openstack("subnet", "create", "sub", "--network", "net", "--subnet-range", "10.0.0.0/24")
    return openstack


@pytest.mark.slow
async def test_ports(openstack):
    fixed = ("--fixed-ip", "subnet=sub,ip-address=10.0.0.9")
    more = ("--mac-address", "fa:16:3e:00:00:01", "--description", "d", "--dns-name", "web", "--tag", "red")
    made = await openstack("port", "create", "--network", "net", *fixed, *more, "eth0", *JSON)
    assert (made["name"], made["mac_address"], made["tags"]) == ("eth0", "fa:16:3e:00:00:01", ["red"])
    assert [it["ip_address"] for it in made["fixed_ips"]] == ["10.0.0.9"]
    assert (made["status"], made["admin_state_up"], made["port_security_enabled"]) == ("DOWN", True, True)
    assert len(made["security_group_ids"]) == 1
    pair = ("--allowed-address", "ip-address=192.0.2.0/24")
    option = ("--extra-dhcp-option", "name=mtu,value=1400")
    await openstack("port", "set", "eth0", "--fixed-ip", "ip-address=10.0.0.10", *pair, *option, "--disable")
    shown = await openstack("port", "show", "eth0", *JSON)
    assert {it["ip_address"] for it in shown["fixed_ips"]} == {"10.0.0.9", "10.0.0.10"}
    assert shown["allowed_address_pairs"] == [{"ip_address": "192.0.2.0/24", "mac_address": "fa:16:3e:00:00:01"}]
    assert [(it["opt_name"], it["opt_value"]) for it in shown["extra_dhcp_opts"]] == [("mtu", "1400")]
    await openstack("port", "unset", "eth0", "--fixed-ip", "subnet=sub,ip-address=10.0.0.9")
    await openstack("port", "set", "eth0", "--no-security-group", "--no-allowed-address")
    await openstack("port", "set", "eth0", "--disable-port-security", "--host", "nowhere")
    [listed] = await openstack("port", "list", "--fixed-ip", "ip-address=10.0.0.10", "--long", *JSON)
    assert (listed["Name"], listed["Security Groups"]) == ("eth0", [])
    assert await openstack("port", "list", "--mac-address", "fa:16:3e:00:00:02", *JSON) == []
    assert [it["Name"] for it in await openstack("port", "list", "--host", "nowhere", *JSON)] == ["eth0"]
    assert "already allocated" in await openstack.refused(
        "port", "create", "--network", "net", "--fixed-ip", "ip-address=10.0.0.10", "eth1"
    )
    assert "is in use" in await openstack.refused(
        "port", "create", "--network", "net", "--mac-address", "fa:16:3e:00:00:01", "eth1"
    )
    without = await openstack(
        "port", "create", "--network", "net", "--no-fixed-ip", "--no-security-group", "bare", *JSON
    )
    assert (without["fixed_ips"], without["security_group_ids"]) == ([], [])
    await openstack("port", "delete", "eth0", "bare")
    assert await openstack("port", "list", "--device-owner", "", *JSON) == []
