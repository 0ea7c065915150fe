"""The promises of the follow-through: on a real log and simulated hosts, whatever goes wrong there."""

import asyncio
from datetime import timedelta

import msgspec
import pytest

from agents.hypervisor.plan import Define, Start, Stop
from handlers.compute.desired import domain
from handlers.compute.step import Place, Tell, advance
from schema.compute.errand import GuestPasswordPosted
from schema.compute.server import SERVER
from schema.compute.server_command import (
    DeleteServer,
    EndServer,
    FailBuild,
    GiveUpTask,
    HardRebootServer,
    PauseServer,
    RebootServer,
    RefusePlacement,
    ResumeServer,
    StartServer,
    StopServer,
    SuspendServer,
    UnpauseServer,
)
from schema.compute.server_event import (
    DeletionRequested,
    ServerDeleted,
    ServerPlaced,
    ServerRequested,
    ServerStarted,
    StopRequested,
)
from schema.compute.server_parts import Order, ServerFlavor
from tests.compute.steering import steered
from tests.compute.test_server import placed, requested, running, server

LATER = timedelta(hours=1)


@pytest.fixture
async def cloud(settings, fresh_database):
    async with steered(msgspec.structs.replace(settings, lease_seconds=1.0), fresh_database) as cloud:
        yield cloud


def after(*events):
    return server.given(*events)


@pytest.mark.parametrize(
    "events,step,late",
    [
        ((requested,), Place, RefusePlacement),
        ((requested, placed), Tell, FailBuild),
        ((*running, StopRequested()), Tell, GiveUpTask),
        ((*running, DeletionRequested()), Tell, EndServer),
        ((requested, DeletionRequested()), EndServer, EndServer),
    ],
)
def test_every_task_goes_on_and_has_an_end(events, step, late):
    given = after(*events)
    assert [type(it) for it in advance(given.state, given.at)] == [step]
    assert [type(it) for it in advance(given.state, given.at + LATER)] == [late]


def test_a_server_at_rest_needs_nothing():
    given = after(*running)
    assert advance(given.state, given.at + LATER) == []


def test_what_is_gone_takes_its_secrets_along():
    order = msgspec.structs.replace(requested.order, secret_id="s-1")
    given = after(msgspec.structs.replace(requested, order=order), GuestPasswordPosted(secret_id="s-2"))
    assert list(SERVER.secrets(given.state)) == ["s-1", "s-2"]
    ended = given.after(DeletionRequested(), ServerDeleted())
    assert advance(ended.state, ended.at) == []


def test_a_lost_host_builds_nothing_and_deletes_at_once():
    given = after(requested, placed)
    assert isinstance(advance(given.state, given.at, host_alive=False)[0], FailBuild)
    given = after(*running, DeletionRequested())
    assert isinstance(advance(given.state, given.at, host_alive=False)[0], EndServer)


def test_what_a_host_is_told_follows_the_state():
    assert domain(after(requested, placed).state).power == "running"
    assert domain(after(*running, StopRequested()).state).power == "stopped"
    assert domain(after(*running, DeletionRequested()).state).power == "absent"
    assert domain(after(*running).state).built
    assert not domain(after(requested, placed).state).built


async def test_a_server_lives_its_whole_life(cloud):
    await cloud.host("h1")
    id = await cloud.create()
    state = await cloud.reaches(id, "active")
    assert state.host == "h1"
    for command, vm_state in (
        (StopServer(), "stopped"),
        (StartServer(), "active"),
        (RebootServer(), "active"),
        (HardRebootServer(), "active"),
        (PauseServer(), "paused"),
        (UnpauseServer(), "active"),
        (SuspendServer(), "suspended"),
        (ResumeServer(), "active"),
    ):
        await cloud.act(id, command)
        await cloud.reaches(id, vm_state)
    await cloud.act(id, DeleteServer())
    await cloud.reaches(id, "deleted")
    assert await cloud.clean()


async def test_many_servers_spread_over_many_hosts(cloud):
    for name in ("h1", "h2", "h3"):
        await cloud.host(name)
    ids = await asyncio.gather(*(cloud.create() for _ in range(30)))
    states = [await cloud.reaches(id, "active") for id in ids]
    counts = [sum(state.host == name for state in states) for name in ("h1", "h2", "h3")]
    assert counts == [10, 10, 10]
    await asyncio.gather(*(cloud.act(id, DeleteServer()) for id in ids))
    for id in ids:
        await cloud.reaches(id, "deleted")
    assert await cloud.clean()


async def test_a_build_that_fails_everywhere_says_why(cloud):
    for name in ("h1", "h2"):
        driver = await cloud.host(name)
        driver.failure = lambda step: "the disk is full" if isinstance(step, Define) else None
    id = await cloud.create(order=Order(user_id="ada", attempts=2))
    state = await cloud.reaches(id, "error")
    assert "tried h" in state.fault.message
    assert "the disk is full" in state.fault.message
    await cloud.act(id, DeleteServer())
    await cloud.reaches(id, "deleted")
    assert await cloud.clean()


async def test_the_next_host_takes_over_from_one_that_cannot(cloud):
    for name in ("h1", "h2", "h3"):
        driver = await cloud.host(name)
        if name != "h2":
            driver.failure = lambda step: "no room in memory" if isinstance(step, Start) else None
    ids = await asyncio.gather(*(cloud.create() for _ in range(6)))
    for id in ids:
        assert (await cloud.reaches(id, "active")).host == "h2"
    await cloud.until(lambda: not cloud.drivers["h1"].domains and not cloud.drivers["h3"].domains)


