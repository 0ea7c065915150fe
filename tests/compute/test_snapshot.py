"""The promises of images made of servers: the server stays what it is, and an image is whole or not there."""

import asyncio
from datetime import timedelta

import pytest

from agents.hypervisor.plan import TakeSnapshot
from bus import clock
from bus.execute import Wish
from handlers.compute.fate import execute_all
from handlers.compute.server import SERVERS
from handlers.compute.step import advance
from handlers.image import ticket
from handlers.image.image import IMAGES
from schema.compute.domain import Observed
from schema.compute.server import deadline
from schema.compute.server_command import (
    BackUpServer,
    DeleteServer,
    FinishSnapshot,
    GiveUpTask,
    HardRebootServer,
    ObserveServer,
    ProgressSnapshot,
    SnapshotServer,
)
from schema.compute.server_event import ActionFailed, DeletionRequested, PowerObserved
from schema.compute.server_parts import Fault
from schema.compute.snapshot import Snapshot, SnapshotProgressed, SnapshotRequested, SnapshotTaken
from schema.compute.task import PowerState, Task, VmState
from schema.image.image import IMAGE, DeleteImage, StartImageUpload
from schema.refusal import Conflict
from tests.compute.keeping import keeping
from tests.compute.test_server import paused, running, server, suspended
from tests.compute.world import IMAGE as BASE
from tests.compute.world import OTHER as OTHERS

ASKED = SnapshotRequested(snapshot=Snapshot(image_id="i"))


def seen(given, snapshot="i", power_state=PowerState.RUNNING, **fields):
    return ObserveServer(
        host="h1", generation=given.state.generation, power_state=power_state, snapshot=snapshot, **fields
    )


@pytest.mark.parametrize("before", [running, paused, suspended])
def test_a_copy_leaves_the_server_as_it_is(before):
    given = server.given(*before).when(SnapshotServer(image_id="i")).then(ASKED)
    assert given.state.task is Task.IMAGE_SNAPSHOT
    given.when(SnapshotServer(image_id="j")).refused("Cannot 'createImage'", Conflict)
    given.when(HardRebootServer()).refused("task_state image_snapshot", Conflict)
    given.when(seen(given, "")).then()
    was = server.given(*before).state
    after = given.when(seen(given, power_state=was.power_state)).then(SnapshotTaken()).state
    assert (after.vm_state, after.power_state, after.task, after.snapshot) == (
        was.vm_state,
        was.power_state,
        None,
        None,
    )


def test_the_server_is_done_when_its_image_is():
    given = server.given(*running, ASKED, SnapshotProgressed(task=Task.IMAGE_UPLOADING))
    given.when(FinishSnapshot(image_id="another")).then()
    done = given.when(FinishSnapshot(image_id="i")).then(SnapshotTaken())
    done.when(seen(done)).then()


def test_a_guest_that_went_off_meanwhile_is_followed():
    given = server.given(*running, ASKED)
    off = PowerObserved(power_state=PowerState.SHUTDOWN)
    assert (
        given.when(seen(given, power_state=PowerState.SHUTDOWN)).then(SnapshotTaken(), off).state.vm_state == "stopped"
    )


def test_its_task_says_how_far_it_is():
    given = server.given(*running, ASKED)
    copying = given.when(ProgressSnapshot(image_id="i")).then(SnapshotProgressed(task=Task.IMAGE_PENDING_UPLOAD))
    sent = copying.when(ProgressSnapshot(image_id="i", uploading=True)).then(
        SnapshotProgressed(task=Task.IMAGE_UPLOADING)
    )
    assert sent.state.generation == given.state.generation
    sent.when(ProgressSnapshot(image_id="i")).then()
    sent.when(ProgressSnapshot(image_id="another", uploading=True)).then()
    sent.when(seen(sent)).then(SnapshotTaken())


