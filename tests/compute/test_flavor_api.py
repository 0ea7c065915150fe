"""Flavors as clients see them."""

import asyncio

import pytest


def flavor(**fields):
    return {"flavor": {"name": "tiny", "vcpus": 1, "ram": 64, "disk": 1} | fields}


async def test_a_flavor_goes_through_life(client):
    admin = await client()
    made = (await admin("POST", "/flavors", flavor(id="42", description="small")))["flavor"]
    assert made["id"] == "42"
    assert made["OS-FLV-EXT-DATA:ephemeral"] == 0
    assert made["swap"] == 0
    assert made["description"] == "small"
    assert made["extra_specs"] == {}
    assert made["links"][0]["href"].endswith("/compute/v2.1/flavors/42")
    assert made["links"][1]["href"].endswith("/compute/flavors/42")
    assert (await admin("PUT", "/flavors/42", {"flavor": {"description": None}}))["flavor"]["description"] is None
    assert (await admin("GET", "/flavors/42"))["flavor"]["description"] is None
    await admin("DELETE", "/flavors/42", expect=202)
    await admin("GET", "/flavors/42", expect=404)
    await admin("DELETE", "/flavors/42", expect=404)
    again = (await admin("POST", "/flavors", flavor(id="42", ram=128)))["flavor"]
    assert (again["ram"], (await admin("GET", "/flavors/42"))["flavor"]["ram"]) == (128, 128)


async def test_names_and_ids_are_unique(client):
    admin = await client()
    await admin("POST", "/flavors", flavor(id="1"))
    assert "Flavor with ID 1" in str(await admin("POST", "/flavors", flavor(id="1", name="x"), expect=409))
    assert "Flavor with name tiny" in str(await admin("POST", "/flavors", flavor(id="2"), expect=409))


async def test_an_id_is_made_for_those_who_want_none(client):
    admin = await client()
    one = (await admin("POST", "/flavors", flavor(id="auto")))["flavor"]["id"]
    two = (await admin("POST", "/flavors", flavor(name="other")))["flavor"]["id"]
    number = (await admin("POST", "/flavors", flavor(name="third", id=7)))["flavor"]["id"]
    assert (len(one), len(two), number) == (36, 36, "7")


async def test_older_versions_see_less(client):
    admin = await client()
    await admin("POST", "/flavors", flavor(id="1"))
    oldest = await client(version="2.1")
    shown = (await oldest("GET", "/flavors/1"))["flavor"]
    assert shown["swap"] == ""
    assert not {"description", "extra_specs"} & set(shown)
    await oldest("POST", "/flavors", flavor(name="x", description="x"), expect=400)
    await oldest("PUT", "/flavors/1", {"flavor": {"description": "x"}}, expect=404)
    assert "extra_specs" not in (await (await client(version="2.60"))("GET", "/flavors/1"))["flavor"]


async def test_newer_versions_find_by_name_and_know_no_factors(client):
    admin = await client(version="2.102")
    made = (await admin("POST", "/flavors", flavor(id="1", name="small.one")))["flavor"]
    await admin("POST", "/flavors", flavor(id="2", name="large.one"))
    assert not {"rxtx_factor", "OS-FLV-DISABLED:disabled"} & set(made)
    await admin("POST", "/flavors", flavor(name="x", rxtx_factor=1.0), expect=400)
    for path in ("/flavors", "/flavors/detail"):
        assert [it["id"] for it in (await admin("GET", f"{path}?name=^small"))["flavors"]] == ["1"]
        assert [it["id"] for it in (await admin("GET", f"{path}?name=one"))["flavors"]] == ["1", "2"]
        await admin("GET", f"{path}?name=(", expect=400)
        await admin("GET", f"{path}?name=small", expect=400, version="2.101")
        await admin("GET", f"{path}?sort_key=rxtx_factor", expect=400)
        await admin("GET", f"{path}?sort_key=rxtx_factor", version="2.101")
    before = (await admin("GET", "/flavors/1", version="2.101"))["flavor"]
    assert (before["rxtx_factor"], before["OS-FLV-DISABLED:disabled"]) == (1.0, False)


