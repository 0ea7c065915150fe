"""Servers of like images come together, also by the word of a scheduler that has placed none of them."""

import msgspec
import pytest

from bus.cloud import open_cloud
from bus.config import Scheduler
from handlers.compute.considering import considered
from handlers.compute.image_count import ImageFollower
from handlers.placement.answer import Placement
from handlers.placement.schedule import Scheduler as Placing
from schema.compute.server_command import DeleteServer, RebuildServer
from schema.compute.server_parts import Rebuild, ServerImage
from schema.compute.server_state import Server
from tests.compute.steering import PROJECT, steered
from tests.compute.world import World

LINUX, WINDOWS = {"os_type": "linux"}, {"os_type": "windows"}


@pytest.fixture
def weighing(settings):
    scheduler = Scheduler(weighers=("ImageProperties",), image_props_weight=1.0)
    return msgspec.structs.replace(settings, scheduler=scheduler)


@pytest.fixture
async def cloud(weighing, fresh_database):
    async with steered(weighing, fresh_database) as it:
        await it.host("h1")
        await it.host("h2")
        await World(it, it).image("i")
        yield it


def image(properties):
    return ServerImage(id="i", properties=properties)


async def placed(cloud, properties):
    return await cloud.reaches(await cloud.create(image=image(properties)), "active")


def follower(cloud):
    """A scheduler of its own over a cloud, before its mirrors start."""
    scheduler = Placing.following(cloud.mirrors, cloud.settings.scheduler)
    return scheduler, ImageFollower(cloud, scheduler)


def counted(scheduler, properties):
    images = scheduler.index.images
    return {
        slot.host.id: n for number, slot in enumerate(scheduler.index.slots) if (n := images.weight(number, properties))
    }


async def test_what_is_there_is_counted_and_what_comes_to_be(cloud, weighing, fresh_database):
    first = await placed(cloud, WINDOWS)
    late = await open_cloud(weighing, fresh_database)
    scheduler, images = follower(late)
    await late.start()
    try:
        await images.ready()
        assert counted(scheduler, WINDOWS) == {first.host: 1}
        second = await placed(cloud, WINDOWS)
        assert second.host == first.host
        await cloud.until(lambda: counted(scheduler, WINDOWS) == {first.host: 2})
        await cloud.act(first.id, RebuildServer(rebuild=Rebuild(image=image(LINUX))))
        await cloud.until(lambda: counted(scheduler, LINUX) == {first.host: 1})
        assert counted(scheduler, WINDOWS) == {first.host: 1}
        for server in (first, second):
            await cloud.sees(server.id, lambda state: state.task is None)
            await cloud.act(server.id, DeleteServer())
        await cloud.until(lambda: not counted(scheduler, WINDOWS) and not counted(scheduler, LINUX))
        assert not scheduler.index.images._properties
    finally:
        await late.close()


async def test_a_dry_run_knows_them(cloud):
    there = await placed(cloud, WINDOWS)
    alike = Server(project_id=PROJECT, flavor=there.flavor, image=image(WINDOWS))
    [answer] = await considered(cloud.cloud, alike, 1, wired=False)
    assert isinstance(answer, Placement)
    assert answer.host == there.host
    assert answer.decision.best[0].weights == {"ImageProperties": 1.0}


async def test_nobody_listens_where_nothing_is_weighed(settings, fresh_database):
    quiet = await open_cloud(settings, fresh_database)
    try:
        _, images = follower(quiet)
        assert images._ready
        assert images._hear not in quiet.mirrors._listeners
    finally:
        await quiet.close()
