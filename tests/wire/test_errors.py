"""The same failure in every service's words."""

import msgspec
import pytest

from api.wire.errors import CINDER, GLANCE, HEAT, KEYSTONE, NEUTRON, NOVA, PLACEMENT, Errors, Failure

LOST = Failure(status=404, message="Thing <x> could not be found.", request_id="req-1", version=(1, 23))


@pytest.mark.parametrize(
    "errors, body",
    [
        (KEYSTONE, {"error": {"code": 404, "message": LOST.message, "title": "Not Found"}}),
        (NOVA, {"itemNotFound": {"code": 404, "message": LOST.message}}),
        (CINDER, {"itemNotFound": {"code": 404, "message": LOST.message}}),
        (NEUTRON, {"NeutronError": {"type": "HTTPNotFound", "message": LOST.message, "detail": ""}}),
    ],
)
def test_json_bodies(errors: Errors, body: object):
    content, kind = errors.write(LOST)
    assert kind == "application/json"
    assert msgspec.json.decode(content) == body


def test_placement_says_it_between_its_own_lines():
    body = msgspec.json.decode(PLACEMENT.write(LOST)[0])
    [error] = body["errors"]
    assert error["title"] == "Not Found"
    assert error["detail"].endswith(f"\n\n {LOST.message}  ")
    assert error["request_id"] == "req-1"
    assert error["code"] == "placement.undefined_code"
    older = msgspec.json.decode(PLACEMENT.write(msgspec.structs.replace(LOST, version=(1, 22)))[0])
    assert "code" not in older["errors"][0]
    content, kind = PLACEMENT.write(msgspec.structs.replace(LOST, accept="text/html"))
    assert kind.startswith("text/html")
    assert b"<x>" not in content


def test_glance_writes_a_page_whose_message_ends_at_the_first_break():
    content, kind = GLANCE.write(LOST)
    assert kind.startswith("text/html")
    assert b"Thing &lt;x&gt; could not be found.<br /><br />" in content


def test_heat_explains():
    body = msgspec.json.decode(HEAT.write(LOST)[0])
    assert (body["code"], body["title"], body["error"]["message"]) == (404, "Not Found", LOST.message)


@pytest.mark.parametrize("errors", [NOVA, PLACEMENT, NEUTRON])
def test_a_missing_token_is_refused_in_the_middlewares_words(errors: Errors):
    body = msgspec.json.decode(errors.write(Failure(status=401, message="x"))[0])
    assert body["error"]["code"] == 401
    assert body["error"]["title"] == "Unauthorized"
