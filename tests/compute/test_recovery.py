"""Recovery: who may lose a host without losing its servers, and which hosts are left to people."""

import asyncio

import msgspec
import pytest

from bus.cloud import open_cloud
from bus.execute import Wish
from handlers.compute.aggregate import HOST_AGGREGATES
from handlers.compute.host import HOSTS
from handlers.compute.quota import QUOTAS
from handlers.compute.recovery import KEY, Recovery
from schema.compute.aggregate import AddAggregateHost, CreateAggregate, SetAggregateMetadata
from schema.compute.host import DisableHost, JoinAggregate
from schema.compute.quota import SetQuotaLimits
from schema.compute.task import VmState
from schema.placement.provider import PROVIDER
from tests.compute.steering import PROJECT, Steered


class Ward:
    """A server on `h1`, and `h2` beside it."""

    def __init__(self, cloud):
        self.cloud = cloud
        self.steered = Steered(cloud)
        self.recovery = Recovery(cloud)

    async def fill(self, *, fence=True):
        await self.steered.host("h1", fence=fence)
        id = await self.steered.create()
        await self.steered.reaches(id, VmState.ACTIVE)
        await self.steered.host("h2", fence=fence)
        return id

    async def lose(self, name):
        await self.steered.kill(name)
        await self.steered.until(lambda: not self.steered.reactor.telling.alive(name))

    async def moves(self, id, host):
        """Sweep until the server is at rest on that host."""
        async with asyncio.timeout(15):
            while True:
                await self.recovery.sweep()
                server = await self.steered.state(id)
                if server.host == host and server.task is None:
                    return server
                await asyncio.sleep(0.02)

    async def group(self, policy):
        await self.cloud.executor.execute(
            Wish(HOST_AGGREGATES, "1", CreateAggregate(uuid="u", name="group")),
            Wish(HOST_AGGREGATES, "1", AddAggregateHost(host="h1")),
            Wish(HOSTS, "h1", JoinAggregate(aggregate_id="1")),
            Wish(HOST_AGGREGATES, "1", SetAggregateMetadata(metadata={KEY: policy})),
        )

    async def stays(self, id):
        """However often it is looked at."""
        for _ in range(20):
            await self.recovery.sweep()
        server = await self.steered.state(id)
        assert (server.host, server.task, server.move) == ("h1", None, None)


@pytest.fixture
async def ward(settings, fresh_database, request):
    fields = {"lease_seconds": 1.0, "recovery": "evacuate", "recovery_seconds": 0.0, "fence_seconds": 0.0}
    fields |= getattr(request, "param", {})
    cloud = await open_cloud(msgspec.structs.replace(settings, **fields), fresh_database)
    it = Ward(cloud)
    await cloud.start()
    unlimited = SetQuotaLimits(limits={"instances": -1, "cores": -1, "ram": -1})
    await cloud.executor.execute(Wish(QUOTAS, PROJECT, unlimited))
    try:
        async with it.steered:
            yield it
    finally:
        await cloud.close()


async def test_servers_of_a_lost_host_run_elsewhere_and_nowhere_twice(ward):
    id = await ward.fill()
    await ward.lose("h1")
    assert (await ward.moves(id, "h2")).vm_state is VmState.ACTIVE
    held = {it.state.name: set(it.state.claims) for it in await ward.cloud.documents.find(PROVIDER) if it.state.claims}
    assert held == {"h2": {id}}
    await ward.steered.host("h1", fence=True)
    await ward.steered.until(lambda: not ward.steered.drivers["h1"].domains)
    assert set(ward.steered.drivers["h2"].domains) == {id}


async def test_a_host_that_does_not_fence_itself_is_left_to_people(ward):
    id = await ward.fill(fence=False)
    await ward.lose("h1")
    await ward.stays(id)


@pytest.mark.parametrize("ward", [{"recovery_seconds": 3600.0}, {"fence_seconds": 3600.0}], indirect=True)
async def test_a_host_may_be_back_soon(ward):
    id = await ward.fill()
    await ward.lose("h1")
    await ward.stays(id)


async def test_a_group_of_hosts_may_be_left_alone(ward):
    id = await ward.fill()
    await ward.group("none")
    await ward.lose("h1")
    await ward.stays(id)


@pytest.mark.parametrize("ward", [{"recovery": "none"}], indirect=True)
async def test_a_group_of_hosts_may_be_the_only_one_that_is_recovered(ward):
    id = await ward.fill()
    await ward.group("evacuate")
    await ward.lose("h1")
    await ward.moves(id, "h2")


async def test_what_cannot_be_built_elsewhere_is_not_tried_for_ever(ward):
    id = await ward.fill()
    await ward.cloud.executor.execute(Wish(HOSTS, "h2", DisableHost(reason="full")))
    await ward.lose("h1")
    await ward.recovery.sweep()
    tried = await ward.moves(id, "h1")
    assert tried.fault is not None
    await ward.stays(id)


async def test_where_most_hosts_are_lost_at_once_nothing_is_done(ward):
    id = await ward.fill()
    await ward.lose("h2")
    await ward.lose("h1")
    await ward.stays(id)
    assert (await ward.steered.state(id)).fault is None