async def test_a_server_no_host_has_room_for_says_why(cloud):
    await cloud.host("h1", memory_mb=2048)
    large = ServerFlavor(id="9", name="large", vcpus=1, ram_mb=1024, disk_gb=1)
    first = await cloud.create(flavor=large)
    await cloud.reaches(first, "active")
    second = await cloud.create(flavor=large)
    state = await cloud.reaches(second, "error")
    assert "No valid host was found" in state.fault.message
    assert "MEMORY_MB" in state.fault.message
    for id in (first, second):
        await cloud.act(id, DeleteServer())
        await cloud.reaches(id, "deleted")
    assert await cloud.clean()


async def test_a_guest_that_shuts_itself_down_is_seen_within_a_second(cloud):
    driver = await cloud.host("h1")
    id = await cloud.create()
    await cloud.reaches(id, "active")
    driver.crash(id)
    async with asyncio.timeout(1):
        await cloud.reaches(id, "stopped")


async def test_a_guest_that_vanished_is_stopped(cloud):
    driver = await cloud.host("h1")
    id = await cloud.create()
    await cloud.reaches(id, "active")
    driver.vanish(id)
    async with asyncio.timeout(1):
        await cloud.reaches(id, "stopped")


async def test_an_action_its_host_cannot_do_is_taken_back(cloud):
    driver = await cloud.host("h1")
    id = await cloud.create()
    await cloud.reaches(id, "active")
    driver.failure = lambda step: "it does not listen" if isinstance(step, Stop) else None
    await cloud.act(id, StopServer())
    state = await cloud.sees(id, lambda state: state.fault is not None)
    assert (state.vm_state, state.task) == ("active", None)
    assert "it does not listen" in state.fault.message


async def test_a_build_on_a_host_that_is_lost_goes_on_elsewhere(cloud):
    slow = await cloud.host("h1")
    slow.delay = lambda step: 30.0
    id = await cloud.create()
    await cloud.sees(id, lambda state: state.host == "h1")
    await cloud.kill("h1")
    await cloud.host("h2")
    assert (await cloud.reaches(id, "active")).host == "h2"


async def test_a_server_on_a_lost_host_can_be_deleted_and_leaves_nothing_when_it_returns(cloud):
    await cloud.host("h1")
    id = await cloud.create()
    await cloud.reaches(id, "active")
    await cloud.kill("h1")
    await cloud.until(lambda: not cloud.reactor.telling.alive("h1"))
    await cloud.act(id, DeleteServer())
    await cloud.reaches(id, "deleted")
    assert cloud.drivers["h1"].domains
    await cloud.host("h1")
    await cloud.until(lambda: not cloud.drivers["h1"].domains)
    assert await cloud.clean()


async def test_a_host_that_returns_has_its_servers_as_they_were(cloud):
    await cloud.host("h1")
    ids = [await cloud.create() for _ in range(3)]
    for id in ids:
        await cloud.reaches(id, "active")
    await cloud.kill("h1")
    await cloud.act(ids[0], StopServer())
    await cloud.host("h1")
    await cloud.reaches(ids[0], "stopped")
    for id in ids[1:]:
        assert (await cloud.state(id)).vm_state == "active"
    assert len(cloud.drivers["h1"].domains) == 3


async def test_what_follows_a_request_bears_its_name(cloud):
    await cloud.host("h1")
    id = await cloud.create(request_id="req-1")
    await cloud.reaches(id, "active")
    events = await cloud.cloud.log.read_stream(f"server/{id}")
    assert [type(it.event) for it in events] == [ServerRequested, ServerPlaced, ServerStarted]
    assert {it.correlation for it in events[1:]} == {"req-1"}


async def test_secrets_end_with_their_server(cloud):
    await cloud.host("h1")
    secret = await cloud.cloud.vault.seal("boot-1", "project/p", b'{"user_data":"aGk="}')
    await cloud.cloud.vault.keep(secret)
    id = await cloud.create(order=Order(user_id="ada", secret_id="boot-1"))
    await cloud.reaches(id, "active")
    await cloud.act(id, DeleteServer())
    await cloud.reaches(id, "deleted")
    assert await cloud.cloud.vault.open_many(["boot-1"]) == {}


@pytest.mark.parametrize("after_seconds", [0.0, 0.02, 0.05, 0.1, 0.2])
async def test_a_control_plane_that_is_gone_for_a_moment_goes_on_where_it_was(settings, fresh_database, after_seconds):
    drivers = {}
    async with steered(settings, fresh_database, drivers) as cloud:
        for name in ("h1", "h2"):
            await cloud.host(name)
        ids = await asyncio.gather(*(cloud.create() for _ in range(10)))
        await asyncio.sleep(after_seconds)
    async with steered(settings, fresh_database, drivers) as cloud:
        for name in ("h1", "h2"):
            await cloud.host(name)
        for id in ids:
            await cloud.reaches(id, "active")
        assert sum(len(driver.domains) for driver in drivers.values()) == 10
        await asyncio.gather(*(cloud.act(id, DeleteServer()) for id in ids))
        await asyncio.sleep(after_seconds)
    async with steered(settings, fresh_database, drivers) as cloud:
        for name in ("h1", "h2"):
            await cloud.host(name)
        for id in ids:
            await cloud.reaches(id, "deleted")
        assert await cloud.clean()
