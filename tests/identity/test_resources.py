"""Domains, projects, users, groups, roles, grants, catalog: made, listed, changed, refused, ended."""

from typing import Any

import pytest

from handlers.identity.bootstrap import named_id
from tests.identity.conftest import PASSWORD, Identity

MEMBER = named_id("role", "member")


async def test_names_are_unique_within_their_domain(identity: Identity):
    domain = await identity.make("domain", name="house")
    for what in ("project", "user", "group"):
        await identity.make(what, name="same")
        await identity.make(what, name="same", domain_id=domain["id"])
        answer = await identity.call("POST", f"/{what}s", {what: {"name": "same"}})
        assert answer.status == 409
        assert answer.json["error"]["title"] == "Conflict"
        assert f"attempting to store {what}" in answer.json["error"]["message"]
    assert await identity.status("POST", "/domains", {"domain": {"name": "house"}}) == 409
    assert await identity.status("POST", "/roles", {"role": {"name": "admin"}}) == 409
    other = await identity.make("project", name="other")
    assert await identity.status("PATCH", f"/projects/{other['id']}", {"project": {"name": "same"}}) == 409


@pytest.mark.parametrize(
    "path, body",
    [
        ("/users", {}),
        ("/users", {"user": {}}),
        ("/users", {"user": {"name": ""}}),
        ("/users", {"user": {"name": "  "}}),
        ("/users", {"user": {"name": "x" * 256}}),
        ("/users", {"user": {"name": 5}}),
        ("/users", {"user": {"name": "a", "enabled": "yes"}}),
        ("/users", {"user": {"name": "a", "domain_id": 7}}),
        ("/users", {"user": {"name": "a\0b"}}),
        ("/users", {"user": []}),
        ("/users", []),
        ("/projects", {"project": {"name": "x" * 65}}),
        ("/projects", {"project": {"name": "a", "tags": ["a,b"]}}),
        ("/projects", {"project": {"name": "a", "is_domain": True, "parent_id": "default"}}),
        ("/domains", {"domain": {"description": "nameless"}}),
        ("/groups", {"group": {"name": None}}),
        ("/roles", {"role": {"name": ["a"]}}),
        ("/services", {"service": {"name": "typeless"}}),
        ("/endpoints", {"endpoint": {"service_id": "x", "interface": "public", "url": "http://x"}}),
        ("/endpoints", {"endpoint": {"interface": "public", "url": "http://x"}}),
        ("/endpoints", {"endpoint": {"service_id": "x", "interface": "secret", "url": "http://x"}}),
        ("/endpoints", {"endpoint": {"service_id": "x", "interface": "public", "url": ""}}),
        ("/endpoints", {"endpoint": {"service_id": "x", "interface": "public", "url": "no scheme"}}),
        ("/regions", {"region": {"id": 5}}),
    ],
)
async def test_bad_input_is_refused_and_leaves_no_event(identity: Identity, path: str, body: Any):
    before = await identity.api.cloud.log.head()
    answer = await identity.call("POST", path, body)
    assert answer.status == 400, answer.body
    assert answer.json["error"]["code"] == 400
    assert answer.json["error"]["title"] == "Bad Request"
    assert await identity.api.cloud.log.head() == before


async def test_what_is_not_there_is_not_found_by_name(identity: Identity):
    for plural, what in (
        ("domains", "domain"),
        ("projects", "project"),
        ("users", "user"),
        ("groups", "group"),
        ("roles", "role"),
        ("regions", "region"),
        ("services", "service"),
        ("endpoints", "endpoint"),
    ):
        for method in ("GET", "PATCH", "DELETE"):
            answer = await identity.call(method, f"/{plural}/missing", {what: {}} if method == "PATCH" else None)
            assert answer.status == 404, (method, plural)
            assert answer.json["error"]["message"] == f"Could not find {what}: missing."
    assert await identity.status("POST", "/users", {"user": {"name": "a", "domain_id": "missing"}}) == 404
    assert await identity.status("GET", "/nothing") == 404
    assert (await identity.call("PUT", "/users")).status == 405


