"""What any service gets from the wire framework: routing, versions, tokens, policy, bodies, errors."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from api.wire import Call, Delete, Get, Post, Put, Reply, Service
from api.wire.errors import NOVA
from api.wire.microversion import COMPUTE_HEADER, Microversions
from api.wire.policy import ADMIN, ADMIN_OR_READER, any_of, everybody, own_project
from bus.config import Settings
from schema.refusal import Conflict, NotFound
from tests.serving import Served, serving


class Create(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    size: int = 1


class CreateBody(msgspec.Struct, forbid_unknown_fields=True):
    thing: Create


class Listing(msgspec.Struct):
    limit: int | None = None
    all_tenants: bool = False
    status: list[str] = []


async def create(call: Call) -> Reply:
    return Reply({"thing": call.body.thing}, headers={"Location": call.url("/things/1")})


async def show(call: Call) -> dict[str, object]:
    if call.path["id"] == "missing":
        raise NotFound("Thing missing could not be found.")
    if call.path["id"] == "broken":
        raise ZeroDivisionError
    if call.path["id"] == "away":
        raise ConnectionRefusedError("no database")
    return {"id": call.path["id"], "version": call.version, "project": call.token.project_id}


async def detail(call: Call) -> dict[str, object]:
    return {"detail": True}


async def listing(call: Call) -> Listing:
    return call.params


async def start(call: Call) -> None:
    return None


async def resize(call: Call) -> object:
    return call.body


async def busy(call: Call) -> None:
    raise Conflict("Cannot do that while it is busy")


async def root(call: Call) -> dict[str, str]:
    return {"self": call.url("/")}


routes = [
    Get("/things/{id}", show, may="things:show"),
    Get("/things/detail", detail, may="things:show"),
    Get("/things", listing, may="things:show", query=Listing),
    Post("/things", create, may="things:create", body=CreateBody, answers=202),
    Put("/things/{id}", busy, may="things:admin"),
    Delete("/things/{id}/since", start, may="things:show", since="2.5", answers=202),
    Post("/things/{id}/action", start, may="things:create", action="os-start", answers=202),
    Post("/things/{id}/action", resize, may="things:admin", action="resize", body=Create, answers=202),
]
SERVICE = Service(
    name="nova",
    type="compute",
    prefix="/compute/v2.1",
    routes=routes,
    roots=[Get("/compute", root, public=True), Get("/compute/v2", root, public=True)],
    errors=NOVA,
    microversions=Microversions("compute", "2.1", "2.96", COMPUTE_HEADER),
    policy={
        "things:show": ADMIN_OR_READER,
        "things:create": any_of(ADMIN, own_project),
        "things:admin": ADMIN,
        "things:any": everybody,
    },
    project_in_path=True,
    extra_headers=lambda id: {"X-Compute-Request-Id": id},
)


@pytest.fixture
async def api(settings: Settings, fresh_database: str) -> AsyncIterator[Served]:
    async with serving(settings, fresh_database, [SERVICE]) as served:
        yield served


async def test_a_call_finds_its_handler(api: Served):
    token = await api.token()
    answer = await api.call("GET", "/compute/v2.1/things/abc", token=token)
    assert answer.status == 200
    assert answer.json == {"id": "abc", "version": [2, 1], "project": "p" * 32}
    assert answer.headers["X-Openstack-Request-Id"].startswith("req-")
    assert answer.headers["X-Compute-Request-Id"] == answer.headers["X-Openstack-Request-Id"]
    assert answer.headers["OpenStack-API-Version"] == "compute 2.1"
    assert (await api.call("GET", "/compute/v2.1/things/detail", token=token)).json == {"detail": True}
    assert (await api.call("GET", f"/compute/v2.1/{'p' * 32}/things/x", token=token)).status == 404  # no hex id
    assert (await api.call("HEAD", "/compute/v2.1/things/abc", token=token)).body == b""


async def test_a_trailing_slash_is_no_whole_list(api: Served):
    token = await api.token()
    assert (await api.call("GET", "/compute/v2.1/things/abc", token=token)).status == 200
    assert (await api.call("GET", "/compute/v2.1/things/abc/", token=token)).status == 404
    assert (await api.call("GET", "/compute/")).status == 200
    assert (await api.call("GET", "/compute/v2/")).status == 200


async def test_a_project_in_the_path_is_the_tokens(api: Served):
    token = await api.token(project="a" * 32)
    assert (await api.call("GET", f"/compute/v2.1/{'a' * 32}/things/x", token=token)).status == 200
    assert (await api.call("GET", f"/compute/v2.1/{'b' * 32}/things/x", token=token)).status == 400


async def test_bodies_are_decoded_and_answers_carry_headers(api: Served):
    token = await api.token()
    answer = await api.call("POST", "/compute/v2.1/things", {"thing": {"name": "a"}}, token=token)
    assert answer.status == 202
    assert answer.json == {"thing": {"name": "a", "size": 1}}
    assert answer.headers["Location"] == f"{api.url}/compute/v2.1/things/1"


@pytest.mark.parametrize(
    "data, says",
    [
        (b"{", "not well-formed"),
        (b"\xff\xfe", "not well-formed"),
        (b'{"thing": {"name": "\xff"}}', "not well-formed"),
        (b'{"thing": {"name": "\\ud800"}}', "not well-formed"),
        (b'{"thing":' + b"[" * 100_000, "nested"),
        (b'{"thing":' + b'{"a":' * 70 + b"1" + b"}" * 71, "nested"),
        (b"", "expected as the body"),
        (b"[]", "expected 'object'"),
        (b'{"thing": {}}', "'name' is a required property"),
        (b'{"thing": {"name": 1}}', "thing.name"),
        (b'{"thing": {"name": "a", "colour": 1}}', "'colour' was unexpected"),
        (b'{"thing": {"name": "a\\u0000b"}}', "NUL"),
        (b'{"thing": {"name": "a", "size": 1e999}}', "size"),
    ],
)
async def test_bad_bodies_are_refused_by_name(api: Served, data: bytes, says: str):
    headers = {"Content-Type": "application/json"}
    answer = await api.call("POST", "/compute/v2.1/things", data=data, token=await api.token(), headers=headers)
    assert answer.status == 400, answer.body
    assert says in answer.json["badRequest"]["message"]
    assert answer.json["badRequest"]["code"] == 400


async def test_a_backslash_before_u0000_is_no_nul(api: Served):
    data = b'{"thing": {"name": "a\\\\u0000"}}'
    answer = await api.call("POST", "/compute/v2.1/things", data=data, token=await api.token())
    assert answer.json["thing"]["name"] == "a\\u0000"


async def test_other_content_types_and_huge_bodies_are_refused(api: Served):
    token = await api.token()
    answer = await api.call(
        "POST", "/compute/v2.1/things", data=b"a=b", token=token, headers={"Content-Type": "text/plain"}
    )
    assert answer.status == 415
    answer = await api.call("POST", "/compute/v2.1/things", data=b" " * 3_000_000, token=token)
    assert answer.status == 413
    assert "overLimit" in answer.json


async def test_no_token_a_forged_one_and_a_wrong_role(api: Served):
    for token in (None, "", "nonsense", "a.b.c", "é", (await api.token())[:-4] + "AAAA"):
        answer = await api.call("GET", "/compute/v2.1/things/abc", token=token)
        assert answer.status == 401, token
        assert answer.json["error"]["code"] == 401
        assert answer.headers["WWW-Authenticate"].startswith("Keystone uri=")
    answer = await api.call("PUT", "/compute/v2.1/things/abc", {}, token=await api.token())
    assert answer.status == 403
    assert answer.json["forbidden"]["message"] == "Policy doesn't allow things:admin to be performed."
    answer = await api.call("PUT", "/compute/v2.1/things/abc", {}, token=await api.token("admin"))
    assert answer.status == 409
    assert answer.json["conflictingRequest"]["message"] == "Cannot do that while it is busy"


async def test_unknown_urls_and_methods(api: Served):
    token = await api.token()
    assert (await api.call("GET", "/compute/v2.1/nothing", token=token)).status == 404
    assert (await api.call("GET", "/compute/v2.1/nothing")).status == 401
    assert (await api.call("GET", "/nowhere")).status == 404
    answer = await api.call("PATCH", "/compute/v2.1/things/abc", {}, token=token)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD, PUT"
    assert (await api.call("GET", "/compute/v2.1/things/%00", token=token)).status == 400
    assert (await api.call("GET", "/compute/v2.1/things/%ff", token=token)).status == 400
    assert (await api.call("GET", "/compute/v2.1/things/a%20b", token=token)).json["id"] == "a b"


async def test_failures_are_the_services_own(api: Served):
    token = await api.token()
    answer = await api.call("GET", "/compute/v2.1/things/missing", token=token)
    assert (answer.status, answer.json["itemNotFound"]["message"]) == (404, "Thing missing could not be found.")
    answer = await api.call("GET", "/compute/v2.1/things/away", token=token)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    answer = await api.call("GET", "/compute/v2.1/things/broken", token=token)
    assert answer.status == 500
    assert answer.headers["X-Openstack-Request-Id"] in answer.json["computeFault"]["message"]


async def test_microversions_are_negotiated(api: Served):
    token = await api.token()

    async def at(version: str, method: str = "GET", path: str = "/things/a") -> tuple[int, object, str | None]:
        answer = await api.call(
            method, f"/compute/v2.1{path}", token=token, headers={"OpenStack-API-Version": f"compute {version}"}
        )
        body = answer.json.get("version") if answer.status == 200 else None
        return answer.status, body, answer.headers.get("OpenStack-API-Version")

    assert await at("2.90") == (200, [2, 90], "compute 2.90")
    assert await at("latest") == (200, [2, 96], "compute 2.96")
    assert (await at("2.97"))[0] == 406
    assert (await at("2.04"))[0] == 400
    assert (await at("two"))[0] == 400
    assert (await at("2.4", "DELETE", "/things/a/since"))[0] == 404
    assert (await at("2.5", "DELETE", "/things/a/since"))[0] == 202
    older = await api.call("GET", "/compute/v2.1/things/a", token=token, headers={COMPUTE_HEADER: "2.10"})
    assert older.json["version"] == [2, 10]
    other = await api.call(
        "GET", "/compute/v2.1/things/a", token=token, headers={"OpenStack-API-Version": "volume 3.1"}
    )
    assert other.json["version"] == [2, 1]


async def test_actions_are_told_apart_by_their_word(api: Served):
    member, admin = await api.token(), await api.token("admin")
    path = "/compute/v2.1/things/a/action"
    assert (await api.call("POST", path, {"os-start": None}, token=member)).status == 202
    assert (await api.call("POST", path, {"resize": {"name": "x"}}, token=member)).status == 403
    answer = await api.call("POST", path, {"resize": {"name": "x", "size": 3}}, token=admin)
    assert (answer.status, answer.json) == (202, {"name": "x", "size": 3})
    for bad in ({"dance": None}, {}, {"os-start": None, "resize": None}, [], "os-start"):
        assert (await api.call("POST", path, bad, token=admin)).status == 400
    deep = b'{"os-start":' + b"[" * 100_000
    assert (await api.call("POST", path, data=deep, token=admin)).status == 400
    brackets = {"resize": {"name": "[{" * 1000}}
    assert (await api.call("POST", path, brackets, token=admin)).status == 202
    assert (await api.call("POST", path, {"resize": {"name": "x", "size": "3"}}, token=admin)).status == 400


async def test_query_strings_become_structs(api: Served):
    token = await api.token()
    answer = await api.call("GET", "/compute/v2.1/things?limit=5&all_tenants=1&status=a&status=b&other=x", token=token)
    assert answer.json == {"limit": 5, "all_tenants": True, "status": ["a", "b"]}
    for bad in ("limit=five", "all_tenants=maybe", "a=%ff", "a=%00"):
        assert (await api.call("GET", f"/compute/v2.1/things?{bad}", token=token)).status == 400


async def test_version_documents_need_no_token(api: Served):
    assert (await api.call("GET", "/compute/")).json == {"self": f"{api.url}/compute/v2.1/"}
