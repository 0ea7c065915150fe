"""The promises of deletion that can be taken back: for a while, and then nothing is left."""

import asyncio

import pytest

from agents.hypervisor.plan import Stop
from bus.execute import Wish
from handlers.compute.quota import QUOTAS
from handlers.compute.soft_delete import deleted_softly
from schema.compute.quota import QUOTA, SetQuotaLimits
from schema.compute.server import deadline
from schema.compute.server_command import DeleteServer, GiveUpTask, ObserveServer, RestoreServer, StartServer
from schema.compute.server_event import DeletionRequested, PowerObserved, ServerStopped, StopRequested
from schema.compute.server_parts import Fault
from schema.compute.soft_delete import RestoreRequested, ServerRestored, ServerSoftDeleted, SoftDeletionRequested
from schema.compute.task import PowerState, Task, VmState
from schema.refusal import Conflict
from tests.compute.keeping import keeping
from tests.compute.test_server import placed, requested, running, server
from tests.compute.world import OTHER, PROJECT

ASKED = SoftDeletionRequested(reclaim_seconds=60)
DELETED = (*running, ASKED, ServerSoftDeleted())


def seen(given, power_state, **fields):
    return ObserveServer(host="h1", generation=given.state.generation, power_state=power_state, **fields)


def test_what_ran_can_be_restored_for_a_while():
    given = server.given(*running).when(DeleteServer(reclaim_seconds=60)).then(ASKED)
    after = given.when(seen(given, PowerState.SHUTDOWN)).then(ServerSoftDeleted())
    assert (after.state.vm_state, after.state.task, after.state.host) == (VmState.SOFT_DELETED, None, "h1")
    assert (deadline(after.state) - given.at).total_seconds() == 60
    after.when(StartServer()).refused("vm_state soft-delete", Conflict)
    after.when(DeleteServer(reclaim_seconds=60)).then()
    back = after.when(RestoreServer()).then(RestoreRequested())
    state = back.when(seen(back, PowerState.RUNNING)).then(ServerRestored()).state
    assert (state.vm_state, state.soft_deleted_at, deadline(state)) == (VmState.ACTIVE, None, None)


def test_its_time_over_or_by_force_it_goes():
    server.given(*DELETED).when(DeleteServer()).then(DeletionRequested())
    server.given(*running, ASKED).when(DeleteServer()).then(DeletionRequested())


def test_what_never_ran_goes_at_once():
    server.given(requested, placed).when(DeleteServer(reclaim_seconds=60)).then(DeletionRequested())
    server.given(requested).when(DeleteServer(reclaim_seconds=60)).then(DeletionRequested())


def test_whatever_its_host_does_it_is_deleted():
    given = server.given(*running, ASKED)
    running_on = PowerObserved(power_state=PowerState.RUNNING)
    given.when(seen(given, PowerState.RUNNING, fault="no")).then(ServerSoftDeleted(), running_on)
    given.when(GiveUpTask(task=Task.SOFT_DELETING, fault=Fault(message="late"))).then(ServerSoftDeleted())
    off = server.given(*DELETED)
    stopping = off.when(seen(off, PowerState.RUNNING)).then(running_on, StopRequested())
    state = stopping.when(seen(stopping, PowerState.SHUTDOWN)).then(ServerStopped()).state
    assert (state.vm_state, deadline(state)) == (VmState.SOFT_DELETED, deadline(off.state))
    events = off.aggregate.decide(off.state, seen(off, PowerState.RUNNING))
    assert off.after(*events).state.vm_state is VmState.SOFT_DELETED


@pytest.fixture
async def world(settings, fresh_database):
    async with keeping(settings, fresh_database) as it:
        it.choose(reclaim_instance_interval=3600)
        yield it


async def counted(world):
    """How many servers count for the quota."""
    return (await world.cloud.documents.get(QUOTA, PROJECT)).state.usage["instances"]