def test_a_fault_or_a_deadline_leaves_the_server_as_it_was():
    given = server.given(*running, ASKED)
    failed = ActionFailed(task=Task.IMAGE_SNAPSHOT, fault=Fault(message="no room"))
    after = given.when(seen(given, "", fault="no room")).then(failed).state
    assert (after.vm_state, after.task, after.snapshot) == (VmState.ACTIVE, None, None)
    given.when(GiveUpTask(task=Task.IMAGE_SNAPSHOT, fault=Fault(message="no room"))).then(failed)


def test_a_backup_is_one_of_a_series():
    command = BackUpServer(image_id="i", backup_type="daily", rotation=2)
    wanted = Snapshot(image_id="i", backup_type="daily", rotation=2)
    given = server.given(*running).when(command).then(SnapshotRequested(snapshot=wanted))
    assert given.state.task is Task.IMAGE_BACKUP
    given.when(DeleteServer()).then(DeletionRequested())


@pytest.fixture
async def world(settings, fresh_database):
    async with keeping(settings, fresh_database) as it:
        yield it


async def test_an_image_is_made_of_a_server_that_runs_on(world):
    client = await world.client()
    id = (await world.boot(client))["id"]
    body = {"name": "mine", "metadata": {"k": "v"}}
    image_id = (await world.act(client, id, "createImage", body))["image_id"]
    image = await world.kept(client, image_id)
    shown = await world.becomes(client, id, "ACTIVE")
    assert shown["OS-EXT-STS:power_state"] == 1
    told = {"name": "mine", "visibility": "private", "disk_format": "qcow2", "container_format": "bare"}
    told |= {"min_disk": 1, "min_ram": 64, "owner": "a" * 32, "k": "v", "hw_video_model": "vga", "os_distro": "none"}
    told |= {"image_type": "snapshot", "instance_uuid": id, "base_image_ref": BASE, "user_id": "u" * 32}
    assert told.items() <= image.items()
    assert image["size"] > 0
    assert image["virtual_size"] == 1 << 30
    again = await world.boot(client, imageRef=image_id)
    assert again["image"]["id"] == image_id
    actions = (await client("GET", f"/servers/{id}/os-instance-actions"))["instanceActions"]
    assert [(it["action"], it["message"]) for it in actions] == [("createImage", None), ("create", None)]


async def test_the_same_request_makes_one_image(world):
    client = await world.client()
    id = (await world.boot(client))["id"]
    ids = [(await world.act(client, id, "createImage", {"name": "x"}, key="k"))["image_id"] for _ in range(3)]
    assert [it.id for it in await world.images(instance_uuid=id)] == list(set(ids))


async def test_before_2_45_a_location_tells_where_it_is(world):
    client = await world.client()
    id = (await world.boot(client))["id"]
    for action, body in (
        ("createImage", {"name": "one"}),
        ("createBackup", {"name": "two", "backup_type": "daily", "rotation": "1"}),
    ):
        answer = await world.served.call(
            "POST",
            f"/compute/v2.1/servers/{id}/action",
            {action: body},
            token=client.token,
            headers={"OpenStack-API-Version": "compute 2.44"},
        )
        assert (answer.status, answer.body) == (202, b"")
        where = answer.headers["Location"]
        assert where.startswith(f"{world.served.url}/image/v2/images/")
        image = await world.kept(client, where.rpartition("/")[2])
        assert image["name"] == body["name"]
        await world.becomes(client, id, "ACTIVE")


async def test_of_backups_the_newest_are_kept(world):
    client = await world.client()
    id = (await world.boot(client))["id"]
    ids = []
    for kind in ("daily", "daily", "weekly", "daily"):
        body = {"name": kind, "backup_type": kind, "rotation": 2}
        ids.append((await world.act(client, id, "createBackup", body))["image_id"])
        await world.becomes(client, id, "ACTIVE")
    assert {it.id for it in await world.images(instance_uuid=id)} == {*ids[1:]}
    image = await world.show(client, ids[3])
    assert (image["image_type"], image["backup_type"], image["status"]) == ("backup", "daily", "active")
    assert not await world.act(client, id, "createBackup", {"name": "x", "backup_type": "daily", "rotation": 0})
    await world.becomes(client, id, "ACTIVE")
    assert {it.id for it in await world.images(instance_uuid=id)} == {ids[2]}


