"""Image v2 over HTTP: what a client notices."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from api.image.service import SERVICE
from bus.config import Settings
from tests.serving import Served, serving

IMAGES = "/image/v2/images"
V21 = "application/openstack-images-v2.1-json-patch"
MINE, THEIRS = "a" * 32, "b" * 32


@pytest.fixture
async def api(settings: Settings, fresh_database: str) -> AsyncIterator[Served]:
    async with serving(settings, fresh_database, [SERVICE]) as served:
        yield served


async def make(api: Served, token: str, **attributes: Any) -> dict[str, Any]:
    body = {"name": "it", "disk_format": "raw", "container_format": "bare", **attributes}
    answer = await api.call("POST", IMAGES, body, token=token)
    assert answer.status == 201, answer.body
    return answer.json


async def put(api: Served, token: str, id: str, data: bytes, **headers: str):
    sent = {"Content-Type": "application/octet-stream", **headers}
    return await api.call("PUT", f"{IMAGES}/{id}/file", token=token, data=data, headers=sent)


async def patch(api: Served, token: str, id: str, *operations: Any, type: str = V21):
    return await api.call(
        "PATCH", f"{IMAGES}/{id}", token=token, data=msgspec.json.encode(operations), headers={"Content-Type": type}
    )


async def names(api: Served, token: str, query: str = "") -> list[str]:
    answer = await api.call("GET", IMAGES + query, token=token)
    assert answer.status == 200, answer.body
    return [image["name"] for image in answer.json["images"]]


async def test_versions_are_told_to_anybody(api: Served):
    for path in ("/image", "/image/", "/image/v2/", "/image/nonsense"):
        answer = await api.call("GET", path)
        assert answer.status == 300
        assert answer.json["versions"][0]["status"] == "CURRENT"
        assert answer.json["versions"][0]["links"][0]["href"] == f"{api.url}/image/v2/"
    assert (await api.call("GET", "/image/versions")).status == 200


async def test_refusals_are_html_with_the_message_first(api: Served):
    answer = await api.call("GET", f"{IMAGES}/nothing", token=await api.token())
    assert answer.status == 404
    assert answer.headers["Content-Type"].startswith("text/html")
    assert b"No image found with ID nothing<br /><br />" in answer.body
    assert (await api.call("GET", IMAGES)).status == 401
    assert (await api.call("GET", "/image/v2/nonsense", token=await api.token())).status == 404
    assert (await api.call("DELETE", IMAGES, token=await api.token())).status == 405


async def test_an_image_is_created_as_glance_answers(api: Served):
    token = await api.token(project=MINE)
    answer = await api.call("POST", IMAGES, {"name": "tiny", "os_distro": "debian", "tags": ["a"]}, token=token)
    assert answer.status == 201
    image = answer.json
    assert answer.headers["Location"] == f"{api.url}{IMAGES}/{image['id']}"
    expected = {"name": "tiny", "status": "queued", "visibility": "shared", "os_distro": "debian", "tags": ["a"]}
    expected |= {"owner": MINE, "size": None, "checksum": None, "protected": False, "min_disk": 0, "os_hidden": False}
    assert image.items() >= expected.items()
    assert image["self"] == f"/v2/images/{image['id']}"
    assert image["created_at"].endswith("Z")
    assert len(image["created_at"]) == 20
    assert (await api.call("GET", f"{IMAGES}/{image['id']}", token=token)).json == image


async def test_an_id_may_be_chosen_once(api: Served):
    token = await api.token()
    id = "11111111-1111-4111-8111-111111111111"
    assert (await make(api, token, id=id))["id"] == id
    assert (await api.call("POST", IMAGES, {"id": id}, token=token)).status == 409
    await api.call("DELETE", f"{IMAGES}/{id}", token=token)
    assert (await api.call("POST", IMAGES, {"id": id}, token=token)).status == 409


@pytest.mark.parametrize(
    "body, status",
    [
        (b"", 400),
        (b"[]", 400),
        (b"{", 400),
        (b'{"name": 1}', 400),
        (b'{"name": "%s"}' % (b"x" * 256), 400),
        (b'{"id": "no"}', 400),
        (b'{"id": null}', 400),
        (b'{"disk_format": "floppy"}', 400),
        (b'{"visibility": "secret"}', 400),
        (b'{"min_disk": -1}', 400),
        (b'{"min_ram": 4294967296}', 400),
        (b'{"protected": "yes"}', 400),
        (b'{"tags": "a"}', 400),
        (b'{"tags": ["%s"]}' % (b"x" * 256), 400),
        (b'{"a": 1}', 400),
        (b'{"a": null}', 400),
        (b'{"": "x"}', 400),
        (b'{"%s": "x"}' % (b"k" * 256), 400),
        (b'{"a": "\\u0000"}', 400),
        (b'{"a": "\\ud800"}', 400),
        (b'{"status": "active"}', 403),
        (b'{"size": 1}', 403),
        (b'{"self": "x"}', 403),
        (b'{"locations": []}', 403),
        (b'{"deleted": "no"}', 403),
        (b'{"os_glance_x": "y"}', 403),
        (b'{"visibility": "public"}', 403),
        (b'{"owner": "somebody else"}', 403),
        (b'{"tags": [%s]}' % b",".join(b'"%d"' % n for n in range(129)), 413),
        (b"{%s}" % b",".join(b'"k%d": ""' % n for n in range(129)), 413),
    ],
)
async def test_what_makes_no_sense_is_refused_and_leaves_no_event(api: Served, body: bytes, status: int):
    token = await api.token()
    head = await api.cloud.log.head()
    answer = await api.call("POST", IMAGES, token=token, data=body, headers={"Content-Type": "application/json"})
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"].startswith("text/html")
    assert await api.cloud.log.head() == head


async def test_others_images_are_not_there(api: Served):
    mine, theirs, admin = (
        await api.token(project=MINE),
        await api.token(project=THEIRS),
        await api.token("admin", project="c" * 32),
    )
    image = await make(api, mine)
    path = f"{IMAGES}/{image['id']}"
    assert (await api.call("GET", path, token=theirs)).status == 404
    assert (await patch(api, theirs, image["id"])).status == 404
    assert (await api.call("DELETE", path, token=theirs)).status == 404
    assert await names(api, theirs) == []
    assert (await api.call("GET", path, token=admin)).status == 200
    assert (
        await patch(api, admin, image["id"], {"op": "replace", "path": "/visibility", "value": "public"})
    ).status == 200
    assert (await api.call("GET", path, token=theirs)).status == 200
    assert await names(api, theirs) == ["it"]
    assert (await api.call("DELETE", path, token=theirs)).status == 403
    assert (await patch(api, theirs, image["id"], {"op": "add", "path": "/a", "value": "b"})).status == 403


async def test_community_images_are_found_by_those_who_look(api: Served):
    mine, theirs = await api.token(project=MINE), await api.token(project=THEIRS)
    await make(api, mine, visibility="community")
    assert await names(api, mine) == ["it"]
    assert await names(api, theirs) == []
    assert await names(api, theirs, "?visibility=community") == ["it"]
    assert await names(api, theirs, "?visibility=all") == ["it"]
    admin = await api.token("admin", project="c" * 32)
    assert await names(api, admin) == []
    assert await names(api, admin, "?visibility=community") == ["it"]


async def test_sharing_is_offered_and_answered(api: Served):
    mine, theirs = await api.token(project=MINE), await api.token(project=THEIRS)
    image = await make(api, mine)
    members = f"{IMAGES}/{image['id']}/members"
    shared = await api.call("POST", members, {"member": THEIRS}, token=mine)
    assert shared.status == 200
    assert shared.json["status"] == "pending"
    assert shared.json["member_id"] == THEIRS
    assert (await api.call("POST", members, {"member": THEIRS}, token=mine)).status == 409
    assert (await api.call("POST", members, {}, token=mine)).status == 400
    assert (await api.call("GET", f"{IMAGES}/{image['id']}", token=theirs)).status == 200
    assert await names(api, theirs) == []
    assert await names(api, theirs, "?visibility=shared&member_status=pending") == ["it"]
    assert (await api.call("PUT", f"{members}/{THEIRS}", {"status": "accepted"}, token=mine)).status == 403
    assert (await api.call("PUT", f"{members}/{THEIRS}", {"status": "maybe"}, token=theirs)).status == 400
    assert (await api.call("PUT", f"{members}/{THEIRS}", {"status": "accepted"}, token=theirs)).json[
        "status"
    ] == "accepted"
    assert await names(api, theirs) == ["it"]
    listed = (await api.call("GET", members, token=theirs)).json
    assert [member["member_id"] for member in listed["members"]] == [THEIRS]
    assert listed["schema"] == "/v2/schemas/members"
    assert (await api.call("POST", members, {"member": "c"}, token=theirs)).status == 403
    assert (await api.call("GET", f"{members}/{MINE}", token=mine)).status == 404
    assert (await api.call("DELETE", f"{members}/{THEIRS}", token=mine)).status == 204
    assert (await api.call("DELETE", f"{members}/{THEIRS}", token=mine)).status == 404
    assert (await api.call("GET", f"{IMAGES}/{image['id']}", token=theirs)).status == 404


async def test_a_patch_changes_attributes_and_properties(api: Served):
    token = await api.token()
    image = await make(api, token, a="1", b="2")
    answer = await patch(
        api,
        token,
        image["id"],
        {"op": "replace", "path": "/name", "value": "other"},
        {"op": "remove", "path": "/a"},
        {"op": "replace", "path": "/b", "value": "3"},
        {"op": "add", "path": "/c~1d~0e", "value": "4"},
        {"op": "add", "path": "/tags", "value": ["x", "y", "x"]},
        {"op": "replace", "path": "/os_hidden", "value": True},
    )
    assert answer.status == 200, answer.body
    changed = answer.json
    assert changed.items() >= {"name": "other", "b": "3", "c/d~e": "4", "tags": ["x", "y"], "os_hidden": True}.items()
    assert "a" not in changed
    old = await patch(
        api, token, image["id"], {"add": "/z", "value": "1"}, type="application/openstack-images-v2.0-json-patch"
    )
    assert old.json["z"] == "1"
    assert await names(api, token) == []
    assert await names(api, token, "?os_hidden=true") == ["other"]


@pytest.mark.parametrize(
    "operations, status",
    [
        (b"{}", 400),
        (b"nonsense", 400),
        (b"[1]", 400),
        (b'[{"op": "test", "path": "/name", "value": "x"}]', 400),
        (b'[{"op": "replace", "path": "name", "value": "x"}]', 400),
        (b'[{"op": "replace", "path": "/", "value": "x"}]', 400),
        (b'[{"op": "replace", "path": "/a/b", "value": "x"}]', 400),
        (b'[{"op": "replace", "path": "/a~2", "value": "x"}]', 400),
        (b'[{"op": "replace", "path": 1, "value": "x"}]', 400),
        (b'[{"op": "replace", "path": "/name"}]', 400),
        (b'[{"op": "replace", "path": "/name", "value": 1}]', 400),
        (b'[{"op": "add", "path": "/a", "value": {"b": 1}}]', 400),
        (b'[{"op": "add", "path": "/a", "value": "\\u0000"}]', 400),
        (b'[{"op": "replace", "path": "/min_ram", "value": -1}]', 400),
        (b'[{"op": "replace", "path": "/absent", "value": "x"}]', 409),
        (b'[{"op": "remove", "path": "/absent"}]', 409),
        (b'[{"op": "remove", "path": "/name"}]', 403),
        (b'[{"op": "replace", "path": "/status", "value": "active"}]', 403),
        (b'[{"op": "replace", "path": "/id", "value": "x"}]', 403),
        (b'[{"op": "add", "path": "/locations/-", "value": {}}]', 403),
        (b'[{"op": "add", "path": "/deleted", "value": "x"}]', 403),
        (b'[{"op": "replace", "path": "/visibility", "value": "public"}]', 403),
        (b'[{"op": "replace", "path": "/owner", "value": "x"}]', 403),
    ],
)
async def test_a_bad_patch_is_refused_whole(api: Served, operations: bytes, status: int):
    token = await api.token()
    image = await make(api, token)
    head = await api.cloud.log.head()
    good = b'{"op": "add", "path": "/good", "value": "x"}'
    body = operations.replace(b"[{", b"[" + good + b", {", 1)
    answer = await api.call("PATCH", f"{IMAGES}/{image['id']}", token=token, data=body, headers={"Content-Type": V21})
    assert answer.status == status, answer.body
    assert await api.cloud.log.head() == head


async def test_a_patch_of_another_type_is_told_which_are_taken(api: Served):
    token = await api.token()
    image = await make(api, token)
    for type in ("application/json", "application/json-patch+json"):
        answer = await patch(api, token, image["id"], type=type)
        assert answer.status == 415
        assert V21 in answer.headers["Accept-Patch"]


async def test_tags(api: Served):
    token = await api.token()
    image = await make(api, token)
    tags = f"{IMAGES}/{image['id']}/tags"
    assert (await api.call("PUT", f"{tags}/blue%20one", token=token)).status == 204
    assert (await api.call("PUT", f"{tags}/{'x' * 256}", token=token)).status == 400
    assert (await api.call("GET", f"{IMAGES}/{image['id']}", token=token)).json["tags"] == ["blue one"]
    assert (await api.call("DELETE", f"{tags}/blue%20one", token=token)).status == 204
    assert (await api.call("DELETE", f"{tags}/blue%20one", token=token)).status == 404


async def test_a_protected_image_stays_until_it_is_not(api: Served):
    token = await api.token()
    image = await make(api, token, protected=True)
    path = f"{IMAGES}/{image['id']}"
    assert (await api.call("DELETE", path, token=token)).status == 403
    assert (await patch(api, token, image["id"], {"op": "replace", "path": "/protected", "value": False})).status == 200
    assert (await api.call("DELETE", path, token=token)).status == 204
    assert (await api.call("DELETE", path, token=token)).status == 404


async def test_schemas_and_stores(api: Served):
    token = await api.token()
    for name in ("image", "images", "member", "members"):
        assert (await api.call("GET", f"/image/v2/schemas/{name}", token=token)).json["name"] == name
    assert (await api.call("GET", "/image/v2/schemas/nonsense", token=token)).status == 404
    assert "import-methods" in (await api.call("GET", "/image/v2/info/import", token=token)).json
    assert (await api.call("GET", "/image/v2/info/stores", token=token)).json["stores"][0]["id"] == "file"


async def test_pages_follow_each_other(api: Served):
    token = await api.token()
    for nth in range(7):
        await make(api, token, name=f"n{nth}", tags=["t"])
    url = f"{IMAGES}?limit=3&sort=name:asc&tag=t"
    seen: list[str] = []
    while url:
        page = (await api.call("GET", url, token=token)).json
        assert page["first"] == "/v2/images?limit=3&sort=name%3Aasc&tag=t"
        assert page["schema"] == "/v2/schemas/images"
        seen += [image["name"] for image in page["images"]]
        url = "/image" + page["next"] if "next" in page else ""
    assert seen == [f"n{nth}" for nth in range(7)]
    assert await names(api, token, "?limit=0") == []
    assert (await names(api, token))[0] == "n6"


async def test_filters(api: Served):
    token = await api.token()
    small = await make(api, token, name="small", tags=["a", "b"], os_distro="debian", min_disk=1)
    big = await make(api, token, name="big, round", tags=["a"], **{"owner_specified.x": "y"}, disk_format="qcow2")
    await put(api, token, small["id"], b"x" * 10)
    await put(api, token, big["id"], b"x" * 1000)
    await make(api, token, name="empty", protected=True)
    finds = {
        "?name=small": ["small"],
        "?name=in:small,%22big,%20round%22": ["big, round", "small"],
        "?status=queued": ["empty"],
        "?status=in:queued,active": ["empty", "big, round", "small"],
        "?tag=a": ["big, round", "small"],
        "?tag=a&tag=b": ["small"],
        "?size_min=11": ["big, round"],
        "?size_max=10": ["small"],
        "?disk_format=in:raw": ["empty", "small"],
        "?os_distro=debian": ["small"],
        "?owner_specified.x=y": ["big, round"],
        "?protected=True": ["empty"],
        "?min_disk=1": ["small"],
        "?visibility=shared&status=active": ["big, round", "small"],
        "?visibility=public": [],
        "?created_at=gt:2020-01-01T00:00:00Z&name=small": ["small"],
        "?created_at=lt:2020-01-01T00:00:00Z": [],
        f"?updated_at=eq:{small['updated_at']}&name=nonsense": [],
        f"?created_at=neq:{small['created_at']}&name=small": [],
        f"?created_at={small['created_at']}&name=small": ["small"],
        "?sort_key=size&sort_dir=asc&status=active": ["small", "big, round"],
        "?sort=size:desc,name:asc": ["big, round", "small", "empty"],
        "?sort_key=name&sort_key=size&sort_dir=asc&sort_dir=desc": ["big, round", "empty", "small"],
        f"?id={small['id']}": ["small"],
        f"?checksum={hashlib.md5(b'x' * 10, usedforsecurity=False).hexdigest()}": ["small"],
    }
    for query, expected in finds.items():
        assert await names(api, token, query) == expected, query
    for query in (
        "?limit=x",
        "?limit=-1",
        "?marker=nonsense",
        "?sort_key=nonsense",
        "?sort_dir=up",
        "?sort=name:up",
        "?sort=name&sort_key=name",
        "?sort_key=name&sort_dir=asc&sort_dir=desc",
        "?visibility=nonsense",
        "?member_status=nonsense",
        "?size_min=x",
        "?size_min=-1",
        "?protected=maybe",
        "?created_at=gt:yesterday",
        "?name=in:%22a",
    ):
        assert (await api.call("GET", IMAGES + query, token=token)).status == 400, query


async def test_no_task_is_under_way_for_an_image(api: Served):
    token = await api.token(project=MINE)
    id = (await make(api, token))["id"]
    assert (await api.call("GET", f"{IMAGES}/{id}/tasks", token=token)).json == {"tasks": []}
    other = await api.token(project=THEIRS)
    assert (await api.call("GET", f"{IMAGES}/{id}/tasks", token=other)).status == 404