async def test_newer_versions_refuse_parameters_where_there_are_none(client):
    admin = await client()
    await admin("POST", "/flavors", flavor(id="1"))
    for path in ("/flavors/1", "/flavors/1/os-extra_specs", "/os-aggregates", "/os-availability-zone", "/extensions"):
        await admin("GET", f"{path}?x=1", version="2.101")
        refused = await admin("GET", f"{path}?x=1", expect=400, version="2.102")
        assert "'x' was unexpected" in refused["badRequest"]["message"], path
    for method, path in (("GET", ""), ("GET", "/detail"), ("POST", ""), ("DELETE", "/1")):
        await admin(method, f"/os-volumes_boot{path}", expect=404)


async def test_private_flavors_are_seen_by_those_with_access(client):
    admin, member = await client(project="a" * 32), await client("member", project="b" * 32)
    await admin("POST", "/flavors", flavor(id="open", name="open"))
    await admin("POST", "/flavors", flavor(id="mine", **{"os-flavor-access:is_public": False}))

    async def ids(who, query=""):
        return {it["id"] for it in (await who("GET", "/flavors" + query))["flavors"]}

    assert await ids(member) == await ids(member, "?is_public=None") == {"open"}
    assert (await admin("GET", "/flavors/mine/os-flavor-access"))["flavor_access"] == []
    assert await ids(admin) == {"open"}
    await admin("POST", "/flavors/mine/action", {"addTenantAccess": {"tenant": "a" * 32}})
    assert await ids(admin) == await ids(admin, "?is_public=None") == {"open", "mine"}
    assert await ids(admin, "?is_public=false") == {"mine"}
    await admin("GET", "/flavors?is_public=perhaps", expect=400)
    await member("GET", "/flavors/mine", expect=404)
    access = await admin("GET", "/flavors/mine/os-flavor-access")
    assert access == {"flavor_access": [{"flavor_id": "mine", "tenant_id": "a" * 32}]}
    await admin("GET", "/flavors/open/os-flavor-access", expect=404)


async def test_lists_are_filtered_sorted_and_paged(client):
    admin = await client()
    for nth, ram in enumerate((512, 64, 256, 128)):
        await admin("POST", "/flavors", flavor(id=str(nth), name=f"f{nth}", ram=ram, disk=nth))

    async def ids(query):
        return [it["id"] for it in (await admin("GET", "/flavors/detail" + query))["flavors"]]

    assert await ids("") == ["0", "1", "2", "3"]
    assert await ids("?sort_key=memory_mb") == ["1", "3", "2", "0"]
    assert await ids("?sort_key=name&sort_dir=desc") == ["3", "2", "1", "0"]
    assert await ids("?minRam=128&minDisk=1") == ["2", "3"]
    assert await ids("?limit=0") == []
    first = await admin("GET", "/flavors?limit=3")
    [following] = first["flavors_links"]
    assert following["rel"] == "next"
    rest = await admin("GET", following["href"].partition("/compute/v2.1")[2])
    assert [it["id"] for it in rest["flavors"]] == ["3"]
    assert "flavors_links" not in rest
    for query in ("?sort_key=colour", "?marker=nobody", "?limit=-1", "?limit=x", "?minRam=x", "?sort_dir=up"):
        await admin("GET", "/flavors" + query, expect=400)
    await admin("GET", "/flavors?colour=red", expect=400)
    await (await client(version="2.74"))("GET", "/flavors?colour=red")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"flavor": {}},
        {"flavor": None},
        flavor(vcpus=0),
        flavor(vcpus="many"),
        flavor(vcpus=None),
        flavor(ram=0),
        flavor(ram=2**31),
        flavor(disk=-1),
        flavor(swap=-1),
        flavor(name=""),
        flavor(name=" tiny"),
        flavor(name="t\x00"),
        flavor(name="x" * 256),
        flavor(id="no/slash"),
        flavor(id=" 1"),
        flavor(id="x" * 256),
        flavor(rxtx_factor=0),
        flavor(rxtx_factor="fast"),
        flavor(colour="red"),
        flavor(**{"os-flavor-access:is_public": "perhaps"}),
        flavor(description="x" * 65536),
    ],
)
async def test_bad_flavors_are_refused_and_leave_no_event(client, served, body):
    admin = await client()
    before = await served.cloud.log.head()
    answer = await admin("POST", "/flavors", body, expect=400)
    assert answer["badRequest"]["code"] == 400
    assert await served.cloud.log.head() == before