async def test_what_comes_to_nothing_leaves_no_image(world):
    client = await world.client()
    id = (await world.boot(client))["id"]
    driver = world.driver_of(await world.steered.state(id))
    driver.failure = lambda step: "no room" if isinstance(step, TakeSnapshot) else None
    image_id = (await world.act(client, id, "createImage", {"name": "lost"}))["image_id"]
    shown = await world.becomes(client, id, "ACTIVE")
    assert shown["OS-EXT-STS:power_state"] == 1
    await world.show(client, image_id, 404)
    assert (await world.steered.state(id)).fault.message.endswith("no room")
    driver.failure = None
    image_id = (await world.act(client, id, "createImage", {"name": "found"}))["image_id"]
    await world.kept(client, image_id)


async def test_an_image_deleted_meanwhile_ends_it(world):
    client = await world.client()
    id, image_id = await held_up(world, client, seconds=0.3)
    await world.cloud.executor.execute(Wish(IMAGES, image_id, DeleteImage()))
    await world.becomes(client, id, "ACTIVE")
    assert "could not be sent: 404" in (await world.steered.state(id)).fault.message


async def test_a_server_deleted_meanwhile_takes_the_image_along(world):
    client = await world.client()
    id, image_id = await held_up(world, client)
    await client("DELETE", f"/servers/{id}", expect=204)
    await world.gone(client, id)
    await world.show(client, image_id, 404)
    assert await world.steered.clean()


async def test_an_agent_that_died_begins_anew(world):
    client = await world.client()
    id = (await world.boot(client))["id"]
    name = (await world.steered.state(id)).host
    driver, held = world.steered.drivers[name], asyncio.Event()
    driver.delay = lambda step: (held.set(), 60)[1] if isinstance(step, TakeSnapshot) else 0
    image_id = (await world.act(client, id, "createImage", {"name": "late"}))["image_id"]
    await held.wait()
    await world.steered.kill(name)
    driver.delay = None
    await world.steered.host(name)
    await world.steered.reactor.telling.tell_everything(name)
    await world.kept(client, image_id)
    await world.becomes(client, id, "ACTIVE")


async def held_up(world, client, seconds=60):
    """A server whose host is at its copy: its id, and the image's."""
    id = (await world.boot(client))["id"]
    driver, held = world.driver_of(await world.steered.state(id)), asyncio.Event()
    driver.delay = lambda step: (held.set(), seconds)[1] if isinstance(step, TakeSnapshot) else 0
    image_id = (await world.act(client, id, "createImage", {"name": "slow"}))["image_id"]
    await held.wait()
    return id, image_id


async def test_past_the_deadline_nothing_of_it_is_left(world):
    client = await world.client()
    id, image_id = await held_up(world, client)
    state = await world.steered.state(id)
    late = advance(state, deadline(state))
    assert [it.task for it in late] == [Task.IMAGE_SNAPSHOT]
    await execute_all(world.cloud, [(state, (Wish(SERVERS, id, it),)) for it in late])
    shown = await world.becomes(client, id, "ACTIVE")
    assert "did not finish image_snapshot in time" in (await world.steered.state(id)).fault.message
    assert shown["OS-EXT-STS:power_state"] == 1
    await world.show(client, image_id, 404)
    generation = (await world.steered.state(id)).generation
    driver = world.driver_of(state)
    await world.steered.until(lambda: driver.domains[id].seen.generation == generation)
    assert driver.domains[id].seen.snapshot == ""


async def test_a_reset_leaves_no_image_that_nobody_makes(world):
    client, admin = await world.client(), await world.client("admin")
    id, image_id = await held_up(world, client, 0.5)
    await world.act(admin, id, "os-resetState", {"state": "active"})
    await world.show(client, image_id, 404)
    await world.becomes(client, id, "ACTIVE")


