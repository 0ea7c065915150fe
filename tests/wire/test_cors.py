"""Web pages of other origins: let in where the operator says so, and told nothing otherwise."""

import pytest
from msgspec.structs import replace

from api.placement.service import SERVICE
from tests.serving import serving

ORIGIN = "https://dashboard.example.org"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "PUT",
    "Access-Control-Request-Headers": "x-auth-token, cookie",
}


@pytest.fixture
async def placement(settings, fresh_database):
    async with serving(replace(settings, allowed_origins=(ORIGIN,)), fresh_database, [SERVICE]) as served:
        yield served


async def test_a_page_may_ask_and_read(placement):
    told = await placement.call("OPTIONS", "/placement/resource_providers", headers=PREFLIGHT)
    assert told.status == 200
    assert told.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert told.headers["Access-Control-Allow-Headers"] == "x-auth-token"
    assert "PUT" in told.headers["Access-Control-Allow-Methods"]
    for token in (await placement.token("admin"), "nonsense"):  # a page may read a refusal, too
        answer = await placement.call("GET", "/placement/traits", token=token, headers={"Origin": ORIGIN})
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "Origin" in answer.headers["Vary"]


async def test_other_pages_are_told_nothing(placement):
    for method in ("OPTIONS", "GET"):
        answer = await placement.call(method, "/placement/", headers=PREFLIGHT | {"Origin": "https://elsewhere.org"})
        assert answer.status == 200
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_without_origins_nothing_is_different(settings, fresh_database):
    async with serving(settings, fresh_database, [SERVICE]) as served:
        token = await served.token("admin")
        assert (await served.call("OPTIONS", "/placement/", headers=PREFLIGHT, token=token)).status == 405
        answer = await served.call("GET", "/placement/", headers={"Origin": ORIGIN})
        assert "Access-Control-Allow-Origin" not in answer.headers
