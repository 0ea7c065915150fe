"""Quotas over HTTP: who sees and sets them, and that what is made over them is refused."""

from handlers.network.quota import taking
from tests.network.routed import PROJECT, network, subnet

DEFAULTS = {
    "network": 100,
    "subnet": 100,
    "subnetpool": -1,
    "port": 500,
    "router": 10,
    "floatingip": 50,
    "security_group": 10,
    "security_group_rule": 100,
    "rbac_policy": 10,
    "trunk": -1,
}


async def test_a_project_nobody_spoke_of_has_the_defaults(member, admin):
    assert (await admin("GET", "/quotas/whoever"))["quota"].items() >= DEFAULTS.items()
    assert (await member("GET", f"/quotas/{PROJECT}"))["quota"].items() >= DEFAULTS.items()
    assert (await admin("GET", "/quotas/whoever/default"))["quota"].items() >= DEFAULTS.items()
    assert (await admin("GET", "/quotas"))["quotas"] == []
    await admin.refused("DELETE", "/quotas/whoever", None, 404, "TenantQuotaNotFound")


async def test_limits_are_set_listed_and_cleared(member, admin):
    changed = (await admin("PUT", f"/quotas/{PROJECT}", {"quota": {"port": "7", "router": -1}}))["quota"]
    assert (changed["port"], changed["router"], changed["subnet"]) == (7, -1, 100)
    assert (await member("GET", f"/quotas/{PROJECT}"))["quota"] == changed
    [listed] = (await admin("GET", "/quotas"))["quotas"]
    assert listed == {**changed, "project_id": PROJECT, "tenant_id": PROJECT}
    assert (await admin("GET", f"/quotas/{PROJECT}/default"))["quota"]["port"] == 500
    await admin("DELETE", f"/quotas/{PROJECT}", expect=204)
    assert (await member("GET", f"/quotas/{PROJECT}"))["quota"]["port"] == 500
    assert (await admin("GET", "/quotas"))["quotas"] == []


async def test_only_administrators_set_them_and_see_others(member, admin):
    await member.refused("GET", "/quotas", None, 403, "PolicyNotAuthorized")
    await member.refused("GET", "/quotas/other", None, 403, "PolicyNotAuthorized")
    await member.refused("GET", "/quotas/other/details", None, 403, "AdminRequired")
    await member.refused("PUT", f"/quotas/{PROJECT}", {"quota": {"port": 1}}, 403, "PolicyNotAuthorized")
    await member.refused("DELETE", f"/quotas/{PROJECT}", None, 403, "PolicyNotAuthorized")
    assert (await member("GET", "/quotas/project")) == {"project": {"project_id": PROJECT}}
    assert (await member("GET", "/quotas/tenant")) == {"tenant": {"tenant_id": PROJECT}}


async def test_limits_that_make_no_sense(admin):
    for body in ({"port": -2}, {"port": 2**31}, {"port": "many"}, {"port": None}, {"unicorn": 1}):
        await admin.refused("PUT", f"/quotas/{PROJECT}", {"quota": body}, 400, "HTTPBadRequest")


async def test_what_is_there_and_limits_below_it(served, member, admin):
    await served.cloud.executor.execute(*await taking(served.cloud, PROJECT, "port", ["a", "b"]))
    for path in ("details", "details.json"):
        details = (await member("GET", f"/quotas/{PROJECT}/{path}"))["quota"]
        assert details["port"] == {"limit": 500, "used": 2, "reserved": 0}
        assert details["router"] == {"limit": 10, "used": 0, "reserved": 0}
    below = {"quota": {"port": 1}}
    message = await admin.refused("PUT", f"/quotas/{PROJECT}", below, 400, "HTTPBadRequest")
    assert message == "Quota limit 1 for port must be greater than or equal to already used 2"
    await admin.refused("PUT", f"/quotas/{PROJECT}", {"quota": {"port": 1, "check_limit": True}}, 400, "HTTPBadRequest")
    changed = await admin("PUT", f"/quotas/{PROJECT}", {"quota": {"port": 1, "force": True}})
    assert changed["quota"]["port"] == 1
    await admin("PUT", f"/quotas/{PROJECT}", {"quota": {"port": 2}})
    await admin("PUT", f"/quotas/{PROJECT}", {"quota": {"port": -1}})


async def test_routers_count(member, admin):
    await admin("PUT", f"/quotas/{PROJECT}", {"quota": {"router": 1}})
    router = (await member("POST", "/routers", {"router": {}}, expect=201))["router"]
    message = await member.refused("POST", "/routers", {"router": {}}, 409, "OverQuota")
    assert message == "Quota exceeded for resources: ['router']."
    await member("DELETE", f"/routers/{router['id']}", expect=204)
    await member("POST", "/routers", {"router": {}}, expect=201)


async def test_a_routers_interface_counts_as_a_port(served, member, admin):
    network_id = await network(served.cloud)
    subnet_id = await subnet(served.cloud, network_id, "10.0.0.0/24", "10.0.0.1", "10.0.0.2", "10.0.0.254")
    router = (await member("POST", "/routers", {"router": {}}, expect=201))["router"]
    await member("PUT", f"/routers/{router['id']}/add_router_interface", {"subnet_id": subnet_id})
    assert (await member("GET", f"/quotas/{PROJECT}/details"))["quota"]["port"]["used"] == 1
    await member("PUT", f"/routers/{router['id']}/remove_router_interface", {"subnet_id": subnet_id})
    assert (await member("GET", f"/quotas/{PROJECT}/details"))["quota"]["port"]["used"] == 0


async def test_floating_ips_count(served, member, admin):
    outside = await network(served.cloud, external=True, project="operators")
    await subnet(served.cloud, outside, "203.0.113.0/27", "203.0.113.1", "203.0.113.2", "203.0.113.30", "operators")
    await admin("PUT", f"/quotas/{PROJECT}", {"quota": {"floatingip": 1}})
    body = {"floatingip": {"floating_network_id": outside}}
    one = (await member("POST", "/floatingips", body, expect=201))["floatingip"]
    message = await member.refused("POST", "/floatingips", body, 409, "OverQuota")
    assert message == "Quota exceeded for resources: ['floatingip']."
    await member("DELETE", f"/floatingips/{one['id']}", expect=204)
    await member("POST", "/floatingips", body, expect=201)
