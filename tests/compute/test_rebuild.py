"""The promises of rebuilding: a new disk where the server is, or the old server as it was."""

import base64

import pytest

from agents.hypervisor.plan import Remake, Start
from bus import clock
from schema.compute.server_command import ObserveServer, RebuildServer
from schema.compute.server_event import ActionFailed, DeletionRequested, PowerObserved, RebuildRequested, ServerRebuilt
from schema.compute.server_parts import Fault, Rebuild, ServerImage
from schema.compute.task import PowerState, Task, VmState
from schema.refusal import Conflict
from tests.compute.test_server import running, server
from tests.compute.world import IMAGE

OTHER = "22222222-2222-4222-8222-222222222222"
WANTED = Rebuild(image=ServerImage(id=OTHER))
ASKED = RebuildRequested(rebuild=WANTED, secret_id="s")


def seen(remade=1, power_state=PowerState.RUNNING, **fields):
    generation = server.given(*running, ASKED).state.generation
    return ObserveServer(host="h1", generation=generation, power_state=power_state, remade=remade, **fields)


def test_it_is_rebuilt_when_its_host_has_made_the_disk():
    given = server.given(*running, ASKED)
    assert (given.state.task, given.state.vm_state) == (Task.REBUILD_DISK, VmState.ACTIVE)
    given.when(seen(remade=0)).then()
    given.when(seen()).then(ServerRebuilt())
    after = server.given(*running, ASKED, ServerRebuilt()).state
    assert (after.image.id, after.rebuilt, after.rebuild, after.task) == (OTHER, 1, None, None)


def test_until_the_disk_is_made_a_fault_leaves_the_old_server():
    given = server.given(*running, ASKED)
    before = server.given(*running).state
    failed = ActionFailed(task=Task.REBUILD_DISK, fault=Fault(message="no image"))
    after = given.when(seen(remade=0, fault="no image")).then(failed).state
    assert (after.image, after.rebuilt, after.rebuild) == (before.image, 0, None)
    assert after.rebuilds == 1


def test_afterwards_it_is_the_new_one_whatever_it_does():
    given = server.given(*running, ASKED)
    failed = ActionFailed(task=Task.REBUILD_DISK, fault=Fault(message="it does not start"))
    off = PowerObserved(power_state=PowerState.SHUTDOWN)
    found = seen(power_state=PowerState.SHUTDOWN, fault="it does not start")
    after = given.when(found).then(ServerRebuilt(), failed, off).state
    assert (after.image.id, after.rebuilt, after.vm_state, after.task) == (OTHER, 1, VmState.STOPPED, None)
    assert after.fault.message == "it does not start"


def test_one_that_is_being_deleted_is_not_rebuilt():
    server.given(*running, DeletionRequested()).when(RebuildServer(rebuild=WANTED)).refused(
        "task_state deleting", Conflict
    )


def test_another_wish_meanwhile_is_refused_not_passed_over():
    given = server.given(*running, ASKED)
    given.when(RebuildServer(rebuild=WANTED, secret_id="s")).then()
    another = Rebuild(image=ServerImage(id=OTHER), keep_ephemeral=True)
    for command in (RebuildServer(rebuild=another), RebuildServer(rebuild=WANTED, request_id="req-2")):
        given.when(command).refused(f"task_state {Task.REBUILD_DISK}", Conflict)


async def rebuilt(world, client, id, **fields):
    version = fields.pop("version", "latest")
    body = {"rebuild": {"imageRef": OTHER} | fields}
    made = (await client("POST", f"/servers/{id}/action", body, expect=202, version=version))["server"]
    return made, await world.becomes(client, id, "ACTIVE")


