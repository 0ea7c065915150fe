"""The promises of rescuing: another disk to boot from, and the way back."""

import pytest
from msgspec.structs import replace

from agents.hypervisor.plan import Rescue, Unrescue
from bus.execute import Wish
from handlers.compute.desired import domain
from handlers.image.image import IMAGES
from schema.compute.task import VmState
from schema.image.image import DeleteImage
from tests.compute.world import IMAGE

OTHER = "22222222-2222-4222-8222-222222222222"


@pytest.fixture
async def ship(world):
    """Somebody with a server, its host, and a rescue image."""
    client = await world.client()
    await world.image(OTHER)
    id = (await world.boot(client))["id"]
    host = world.steered.drivers[(await world.steered.state(id)).host]
    return world, client, id, host


async def asks(client, id, action, body=None, expect=202):
    return await client("POST", f"/servers/{id}/action", {action: body}, expect=expect)


async def test_a_server_boots_from_another_disk_and_comes_back(ship):
    world, client, id, host = ship
    said = await asks(client, id, "rescue", {"rescue_image_ref": OTHER, "adminPass": "secret"}, 200)
    assert said == {"adminPass": "secret"}
    shown = await world.becomes(client, id, "RESCUE")
    assert (shown["OS-EXT-STS:vm_state"], shown["image"]["id"]) == ("rescued", IMAGE)
    seen = host.domains[id].seen
    assert (seen.rescued, seen.power) == (True, "running")
    await asks(client, id, "unrescue")
    await world.becomes(client, id, "ACTIVE")
    seen = host.domains[id].seen
    assert (seen.rescued, seen.power) == (False, "running")
    assert (await world.steered.state(id)).rescue_image is None
    actions = (await client("GET", f"/servers/{id}/os-instance-actions"))["instanceActions"]
    assert [it["action"] for it in actions] == ["unrescue", "rescue", "create"]


async def test_as_what_disk_it_stands_is_for_the_rescue_image_to_say(ship):
    world, client, id, _host = ship
    await world.image("33333333-3333-4333-8333-333333333333", properties={"hw_rescue_bus": "scsi"})
    assert "hw_rescue_bus" not in domain(await world.steered.state(id)).properties
    await asks(client, id, "rescue", {"rescue_image_ref": "33333333-3333-4333-8333-333333333333"}, 200)
    await world.becomes(client, id, "RESCUE")
    rescued = await world.steered.state(id)
    assert domain(rescued).properties["hw_rescue_bus"] == "scsi"
    own = replace(rescued, image=rescued.rescue_image, rescue_image=None)
    assert "hw_rescue_bus" not in domain(own).properties


async def test_its_own_image_will_do_and_a_stopped_server_too(ship):
    world, client, id, host = ship
    await asks(client, id, "os-stop")
    await world.becomes(client, id, "SHUTOFF")
    assert (await asks(client, id, "rescue", expect=200))["adminPass"]
    await world.becomes(client, id, "RESCUE")
    assert host.domains[id].seen.rescued


async def test_it_stays_rescued_when_its_image_is_gone_and_its_host_hears_everything_anew(ship):
    world, client, id, host = ship
    await asks(client, id, "rescue", {"rescue_image_ref": OTHER}, 200)
    await world.becomes(client, id, "RESCUE")
    await world.cloud.executor.execute(Wish(IMAGES, OTHER, DeleteImage()))
    acts = []
    host.failure = acts.append
    name = (await world.steered.state(id)).host
    await world.steered.kill(name)
    await world.steered.host(name)
    await world.steered.reactor.telling.tell_everything(name)
    server = await world.steered.state(id)
    await world.steered.reactor.telling.tell([server])
    await asks(client, id, "unrescue")
    await world.becomes(client, id, "ACTIVE")
    assert [type(it) for it in acts if isinstance(it, Rescue | Unrescue)] == [Unrescue]


async def test_a_host_that_cannot_leaves_it_as_it_was(ship):
    world, client, id, host = ship
    host.failure = lambda step: "no room" if isinstance(step, Rescue) else None
    await asks(client, id, "rescue", {"rescue_image_ref": OTHER}, 200)
    await world.becomes(client, id, "ACTIVE")
    server = await world.steered.state(id)
    assert server.fault.message.endswith("no room")
    assert (server.vm_state, server.rescue_image) == (VmState.ACTIVE, None)
    assert not host.domains[id].seen.rescued


@pytest.mark.parametrize(
    "action", [{"reboot": {"type": "HARD"}}, {"rebuild": {"imageRef": IMAGE}}, {"rescue": None}, {"pause": None}]
)
async def test_what_a_rescued_server_cannot_do_is_refused(ship, action):
    world, client, id, _ = ship
    await asks(client, id, "unrescue", expect=409)
    await asks(client, id, "rescue", expect=200)
    await world.becomes(client, id, "RESCUE")
    refused = await client("POST", f"/servers/{id}/action", action, expect=409)
    assert "vm_state rescued" in refused["conflictingRequest"]["message"]
    await client("DELETE", f"/servers/{id}", expect=204)
    await world.gone(client, id)


async def test_an_image_that_is_not_there_is_refused(ship):
    _, client, id, _ = ship
    refused = await asks(client, id, "rescue", {"rescue_image_ref": "00000000-0000-4000-8000-000000000000"}, 400)
    assert "could not be found" in refused["badRequest"]["message"]
