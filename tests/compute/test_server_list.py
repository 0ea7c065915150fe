"""Servers are listed: found by what they are, ordered, and page by page."""

import msgspec

from api.compute import server_list
from tests.compute.world import IMAGE, OTHER, PROJECT, wanted


async def test_servers_are_found_by_many_things(world):
    member, admin = await world.client(), await world.client("admin")
    one = await world.boot(member, name="alpha", tags=["a", "b"], metadata={"k": "v"})
    two = await world.boot(member, name="beta", tags=["b"], config_drive=True)
    await member("POST", f"/servers/{two['id']}/action", {"os-stop": None}, expect=202)
    await world.becomes(member, two["id"], "SHUTOFF")

    async def found(query, client=member):
        return [
            it["name"]
            for it in (await client("GET", f"/servers/detail?sort_key=display_name&sort_dir=asc&{query}"))["servers"]
        ]

    assert await found("") == ["alpha", "beta"]
    assert await found("name=^al") == ["alpha"]
    assert await found("status=SHUTOFF") == ["beta"]
    assert await found("status=ACTIVE&status=SHUTOFF") == ["alpha", "beta"]
    assert await found("status=REBOOT") == []
    assert await found("vm_state=stopped") == ["beta"]
    assert await found("power_state=1") == ["alpha"]
    assert await found("tags=a,b") == ["alpha"]
    assert await found("tags-any=a,c") == ["alpha"]
    assert await found("not-tags=a,b") == ["beta"]
    assert await found("not-tags-any=a") == ["beta"]
    assert await found("flavor=1") == ["alpha", "beta"]
    assert await found("flavor=2") == []
    assert await found(f"image={IMAGE}") == ["alpha", "beta"]
    assert await found("config_drive=true") == ["beta"]
    assert await found("locked=true") == []
    assert await found("availability_zone=nova") == ["alpha", "beta"]
    assert await found(f"changes-since={one['created']}") == ["alpha", "beta"]
    assert await found("changes-since=2040-01-01T00:00:00Z") == []
    assert await found("changes-before=2000-01-01T00:00:00Z") == []
    updated = (await member("GET", f"/servers/{one['id']}"))["server"]["updated"]
    assert "alpha" in await found(f"changes-before={updated}")
    host = (await admin("GET", f"/servers/{one['id']}"))["server"]["OS-EXT-SRV-ATTR:host"]
    assert "alpha" in await found(f"host={host}&all_tenants=1", admin)
    assert await found("host=nowhere&all_tenants=1", admin) == []
    assert await found("host=nowhere") == ["alpha", "beta"]
    assert await found("deleted=true&all_tenants=1", admin) == []
    for query in ("name=(", "limit=-1", "limit=x", "marker=nope", "sort_key=nope", "sort_dir=up", "changes-since=x",
                  "status=NOPE", "surprise=1", "locked=maybe"):  # fmt: skip
        await member("GET", f"/servers?{query}", expect=400)
    await member("GET", "/servers?surprise=1", version="2.74")
    assert (await member("GET", "/servers?status=NOPE", version="2.37"))["servers"] == []
    await member("GET", "/servers?status=DELETED", expect=403)


async def test_pages_join_into_the_whole(world):
    member = await world.client()
    await member("POST", "/servers", {"server": wanted(min_count=5)}, expect=202)
    whole = [it["id"] for it in (await member("GET", "/servers"))["servers"]]
    pages, path = [], "/servers?limit=2"
    while path:
        page = await member("GET", path)
        pages += [it["id"] for it in page["servers"]]
        links = page.get("servers_links")
        path = links[0]["href"].partition("/compute/v2.1")[2] if links else None
    assert pages == whole
    assert len(whole) == 5


async def test_deleted_servers_are_listed_for_administrators(world):
    member, admin = await world.client(), await world.client("admin")
    server = await world.boot(member)
    await member("DELETE", f"/servers/{server['id']}", expect=204)
    await world.gone(member, server["id"])
    [shown] = (await admin("GET", "/servers/detail?deleted=true&all_tenants=1"))["servers"]
    assert (shown["status"], shown["OS-EXT-STS:vm_state"]) == ("DELETED", "deleted")
    assert "progress" not in shown
    assert shown["OS-SRV-USG:terminated_at"]
    assert (await member("GET", f"/servers?changes-since={server['created']}"))["servers"][0]["id"] == server["id"]


