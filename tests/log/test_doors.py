"""The log over HTTP: who may hear what, as pages, as a stream, as a story."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest

from api.image.service import SERVICE as IMAGE
from api.log import events as doors
from api.log.service import SERVICE as LOG
from bus.config import Settings
from bus.execute import Context, Wish
from bus.log import Actor
from handlers.compute.flavor import FLAVORS
from handlers.identity.revocation import revoke
from handlers.image.image import IMAGES
from schema.compute.flavor import CreateFlavor
from schema.image.image import AbandonImageUpload, DeleteImage, StartImageUpload, TagImage
from tests.serving import Served, serving
from tests.story import BEGINNING

MINE, THEIRS = "a" * 32, "b" * 32
EVENTS = "/log/v1/events"


@pytest.fixture
async def api(settings: Settings, fresh_database: str) -> AsyncIterator[Served]:
    async with serving(settings, fresh_database, [IMAGE, LOG]) as served:
        yield served


async def image(api: Served, token: str, name: str = "it") -> str:
    body = {"name": name, "disk_format": "raw", "container_format": "bare"}
    return str((await api.call("POST", "/image/v2/images", body, token=token)).json["id"])


async def page(api: Served, token: str, query: str = "") -> dict[str, Any]:
    answer = await api.call("GET", EVENTS + query, token=token)
    assert answer.status == 200, answer.body
    return answer.json


async def test_a_tenant_hears_of_its_own_things_and_an_admin_of_all(api: Served):
    mine, theirs, admin = await api.token(project=MINE), await api.token(project=THEIRS), await api.token("admin")
    first, second = await image(api, mine), await image(api, theirs)
    await api.cloud.executor.execute(Wish(FLAVORS, "f", CreateFlavor(name="f", vcpus=1, ram_mb=1, disk_gb=1)))
    assert [e["stream"] for e in (await page(api, mine))["events"]] == [f"image/{first}"]
    assert [e["stream"] for e in (await page(api, theirs))["events"]] == [f"image/{second}"]
    everything = await page(api, admin)
    assert [e["position"] for e in everything["events"]] == list(range(1, everything["head"] + 1))
    assert {"flavor/f", f"image/{first}"} <= {e["stream"] for e in everything["events"]}
    only = await page(api, admin, f"?project_id={THEIRS}")
    assert [e["stream"] for e in only["events"]] == [f"image/{second}"]
    assert (await api.call("GET", f"{EVENTS}?project_id={THEIRS}", token=mine)).status == 400
    assert (await api.call("GET", EVENTS)).status == 401
    event = (await page(api, mine))["events"][0]
    assert event["actor"] == {"user": "u" * 32, "project": MINE}
    assert event["request_id"].startswith("req-")
    assert event["data"]["name"] == "it"


async def test_pages_and_filters(api: Served):
    token, admin = await api.token(project=MINE), await api.token("admin")
    ids = [await image(api, token, f"n{nth}") for nth in range(5)]
    await api.call("PUT", f"/image/v2/images/{ids[2]}/tags/x", token=token)
    found: list[str] = []
    url = f"{EVENTS}?limit=2&type=ImageCreated"
    while url:
        answer = await api.call("GET", url, token=token)
        found += [event["data"]["name"] for event in answer.json["events"]]
        url = answer.json.get("next", "").removeprefix(api.url)
    assert found == [f"n{nth}" for nth in range(5)]
    assert [e["type"] for e in (await page(api, token, "?last=2"))["events"]] == ["ImageCreated", "ImageTagged"]
    stream = (await page(api, token, f"?stream=image/{ids[2]}"))["events"]
    assert [e["type"] for e in stream] == ["ImageCreated", "ImageTagged"]
    assert (await page(api, admin, "?kind=flavor"))["events"] == []
    request = stream[1]["request_id"]
    assert [e["version"] for e in (await page(api, token, f"?request_id={request}"))["events"]] == [2]
    bad = ("?type=Nonsense", "?kind=nonsense", "?limit=0", "?limit=x", "?after=-1", "?stream=nonsense", "?last=5000")
    for query in bad:
        assert (await api.call("GET", EVENTS + query, token=token)).status == 400, query


class Reader:
    """A reader of server-sent events."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self) -> tuple[int, dict[str, Any] | None]:
        """The next message: its id, and its data if it is not a heartbeat."""
        id, data = 0, None
        async with asyncio.timeout(20):
            while line := (await self.response.content.readline()).decode():
                if line.startswith("id: "):
                    id = int(line[4:])
                elif line.startswith("data: "):
                    data = msgspec.json.decode(line[6:])
                elif line == "\n" and id:
                    return id, data
        raise EOFError


def listen(api: Served, token: str, query: str = "", **headers: str):
    sent = {"X-Auth-Token": token, "Accept": "text/event-stream", **headers}
    return api.session.get(f"{api.url}{EVENTS}{query}", headers=sent)


