"""`?as_of=`: any GET that reads documents answers as it would have then."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api.compute.service import SERVICE as COMPUTE
from api.image.service import SERVICE as IMAGE
from bus import archive
from bus.config import Settings
from tests.serving import Served, serving

IMAGES = "/image/v2/images"


@pytest.fixture
async def api(settings: Settings, fresh_database: str) -> AsyncIterator[Served]:
    async with serving(settings, fresh_database, [IMAGE, COMPUTE]) as served:
        yield served


async def image(api: Served, token: str, name: str) -> dict[str, Any]:
    return (await api.call("POST", IMAGES, {"name": name, "tags": ["t"]}, token=token)).json


async def rename(api: Served, token: str, id: str, name: str) -> dict[str, Any]:
    body = b'[{"op": "replace", "path": "/name", "value": "%b"}]' % name.encode()
    type = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    return (await api.call("PATCH", f"{IMAGES}/{id}", token=token, data=body, headers=type)).json


async def names(api: Served, token: str, query: str) -> list[str]:
    answer = await api.call("GET", IMAGES + query, token=token)
    assert answer.status == 200, answer.body
    return [one["name"] for one in answer.json["images"]]


async def test_things_and_lists_are_shown_as_they_were(api: Served):
    token = await api.token()
    first = await image(api, token, "first")
    other = await image(api, token, "other")
    then = await api.cloud.log.head()
    moment = (await api.cloud.log.read(then - 1))[0].at.isoformat().replace("+", "%2B")
    await rename(api, token, first["id"], "renamed")
    await api.call("DELETE", f"{IMAGES}/{other['id']}", token=token)
    third = await image(api, token, "third")
    for as_of in (str(then), moment):
        for _ in range(3):
            assert (await api.call("GET", f"{IMAGES}/{first['id']}?as_of={as_of}", token=token)).json == first
        assert (await api.call("GET", f"{IMAGES}/{other['id']}?as_of={as_of}", token=token)).status == 200
        assert (await api.call("GET", f"{IMAGES}/{third['id']}?as_of={as_of}", token=token)).status == 404
        assert await names(api, token, f"?as_of={as_of}&sort=name:asc") == ["first", "other"]
        assert await names(api, token, f"?as_of={as_of}&name=other&tag=t") == ["other"]
        assert await names(api, token, f"?as_of={as_of}&limit=1&sort=name:asc&marker={first['id']}") == ["other"]
    assert await names(api, token, "?sort=name:asc") == ["renamed", "third"]
    assert await names(api, token, "?as_of=0") == []
    assert (await api.call("GET", f"{IMAGES}/{first['id']}", token=token)).json["name"] == "renamed"
    others = await api.token(project="b" * 32)
    assert (await api.call("GET", f"{IMAGES}/{first['id']}?as_of={then}", token=others)).status == 404


async def test_what_cannot_be_answered_from_the_past_says_so(api: Served):
    token = await api.token()
    await image(api, token, "first")
    for bad in ("yesterday", "999999", "-1", ""):
        assert (await api.call("GET", f"{IMAGES}?as_of={bad}", token=token)).status == 400, bad
    flavors = await api.call("GET", "/compute/v2.1/flavors?as_of=1", token=token)
    assert flavors.status == 400
    assert b"as_of is not offered here" in flavors.body


async def test_a_thing_whose_beginning_is_archived_is_shown_as_it_was(api: Served, fresh_database: str, tmp_path: Path):
    pool, token = api.cloud.pool, await api.token()
    first = await image(api, token, "first")
    head = await api.cloud.log.head()
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("ALTER TABLE events DETACH PARTITION events_0")
        await connection.execute("ALTER TABLE events_0 RENAME TO old")
        await connection.execute(f"CREATE TABLE events_0 PARTITION OF events FOR VALUES FROM (0) TO ({head + 1})")
        await connection.execute(f"CREATE TABLE rest PARTITION OF events FOR VALUES FROM ({head + 1}) TO (5000000)")
        await connection.execute("INSERT INTO events_0 SELECT * FROM old")
    await rename(api, token, first["id"], "second")
    then = await api.cloud.log.head()
    await rename(api, token, first["id"], "third")
    async with asyncio.timeout(30):
        while not await archive.archive(fresh_database, tmp_path):  # noqa: ASYNC110  until every consumer is past it
            await asyncio.sleep(0.05)
    for position, name in ((head, "first"), (then, "second"), (then + 1, "third")):
        answer = await api.call("GET", f"{IMAGES}/{first['id']}?as_of={position}", token=token)
        assert answer.json["name"] == name
    assert (await api.call("GET", f"{IMAGES}?as_of={then}", token=token)).status == 400