async def test_lists_are_filtered_and_paged(identity: Identity):
    for name in ("anna", "bert", "Anton", "a_b"):
        await identity.make("user", name=name, enabled=name != "bert")

    async def names(query: str) -> list[str]:
        answer = await identity.call("GET", f"/users?{query}")
        assert answer.status == 200, answer.body
        return [user["name"] for user in answer.json["users"]]

    assert await names("name=anna") == ["anna"]
    assert await names("name__contains=nn") == ["anna"]
    assert await names("name__startswith=an") == ["anna"]
    assert await names("name__istartswith=an") == ["anna", "Anton"]
    assert await names("name__contains=_") == ["a_b"]
    assert await names("name__contains=.") == []
    assert await names("enabled=false") == ["bert"]
    assert await names("domain_id=missing") == []
    answer = (await identity.call("GET", "/users?limit=2")).json
    assert len(answer["users"]) == 2
    assert answer["links"]["self"].endswith("/identity/v3/users?limit=2")
    rest = await identity.api.call("GET", answer["links"]["next"].removeprefix(identity.api.url), token=identity.admin)
    assert [user["name"] for user in rest.json["users"]] == ["bert", "Anton"]
    for bad in ("limit=x", "limit=-1", "name=%00"):
        assert await identity.status("GET", f"/users?{bad}") == 400


async def test_projects_make_a_tree(identity: Identity):
    parent = await identity.make("project", name="parent")
    child = await identity.make("project", name="child", parent_id=parent["id"])
    assert parent["parent_id"] == "default"
    assert child["domain_id"] == "default"
    shown = (await identity.call("GET", f"/projects/{child['id']}?parents_as_list")).json["project"]
    assert [it["project"]["name"] for it in shown["parents"]] == ["parent"]
    shown = (await identity.call("GET", f"/projects/{parent['id']}?subtree_as_ids")).json["project"]
    assert shown["subtree"] == {child["id"]: None}
    shown = (await identity.call("GET", f"/projects/{child['id']}?parents_as_ids")).json["project"]
    assert shown["parents"] == {parent["id"]: {"default": None}}
    disable = {"project": {"enabled": False}}
    assert await identity.status("PATCH", f"/projects/{parent['id']}", disable) == 403
    assert await identity.status("PATCH", f"/projects/{child['id']}", disable) == 200
    assert await identity.status("PATCH", f"/projects/{parent['id']}", disable) == 200
    assert await identity.status("PATCH", f"/projects/{child['id']}", {"project": {"enabled": True}}) == 403
    assert await identity.status("DELETE", f"/projects/{parent['id']}") == 403
    assert await identity.status("DELETE", f"/projects/{child['id']}") == 204
    assert await identity.status("DELETE", f"/projects/{parent['id']}") == 204
    assert await identity.status("GET", f"/projects/{parent['id']}") == 404


async def test_a_domain_is_also_a_project_that_acts_as_one(identity: Identity):
    answer = await identity.call("POST", "/projects", {"project": {"name": "house", "is_domain": True}})
    assert answer.status == 201
    house = answer.json["project"]
    assert (house["is_domain"], house["domain_id"], house["parent_id"]) == (True, None, None)
    assert (await identity.call("GET", f"/domains/{house['id']}")).json["domain"]["name"] == "house"
    assert (await identity.call("GET", f"/projects/{house['id']}")).json["project"]["is_domain"] is True
    listed = (await identity.call("GET", "/projects?is_domain=true")).json["projects"]
    assert {it["name"] for it in listed} == {"Default", "house"}
    path = f"/projects/{house['id']}"
    assert await identity.status("DELETE", path) == 403
    changed = await identity.call("PATCH", path, {"project": {"enabled": False, "description": "closed"}})
    assert (changed.json["project"]["enabled"], changed.json["project"]["is_domain"]) == (False, True)
    assert (await identity.call("GET", f"/domains/{house['id']}")).json["domain"]["description"] == "closed"
    assert await identity.status("DELETE", path) == 204
    assert await identity.status("GET", f"/domains/{house['id']}") == 404


async def test_a_role_of_a_domain_counts_by_what_it_implies(identity: Identity):
    domain = await identity.make("domain", name="house")
    local = await identity.make("role", name="caretaker", domain_id=domain["id"])
    implies = f"/roles/{local['id']}/implies/{MEMBER}"
    assert await identity.status("HEAD", implies) == 404
    assert await identity.status("PUT", implies) == 201
    assert await identity.status("HEAD", implies) == 204
    assert await identity.status("GET", implies) == 200
    assert await identity.status("PUT", f"/roles/{MEMBER}/implies/{local['id']}") == 403
    user = await identity.make("user", name="u", password=PASSWORD)
    project = await identity.make("project", name="p", domain_id=domain["id"])
    assert await identity.status("PUT", f"/projects/{project['id']}/users/{user['id']}/roles/{local['id']}") == 204
    query = f"/role_assignments?effective&include_names&user.id={user['id']}"
    assigned = (await identity.call("GET", query)).json["role_assignments"]
    assert {it["role"]["name"] for it in assigned} == {"member", "reader"}
    token = (await identity.login({"id": user["id"]}, {"project": {"id": project["id"]}})).json["token"]
    assert {role["name"] for role in token["roles"]} == {"member", "reader"}