async def test_events_come_as_they_happen_and_resume_where_they_stopped(api: Served):
    mine, theirs = await api.token(project=MINE), await api.token(project=THEIRS)
    await image(api, mine, "before")
    async with listen(api, mine, "?type=ImageCreated") as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        reader = Reader(response)
        assert await response.content.readline() == b"retry: 2000\n"
        await image(api, theirs, "not mine")
        await image(api, mine, "first")
        id, event = await reader.next()
        assert event is not None
        assert (event["position"], event["data"]["name"]) == (id, "first")
    await image(api, mine, "missed")
    async with listen(api, mine, **{"Last-Event-ID": str(id)}) as response:
        reader = Reader(response)
        assert (await reader.next())[1]["data"]["name"] == "missed"
        await image(api, mine, "next")
        assert (await reader.next())[1]["data"]["name"] == "next"
    async with listen(api, mine, "?after=0") as response:
        assert (await Reader(response).next())[1]["data"]["name"] == "before"
    for bad in ("x", "-1"):
        async with listen(api, mine, **{"Last-Event-ID": bad}) as response:
            assert response.status == 400


async def test_a_quiet_stream_shows_that_it_lives(api: Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doors, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(doors, "POLL_SECONDS", 0.05)
    mine, theirs = await api.token(project=MINE), await api.token(project=THEIRS)
    async with listen(api, mine, "?after=0") as response:
        await image(api, theirs)
        head = await api.cloud.log.head()
        reader = Reader(response)
        while (message := await reader.next())[0] < head:
            pass
        assert message == (head, None)


async def test_a_reader_whose_token_is_revoked_hears_no_more(api: Served):
    token = await api.token(project=MINE, user="c" * 32)
    other = await api.token(project=MINE)
    async with listen(api, token) as response:
        await response.content.readline()
        await api.cloud.executor.execute(*revoke(f"user/{'c' * 32}"))
        await image(api, other)
        with pytest.raises(EOFError):
            await Reader(response).next()


async def test_the_same_through_a_websocket(api: Served):
    token = await api.token(project=MINE)
    url = f"{api.url}{EVENTS}?after=0&kind=image"
    await image(api, token, "before")
    async with api.session.ws_connect(url, headers={"X-Auth-Token": token}) as socket:
        async with asyncio.timeout(20):
            assert (await socket.receive_json())["data"]["name"] == "before"
            await image(api, token, "after")
            assert (await socket.receive_json())["data"]["name"] == "after"
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await api.session.ws_connect(url)
    assert refused.value.status == 401


async def test_a_story_is_one_things_events(api: Served):
    mine, theirs, admin = await api.token(project=MINE), await api.token(project=THEIRS), await api.token("admin")
    id = await image(api, mine)
    await api.call("PUT", f"/image/v2/images/{id}/tags/x", token=mine)
    await api.call("DELETE", f"/image/v2/images/{id}", token=mine)
    for token in (mine, admin):
        story = (await api.call("GET", f"/log/v1/streams/image/{id}", token=token)).json
        assert [event["words"] for event in story["events"]] == ["image created", "image tagged", "image deleted"]
        assert story["version"] == 3
        assert story["deleted_at"]
    later = (await api.call("GET", f"/log/v1/streams/image/{id}?after_version=1&limit=1", token=mine)).json
    assert [event["version"] for event in later["events"]] == [2]
    assert (await api.call("GET", f"/log/v1/streams/image/{id}", token=theirs)).status == 404
    assert (await api.call("GET", "/log/v1/streams/image/nothing", token=mine)).status == 404
    assert (await api.call("GET", "/log/v1/streams/nonsense/x", token=mine)).status == 404


async def test_why_says_what_led_to_what(api: Served):
    mine, theirs = await api.token(project=MINE), await api.token(project=THEIRS)
    id, other = await image(api, mine), await image(api, mine)
    foreign = await image(api, theirs)
    execute = api.cloud.executor.execute
    cause = (await api.cloud.log.read_stream(f"image/{other}"))[0].position
    by = Context(actor=Actor("somebody", MINE), request_id="req-1", causation=str(cause))
    started = StartImageUpload(upload_id="u", deadline=BEGINNING)
    await execute(
        Wish(IMAGES, id, started),
        Wish(IMAGES, other, TagImage(tag="x")),
        Wish(IMAGES, foreign, TagImage(tag="x")),
        by=by,
    )
    await execute(
        Wish(IMAGES, id, AbandonImageUpload(upload_id="u", reason="The line went dead.")),
        by=Context(request_id="req-1"),
    )
    told = (await api.call("GET", f"/log/v1/why/image/{id}", token=mine)).json
    assert told["because"] == "image upload abandoned: The line went dead."
    assert told["now"] == "this image is queued"
    assert [trouble["trouble"] for trouble in told["troubles"]] == ["The line went dead."]
    chapter = told["chapters"][1]
    assert chapter["asked_by"] == {"user": "somebody", "project": MINE}
    assert [line["words"] for line in chapter["events"]] == ["image upload started", "image upload abandoned"]
    assert chapter["causes"] == [f"image created: image/{other}"]
    assert [beside["stream"] for beside in chapter["besides"]] == [f"image/{other}"]
    admin = await api.token("admin")
    whole = (await api.call("GET", f"/log/v1/why/image/{id}", token=admin)).json
    assert len(whole["chapters"][1]["besides"]) == 2
    await execute(Wish(IMAGES, id, DeleteImage()))
    over = (await api.call("GET", f"/log/v1/why/image/{id}", token=mine)).json
    assert over["because"].startswith("the last thing was image deleted")
    assert "was deleted at" in over["now"]
