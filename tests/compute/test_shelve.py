"""The promises of the shelf: nothing of a server is lost, and nothing of it is held anywhere."""

import asyncio

import pytest

from agents.hypervisor.plan import Define, Remove, TakeSnapshot
from bus.execute import Wish
from handlers.compute.desired import power
from handlers.image.image import IMAGES
from schema.compute.server import deadline
from schema.compute.server_command import (
    FailBuild,
    FinishOffload,
    GiveUpTask,
    ObserveServer,
    OffloadServer,
    PlaceServer,
    RefusePlacement,
    ResetServerState,
    ShelveServer,
    UnshelveServer,
)
from schema.compute.server_event import (
    ActionFailed,
    BuildFailed,
    PowerObserved,
    ServerPlaced,
    ServerStopped,
    StopRequested,
)
from schema.compute.server_parts import Fault
from schema.compute.shelf import (
    OffloadRequested,
    ServerOffloaded,
    ServerShelved,
    ServerUnshelved,
    ShelveRequested,
    UnshelveRequested,
)
from schema.compute.task import PowerState, Task, VmState
from schema.image.image import DeleteImage
from schema.placement.consumer import CONSUMER
from schema.refusal import Conflict
from tests.compute.keeping import keeping
from tests.compute.test_server import running, server
from tests.compute.world import IMAGE as BASE

ASKED = ShelveRequested(image_id="i", offload_seconds=-1)
SHELVED = (*running, ASKED, ServerShelved())
OFFLOADED = (*SHELVED, OffloadRequested(), ServerOffloaded())
NO_ROOM = Fault(message="no room")


def seen(given, power_state=PowerState.SHUTDOWN, host="h1", **fields):
    return ObserveServer(host=host, generation=given.state.generation, power_state=power_state, **fields)


def test_a_server_is_put_away():
    given = server.given(*running).when(ShelveServer(image_id="i", offload_seconds=-1)).then(ASKED)
    given.when(seen(given)).then()
    state = given.when(seen(given, snapshot="i")).then(ServerShelved()).state
    assert (state.vm_state, state.task, state.host) == (VmState.SHELVED, None, "h1")
    assert deadline(state) is None


def test_at_once_or_after_a_while_its_host_keeps_nothing():
    at_once = server.given(*running, ShelveRequested(image_id="i"))
    at_once.when(seen(at_once, snapshot="i")).then(ServerShelved(), OffloadRequested())
    later = server.given(*running, ShelveRequested(image_id="i", offload_seconds=60), ServerShelved())
    assert (deadline(later.state) - later.at).total_seconds() == 60
    given = later.when(OffloadServer()).then(OffloadRequested())
    given.when(FinishOffload(host="h2")).refused("shelving_offloading on h1", Conflict)
    state = given.when(FinishOffload(host="h1")).then(ServerOffloaded()).state
    assert (state.vm_state, state.host, state.provider_id) == (VmState.SHELVED_OFFLOADED, None, "")
    server.given(*OFFLOADED).when(ResetServerState(vm_state=VmState.ACTIVE)).refused("unshelve it", Conflict)


def test_what_fails_leaves_it_as_it_was():
    given = server.given(*running, ASKED)
    failed = ActionFailed(task=Task.SHELVING, fault=NO_ROOM)
    state = given.when(seen(given, fault="no room")).then(failed).state
    assert (state.vm_state, state.power_state, state.shelf, state.snapshot) == (VmState.ACTIVE, 1, None, None)
    given.when(GiveUpTask(task=Task.SHELVING, fault=NO_ROOM)).then(failed)


def test_whatever_its_guest_does_it_stays_on_the_shelf():
    given = server.given(*SHELVED)
    after = given.aggregate.decide(given.state, seen(given, PowerState.RUNNING))
    assert given.after(*after).state.vm_state is VmState.SHELVED


