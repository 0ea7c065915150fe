"""The data of images over HTTP: whole or not at all on the way in, in ranges on the way out."""

import asyncio
import hashlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from api.image.service import SERVICE
from bus import clock
from bus.config import Settings
from bus.execute import Wish
from handlers.image import ticket
from handlers.image.bootstrap import register
from handlers.image.cleaning import ImageReactor, remove_orphans
from handlers.image.image import IMAGES as AGGREGATE
from handlers.image.store import FileStore, image_store
from schema.image.image import IMAGE, DeleteImage, StartImageUpload
from tests.serving import Answer, Served, serving

IMAGES = "/image/v2/images"
DATA = bytes(range(256)) * 16_000  # four chunks and a bit


@pytest.fixture
async def api(settings: Settings, fresh_database: str) -> AsyncIterator[Served]:
    async with serving(settings, fresh_database, [SERVICE]) as served:
        yield served


async def make(api: Served, token: str, **attributes: Any) -> str:
    body = {"name": "it", "disk_format": "raw", "container_format": "bare", **attributes}
    return (await api.call("POST", IMAGES, body, token=token)).json["id"]


async def put(api: Served, token: str, id: str, data: Any, **headers: str) -> Answer:
    sent = {"Content-Type": "application/octet-stream", **headers}
    return await api.call("PUT", f"{IMAGES}/{id}/file", token=token, data=data, headers=sent)


async def get(api: Served, token: str, id: str, **headers: str) -> Answer:
    return await api.call("GET", f"{IMAGES}/{id}/file", token=token, headers=headers)


async def show(api: Served, token: str, id: str) -> dict[str, Any]:
    return (await api.call("GET", f"{IMAGES}/{id}", token=token)).json


def files(api: Served) -> list[str]:
    folder = api.cloud.settings.home / "images"
    return sorted(file.name for file in folder.iterdir()) if folder.exists() else []


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110  the other side is a server
            await asyncio.sleep(0.02)


async def test_what_goes_up_comes_down(api: Served):
    token = await api.token()
    id = await make(api, token)
    assert (await get(api, token, id)).status == 204
    assert (await put(api, token, id, DATA)).status == 204
    image = await show(api, token, id)
    assert (image["status"], image["size"], image["virtual_size"]) == ("active", len(DATA), len(DATA))
    assert image["os_hash_algo"] == "sha512"
    assert image["os_hash_value"] == hashlib.sha512(DATA).hexdigest()
    assert image["checksum"] == hashlib.md5(DATA, usedforsecurity=False).hexdigest()
    down = await get(api, token, id)
    assert down.status == 200
    assert down.body == DATA
    assert down.headers["Content-Type"] == "application/octet-stream"
    assert down.headers["Content-MD5"] == image["checksum"]
    assert down.headers["Content-Length"] == str(len(DATA))


async def test_data_may_come_in_chunks_of_unknown_number(api: Served):
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(DATA), 100_000):
            yield DATA[start : start + 100_000]

    token = await api.token()
    id = await make(api, token)
    assert (await put(api, token, id, chunks())).status == 204
    assert (await show(api, token, id))["size"] == len(DATA)
    empty = await make(api, token)
    assert (await put(api, token, empty, b"")).status == 204
    assert (await show(api, token, empty))["size"] == 0
    assert (await get(api, token, empty)).status == 200


@pytest.mark.parametrize(
    "range, part",
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=100-", slice(100, None)),
        ("bytes=-5", slice(-5, None)),
        ("bytes=10-99999999", slice(10, None)),
    ],
)
async def test_a_range_is_a_part(api: Served, range: str, part: slice):
    token = await api.token()
    id = await make(api, token)
    await put(api, token, id, DATA)
    answer = await get(api, token, id, Range=range)
    assert answer.status == 206
    assert answer.body == DATA[part]
    first = part.indices(len(DATA))[0]
    assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(answer.body) - 1}/{len(DATA)}"


async def test_ranges_that_make_no_sense(api: Served):
    token = await api.token()
    id = await make(api, token)
    await put(api, token, id, b"0123456789")
    for range in ("bytes=10-", "bytes=5-2", "bytes=0-1,4-5", "bytes=x"):
        answer = await get(api, token, id, Range=range)
        assert answer.status == 416, range
        assert answer.headers["Content-Range"] == "bytes */10"
    old = await get(api, token, id, Range="bytes=0-1", **{"If-Range": "Wed, 01 Jan 2020 00:00:00 GMT"})
    assert (old.status, old.body) == (200, b"0123456789")