async def test_an_application_credential_may_carry_a_role_granted_since_the_token(identity: Identity):
    user = await identity.make("user", name="u", password=PASSWORD)
    project = await identity.make("project", name="p")
    grants = f"/projects/{project['id']}/users/{user['id']}/roles"
    await identity.call("PUT", f"{grants}/{MEMBER}")
    token = await identity.token({"id": user["id"]}, {"project": {"id": project["id"]}})
    later = await identity.make("role", name="later")
    path = f"/users/{user['id']}/application_credentials"
    body = {"application_credential": {"name": "c", "roles": [{"id": later["id"]}]}}
    assert await identity.status("POST", path, body, token=token) == 400
    await identity.call("PUT", f"{grants}/{later['id']}")
    answer = await identity.call("POST", path, body, token=token)
    assert answer.status == 201, answer.body
    assert [role["name"] for role in answer.json["application_credential"]["roles"]] == ["later"]


async def test_a_token_that_is_no_more_is_not_found_by_anybody(identity: Identity):
    user = await identity.make("user", name="u", password=PASSWORD)
    mine, other = [await identity.token({"id": user["id"]}) for _ in range(2)]
    subject = {"X-Subject-Token": other}
    assert (await identity.call("DELETE", "/auth/tokens", token=mine, headers=subject)).status == 204
    for method in ("GET", "HEAD", "DELETE"):
        assert (await identity.call(method, "/auth/tokens", token=mine, headers=subject)).status == 404


async def test_tags(identity: Identity):
    project = await identity.make("project", name="tagged", tags=["a"])
    path = f"/projects/{project['id']}/tags"
    assert await identity.status("PUT", f"{path}/b") == 201
    assert (await identity.call("GET", path)).json["tags"] == ["a", "b"]
    assert await identity.status("HEAD", f"{path}/b") == 204
    assert await identity.status("GET", f"{path}/c") == 404
    assert await identity.status("DELETE", f"{path}/a") == 204
    assert await identity.status("DELETE", f"{path}/a") == 404
    assert (await identity.call("PUT", path, {"tags": ["x", "y"]})).json["tags"] == ["x", "y"]
    for query, there in (("tags=x,y", True), ("tags=x,z", False), ("tags-any=x,z", True), ("not-tags-any=x", False)):
        listed = (await identity.call("GET", f"/projects?{query}")).json["projects"]
        assert ("tagged" in {it["name"] for it in listed}) is there, query
    assert await identity.status("DELETE", path) == 204
    assert (await identity.call("GET", path)).json["tags"] == []


async def test_users_keep_extra_attributes_and_never_show_a_password(identity: Identity):
    user = await identity.make("user", name="a", password=PASSWORD, email="a@example.org", description="x")
    assert user["email"] == "a@example.org"
    assert "password" not in user
    assert user["password_expires_at"] is None
    assert user["links"]["self"].endswith(f"/identity/v3/users/{user['id']}")
    changed = await identity.call("PATCH", f"/users/{user['id']}", {"user": {"email": "b@example.org", "phone": "1"}})
    assert (changed.json["user"]["email"], changed.json["user"]["phone"]) == ("b@example.org", "1")
    assert changed.json["user"]["description"] == "x"
    assert await identity.status("PATCH", f"/users/{user['id']}", {"user": {"domain_id": "other"}}) == 400