async def test_a_server_is_deleted_and_restored(world):
    client, admin = await world.client(), await world.client("admin")
    id = (await world.boot(client))["id"]
    other = (await world.boot(client))["id"]
    assert await counted(world) == 2
    await world.act(client, id, "restore", None, 409)
    await client("DELETE", f"/servers/{id}", expect=204)
    shown = await world.becomes(client, id, "SOFT_DELETED")
    assert (shown["OS-EXT-STS:vm_state"], shown["OS-EXT-STS:power_state"]) == ("soft-delete", 4)
    assert await counted(world) == 1
    listed = lambda answer: [it["id"] for it in answer["servers"]]  # noqa: E731
    assert listed(await client("GET", "/servers")) == [other]
    assert listed(await client("GET", "/servers/detail")) == [other]
    assert listed(await admin("GET", "/servers?all_tenants=1&deleted=False")) == [other]
    assert listed(await admin("GET", "/servers?all_tenants=1&status=SOFT_DELETED")) == [id]
    await client("DELETE", f"/servers/{id}", expect=204)
    await world.becomes(client, id, "SOFT_DELETED")
    refused = await world.act(client, id, "os-start", None, 409)
    assert "vm_state soft-delete" in refused["conflictingRequest"]["message"]
    await world.act(await world.client(project=OTHER), id, "restore", None, 404)
    await world.act(client, id, "restore")
    await world.becomes(client, id, "ACTIVE")
    assert await counted(world) == 2
    driver = world.driver_of(await world.steered.state(id))
    assert driver.domains[id].seen.power == "running"
    actions = (await client("GET", f"/servers/{id}/os-instance-actions"))["instanceActions"]
    assert [it["action"] for it in actions] == ["restore", "delete", "create"]


async def test_its_quota_goes_with_the_very_state_that_is_deleted_so(world):
    """Whatever becomes of it meanwhile."""
    client = await world.client()
    id = (await world.boot(client))["id"]
    renamed = [client("PUT", f"/servers/{id}", {"server": {"name": f"web-{n}"}}) for n in range(8)]
    await asyncio.gather(*renamed, client("DELETE", f"/servers/{id}", expect=204))
    await world.becomes(client, id, "SOFT_DELETED")
    assert await counted(world) == 0


def test_what_goes_for_good_keeps_its_quota_until_it_is_gone():
    state = server.given(*running, DeletionRequested()).state
    assert not deleted_softly(state, 60)
    assert deleted_softly(server.given(*running).state, 60)


async def test_without_quota_it_is_not_restored(world):
    client = await world.client()
    id = (await world.boot(client))["id"]
    await client("DELETE", f"/servers/{id}", expect=204)
    await world.becomes(client, id, "SOFT_DELETED")
    await world.cloud.executor.execute(Wish(QUOTAS, PROJECT, SetQuotaLimits(limits={"instances": 0})))
    refused = await world.act(client, id, "restore", None, 403)
    assert "Quota exceeded for instances" in refused["forbidden"]["message"]
    await world.becomes(client, id, "SOFT_DELETED")


async def test_by_force_nothing_is_left(world):
    client = await world.client()
    soft, there = (await world.boot(client))["id"], (await world.boot(client))["id"]
    await client("DELETE", f"/servers/{soft}", expect=204)
    await world.becomes(client, soft, "SOFT_DELETED")
    for id in (soft, there):
        await world.act(client, id, "forceDelete")
        await world.gone(client, id)
    assert await world.steered.clean()


async def test_its_time_over_nothing_is_left(world):
    world.choose(reclaim_instance_interval=1)
    client = await world.client()
    id = (await world.boot(client))["id"]
    await client("DELETE", f"/servers/{id}", expect=204)
    await world.gone(client, id)
    assert await world.steered.clean()


async def test_a_host_that_cannot_stop_it_changes_nothing_of_that(world):
    client = await world.client()
    id = (await world.boot(client))["id"]
    world.driver_of(await world.steered.state(id)).failure = lambda step: "no" if isinstance(step, Stop) else None
    await client("DELETE", f"/servers/{id}", expect=204)
    await world.becomes(client, id, "SOFT_DELETED")


async def test_where_it_is_off_servers_go_at_once(world):
    world.choose(reclaim_instance_interval=0)
    client = await world.client()
    id = (await world.boot(client))["id"]
    await client("DELETE", f"/servers/{id}", expect=204)
    await world.gone(client, id)
    assert await world.steered.clean()
