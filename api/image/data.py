"""The data of images on the wire: up once, streamed; down as often as wanted, in ranges; for agents by ticket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import structlog
from aiohttp import web
from aiohttp.http import HttpVersion11
from aiohttp.http_exceptions import HttpProcessingError

from api.image.image import missing, owned, seen
from api.wire import Call, Get, Put
from api.wire.body import WrongContentType
from bus.execute import Context, Wish
from handlers.compute.server import SERVERS
from handlers.compute.snapshot_image import bringing, brought
from handlers.image import ticket
from handlers.image.image import IMAGES
from handlers.image.store import image_store
from handlers.image.upload import BrokenOff, receive
from schema.compute.server_command import ProgressSnapshot
from schema.image.image import ACTIVE, DEACTIVATED, IMAGE, SAVING, AbandonImageUpload, Image
from schema.refusal import Forbidden, Invalid, NotFound

log = structlog.get_logger()

OCTETS = "application/octet-stream"
SIZE_HEADER = "X-Openstack-Image-Size"


async def upload(call: Call) -> None:
    given = call.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if given != OCTETS:
        raise WrongContentType(given[:64], 415, (OCTETS,))
    declared = _declared_bytes(call)
    document = await owned(call, call.path["id"], "upload_image")
    store = image_store(call.cloud.settings)
    await receive(call.cloud, store, document.state, _chunks(call), declared_bytes=declared, by=call.by)


async def download(call: Call) -> web.StreamResponse:
    image: Image = (await seen(call, call.path["id"])).state
    if image.status == DEACTIVATED and not call.may("download_deactivated_image"):
        raise Forbidden("The requested image has been deactivated. Image data download is forbidden.")
    if not image.data_id:
        return web.Response(status=204, headers=call.headers)
    return _file(call, image)


async def upload_by_ticket(call: Call) -> None:
    """From a host that made it of a server's disk. Brought once, it is not taken again, and what broke off is over."""
    id = call.path["id"]
    await ticket.check(call.cloud, call.request.headers.get("X-Auth-Token", ""), id, ticket.WRITING)
    declared = _declared_bytes(call)
    try:
        image: Image = (await call.cloud.documents.get(IMAGE, id)).state
    except NotFound:
        raise missing(id) from None
    if image.data_id:
        return
    if image.status == SAVING:
        broken_off = AbandonImageUpload(upload_id=image.upload_id, reason="Its host begins anew.")
        [document] = await call.cloud.executor.execute(Wish(IMAGES, id, broken_off))
        image = document.state
    server = await bringing(call.cloud, image)
    begun = [Wish(SERVERS, server.id, ProgressSnapshot(image_id=id, uploading=True))] if server else []
    await receive(
        call.cloud,
        image_store(call.cloud.settings),
        image,
        _chunks(call),
        declared_bytes=declared,
        by=Context(request_id=server.request_id if server else ""),
        also=begun,
        finally_also=lambda: brought(call.cloud, image),
    )


async def download_by_ticket(call: Call) -> web.StreamResponse:
    """For agents. A ticket is good for an image that was withheld since, but not for one that was deleted."""
    id = call.path["id"]
    await ticket.check(call.cloud, call.request.headers.get("X-Auth-Token", ""), id)
    try:
        image: Image = (await call.cloud.documents.get(IMAGE, id)).state
    except NotFound:
        raise missing(id) from None
    if image.status not in (ACTIVE, DEACTIVATED):
        raise NotFound(f"Image {id} has no data.")
    return _file(call, image)


def _file(call: Call, image: Image) -> web.StreamResponse:
    """The whole of it, or the range asked for, sent by the kernel where it can."""
    path = image_store(call.cloud.settings).path(image.data_id)
    if not path.is_file():
        log.error("the data of an image is gone", image=image.id, path=str(path))
        raise NotFound(f"Image {image.id} has lost its data; upload it anew under another id.")
    headers = {**call.headers, "Content-Type": OCTETS}
    if image.checksum and "Range" not in call.request.headers:
        headers["Content-MD5"] = image.checksum
    return web.FileResponse(path, headers=headers)


def _declared_bytes(call: Call) -> int | None:
    text = call.request.headers.get(SIZE_HEADER)
    if text is None:
        return call.request.content_length
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Invalid(f"{SIZE_HEADER} must be the number of bytes, not {text[:32]!r}.")
    if call.request.content_length not in (None, int(text)):
        raise Invalid(f"{SIZE_HEADER} and Content-Length contradict each other.")
    return int(text)


async def _chunks(call: Call) -> AsyncIterator[bytes]:
    """The body as it comes. Raises BrokenOff when the client goes away."""
    request = call.request
    if request.version == HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # of the body, of which nothing was sent yet
    try:
        async for chunk in request.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, web.RequestPayloadError, HttpProcessingError, ConnectionError) as error:
        raise BrokenOff(f"The data stopped coming: {error}") from None


routes = [
    Put("/images/{id}/file", upload, may="upload_image", answers=204, streams=True),
    Get("/images/{id}/file", download, may="download_image", streams=True),
]
agent_routes = [
    Get(ticket.PATH, download_by_ticket, public=True, streams=True),
    Put(ticket.PATH, upload_by_ticket, public=True, streams=True, answers=204),
]