async def test_only_octets_are_taken_and_only_once(api: Served):
    token = await api.token()
    id = await make(api, token)
    for type in ("application/json", "multipart/form-data", ""):
        assert (await put(api, token, id, b"x", **{"Content-Type": type})).status == 415
    assert (await put(api, token, id, b"x", **{"X-Openstack-Image-Size": "2"})).status == 400
    assert (await put(api, token, id, b"x", **{"X-Openstack-Image-Size": "many"})).status == 400
    assert (await show(api, token, id))["status"] == "queued"
    assert (await put(api, token, id, b"x")).status == 204
    assert (await put(api, token, id, b"y")).status == 409
    assert (await get(api, token, id)).body == b"x"
    assert len(files(api)) == 1
    bare = (await api.call("POST", IMAGES, {"name": "no formats"}, token=token)).json["id"]
    assert (await put(api, token, bare, b"x")).status == 400
    assert (await put(api, token, "nothing", b"x")).status == 404
    others = await api.token(project="b" * 32)
    assert (await put(api, others, id, b"x")).status == 404


async def test_a_second_upload_waits_its_turn(api: Served):
    token = await api.token()
    id = await make(api, token)
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        await go_on.wait()
        yield b"second"

    first = asyncio.create_task(put(api, token, id, slow()))
    await until(lambda: _is(api, token, id, "saving"))
    assert (await put(api, token, id, b"other")).status == 409
    assert (await get(api, token, id)).status == 204
    go_on.set()
    assert (await first).status == 204
    assert (await get(api, token, id)).body == b"firstsecond"


async def test_an_upload_that_breaks_off_leaves_nothing(api: Served):
    token = await api.token()
    id = await make(api, token)
    host, port = api.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"PUT {IMAGES}/{id}/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {token}\r\nContent-Length: 9000000\r\n"
    writer.write(f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + b"x" * 3_000_000)
    await writer.drain()
    await until(lambda: _is(api, token, id, "saving"))
    writer.transport.abort()
    await until(lambda: _is(api, token, id, "queued"))
    assert files(api) == []
    assert (await put(api, token, id, b"whole")).status == 204
    story = [event.type for event in await api.cloud.log.read_stream(IMAGE.stream(id))]
    assert story[1:3] == ["ImageUploadStarted", "ImageUploadAbandoned"]


async def test_curl_is_told_to_go_on(api: Served):
    token = await api.token()
    id = await make(api, token)
    host, port = api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"PUT {IMAGES}/{id}/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {token}\r\nContent-Length: 5\r\n"
    writer.write(f"{head}Content-Type: application/octet-stream\r\nExpect: 100-continue\r\n\r\n".encode())
    assert b"100 Continue" in await reader.readuntil(b"\r\n\r\n")
    writer.write(b"hello")
    assert b"204" in await reader.readline()
    writer.close()
    assert (await get(api, token, id)).body == b"hello"


async def test_an_image_deleted_during_its_upload_stays_deleted(api: Served):
    token = await api.token()
    id = await make(api, token)
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        await go_on.wait()
        yield b"second"

    upload = asyncio.create_task(put(api, token, id, slow()))
    await until(lambda: _is(api, token, id, "saving"))
    assert (await api.call("DELETE", f"{IMAGES}/{id}", token=token)).status == 204
    go_on.set()
    assert (await upload).status == 410
    assert files(api) == []


async def test_what_is_too_large_is_refused(settings: Settings, fresh_database: str):
    import msgspec

    small = msgspec.structs.replace(settings, image_limit_bytes=1000)
    async with serving(small, fresh_database, [SERVICE]) as api:
        token = await api.token()
        id = await make(api, token)

        async def chunks() -> AsyncIterator[bytes]:
            yield b"x" * 600
            yield b"x" * 600

        assert (await put(api, token, id, b"x" * 1001)).status == 413
        assert (await put(api, token, id, chunks())).status == 413
        assert (await show(api, token, id))["status"] == "queued"
        assert files(api) == []
        assert (await put(api, token, id, b"x" * 1000)).status == 204


def qcow2(size: int = 1 << 30, backing: int = 0, features: int = 0, version: int = 3) -> bytes:
    fixed = struct.pack(">4sIQIIQ", b"QFI\xfb", version, backing, 0, 16, size)
    return fixed.ljust(72, b"\0") + struct.pack(">Q", features) + bytes(432)


async def test_a_qcow2_tells_how_large_its_disk_is(api: Served):
    token = await api.token()
    id = await make(api, token, disk_format="qcow2")
    assert (await put(api, token, id, qcow2(5 << 30))).status == 204
    assert (await show(api, token, id))["virtual_size"] == 5 << 30


@pytest.mark.parametrize(
    "format, data, says",
    [
        ("raw", qcow2(), b"set disk_format to qcow2"),
        ("qcow2", qcow2(backing=512), b"backing file"),
        ("qcow2", qcow2(features=4), b"another file"),
    ],
)
async def test_data_a_host_must_not_open_is_refused(api: Served, format: str, data: bytes, says: bytes):
    token = await api.token()
    id = await make(api, token, disk_format=format)
    answer = await put(api, token, id, data)
    assert answer.status == 415
    assert says in answer.body
    assert (await show(api, token, id))["status"] == "queued"
    assert files(api) == []