def test_started_behind_our_back_it_is_stopped_again_and_stays_on_the_shelf():
    given = server.given(*SHELVED)
    started = PowerObserved(power_state=PowerState.RUNNING)
    stopping = given.when(seen(given, PowerState.RUNNING)).then(started, StopRequested())
    assert (power(stopping.state), stopping.state.task) == ("stopped", Task.POWERING_OFF)
    state = stopping.when(seen(stopping)).then(ServerStopped()).state
    assert (state.vm_state, state.task, state.shelf) == (VmState.SHELVED, None, given.state.shelf)
    failed = ActionFailed(task=Task.POWERING_OFF, fault=NO_ROOM)
    still = stopping.when(seen(stopping, PowerState.RUNNING, fault="no room")).then(failed)
    assert (still.state.vm_state, still.state.shelf) == (VmState.SHELVED, given.state.shelf)
    still.when(seen(still, PowerState.RUNNING)).then()


def test_it_comes_back_from_its_disk():
    given = server.given(*SHELVED).when(UnshelveServer()).then(UnshelveRequested())
    assert not given.state.wants_host
    state = given.when(seen(given, PowerState.RUNNING)).then(ServerUnshelved()).state
    assert (state.vm_state, state.shelf) == (VmState.ACTIVE, None)
    server.given(*SHELVED).when(UnshelveServer(host="h2")).refused("shelved_offloaded", Conflict)


def test_it_comes_back_from_its_image():
    given = (
        server.given(*OFFLOADED).when(UnshelveServer(zone="z", host="h2")).then(UnshelveRequested(zone="z", host="h2"))
    )
    assert given.state.wants_host
    assert (given.state.order.zone, given.state.shelf.host) == ("z", "h2")
    placed = given.when(PlaceServer(host="h2", provider_id="p2")).then(ServerPlaced(host="h2", provider_id="p2"))
    assert not placed.state.built
    state = placed.when(seen(placed, PowerState.RUNNING, "h2")).then(ServerUnshelved()).state
    assert (state.vm_state, state.host, state.image.id) == (VmState.ACTIVE, "h2", "img")


def test_where_there_is_no_room_it_stays_on_the_shelf():
    given = server.given(*OFFLOADED, UnshelveRequested())
    failed = ActionFailed(task=Task.UNSHELVING, fault=NO_ROOM)
    state = given.when(RefusePlacement(fault=NO_ROOM)).then(failed).state
    assert (state.vm_state, state.task, state.shelf.image_id) == (VmState.SHELVED_OFFLOADED, None, "i")
    placed = given.after(ServerPlaced(host="h2", provider_id="p2"))
    again = placed.when(FailBuild(host="h2", fault=NO_ROOM)).then(BuildFailed(host="h2", fault=NO_ROOM))
    assert again.state.wants_host
    last = again.after(ServerPlaced(host="h3", provider_id="p3"))
    state = last.after(*last.aggregate.decide(last.state, FailBuild(host="h3", fault=NO_ROOM))).state
    assert (state.vm_state, state.task, state.host) == (VmState.SHELVED_OFFLOADED, None, None)


def test_only_what_was_built_is_shelved():
    given = server.given(*running, StopRequested(), ServerStopped())
    given.when(ShelveServer(image_id="i")).then(ShelveRequested(image_id="i"))
    given.when(OffloadServer()).refused("vm_state stopped", Conflict)
    given.when(UnshelveServer()).refused("Cannot 'unshelve'", Conflict)


@pytest.fixture
async def world(settings, fresh_database):
    async with keeping(settings, fresh_database) as it:
        yield it


async def claims(world):
    return await world.cloud.documents.find(CONSUMER)


