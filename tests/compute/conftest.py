"""Compute behind HTTP, for the tests of its doors."""

from collections.abc import AsyncIterator

import pytest

from api.compute.service import SERVICE
from bus.config import Settings
from bus.execute import Wish
from handlers.compute.flavor import FLAVORS
from schema.compute.flavor import CreateFlavor
from tests.compute.steering import Steered
from tests.compute.world import IMAGE, Client, World
from tests.serving import Served, serving


@pytest.fixture
async def served(settings: Settings, fresh_database: str) -> AsyncIterator[Served]:
    """A compute service of one's own."""
    async with serving(settings, fresh_database, [SERVICE]) as it:
        yield it


@pytest.fixture
def client(served):
    """`await client("member", version="2.1", project=…, user=…)`: somebody with that role."""

    async def make(role="admin", version="latest", **fields):
        return Client(served, await served.token(role, **fields), version)

    return make


@pytest.fixture
async def world(settings, fresh_database):
    steering = []
    prepare = lambda cloud: steering.append(Steered(cloud))  # noqa: E731
    async with serving(settings, fresh_database, [SERVICE], prepare) as served, steering[0] as steered:
        it = World(served, steered)
        await steered.host("h1")
        await steered.host("h2")
        await it.image(IMAGE)
        flavor = CreateFlavor(name="small", vcpus=1, ram_mb=512, disk_gb=1)
        await served.cloud.executor.execute(Wish(FLAVORS, "1", flavor))
        yield it
