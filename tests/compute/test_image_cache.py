"""The hosts of an aggregate fetch images before a server wants them."""

import asyncio

from agents.hypervisor.answering import Answering
from agents.hypervisor.driver import StepFailed
from agents.hypervisor.simulated import SimulatedDriver
from schema.compute.domain import ImageRef
from schema.compute.question import CacheImages, Done
from tests.compute.world import IMAGE

VERSION = "2.81"


async def test_hosts_of_an_aggregate_fetch_images(world):
    admin, member = await world.client("admin", VERSION), await world.client("member", VERSION)
    id = (await admin("POST", "/os-aggregates", {"aggregate": {"name": "fast"}}))["aggregate"]["id"]
    for host in ("h1", "h2"):
        await admin("POST", f"/os-aggregates/{id}/action", {"add_host": {"host": host}})
    path, body = f"/os-aggregates/{id}/images", {"cache": [{"id": IMAGE}]}
    await admin("POST", path, body, expect=202)
    async with asyncio.timeout(10):
        while not all(world.steered.drivers[host].images == {IMAGE} for host in ("h1", "h2")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await member("POST", path, body, expect=403)
    await admin("POST", "/os-aggregates/99/images", body, expect=404)
    await admin("POST", path, body, version="2.80", expect=404)
    for wrong in ([], [{"id": IMAGE}, {"id": IMAGE}], [{"id": "no-such-image"}], [{"name": IMAGE}]):
        await admin("POST", path, {"cache": wrong}, expect=400)


async def test_one_image_that_cannot_be_had_keeps_no_other_away():
    fetched = []

    class Hindered(SimulatedDriver):
        async def fetch_image(self, image):
            if image.id == "gone":
                raise StepFailed("image gone could not be downloaded")
            fetched.append(image.id)

    answering = Answering(Hindered("h1"))
    refs = tuple(ImageRef(id=id, url=f"file:///{id}") for id in ("gone", "there"))
    assert await answering.answer(CacheImages(images=refs)) == Done()
    async with asyncio.timeout(5):
        while fetched != ["there"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await answering.close()