async def test_an_upload_that_broke_off_is_no_obstacle(world):
    client = await world.client()
    id = (await world.boot(client))["id"]
    driver, held = world.driver_of(await world.steered.state(id)), asyncio.Event()
    driver.delay = lambda step: (held.set(), 0.3)[1] if isinstance(step, TakeSnapshot) else 0
    image_id = (await world.act(client, id, "createImage", {"name": "anew"}))["image_id"]
    await held.wait()
    lost = StartImageUpload(upload_id="lost", deadline=clock.now() + timedelta(hours=1))
    await world.cloud.executor.execute(Wish(IMAGES, image_id, lost))
    await world.kept(client, image_id)
    await world.becomes(client, id, "ACTIVE")


async def test_a_ticket_to_read_is_none_to_write(world):
    for audience in (ticket.READING, ticket.WRITING):
        token = await ticket.sign(world.cloud, BASE, audience=audience)
        headers = {"X-Auth-Token": token, "Content-Type": "application/octet-stream"}
        answer = await world.served.call("PUT", ticket.PATH.format(id=BASE), headers=headers, data=b"x")
        assert answer.status == (401 if audience == ticket.READING else 204)
    assert (await world.cloud.documents.get(IMAGE, BASE)).state.checksum == "c"


async def test_whoever_is_of_another_project_shares_it(world):
    client, admin = await world.client(), await world.client("admin", project=OTHERS)
    id = (await world.boot(client))["id"]
    image_id = (await world.act(admin, id, "createImage", {"name": "theirs"}))["image_id"]
    image = await world.kept(client, image_id)
    assert (image["visibility"], image["owner"]) == ("shared", OTHERS)


async def test_the_host_says_that_it_is_at_it():
    from handlers.compute.reports import wishes_of

    state = server.given(*running, ASKED).state
    [wish] = wishes_of(state, "h1", Observed(server_id=state.id, generation=1, progress="copying its disk: 1 of 9 MB"))
    assert wish.command == ProgressSnapshot(image_id="i")


@pytest.mark.parametrize(
    "action, body, words",
    [
        ("createImage", {}, "name"),
        ("createImage", {"name": ""}, "name"),
        ("createImage", {"name": " x"}, "name"),
        ("createImage", {"name": "x", "metadata": {"k": 1}}, "metadata"),
        ("createImage", {"name": "x", "more": 1}, "more"),
        ("createBackup", {"name": "x", "backup_type": "daily"}, "rotation"),
        ("createBackup", {"name": "x", "backup_type": "daily", "rotation": -1}, "rotation"),
        ("createBackup", {"name": "x", "backup_type": "daily", "rotation": "many"}, "rotation"),
        ("createBackup", {"name": "x", "rotation": 1}, "backup_type"),
    ],
)
async def test_what_cannot_be_is_refused(world, action, body, words):
    client = await world.client()
    id = (await world.boot(client))["id"]
    refused = await world.act(client, id, action, body, 400)
    assert words in refused["badRequest"]["message"]
    assert await world.images(instance_uuid=id) == []


async def test_one_at_a_time_and_of_what_is_there(world):
    client = await world.client()
    id = (await world.boot(client))["id"]
    reader = await world.client("reader")
    await world.act(reader, id, "createImage", {"name": "x"}, 403)
    await world.act(client, "00000000-0000-4000-8000-000000000000", "createImage", {"name": "x"}, 404)
    driver = world.driver_of(await world.steered.state(id))
    driver.delay = lambda step: 0.2 if isinstance(step, TakeSnapshot) else 0
    await world.act(client, id, "createImage", {"name": "x"})
    refused = await world.act(client, id, "createImage", {"name": "y"}, 409)
    assert "task_state image_" in refused["conflictingRequest"]["message"]
    await world.becomes(client, id, "ACTIVE")
    assert [it.name for it in await world.images(instance_uuid=id)] == ["x"]
    many = {f"k{n}": "v" for n in range(129)}
    await world.act(client, id, "createImage", {"name": "x", "metadata": many}, 403, version="2.38")
    await world.act(client, id, "resetNetwork", None, 410)