async def test_members_change_nothing(client):
    member = await client("member")
    await member("POST", "/flavors", flavor(), expect=403)
    await member("DELETE", "/flavors/1", expect=403)


async def test_extra_specs_come_and_go(client):
    admin, reader = await client(), await client("reader")
    await admin("POST", "/flavors", flavor(id="1"))
    specs = {"hw:cpu_policy": "shared", "my:own": "thing"}
    assert await admin("POST", "/flavors/1/os-extra_specs", {"extra_specs": specs}) == {"extra_specs": specs}
    assert await reader("GET", "/flavors/1/os-extra_specs") == {"extra_specs": specs}
    assert await reader("GET", "/flavors/1/os-extra_specs/my:own") == {"my:own": "thing"}
    assert await admin("PUT", "/flavors/1/os-extra_specs/my:own", {"my:own": "else"}) == {"my:own": "else"}
    await admin("PUT", "/flavors/1/os-extra_specs/my:own", {"other": "else"}, expect=400)
    assert (await admin("GET", "/flavors/1"))["flavor"]["extra_specs"]["my:own"] == "else"
    await admin("DELETE", "/flavors/1/os-extra_specs/my:own")
    await admin("DELETE", "/flavors/1/os-extra_specs/my:own", expect=404)
    await reader("GET", "/flavors/1/os-extra_specs/my:own", expect=404)
    await reader("POST", "/flavors/1/os-extra_specs", {"extra_specs": specs}, expect=403)


@pytest.mark.parametrize(
    "specs",
    [
        {"hw:cpu_policy": "sometimes"},
        {"hw:no_such": "1"},
        {"resources:VCPU": "-1"},
        {"trait:HW_CPU_X86_VMX": "maybe"},
        {"quota:cpu_period": "long"},
        {"": "1"},
        {"key/slash": "1"},
        {"k" * 256: "1"},
        {"key": "x" * 256},
        {"key": None},
        {"key": {"a": 1}},
    ],
)
async def test_bad_extra_specs_are_refused(client, served, specs):
    admin = await client()
    await admin("POST", "/flavors", flavor(id="1"))
    before = await served.cloud.log.head()
    await admin("POST", "/flavors/1/os-extra_specs", {"extra_specs": specs}, expect=400)
    assert await served.cloud.log.head() == before


async def test_known_namespaces_are_checked_since_2_86(client):
    older = await client(version="2.85")
    await older("POST", "/flavors", flavor(id="1"))
    specs = {"extra_specs": {"hw:no_such": "1"}}
    assert await older("POST", "/flavors/1/os-extra_specs", specs) == specs


async def test_a_repeated_request_is_the_same_request(client, served):
    admin = await client(project="a" * 32)
    body = flavor(**{"os-flavor-access:is_public": False})
    first = await admin("POST", "/flavors", body, key="one")
    head = await served.cloud.log.head()
    assert await admin("POST", "/flavors", body, key="one") == first
    assert await served.cloud.log.head() == head
    await admin("POST", "/flavors", body, key="two", expect=409)
    await admin("POST", "/flavors", flavor(name="other"), key="one", expect=422)


async def test_of_many_at_once_one_gets_the_name(client, served):
    admin = await client()
    answers = await asyncio.gather(
        *(served.call("POST", "/compute/v2.1/flavors", flavor(id=f"id-{nth}"), token=admin.token) for nth in range(40))
    )
    assert sorted(answer.status for answer in answers) == [200] + [409] * 39
    assert len((await admin("GET", "/flavors"))["flavors"]) == 1