async def test_every_filter_and_every_order_is_answered(world):
    member, admin = await world.client(), await world.client("admin")
    await world.boot(member)
    times = {"created_at", "launched_at", "terminated_at", "changes-since", "changes-before"}
    words = {"deleted", "locked", "config_drive", "all_tenants"}
    for field in msgspec.structs.fields(server_list.ServersQuery):
        name = field.encode_name
        if name in {"marker", "limit", "sort_key", "sort_dir"}:
            continue
        value = "2030-01-01T00:00:00Z" if name in times else "true" if name in words else "1"
        value = "ACTIVE" if name == "status" else value
        refused = name in server_list._NO_FILTERS
        answer = await admin("GET", f"/servers/detail?{name}={value}", expect=400 if refused else 200)
        assert not refused or answer["badRequest"]["message"] == f"Invalid filter field: {name}."
        if name not in {"all_tenants", "tenant_id"}:
            await member("GET", f"/servers?{name}={value}")
    for key in server_list._SORT_KEYS:
        for direction in ("asc", "desc"):
            path = f"/servers?sort_key={key}&sort_dir={direction}&limit=1"
            page = await admin("GET", path + f"&all_tenants=1&project_id={PROJECT}")
            marker = page["servers"][0]["id"]
            assert (await admin("GET", path + f"&all_tenants=1&marker={marker}"))["servers"] == []
    await member("GET", "/servers?sort_key=host", expect=403)


async def test_filters_find_what_servers_are_shown_to_have(world):
    member, admin = await world.client(), await world.client("admin")
    id = (await world.boot(member))["id"]

    async def found(by, query, path="/servers", **fields):
        return [it["id"] for it in (await by("GET", f"{path}?{query}", **fields))["servers"]]

    for query, matches in {
        "root_device_name=/dev/vda": True,
        "root_device_name=sdb": False,
        "kernel_id=^$": True,
        "kernel_id=7f3d": False,
        "ramdisk_id=7f3d": False,
        "auto_disk_config=true": False,
        "auto_disk_config=false": True,
    }.items():
        assert await found(admin, query) == ([id] if matches else []), query
        assert await found(member, query) == [id], f"{query} is for administrators"
    await admin("GET", "/servers?root_device_name=(", expect=400)
    await member("GET", "/servers?metadata=x")
    for query in ("name=", "name=(", "tags=(", "key_name=["):
        await member("GET", f"/servers?{query}", expect=400, version="2.26")
    early = "changes-before=2000-01-01T00:00:00Z"
    assert await found(member, early, version="2.65") == [id]
    assert await found(member, early) == []


async def test_what_no_list_was_ever_sorted_by_is_passed_over_until_2_75(world):
    member = await world.client()
    ids = [(await world.boot(member, name=f"number {n}"))["id"] for n in range(5)]
    for version, query in (("2.74", "sort_key=vcpus"), ("2.74", "cell_name=x"), ("2.72", "sort_key=locked")):
        servers = (await member("GET", f"/servers?{query}", version=version))["servers"]
        assert [it["id"] for it in servers] == ids[::-1], "newest first, as ever"
        await member("GET", f"/servers?{query}", version="2.75", expect=200 if "locked" in query else 400)
    named = "sort_key=vcpus&sort_dir=desc&sort_key=display_name&sort_dir=asc"
    servers = (await member("GET", f"/servers?{named}", version="2.74"))["servers"]
    assert [it["id"] for it in servers] == ids


async def test_the_deleted_are_listed_for_who_asks_as_may(world):
    member, admin = await world.client(), await world.client("admin")
    kept, deleted = [(await world.boot(member))["id"] for _ in range(2)]
    await member("DELETE", f"/servers/{deleted}", expect=204)
    await world.gone(member, deleted)

    async def found(by, query):
        return {it["id"] for it in (await by("GET", f"/servers?{query}"))["servers"]}

    late = "changes-before=2999-01-01T00:00:00Z"
    assert await found(member, late) == {kept, deleted}
    assert await found(member, "changes-since=2000-01-01T00:00:00Z&" + late) == {kept, deleted}
    assert await found(admin, "deleted=true") == {deleted}
    assert await found(admin, "deleted=whatever") == {kept}
    assert await found(admin, "status=deleted") == {deleted}
    assert await found(member, "deleted=true") == {kept}
    await member("GET", "/servers?status=deleted", expect=403)
    assert await found(member, "status=deleted&status=active") == {kept}
    first = await admin("GET", "/servers?limit=1&" + late)
    assert len(first["servers"]) == len(first["servers_links"]) == 1
    marker = first["servers"][0]["id"]
    assert await found(admin, f"limit=1&marker={marker}&{late}") == {kept, deleted} - {marker}


async def test_servers_of_another_project_are_listed_with_all_tenants_only(world):
    admin, member = await world.client("admin", project=OTHER), await world.client()
    id = (await member("POST", "/servers", {"server": wanted()}, expect=202))["server"]["id"]
    listed = lambda answer: [it["id"] for it in answer["servers"]]  # noqa: E731
    assert listed(await admin("GET", f"/servers?tenant_id={PROJECT}")) == []
    assert listed(await admin("GET", f"/servers?all_tenants=&tenant_id={PROJECT}")) == [id]
    assert listed(await admin("GET", f"/servers?all_tenants=1&project_id={OTHER}")) == []
