"""Tokens: had, shown, scoped, revoked, expired."""

import asyncio
import re
from datetime import datetime, timedelta
from typing import Any

import jwt
import pytest

from bus import clock
from handlers.identity.bootstrap import named_id
from handlers.identity.signing import signing
from tests.identity.conftest import PASSWORD, Identity

DEMO = {"name": "demo", "domain": {"id": "default"}}
ADMIN_PROJECT = {"project": {"name": "admin", "domain": {"name": "Default"}}}


async def demo(identity: Identity, role: str = "member") -> tuple[dict[str, Any], dict[str, Any]]:
    """A user and a project it has a role on."""
    user = await identity.make("user", name="demo", password=PASSWORD)
    project = await identity.make("project", name="demo")
    path = f"/projects/{project['id']}/users/{user['id']}/roles/{named_id('role', role)}"
    assert await identity.status("PUT", path) == 204
    return user, project


async def test_a_project_scoped_token_says_who_where_and_what(identity: Identity):
    answer = await identity.login(scope=ADMIN_PROJECT)
    token = answer.json["token"]
    assert answer.status == 201
    assert "X-Auth-Token" in answer.headers["Vary"]
    assert token["methods"] == ["password"]
    assert token["user"]["name"] == "admin"
    assert token["user"]["domain"] == {"id": "default", "name": "Default"}
    assert token["project"]["name"] == "admin"
    assert token["is_domain"] is False
    assert {role["name"] for role in token["roles"]} == {"admin", "manager", "member", "reader"}
    assert {service["type"] for service in token["catalog"]} == {"identity", "compute", "placement", "image", "network"}
    assert {endpoint["interface"] for endpoint in token["catalog"][0]["endpoints"]} == {"public", "internal", "admin"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", token["expires_at"])
    lifetime = datetime.fromisoformat(token["expires_at"]) - datetime.fromisoformat(token["issued_at"])
    assert lifetime == timedelta(hours=1)
    text = answer.headers["X-Subject-Token"]
    assert jwt.get_unverified_header(text)["alg"] == "ES256"
    shown = await identity.call("GET", "/auth/tokens", headers={"X-Subject-Token": text})
    assert shown.status == 200
    assert shown.json == answer.json
    assert shown.headers["X-Subject-Token"] == text
    shown = await identity.call("GET", "/auth/tokens?nocatalog", headers={"X-Subject-Token": text})
    assert "catalog" not in shown.json["token"]
    shown = await identity.call("HEAD", "/auth/tokens", headers={"X-Subject-Token": text})
    assert (shown.status, shown.body) == (200, b"")


async def test_the_default_project_scopes_and_unscoped_does_not(identity: Identity):
    token = (await identity.login()).json["token"]
    assert token["project"]["name"] == "admin"
    token = (await identity.login(scope="unscoped")).json["token"]
    assert "project" not in token
    assert "roles" not in token
    assert "catalog" not in token


async def test_domain_and_system_scope(identity: Identity):
    token = (await identity.login(scope={"domain": {"name": "Default"}})).json["token"]
    assert token["domain"] == {"id": "default", "name": "Default"}
    token = (await identity.login(scope={"system": {"all": True}})).json["token"]
    assert token["system"] == {"all": True}
    assert {"admin", "reader"} <= {role["name"] for role in token["roles"]}


@pytest.mark.parametrize(
    "user, password, scope",
    [
        ({"name": "admin", "domain": {"id": "default"}}, "wrong", None),
        ({"name": "nobody", "domain": {"id": "default"}}, PASSWORD, None),
        ({"name": "admin", "domain": {"id": "nowhere"}}, PASSWORD, None),
        ({"id": "0" * 32}, PASSWORD, None),
        (None, PASSWORD, {"project": {"id": "0" * 32}}),
        (None, PASSWORD, {"project": {"name": "nothing", "domain": {"id": "default"}}}),
        (None, PASSWORD, {"domain": {"id": "nowhere"}}),
    ],
)
async def test_wrong_names_and_passwords_are_one_refusal(identity: Identity, user: Any, password: str, scope: Any):
    answer = await identity.login(user, scope, password)
    assert answer.status == 401
    assert answer.json["error"]["title"] == "Unauthorized"
    assert answer.json["error"]["message"] == "The request you have made requires authentication."
    assert answer.headers["WWW-Authenticate"].startswith('Keystone uri="http')


@pytest.mark.parametrize(
    "auth, status",
    [
        ({}, 400),
        ({"identity": {}}, 400),
        ({"identity": {"methods": []}}, 400),
        ({"identity": {"methods": ["password"]}}, 400),
        ({"identity": {"methods": ["password"], "password": {"user": {"password": "x"}}}}, 400),
        ({"identity": {"methods": ["password"], "password": {"user": {"name": "a", "password": "x"}}}}, 400),
        ({"identity": {"methods": ["password"], "password": {"user": {"id": "a", "password": 1}}}}, 400),
        ({"identity": {"methods": ["oauth1"]}}, 401),
        ({"identity": {"methods": ["token"], "token": {"id": "x"}}}, 401),
        ({"identity": {"methods": "password"}}, 400),
        (
            {
                "identity": {"methods": ["token"], "token": {"id": "x"}},
                "scope": {"project": {"id": "a"}, "domain": {"id": "b"}},
            },
            400,
        ),
        ({"identity": {"methods": ["token"], "token": {"id": "x"}}, "scope": {"project": {"name": "a"}}}, 400),
        ({"identity": {"methods": ["token"], "token": {"id": "x"}}, "scope": "everything"}, 400),
        ({"identity": {"methods": ["token"], "token": {"id": "x"}}, "scope": {"system": {}}}, 400),
    ],
)
async def test_malformed_logins_are_refused(identity: Identity, auth: Any, status: int):
    answer = await identity.api.call("POST", "/identity/v3/auth/tokens", {"auth": auth})
    assert answer.status == status, answer.body
    assert answer.json["error"]["code"] == status


async def test_a_token_can_be_scoped_anew_and_keeps_its_chain_and_end(identity: Identity):
    first = (await identity.login(scope="unscoped")).json["token"]
    text = await identity.token(scope="unscoped")
    old = (await identity.call("GET", "/auth/tokens", headers={"X-Subject-Token": text})).json["token"]
    auth = {"identity": {"methods": ["token"], "token": {"id": text}}, "scope": ADMIN_PROJECT}
    answer = await identity.api.call("POST", "/identity/v3/auth/tokens", {"auth": auth})
    token = answer.json["token"]
    assert answer.status == 201
    assert token["project"]["name"] == "admin"
    assert sorted(token["methods"]) == ["password", "token"]
    assert token["expires_at"] == old["expires_at"]
    assert token["audit_ids"][1:] == old["audit_ids"]
    assert first["audit_ids"] != old["audit_ids"]


async def test_a_revoked_token_is_refused_at_once(identity: Identity):
    text = await identity.token()
    assert await identity.status("GET", "/users", token=text) == 200
    gone = await identity.call("DELETE", "/auth/tokens", headers={"X-Subject-Token": text})
    assert gone.status == 204
    assert await identity.status("GET", "/users", token=text) == 401
    assert (await identity.call("GET", "/auth/tokens", headers={"X-Subject-Token": text})).status == 404
    assert await identity.status("GET", "/users") == 200


async def test_what_a_token_rests_on_ends_it(identity: Identity):
    user, project = await demo(identity)
    scope = {"project": {"id": project["id"]}}
    member = named_id("role", "member")

    async def ends(method: str, path: str, body: Any = None) -> None:
        text = await identity.token(DEMO, scope)
        assert await identity.status("GET", "/auth/projects", token=text) == 200
        assert await identity.status(method, path, body) in {200, 204}
        assert await identity.status("GET", "/auth/projects", token=text) == 401

    grant = f"/projects/{project['id']}/users/{user['id']}/roles/{member}"
    await ends("DELETE", grant)
    assert await identity.status("PUT", grant) == 204
    await ends("PATCH", f"/projects/{project['id']}", {"project": {"enabled": False}})
    await identity.call("PATCH", f"/projects/{project['id']}", {"project": {"enabled": True}})
    await ends("PATCH", f"/users/{user['id']}", {"user": {"enabled": False}})
    assert (await identity.login(DEMO, scope)).status == 401
    await identity.call("PATCH", f"/users/{user['id']}", {"user": {"enabled": True}})
    await ends("PATCH", f"/users/{user['id']}", {"user": {"password": PASSWORD}})
    await ends("DELETE", f"/projects/{project['id']}")
    text = await identity.token(DEMO, "unscoped")
    assert await identity.status("DELETE", f"/users/{user['id']}") == 204
    assert await identity.status("GET", "/auth/projects", token=text) == 401
    assert (await identity.login(DEMO)).status == 401


async def test_a_role_through_a_group_ends_with_the_membership(identity: Identity):
    user = await identity.make("user", name="demo", password=PASSWORD)
    project = await identity.make("project", name="demo")
    group = await identity.make("group", name="ops")
    role = named_id("role", "reader")
    assert await identity.status("PUT", f"/projects/{project['id']}/groups/{group['id']}/roles/{role}") == 204
    scope = {"project": {"id": project["id"]}}
    assert (await identity.login(DEMO, scope)).status == 401
    member = f"/groups/{group['id']}/users/{user['id']}"
    assert await identity.status("PUT", member) == 204
    text = await identity.token(DEMO, scope)
    assert await identity.status("DELETE", member) == 204
    assert await identity.status("GET", "/auth/projects", token=text) == 401
    assert (await identity.login(DEMO, scope)).status == 401
    assert await identity.status("PUT", member) == 204
    text = await identity.token(DEMO, scope)
    assert await identity.status("DELETE", f"/groups/{group['id']}") == 204
    assert await identity.status("GET", "/auth/projects", token=text) == 401


async def test_an_inherited_role_counts_below_and_not_on_the_domain(identity: Identity):
    user, _ = await demo(identity)
    domain = await identity.make("domain", name="house")
    parent = await identity.make("project", name="parent", domain_id=domain["id"])
    child = await identity.make("project", name="child", parent_id=parent["id"])
    role = named_id("role", "reader")
    path = f"/OS-INHERIT/domains/{domain['id']}/users/{user['id']}/roles/{role}/inherited_to_projects"
    assert await identity.status("PUT", path) == 204
    for project in (parent, child):
        answer = await identity.login(DEMO, {"project": {"id": project["id"]}})
        assert [it["name"] for it in answer.json["token"]["roles"]] == ["reader"]
    assert (await identity.login(DEMO, {"domain": {"id": domain["id"]}})).status == 401
    listed = (await identity.call("GET", f"/users/{user['id']}/projects")).json["projects"]
    assert {it["name"] for it in listed} == {"demo", "parent", "child"}


async def test_an_expired_and_a_foreign_token_are_refused(identity: Identity):
    keys = signing(identity.api.cloud)
    now = clock.now().timestamp()
    claims = {"sub": "u", "aud": "token", "iat": now - 7200}
    assert await identity.status("GET", "/users", token=await keys.sign_claims({**claims, "exp": now - 0.001})) == 401
    ticket = await keys.sign({"sub": "u"}, "image", 60)
    assert await identity.status("GET", "/users", token=ticket) == 401
    assert (await keys.verify_signed(ticket, "image"))["sub"] == "u"
    unsigned = jwt.encode({**claims, "iss": "cumulog", "exp": now + 60}, None, algorithm="none")
    assert await identity.status("GET", "/users", token=unsigned) == 401
    hmac = jwt.encode({**claims, "iss": "cumulog", "exp": now + 60}, "k" * 32, algorithm="HS256", headers={"kid": "x"})
    assert await identity.status("GET", "/users", token=hmac) == 401


async def test_keys_rotate_and_old_tokens_stay_good(identity: Identity):
    await signing(identity.api.cloud).rotate()
    text = await identity.token()
    assert jwt.get_unverified_header(text)["kid"] != jwt.get_unverified_header(identity.admin)["kid"]
    assert await identity.status("GET", "/users", token=text) == 200
    assert await identity.status("GET", "/users") == 200


async def test_guessing_is_slowed_down_and_the_password_never_enters_the_log(identity: Identity):
    answers = [await identity.login(password=f"guess {nth}") for nth in range(3)]
    assert {answer.status for answer in answers} == {401}
    rows = await identity.api.cloud.pool.fetch("SELECT data::text FROM events")
    assert not any(PASSWORD in row[0] or "$2b$" in row[0] for row in rows)


async def test_many_logins_of_one_user_at_once(identity: Identity):
    answers = await asyncio.gather(*[identity.login() for _ in range(8)])
    assert {answer.status for answer in answers} == {201}
    assert len({answer.headers["X-Subject-Token"] for answer in answers}) == 8


async def test_a_user_changes_their_own_password(identity: Identity):
    user, _ = await demo(identity)
    path = f"/users/{user['id']}/password"
    change = {"original_password": "wrong", "password": "another one"}
    assert (await identity.api.call("POST", "/identity/v3" + path, {"user": change})).status == 401
    change["original_password"] = PASSWORD
    old = await identity.token(DEMO)
    assert (await identity.api.call("POST", "/identity/v3" + path, {"user": change})).status == 204
    assert await identity.status("GET", "/auth/projects", token=old) == 401
    assert (await identity.login(DEMO)).status == 401
    assert (await identity.login(DEMO, password="another one")).status == 201


async def test_bootstrap_again_changes_nothing(identity: Identity):
    from handlers.identity.bootstrap import bootstrap

    before = await identity.api.cloud.log.head()
    await bootstrap(identity.api.cloud, "another password")
    assert await identity.api.cloud.log.head() == before
    assert (await identity.login()).status == 201


async def test_application_credentials_log_in_with_their_roles(identity: Identity):
    user, project = await demo(identity)
    text = await identity.token(DEMO, {"project": {"id": project["id"]}})
    path = f"/users/{user['id']}/application_credentials"
    answer = await identity.call(
        "POST", path, {"application_credential": {"name": "ci", "roles": [{"name": "reader"}]}}, token=text
    )
    assert answer.status == 201
    made = answer.json["application_credential"]
    auth = {
        "identity": {
            "methods": ["application_credential"],
            "application_credential": {"id": made["id"], "secret": made["secret"]},
        }
    }
    answer = await identity.api.call("POST", "/identity/v3/auth/tokens", {"auth": auth})
    assert answer.status == 201
    assert answer.json["token"]["project"]["id"] == project["id"]
    assert [role["name"] for role in answer.json["token"]["roles"]] == ["reader"]
    used = answer.headers["X-Subject-Token"]
    shown = (await identity.call("GET", path, token=text)).json["application_credentials"]
    assert [it["name"] for it in shown] == ["ci"]
    assert "secret" not in shown[0]
    assert await identity.status("DELETE", f"{path}/{made['id']}", token=text) == 204
    assert await identity.status("GET", "/auth/projects", token=used) == 401
    assert (await identity.api.call("POST", "/identity/v3/auth/tokens", {"auth": auth})).status == 401