async def test_a_server_is_shelved_and_comes_back_elsewhere(world):
    client, admin = await world.client(), await world.client("admin")
    id = (await world.boot(client, metadata={"k": "v"}))["id"]
    old = (await world.steered.state(id)).host
    await world.act(client, id, "shelve")
    shown = await world.becomes(client, id, "SHELVED_OFFLOADED")
    assert (shown["OS-EXT-STS:vm_state"], shown["hostId"]) == ("shelved_offloaded", "")
    assert (await admin("GET", f"/servers/{id}"))["server"]["OS-EXT-SRV-ATTR:host"] is None
    [image] = await world.images(instance_uuid=id)
    assert (image.name, image.status, image.project_id) == ("web-shelved", "active", "a" * 32)
    assert not await claims(world)
    assert id not in world.steered.drivers[old].domains
    acts = []
    for driver in world.steered.drivers.values():
        driver.failure = acts.append
    other = {"h1": "h2", "h2": "h1"}[old]
    await world.act(client, id, "unshelve", {"host": other}, 403)
    await world.act(admin, id, "unshelve", {"host": other})
    shown = await world.becomes(client, id, "ACTIVE")
    assert (shown["image"]["id"], shown["metadata"]) == (BASE, {"k": "v"})
    assert (await world.steered.state(id)).host == other
    [made] = [step.domain for step in acts if isinstance(step, Define)]
    assert (made.image.id, made.built) == (image.id, False)
    assert await world.images(instance_uuid=id) == []
    assert [it.id for it in await claims(world)] == [id]
    actions = (await client("GET", f"/servers/{id}/os-instance-actions"))["instanceActions"]
    assert [(it["action"], it["message"]) for it in actions] == [("unshelve", None), ("shelve", None), ("create", None)]
    for action, host in zip(actions, (other, old, old), strict=True):
        path = f"/servers/{id}/os-instance-actions/{action['request_id']}"
        [part] = (await admin("GET", path))["instanceAction"]["events"]
        assert part["host"] == host, "where it was then, not where it is now"
    await client("DELETE", f"/servers/{id}", expect=204)
    await world.gone(client, id)
    assert await world.steered.clean()


async def test_it_may_stay_on_its_host(world):
    world.choose(shelved_offload_time=-1)
    client, admin = await world.client(), await world.client("admin")
    id = (await world.boot(client))["id"]
    await world.act(client, id, "shelve")
    shown = await world.becomes(client, id, "SHELVED")
    assert shown["OS-EXT-STS:power_state"] == 4
    driver = world.driver_of(await world.steered.state(id))
    assert driver.domains[id].seen.power == "stopped"
    for body in ({"availability_zone": "nova"}, {"host": "h1"}):
        await world.act(admin, id, "unshelve", body, 409)
    await world.act(client, id, "unshelve")
    await world.becomes(client, id, "ACTIVE")
    assert driver.domains[id].seen.power == "running"
    assert await world.images(instance_uuid=id) == []
    await world.act(client, id, "shelve")
    await world.becomes(client, id, "SHELVED")
    await world.act(client, id, "shelveOffload", None, 403)
    await world.act(admin, id, "shelveOffload")
    await world.becomes(client, id, "SHELVED_OFFLOADED")
    assert id not in driver.domains


async def test_after_its_time_it_leaves_its_host(world):
    world.choose(shelved_offload_time=1)
    client = await world.client()
    id = (await world.boot(client))["id"]
    await world.act(client, id, "shelve")
    await world.becomes(client, id, "SHELVED")
    await world.becomes(client, id, "SHELVED_OFFLOADED")


async def test_deleted_on_the_shelf_it_leaves_nothing(world):
    client = await world.client()
    for seconds, status in ((0, "SHELVED_OFFLOADED"), (-1, "SHELVED")):
        world.choose(shelved_offload_time=seconds)
        id = (await world.boot(client))["id"]
        await world.act(client, id, "shelve")
        await world.becomes(client, id, status)
        await client("DELETE", f"/servers/{id}", expect=204)
        await world.gone(client, id)
        assert await world.images(instance_uuid=id) == []
    assert await world.steered.clean()


async def test_deleted_on_the_way_it_leaves_nothing(world):
    client = await world.client()
    for step_kind in (TakeSnapshot, Remove):
        id = (await world.boot(client))["id"]
        driver, held = world.driver_of(await world.steered.state(id)), asyncio.Event()
        driver.delay = lambda step, kind=step_kind, held=held: (held.set(), 0.5)[1] if isinstance(step, kind) else 0
        await world.act(client, id, "shelve")
        await held.wait()
        await client("DELETE", f"/servers/{id}", expect=204)
        await world.gone(client, id)
        driver.delay = None
        assert await world.images(instance_uuid=id) == []
    assert await world.steered.clean()


