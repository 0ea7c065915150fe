"""Server groups as clients see them."""

import pytest

PROJECT = "d" * 32


@pytest.fixture
async def member(client):
    return await client("member", project=PROJECT)


async def made(member, expect=200, version="2.64", **fields):
    answer = await member("POST", "/os-server-groups", {"server_group": fields}, expect=expect, version=version)
    return answer["server_group"] if expect == 200 else next(iter(answer.values()))["message"]


async def test_rules_are_shown_to_whom_gave_them(member):
    for rules, shown in (
        ({"max_server_per_host": 3}, {"max_server_per_host": 3}),
        ({"max_server_per_host": "1"}, {"max_server_per_host": 1}),
        ({}, {}),
        (None, {}),
    ):
        fields = {"rules": rules} if rules is not None else {}
        group = await made(member, name="g", policy="anti-affinity", **fields)
        assert (group["policy"], group["rules"], group["members"]) == ("anti-affinity", shown, [])
        assert (await member("GET", f"/os-server-groups/{group['id']}", version="2.64"))["server_group"] == group
    older = (await member("GET", f"/os-server-groups/{group['id']}", version="2.63"))["server_group"]
    assert (older["policies"], older["metadata"]) == (["anti-affinity"], {})
    assert "rules" not in older
    oldest = (await member("GET", f"/os-server-groups/{group['id']}", version="2.12"))["server_group"]
    assert "project_id" not in oldest


async def test_what_a_group_cannot_be(member):
    refusal = await made(member, 400, name="g", policy="affinity", rules={"max_server_per_host": 2})
    assert refusal == "Only anti-affinity policy supports rules."
    await made(member, 400, name="g", policy="anti-affinity", rules={"max_server_per_host": 0})
    await made(member, 400, name="g", policies=["affinity"])
    await made(member, 400, version="2.63", name="g", policies=["affinity", "anti-affinity"])
    await made(member, 400, version="2.14", name="g", policies=["soft-affinity"])
    assert (await made(member, version="2.15", name="g", policies=["soft-affinity"]))["policies"] == ["soft-affinity"]
    await made(member, 400, name="", policy="affinity")


async def test_groups_are_listed_by_project_and_by_page(client, member):
    for name in ("a", "b", "c"):
        await made(member, name=name, policy="affinity")
    listed = (await member("GET", "/os-server-groups?limit=1&offset=1"))["server_groups"]
    assert [it["name"] for it in listed] == ["b"]
    admin = await client(project="e" * 32)
    assert (await admin("GET", "/os-server-groups"))["server_groups"] == []
    assert len((await admin("GET", "/os-server-groups?all_projects=True"))["server_groups"]) == 3
    assert len((await member("GET", "/os-server-groups?all_projects=True"))["server_groups"]) == 3
    other = await client("member", project="e" * 32)
    await other("GET", f"/os-server-groups/{listed[0]['id']}", expect=404)
    await member("DELETE", f"/os-server-groups/{listed[0]['id']}", expect=204)
    await member("DELETE", f"/os-server-groups/{listed[0]['id']}", expect=404)