async def test_grants_are_given_checked_listed_and_taken(identity: Identity):
    user = await identity.make("user", name="u")
    project = await identity.make("project", name="p")
    for base in (f"/projects/{project['id']}", "/domains/default", "/system"):
        path = f"{base}/users/{user['id']}/roles"
        one = f"{path}/{MEMBER}"
        assert await identity.status("HEAD", one) == 404
        assert await identity.status("DELETE", one) == 404
        assert await identity.status("PUT", one) == 204
        assert await identity.status("PUT", one) == 204
        assert await identity.status("HEAD", one) == 204
        assert await identity.status("GET", one) == 204
        assert [it["name"] for it in (await identity.call("GET", path)).json["roles"]] == ["member"]
        assert await identity.status("DELETE", one) == 204
        assert (await identity.call("GET", path)).json["roles"] == []
        assert await identity.status("PUT", f"{path}/missing") == 404
    assert await identity.status("PUT", f"/projects/missing/users/{user['id']}/roles/{MEMBER}") == 404
    assert await identity.status("PUT", f"/projects/{project['id']}/users/missing/roles/{MEMBER}") == 404


async def test_role_assignments_as_granted_and_as_they_take_effect(identity: Identity):
    user = await identity.make("user", name="u")
    group = await identity.make("group", name="g")
    project = await identity.make("project", name="p")
    await identity.call("PUT", f"/groups/{group['id']}/users/{user['id']}")
    await identity.call("PUT", f"/projects/{project['id']}/groups/{group['id']}/roles/{MEMBER}")
    scope = f"scope.project.id={project['id']}"
    granted = (await identity.call("GET", f"/role_assignments?{scope}&include_names")).json["role_assignments"]
    assert len(granted) == 1
    assert granted[0]["group"] == {"id": group["id"], "name": "g", "domain": {"id": "default", "name": "Default"}}
    assert granted[0]["role"]["name"] == "member"
    assert granted[0]["scope"]["project"]["name"] == "p"
    effective = (await identity.call("GET", f"/role_assignments?{scope}&effective")).json["role_assignments"]
    assert {it["user"]["id"] for it in effective} == {user["id"]}
    assert {it["role"]["id"] for it in effective} == {MEMBER, named_id("role", "reader")}
    assert f"/groups/{group['id']}/users/{user['id']}" in effective[0]["links"]["membership"]
    of_user = (await identity.call("GET", f"/role_assignments?user.id={user['id']}")).json["role_assignments"]
    assert of_user == []
    of_user = (await identity.call("GET", f"/role_assignments?user.id={user['id']}&effective")).json["role_assignments"]
    assert len(of_user) == 2
    assert await identity.status("GET", f"/role_assignments?effective&group.id={group['id']}") == 400


async def test_a_deleted_role_is_taken_from_everybody(identity: Identity):
    user = await identity.make("user", name="u", password=PASSWORD)
    project = await identity.make("project", name="p")
    role = await identity.make("role", name="gardener")
    path = f"/projects/{project['id']}/users/{user['id']}/roles"
    await identity.call("PUT", f"{path}/{role['id']}")
    token = await identity.token({"id": user["id"]}, {"project": {"id": project["id"]}})
    assert await identity.status("DELETE", f"/roles/{role['id']}") == 204
    assert await identity.status("GET", "/auth/projects", token=token) == 401
    assert (await identity.call("GET", path)).json["roles"] == []


async def test_default_roles_are_immutable_and_imply_each_other(identity: Identity):
    admin = named_id("role", "admin")
    assert await identity.status("DELETE", f"/roles/{admin}") == 403
    assert await identity.status("PATCH", f"/roles/{admin}", {"role": {"name": "boss"}}) == 403
    inferences = (await identity.call("GET", "/role_inferences")).json["role_inferences"]
    pairs = {(it["prior_role"]["name"], it["implies"][0]["name"]) for it in inferences}
    assert pairs == {("admin", "manager"), ("manager", "member"), ("member", "reader")}
    role = await identity.make("role", name="cook")
    assert await identity.status("PUT", f"/roles/{role['id']}/implies/{MEMBER}") == 201
    assert await identity.status("HEAD", f"/roles/{role['id']}/implies/{MEMBER}") == 204
    assert await identity.status("DELETE", f"/roles/{role['id']}/implies/{MEMBER}") == 204
    assert await identity.status("GET", f"/roles/{role['id']}/implies/{MEMBER}") == 404