async def test_a_host_that_cannot_leaves_it_running(world):
    client = await world.client()
    id = (await world.boot(client))["id"]
    driver = world.driver_of(await world.steered.state(id))
    driver.failure = lambda step: "no room" if isinstance(step, TakeSnapshot) else None
    await world.act(client, id, "shelve")
    shown = await world.becomes(client, id, "ACTIVE")
    assert (await world.steered.state(id)).fault.message.endswith("no room")
    await world.steered.until(lambda: driver.domains[id].seen.power == "running")
    assert await world.images(instance_uuid=id) == []
    assert shown["image"]["id"] == BASE


async def test_where_it_cannot_come_back_it_stays_shelved(world):
    client, admin = await world.client(), await world.client("admin")
    id = (await world.boot(client))["id"]
    await world.act(client, id, "shelve")
    await world.becomes(client, id, "SHELVED_OFFLOADED")
    for driver in world.steered.drivers.values():
        driver.failure = lambda step: "no disk" if isinstance(step, Define) else None
    await world.act(client, id, "unshelve")
    await world.becomes(client, id, "SHELVED_OFFLOADED")
    assert "no disk" in (await world.steered.state(id)).fault.message
    assert not await claims(world)
    for driver in world.steered.drivers.values():
        driver.failure = None
    await world.act(admin, id, "unshelve", {"host": "h1"})
    await world.becomes(client, id, "ACTIVE")
    assert (await world.steered.state(id)).host == "h1"


async def test_without_its_image_it_cannot_come_back(world):
    client = await world.client()
    id = (await world.boot(client))["id"]
    await world.act(client, id, "shelve")
    await world.becomes(client, id, "SHELVED_OFFLOADED")
    [image] = await world.images(instance_uuid=id)
    await world.cloud.executor.execute(Wish(IMAGES, image.id, DeleteImage()))
    await world.act(client, id, "unshelve")
    await world.becomes(client, id, "SHELVED_OFFLOADED")
    assert "not there any more" in (await world.steered.state(id)).fault.message


async def test_zones_are_as_the_versions_say(world):
    client, admin = await world.client(), await world.client("admin")
    id = (await world.boot(client))["id"]
    await world.act(client, id, "shelve")
    await world.becomes(client, id, "SHELVED_OFFLOADED")
    for version, body, status in (
        ("2.77", {}, 400),
        ("2.77", {"availability_zone": None}, 400),
        ("2.90", {"availability_zone": "nova", "host": "h1"}, 400),
        ("2.77", {"availability_zone": "mars"}, 400),
        ("2.91", {"host": "nowhere"}, 400),
        ("2.91", {"availability_zone": "nova", "more": 1}, 400),
    ):
        await world.act(admin, id, "unshelve", body, status, version=version)
    await world.act(admin, id, "unshelve", {"availability_zone": "nova", "host": "h2"})
    shown = await world.becomes(client, id, "ACTIVE")
    assert (await world.steered.state(id)).host == "h2"
    assert shown["pinned_availability_zone"] == "nova"
    await world.act(client, id, "shelve")
    await world.becomes(client, id, "SHELVED_OFFLOADED")
    await world.act(client, id, "unshelve", {"availability_zone": None})
    assert (await world.becomes(client, id, "ACTIVE"))["pinned_availability_zone"] is None


@pytest.mark.parametrize(
    "action", [{"os-start": None}, {"reboot": {"type": "HARD"}}, {"createImage": {"name": "x"}}, {"shelve": None}]
)
async def test_what_a_shelved_server_cannot_do_is_refused(world, action):
    client = await world.client()
    id = (await world.boot(client))["id"]
    await world.act(client, id, "unshelve", None, 409)
    await world.act(client, id, "shelve")
    await world.becomes(client, id, "SHELVED_OFFLOADED")
    refused = await client("POST", f"/servers/{id}/action", action, expect=409)
    assert "vm_state shelved_offloaded" in refused["conflictingRequest"]["message"]
    assert (await client("GET", "/servers?status=SHELVED_OFFLOADED"))["servers"][0]["id"] == id
