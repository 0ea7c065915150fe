"""A cloud that has servers and their images, on simulated hosts, for tests of what is kept of servers."""

import asyncio
from contextlib import asynccontextmanager

import msgspec

from api.compute.service import SERVICE as COMPUTE
from api.image.service import SERVICE as IMAGES_SERVICE
from bus.execute import Wish
from handlers.compute.flavor import FLAVORS
from schema.compute.flavor import CreateFlavor
from schema.image.image import IMAGE
from tests.compute.steering import Steered
from tests.compute.world import IMAGE as BASE
from tests.compute.world import World
from tests.serving import serving


class Keeping(World):
    """As `World`; and its images, by the image API."""

    def choose(self, **settings):
        """Other settings from now on."""
        self.cloud.settings = msgspec.structs.replace(self.cloud.settings, **settings)

    async def act(self, client, id, action, body=None, expect=202, **more):
        return await client("POST", f"/servers/{id}/action", {action: body}, expect=expect, **more)

    async def show(self, client, id, expect=200):
        answer = await self.served.call("GET", f"/image/v2/images/{id}", token=client.token)
        assert answer.status == expect, answer.body
        return answer.json if expect == 200 else None

    async def images(self, **properties):
        """Those there are, that have these properties; oldest first."""
        found = [it.state for it in await self.cloud.documents.find(IMAGE)]
        return [it for it in found if properties.items() <= it.properties.items()]

    async def kept(self, client, id):
        """The image, when it has its data."""
        async with asyncio.timeout(10):
            while (image := await self.show(client, id))["status"] != "active":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return image

    def driver_of(self, server):
        return self.steered.drivers[server.host]


@asynccontextmanager
async def keeping(settings, dsn):
    steering = []
    prepare = lambda cloud: steering.append(Steered(cloud))  # noqa: E731
    async with serving(settings, dsn, [COMPUTE, IMAGES_SERVICE], prepare) as served, steering[0] as steered:
        it = Keeping(served, steered)
        it.choose(public_url=served.url)
        await steered.host("h1")
        await steered.host("h2")
        await it.image(BASE, min_ram_mb=64, properties={"hw_video_model": "vga", "os_distro": "none"})
        flavor = CreateFlavor(name="small", vcpus=1, ram_mb=512, disk_gb=1)
        await served.cloud.executor.execute(Wish(FLAVORS, "1", flavor))
        yield it
