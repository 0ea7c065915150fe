"""Keypairs as clients see them."""

import pytest

from bus.execute import Wish
from handlers.compute.quota import QUOTAS
from schema.compute.quota import SetQuotaLimits

PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGHlt8huhUI10/sckYenvz+c77MUQVxqX0bGCoi5MtgT me@here"
PRINT = "39:65:02:ed:98:41:d9:87:b7:2a:9d:b3:5a:af:ef:ea"


def key(**fields):
    return {"keypair": {"name": "laptop", "public_key": PUBLIC} | fields}


async def test_a_key_is_imported_shown_listed_and_deleted(client):
    me = await client("member", user="a" * 32)
    made = (await me("POST", "/os-keypairs", key(), expect=201))["keypair"]
    wanted = {"name": "laptop", "public_key": PUBLIC, "fingerprint": PRINT, "type": "ssh", "user_id": "a" * 32}
    assert made == wanted
    shown = (await me("GET", "/os-keypairs/laptop"))["keypair"]
    assert shown | wanted == shown
    assert shown["deleted"] is False
    [listed] = (await me("GET", "/os-keypairs"))["keypairs"]
    assert listed == {"keypair": {name: value for name, value in wanted.items() if name != "user_id"}}
    await me("DELETE", "/os-keypairs/laptop?x=1", expect=400)
    await me("DELETE", "/os-keypairs/laptop", expect=204)
    await me("DELETE", "/os-keypairs/laptop", expect=404)
    await me("GET", "/os-keypairs/laptop", expect=404)
    await me("POST", "/os-keypairs", key(), expect=201)


async def test_older_versions_answer_in_older_ways(client):
    me = await client("member", version="2.1")
    assert "type" not in (await me("POST", "/os-keypairs", key(), expect=200))["keypair"]
    assert "type" not in (await me("GET", "/os-keypairs/laptop"))["keypair"]
    await me("POST", "/os-keypairs", key(type="ssh"), expect=400)
    await me("DELETE", "/os-keypairs/laptop", expect=202)


async def test_a_key_is_made_for_those_who_bring_none_until_2_92(client):
    me = await client("member", version="2.91")
    made = (await me("POST", "/os-keypairs", {"keypair": {"name": "new"}}, expect=201))["keypair"]
    assert made["private_key"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert "private_key" not in (await me("GET", "/os-keypairs/new"))["keypair"]
    made = (await me("POST", "/os-keypairs", {"keypair": {"name": "cert", "type": "x509"}}, expect=201))["keypair"]
    assert made["public_key"].startswith("-----BEGIN CERTIFICATE-----")
    await me("POST", "/os-keypairs", {"keypair": {"name": "newer"}}, expect=400, version="2.92")


async def test_private_keys_are_kept_nowhere(client, served):
    me = await client("member", version="2.91")
    made = (await me("POST", "/os-keypairs", {"keypair": {"name": "new"}}, expect=201))["keypair"]
    kept = await served.cloud.pool.fetchval("SELECT string_agg(state::text, '') FROM documents")
    kept += await served.cloud.pool.fetchval("SELECT string_agg(data::text, '') FROM events")
    assert made["fingerprint"] in kept
    assert "PRIVATE" not in kept


async def test_names_are_a_users_own(client):
    me, you = await client("member", user="a" * 32), await client("member", user="b" * 32)
    await me("POST", "/os-keypairs", key(), expect=201)
    assert "already exists" in str(await me("POST", "/os-keypairs", key(), expect=409))
    await you("GET", "/os-keypairs/laptop", expect=404)
    await you("POST", "/os-keypairs", key(), expect=201)


async def test_administrators_act_for_others(client):
    admin, me = await client(), await client("member", user="b" * 32)
    await admin("POST", "/os-keypairs", key(user_id="b" * 32), expect=201)
    assert len((await me("GET", "/os-keypairs"))["keypairs"]) == 1
    assert (await admin("GET", "/os-keypairs"))["keypairs"] == []
    assert len((await admin("GET", f"/os-keypairs?user_id={'b' * 32}"))["keypairs"]) == 1
    await admin("GET", f"/os-keypairs/laptop?user_id={'b' * 32}")
    await me("GET", f"/os-keypairs?user_id={'c' * 32}", expect=403)
    await me("POST", "/os-keypairs", key(user_id="c" * 32), expect=403)
    await admin("DELETE", f"/os-keypairs/laptop?user_id={'b' * 32}", expect=204)


async def test_lists_are_paged(client):
    me = await client("member")
    for name in ("c", "a", "b"):
        await me("POST", "/os-keypairs", key(name=name), expect=201)

    def names(answer):
        return [it["keypair"]["name"] for it in answer["keypairs"]]

    first = await me("GET", "/os-keypairs?limit=2")
    assert names(first) == ["a", "b"]
    rest = await me("GET", first["keypairs_links"][0]["href"].partition("/compute/v2.1")[2])
    assert names(rest) == ["c"]
    assert "keypairs_links" not in rest
    await me("GET", "/os-keypairs?marker=nobody", expect=400)
    await me("GET", "/os-keypairs?colour=red", expect=400)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"keypair": {}},
        {"keypair": {"name": "laptop"}},
        key(name=""),
        key(name=" x"),
        key(name="x" * 256),
        key(name="no/slash"),
        key(name="no\u00e9"),
        key(name=7),
        key(public_key=""),
        key(public_key="ssh-rsa nonsense"),
        key(public_key=None),
        key(type="pgp"),
        key(type="x509"),
        key(colour="red"),
    ],
)
async def test_bad_keypairs_are_refused_and_leave_no_event(client, served, body):
    me = await client("member")
    before = await served.cloud.log.head()
    await me("POST", "/os-keypairs", body, expect=400)
    assert await served.cloud.log.head() == before


async def test_at_signs_and_dots_came_with_2_92(client):
    me = await client("member")
    await me("POST", "/os-keypairs", key(name="me@here.org"), expect=400, version="2.91")
    await me("POST", "/os-keypairs", key(name="me@here.org"), expect=201)


async def test_there_is_a_limit(client, served):
    me = await client("member", project="d" * 32)
    await served.cloud.executor.execute(Wish(QUOTAS, "d" * 32, SetQuotaLimits(limits={"key_pairs": 1})))
    await me("POST", "/os-keypairs", key(), expect=201, key="one")
    assert "1 of 1" in str(await me("POST", "/os-keypairs", key(name="second"), expect=403, key="two"))
    await me("POST", "/os-keypairs", key(), expect=201, key="one")


async def test_a_repeated_request_makes_one_key_and_shows_no_private_half_that_does_not_fit(client):
    me = await client("member", version="2.91")
    first = (await me("POST", "/os-keypairs", {"keypair": {"name": "new"}}, key="one", expect=201))["keypair"]
    again = (await me("POST", "/os-keypairs", {"keypair": {"name": "new"}}, key="one", expect=201))["keypair"]
    assert first.pop("private_key")
    assert again == first
