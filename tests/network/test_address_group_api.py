"""Address groups over HTTP."""

from tests.network.routed import PROJECT, Client


async def _make(client, **fields):
    return (await client("POST", "/address-groups", {"address_group": fields}, expect=201))["address_group"]


async def test_a_groups_life(served, member):
    made = await _make(member, name="offices", description="d", addresses=["10.0.0.1/32", "10.1.2.3/16", "fd00::/64"])
    assert made["addresses"] == ["10.0.0.1/32", "10.1.0.0/16", "fd00::/64"]
    assert (made["project_id"], made["shared"], made["revision_number"]) == (PROJECT, False, 1)
    one = f"/address-groups/{made['id']}"
    changed = (await member("PUT", one, {"address_group": {"name": "homes"}}))["address_group"]
    assert (changed["name"], changed["description"]) == ("homes", "d")
    assert [it["id"] for it in (await member("GET", "/address-groups?name=homes"))["address_groups"]] == [made["id"]]
    stranger = Client(served, await served.token("member", project="q" * 32))
    await stranger.refused("GET", one, None, 404, "AddressGroupNotFound")
    await member("DELETE", one, expect=204)
    await member.refused("GET", one, None, 404, "AddressGroupNotFound")


async def test_addresses_come_and_go(member):
    made = await _make(member, name="offices")
    assert made["addresses"] == []
    one = f"/address-groups/{made['id']}"
    added = await member("PUT", f"{one}/add_addresses", {"addresses": ["10.0.0.1/32", "10.0.1.9/24"]})
    assert added["address_group"]["addresses"] == ["10.0.0.1/32", "10.0.1.0/24"]
    await member.refused("PUT", f"{one}/add_addresses", {"addresses": ["10.0.0.1"]}, 400, "AddressesAlreadyExist")
    left = await member("PUT", f"{one}/remove_addresses", {"addresses": ["10.0.0.1"]})
    assert left["address_group"]["addresses"] == ["10.0.1.0/24"]
    await member.refused("PUT", f"{one}/remove_addresses", {"addresses": ["10.0.0.1"]}, 404, "AddressesNotFound")
    await member.refused("PUT", f"{one}/add_addresses", {"addresses": ["nowhere"]}, 400, "HTTPBadRequest")
    for text in ("x", "10.0.0.1"):
        body = {"address_group": {"addresses": [text]}}
        await member.refused("POST", "/address-groups", body, 400, "HTTPBadRequest")


async def test_what_a_rule_names_stays(member):
    made = await _make(member, name="offices", addresses=["10.0.0.0/8"])
    group = (await member("POST", "/security-groups", {"security_group": {}}, expect=201))["security_group"]
    body = {"direction": "ingress", "security_group_id": group["id"], "remote_address_group_id": made["id"]}
    rule = await member("POST", "/security-group-rules", {"security_group_rule": body}, expect=201)
    message = await member.refused("DELETE", f"/address-groups/{made['id']}", None, 409, "AddressGroupInUse")
    assert message == f"Address group {made['id']} is in use on one or more security group rules."
    await member("DELETE", f"/security-group-rules/{rule['security_group_rule']['id']}", expect=204)
    await member("DELETE", f"/address-groups/{made['id']}", expect=204)


async def test_several_at_once(member):
    body = {"address_groups": [{"name": "a"}, {"name": "b", "addresses": ["10.0.0.1/32"]}]}
    made = (await member("POST", "/address-groups", body, expect=201))["address_groups"]
    assert [(it["name"], it["addresses"]) for it in made] == [("a", []), ("b", ["10.0.0.1/32"])]