async def test_a_server_has_a_new_disk_and_what_was_said_with_it(world):
    client = await world.client()
    await world.image(OTHER)
    id = (await world.boot(client, metadata={"old": "1"}))["id"]
    told = {"name": "new", "metadata": {"k": "v"}, "description": "d", "hostname": "new.example"}
    user_data = base64.b64encode(b"#!/bin/sh").decode()
    made, shown = await rebuilt(world, client, id, adminPass="secret", user_data=user_data, **told)
    assert (made["image"]["id"], made["adminPass"], made["status"]) == (OTHER, "secret", "REBUILD")
    assert (shown["image"]["id"], shown["name"], shown["metadata"]) == (OTHER, "new", {"k": "v"})
    assert (shown["description"], shown["OS-EXT-SRV-ATTR:hostname"]) == ("d", "new.example")
    admin = await world.client("admin")
    assert (await admin("GET", f"/servers/{id}"))["server"]["OS-EXT-SRV-ATTR:user_data"] == user_data
    driver = world.steered.drivers[(await world.steered.state(id)).host]
    assert driver.domains[id].seen.remade == 1
    actions = (await client("GET", f"/servers/{id}/os-instance-actions"))["instanceActions"]
    assert [it["action"] for it in actions] == ["rebuild", "create"]
    await rebuilt(world, client, id)
    assert driver.domains[id].seen.remade == 2


async def test_what_fails_is_told_as_failed_whatever_else_was_found(world):
    client = await world.client()
    await world.image(OTHER)
    id = (await world.boot(client))["id"]
    driver = world.steered.drivers[(await world.steered.state(id)).host]
    driver.failure = lambda step: "it does not start" if isinstance(step, Start) else None
    await client("POST", f"/servers/{id}/action", {"rebuild": {"imageRef": OTHER}}, expect=202)
    await world.becomes(client, id, "SHUTOFF")
    path = f"/servers/{id}/os-instance-actions"
    newest, *_ = (await client("GET", path))["instanceActions"]
    [part] = (await client("GET", f"{path}/{newest['request_id']}"))["instanceAction"]["events"]
    assert (newest["action"], newest["message"], part["result"]) == ("rebuild", "Error", "Error")


async def test_a_stopped_one_stays_stopped(world):
    client = await world.client()
    await world.image(OTHER)
    id = (await world.boot(client))["id"]
    await client("POST", f"/servers/{id}/action", {"os-stop": None}, expect=202)
    await world.becomes(client, id, "SHUTOFF")
    await client("POST", f"/servers/{id}/action", {"rebuild": {"imageRef": OTHER}}, expect=202)
    assert (await world.becomes(client, id, "SHUTOFF"))["image"]["id"] == OTHER


async def test_a_host_that_cannot_leaves_it_as_it_was(world):
    client = await world.client()
    await world.image(OTHER)
    id = (await world.boot(client))["id"]
    driver = world.steered.drivers[(await world.steered.state(id)).host]
    driver.failure = lambda step: "no room" if isinstance(step, Remake) else None
    _, shown = await rebuilt(world, client, id)
    assert (shown["image"]["id"], shown["OS-EXT-STS:power_state"]) == (IMAGE, 1)
    assert (await world.steered.state(id)).fault.message.endswith("no room")
    driver.failure = None
    _, shown = await rebuilt(world, client, id)
    assert shown["image"]["id"] == OTHER
    assert (await world.steered.state(id)).fault is None


@pytest.mark.parametrize(
    "body, version, words",
    [
        ({}, "latest", "imageRef"),
        ({"imageRef": clock.uuid4()}, "latest", "could not be found"),
        ({"imageRef": IMAGE, "hostname": "h"}, "2.89", "hostname"),
        ({"imageRef": IMAGE, "user_data": "x" * 8}, "2.56", "user_data"),
        ({"imageRef": IMAGE, "user_data": "?"}, "latest", "base64"),
        ({"imageRef": IMAGE, "key_name": "nobody's"}, "latest", "key_name"),
        ({"imageRef": IMAGE, "name": " x"}, "latest", "name"),
        ({"imageRef": IMAGE, "personality": []}, "2.57", "personality"),
        ({"imageRef": IMAGE, "metadata": {"a" * 256: "b"}}, "latest", "metadata"),
        ({"imageRef": IMAGE, "preserve_ephemeral": "maybe"}, "latest", "preserve_ephemeral"),
    ],
)
async def test_what_cannot_be_is_refused(world, body, version, words):
    client = await world.client(version=version)
    id = (await world.boot(client))["id"]
    refused = await client("POST", f"/servers/{id}/action", {"rebuild": body}, expect=400)
    assert words in refused["badRequest"]["message"]
    assert (await world.steered.state(id)).task is None