async def test_an_enabled_domain_stays_and_a_disabled_one_goes_with_everything_in_it(identity: Identity):
    domain = await identity.make("domain", name="house")
    user = await identity.make("user", name="u", domain_id=domain["id"], password=PASSWORD)
    project = await identity.make("project", name="p", domain_id=domain["id"])
    await identity.call("PUT", f"/projects/{project['id']}/users/{user['id']}/roles/{MEMBER}")
    token = await identity.token({"id": user["id"]}, {"project": {"id": project["id"]}})
    answer = await identity.call("DELETE", f"/domains/{domain['id']}")
    assert answer.status == 403
    assert "please disable it first" in answer.json["error"]["message"]
    assert await identity.status("PATCH", f"/domains/{domain['id']}", {"domain": {"enabled": False}}) == 200
    assert await identity.status("GET", "/auth/projects", token=token) == 401
    assert (await identity.login({"id": user["id"]})).status == 401
    assert await identity.status("DELETE", f"/domains/{domain['id']}") == 204
    assert await identity.status("GET", f"/users/{user['id']}") == 404
    assert await identity.status("GET", f"/projects/{project['id']}") == 404


async def test_a_member_sees_what_is_theirs_and_changes_nothing(identity: Identity):
    user = await identity.make("user", name="u", password=PASSWORD)
    project = await identity.make("project", name="p")
    other = await identity.make("project", name="q")
    house = await identity.make("domain", name="house")
    await identity.call("PUT", f"/projects/{project['id']}/users/{user['id']}/roles/{MEMBER}")
    token = await identity.token({"id": user["id"]}, {"project": {"id": project["id"]}})
    for path, status in (
        (f"/users/{user['id']}", 200),
        (f"/users/{user['id']}/projects", 200),
        (f"/users/{user['id']}/groups", 200),
        (f"/projects/{project['id']}", 200),
        ("/auth/catalog", 200),
        ("/regions", 200),
        ("/domains/default", 200),
        (f"/domains/{house['id']}", 403),
        ("/domains", 403),
        ("/users", 403),
        (f"/projects/{other['id']}", 403),
        ("/role_assignments", 403),
        ("/services", 403),
    ):
        assert await identity.status("GET", path, token=token) == status, path
    answer = await identity.call("POST", "/users", {"user": {"name": "x"}}, token=token)
    assert answer.status == 403
    assert answer.json["error"]["title"] == "Forbidden"
    assert await identity.status("PATCH", f"/users/{user['id']}", {"user": {"enabled": False}}, token=token) == 403


async def test_a_domain_manager_keeps_within_the_domain(identity: Identity):
    domain = await identity.make("domain", name="house")
    chief = await identity.make("user", name="chief", domain_id=domain["id"], password=PASSWORD)
    await identity.call("PUT", f"/domains/{domain['id']}/users/{chief['id']}/roles/{named_id('role', 'manager')}")
    token = await identity.token({"id": chief["id"]}, {"domain": {"id": domain["id"]}})
    answer = await identity.call("POST", "/users", {"user": {"name": "new"}}, token=token)
    assert answer.status == 201
    assert answer.json["user"]["domain_id"] == domain["id"]
    elsewhere = {"user": {"name": "new", "domain_id": "default"}}
    assert await identity.status("POST", "/users", elsewhere, token=token) == 403
    assert {it["name"] for it in (await identity.call("GET", "/users", token=token)).json["users"]} == {"chief", "new"}
    admin = named_id("user", "admin")
    assert await identity.status("GET", f"/users/{admin}", token=token) == 403
    grant = f"/domains/{domain['id']}/users/{chief['id']}/roles/{named_id('role', 'admin')}"
    assert await identity.status("PUT", grant, token=token) == 403


async def test_the_same_idempotency_key_makes_one_user(identity: Identity):
    headers = {"Idempotency-Key": "once"}
    first = await identity.call("POST", "/users", {"user": {"name": "u"}}, headers=headers)
    again = await identity.call("POST", "/users", {"user": {"name": "u"}}, headers=headers)
    assert (first.status, again.status) == (201, 201)
    assert first.json["user"]["id"] == again.json["user"]["id"]
    other = await identity.call("POST", "/users", {"user": {"name": "v"}}, headers=headers)
    assert other.status == 422


async def test_version_documents(identity: Identity):
    answer = await identity.api.call("GET", "/identity")
    assert answer.status == 300
    assert answer.headers["Location"] == f"{identity.api.url}/identity/v3/"
    [version] = answer.json["versions"]["values"]
    assert (version["id"], version["status"]) == ("v3.14", "stable")
    answer = await identity.api.call("GET", "/identity/v3/")
    assert answer.json["version"]["links"] == [{"rel": "self", "href": f"{identity.api.url}/identity/v3/"}]
