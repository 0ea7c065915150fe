"""A compute service with two simulated hosts, a flavor and an image: the world of most tests of servers."""

import asyncio
from datetime import timedelta

from bus import clock
from bus.execute import Wish
from handlers.image.image import IMAGES
from schema.image.image import CreateImage, FinishImageUpload, StartImageUpload
from tests.serving import Served

IMAGE = "11111111-1111-4111-8111-111111111111"
PROJECT, OTHER = "a" * 32, "b" * 32
GONE = "00000000-0000-4000-8000-000000000000"


class Client:
    """Somebody at the compute API: `await client("GET", "/flavors", expect=200)` is the JSON of the answer."""

    def __init__(self, served: Served, token: str, version: str) -> None:
        self.served = served
        self.token = token
        self.version = version

    async def __call__(self, method, path, json=None, *, expect=200, version=None, key=None):
        headers = {"OpenStack-API-Version": f"compute {version or self.version}"}
        if key:
            headers["Idempotency-Key"] = key
        answer = await self.served.call(method, "/compute/v2.1" + path, json, token=self.token, headers=headers)
        assert answer.status == expect, answer.body
        return answer.json if answer.body.startswith(b"{") else answer.body


class World:
    """A cloud with two hosts, a flavor and an image; and somebody in it."""

    def __init__(self, served, steered):
        self.served = served
        self.cloud = served.cloud
        self.steered = steered

    async def client(self, role="member", version="latest", project=PROJECT, **fields):
        return Client(self.served, await self.served.token(role, project=project, **fields), version)

    async def image(self, id, size=1000, **fields):
        await self.cloud.executor.execute(
            Wish(IMAGES, id, CreateImage(visibility="public", disk_format="qcow2", container_format="bare", **fields)),
            Wish(IMAGES, id, StartImageUpload(upload_id="u", deadline=clock.now() + timedelta(hours=1))),
            Wish(
                IMAGES,
                id,
                FinishImageUpload(upload_id="u", size=size, checksum="c", hash_algorithm="sha512", hash_value="h"),
            ),
        )

    async def boot(self, client, status="ACTIVE", **fields):
        """A server of that client's, once it has that status."""
        made = (await client("POST", "/servers", {"server": wanted(client, **fields)}, expect=202))["server"]
        return await self.becomes(client, made["id"], status)

    async def becomes(self, client, id, status):
        async with asyncio.timeout(10):
            while True:
                shown = (await client("GET", f"/servers/{id}"))["server"]
                if shown["status"] == status and shown["OS-EXT-STS:task_state"] is None:
                    return shown
                await asyncio.sleep(0.01)

    async def gone(self, client, id):
        async with asyncio.timeout(10):
            path = f"/compute/v2.1/servers/{id}"
            while (await self.served.call("GET", path, token=client.token)).status != 404:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


def wanted(client=None, **fields):
    server = {"name": "web", "flavorRef": "1", "imageRef": IMAGE} | fields
    if client is None or client.version == "latest" or int(client.version.partition(".")[2]) >= 37:
        server.setdefault("networks", "none")
    return server
