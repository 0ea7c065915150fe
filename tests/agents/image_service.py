"""An image service, as small as a test of a host needs it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from schema.compute.domain import ImageTicket, Snapshot


class ImageService:
    """Takes what is PUT to `/<image id>`; answers with `statuses` first, one for each request."""

    def __init__(self) -> None:
        self.url = ""
        self.statuses: list[int] = []
        self.images: dict[str, bytes] = {}
        self.asked = 0
        self.breaks = 0
        """So many times the line is cut in the midst of the data."""

    def wanted(self, image_id: str) -> Snapshot:
        return Snapshot(image_id=image_id, url=f"{self.url}/{image_id}", ticket=ImageTicket(token="ticket"))

    async def take(self, request: web.Request) -> web.Response:
        self.asked += 1
        assert request.headers["X-Auth-Token"] == "ticket"
        if self.statuses and (status := self.statuses.pop(0)) >= 300:
            return web.Response(status=status, text="said so")
        if self.breaks:
            self.breaks -= 1
            await request.content.readany()
            request.transport.abort()
            raise ConnectionResetError
        data = await request.read()
        assert len(data) == request.content_length
        self.images[request.path.strip("/")] = data
        return web.Response(status=204)


@asynccontextmanager
async def image_service() -> AsyncIterator[ImageService]:
    service = ImageService()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_put("/{id}", service.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield service
    finally:
        await runner.cleanup()