async def test_a_withheld_image_is_read_by_admins_only(api: Served):
    token, admin = await api.token(), await api.token("admin")
    id = await make(api, token)
    actions = f"{IMAGES}/{id}/actions"
    assert (await api.call("POST", f"{actions}/deactivate", token=token)).status == 403
    await put(api, token, id, b"x")
    for _ in range(2):
        assert (await api.call("POST", f"{actions}/deactivate", token=admin)).status == 204
    assert (await show(api, token, id))["status"] == "deactivated"
    assert (await get(api, token, id)).status == 403
    assert (await get(api, admin, id)).status == 200
    assert (await api.call("POST", f"{actions}/reactivate", token=admin)).status == 204
    assert (await get(api, token, id)).status == 200


async def test_deleting_removes_the_data(api: Served):
    token = await api.token()
    id = await make(api, token)
    await put(api, token, id, b"x")
    assert len(files(api)) == 1
    assert (await api.call("DELETE", f"{IMAGES}/{id}", token=token)).status == 204
    assert files(api) == []
    assert (await get(api, token, id)).status == 404


async def test_an_agent_reads_with_a_ticket(api: Served):
    token = await api.token()
    id, other = await make(api, token), await make(api, token)
    await put(api, token, id, b"0123456789")
    path = ticket.PATH.format(id=id)
    text = await ticket.sign(api.cloud, id)
    assert (await api.call("GET", path, token=text)).body == b"0123456789"
    part = await api.call("GET", path, token=text, headers={"Range": "bytes=4-"})
    assert (part.status, part.body) == (206, b"456789")
    assert (await api.call("GET", path)).status == 401
    assert (await api.call("GET", path, token=token)).status == 401
    assert (await api.call("GET", path, token=await ticket.sign(api.cloud, other))).status == 401
    assert (await api.call("GET", path, token=await ticket.sign(api.cloud, id, -1))).status == 401
    assert (await api.call("GET", f"{IMAGES}/{id}", token=text)).status == 401
    assert (await api.call("GET", ticket.PATH.format(id="x"), token=await ticket.sign(api.cloud, "x"))).status == 404


async def test_a_crash_leaves_neither_files_nor_images_behind(api: Served):
    token = await api.token()
    store = image_store(api.cloud.settings)
    assert isinstance(store, FileStore)
    kept, dead, deleted = [await make(api, token) for _ in range(3)]
    for id in (kept, deleted):
        await put(api, token, id, b"x")
    execute = api.cloud.executor.execute
    # A process that died in the middle of an upload, one that died before it removed what was deleted, and a stray.
    past = clock.now() - timedelta(seconds=1)
    [document] = await execute(Wish(AGGREGATE, dead, StartImageUpload(upload_id="half", deadline=past)))
    (store.folder / "half.part").write_bytes(b"xx")
    (store.folder / "stray").write_bytes(b"xx")
    [tombstone] = await execute(Wish(AGGREGATE, deleted, DeleteImage()))
    assert len(files(api)) == 4
    assert await remove_orphans(api.cloud, store) == 2  # the upload may yet go on
    reactor = ImageReactor(api.cloud)
    for _ in range(2):
        await reactor.react([document, tombstone])
    assert (await show(api, token, dead))["status"] == "queued"
    await remove_orphans(api.cloud, store)
    assert files(api) == [(await api.cloud.documents.get(IMAGE, kept)).state.data_id]


async def test_the_built_in_image_is_registered_once(api: Served, tmp_path: Path):
    token = await api.token()
    path = tmp_path / "guest.qcow2"
    path.write_bytes(qcow2())
    first = await register(api.cloud, path, project_id="a" * 32, min_ram_mb=64)
    assert first.state.status == "active"
    head = await api.cloud.log.head()
    assert (await register(api.cloud, path, project_id="a" * 32)).id == first.id
    assert await api.cloud.log.head() == head
    listed = (await api.call("GET", f"{IMAGES}?name=cumulog-guest", token=token)).json["images"]
    assert [image["id"] for image in listed] == [first.id]
    path.write_bytes(qcow2(2 << 30))
    newer = await register(api.cloud, path, project_id="a" * 32)
    listed = (await api.call("GET", f"{IMAGES}?name=cumulog-guest", token=token)).json["images"]
    assert [image["id"] for image in listed] == [newer.id]
    await api.cloud.executor.execute(Wish(AGGREGATE, newer.id, DeleteImage()))
    assert (await register(api.cloud, path, project_id="a" * 32)).state.status == "active"


async def _is(api: Served, token: str, id: str, status: str) -> bool:
    return bool((await show(api, token, id))["status"] == status)
