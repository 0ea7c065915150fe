"""The promises of resizing and of moving while off: it is of the new size there, or what and where it was."""

import asyncio

import msgspec
import pytest

from agents.hypervisor.plan import Define, Resize, Start, Stop
from api.compute.service import SERVICE
from api.log.placing import decisions
from bus.execute import Wish
from handlers.compute.flavor import FLAVORS
from schema.compute.flavor import CreateFlavor
from schema.compute.server import SERVER
from schema.placement.consumer import CONSUMER
from schema.placement.provider import PROVIDER
from tests.compute.steering import Steered
from tests.compute.world import IMAGE, PROJECT, World
from tests.serving import serving


class Shire(World):
    async def act(self, client, id, word, body=None, *, expect=202, **fields):
        return await client("POST", f"/servers/{id}/action", {word: body}, expect=expect, **fields)

    async def migration(self, admin, id):
        [newest, *_] = (await admin("GET", f"/os-migrations?instance_uuid={id}"))["migrations"]
        return newest

    async def reaches(self, admin, id, status):
        """Its newest migration, once it has that status."""
        async with asyncio.timeout(20):
            while True:
                migration = await self.migration(admin, id)
                if migration["status"] == status:
                    return migration
                await asyncio.sleep(0.01)

    async def held(self):
        """Host → consumer → vCPUs there."""
        providers = await self.cloud.documents.find(PROVIDER)
        return {
            it.state.name: {id: dict(held)["VCPU"] for id, held in it.state.claims.items()}
            for it in providers
            if it.state.claims
        }

    async def quota(self, client):
        limits = (await client("GET", f"/os-quota-sets/{PROJECT}/detail"))["quota_set"]
        return limits["cores"]["in_use"], limits["ram"]["in_use"]

    def guests(self, id):
        """Host → what it holds of the server."""
        return {name: it.domains[id].seen.power for name, it in self.steered.drivers.items() if id in it.domains}

    async def settles(self, so):
        async with asyncio.timeout(10):
            while not so():  # noqa: ASYNC110  it has no event of its own
                await asyncio.sleep(0.01)


@pytest.fixture
async def shire(settings, fresh_database):
    steering = []
    settings = msgspec.structs.replace(settings, lease_seconds=1.0, fence_seconds=0.0, allow_resize_to_same_host=False)
    prepare = lambda cloud: steering.append(Steered(cloud))  # noqa: E731
    async with serving(settings, fresh_database, [SERVICE], prepare) as served, steering[0] as steered:
        it = Shire(served, steered)
        await steered.host("h1")
        await it.image(IMAGE)
        for id, vcpus, ram, disk in (("1", 1, 512, 1), ("2", 2, 1024, 2), ("9", 9000, 512, 1)):
            flavor = CreateFlavor(name=f"size-{id}", vcpus=vcpus, ram_mb=ram, disk_gb=disk)
            await served.cloud.executor.execute(Wish(FLAVORS, id, flavor))
        yield it


async def test_a_server_is_of_another_size_on_another_host_and_stays_when_that_is_confirmed(shire):
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    disk = shire.steered.drivers["h1"].domains[id].disk
    await shire.steered.host("h2")
    await shire.act(member, id, "resize", {"flavorRef": "2"})
    shown = await shire.becomes(admin, id, "VERIFY_RESIZE")
    assert (shown["flavor"]["vcpus"], shown["OS-EXT-SRV-ATTR:host"]) == (2, "h2")
    assert (shown["OS-EXT-STS:vm_state"], shown["OS-EXT-STS:task_state"]) == ("resized", None)
    assert shown["progress"] == 0
    migration = await shire.migration(admin, id)
    assert (migration["status"], migration["migration_type"]) == ("finished", "resize")
    assert (migration["source_compute"], migration["dest_compute"]) == ("h1", "h2")
    assert (migration["old_instance_type_id"], migration["new_instance_type_id"]) == (1, 2)
    assert shire.guests(id) == {"h1": "stopped", "h2": "running"}
    assert shire.steered.drivers["h2"].domains[id].disk == disk
    assert await shire.held() == {"h1": {migration["uuid"]: 1}, "h2": {id: 2}}
    assert await shire.quota(member) == (2, 1024)
    await shire.act(member, id, "confirmResize", expect=204)
    await shire.becomes(admin, id, "ACTIVE")
    assert (await shire.migration(admin, id))["status"] == "confirmed"
    assert await shire.held() == {"h2": {id: 2}}
    await shire.settles(lambda: shire.guests(id) == {"h2": "running"})
    actions = (await member("GET", f"/servers/{id}/os-instance-actions"))["instanceActions"]
    assert [it["action"] for it in actions] == ["confirmResize", "resize", "create"]
    await member("DELETE", f"/servers/{id}", expect=204)
    await shire.gone(member, id)
    await shire.settles(lambda: shire.guests(id) == {})
    assert not await shire.cloud.documents.find(CONSUMER)


async def test_it_goes_back_to_what_and_where_it_was(shire):
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    await shire.steered.host("h2")
    await shire.act(member, id, "resize", {"flavorRef": "2"})
    await shire.becomes(admin, id, "VERIFY_RESIZE")
    await shire.act(member, id, "revertResize")
    shown = await shire.becomes(admin, id, "ACTIVE")
    assert (shown["flavor"]["vcpus"], shown["OS-EXT-SRV-ATTR:host"]) == (1, "h1")
    assert (await shire.migration(admin, id))["status"] == "reverted"
    assert shire.guests(id) == {"h1": "running"}
    assert await shire.held() == {"h1": {id: 1}}
    assert await shire.quota(member) == (1, 512)
    await shire.act(member, id, "confirmResize", expect=409)


async def test_one_that_is_off_stays_off(shire):
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    await shire.steered.host("h2")
    await shire.act(member, id, "os-stop")
    await shire.becomes(member, id, "SHUTOFF")
    await shire.act(admin, id, "migrate", {"host": "h2"})
    shown = await shire.becomes(admin, id, "VERIFY_RESIZE")
    assert (shown["OS-EXT-SRV-ATTR:host"], shown["OS-EXT-STS:power_state"]) == ("h2", 4)
    assert shire.guests(id) == {"h1": "stopped", "h2": "stopped"}
    assert (await shire.migration(admin, id))["migration_type"] == "migration"
    await shire.act(member, id, "revertResize")
    shown = await shire.becomes(admin, id, "SHUTOFF")
    assert shown["OS-EXT-SRV-ATTR:host"] == "h1"
    assert shire.guests(id) == {"h1": "stopped"}
    await shire.act(admin, id, "migrate", {"host": "h2"})
    await shire.becomes(admin, id, "VERIFY_RESIZE")
    await shire.act(member, id, "confirmResize", expect=204)
    await shire.becomes(admin, id, "SHUTOFF")
    await shire.settles(lambda: shire.guests(id) == {"h2": "stopped"})


async def test_it_becomes_of_another_size_where_it_is(shire, monkeypatch):
    member, admin = await shire.client(), await shire.client("admin")
    shire.cloud.settings = msgspec.structs.replace(shire.cloud.settings, allow_resize_to_same_host=True)
    id = (await shire.boot(member))["id"]
    driver = shire.steered.drivers["h1"]
    disk = driver.domains[id].disk
    await shire.act(member, id, "resize", {"flavorRef": "2"})
    shown = await shire.becomes(admin, id, "VERIFY_RESIZE")
    assert (shown["flavor"]["vcpus"], shown["OS-EXT-SRV-ATTR:host"]) == (2, "h1")
    assert (driver.domains[id].vcpus, driver.domains[id].seen.kept, driver.domains[id].disk_before) == (2, True, disk)
    held = (await shire.held())["h1"]
    assert sorted(held.values()) == [1, 2]
    await shire.act(member, id, "revertResize")
    await shire.becomes(admin, id, "ACTIVE")
    assert (driver.domains[id].vcpus, driver.domains[id].seen.kept) == (1, False)
    assert await shire.held() == {"h1": {id: 1}}
    await shire.act(member, id, "resize", {"flavorRef": "2"})
    await shire.becomes(admin, id, "VERIFY_RESIZE")
    await shire.act(member, id, "confirmResize", expect=204)
    await shire.becomes(admin, id, "ACTIVE")
    await shire.settles(lambda: not driver.domains[id].seen.kept)
    assert driver.domains[id].vcpus == 2
    assert await shire.held() == {"h1": {id: 2}}


@pytest.mark.parametrize("step", [Stop, Define])
async def test_a_fault_on_the_way_leaves_what_was(shire, step):
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    await shire.steered.host("h2")
    for driver in shire.steered.drivers.values():
        driver.failure = lambda it: "the disk is full" if isinstance(it, step) else None
    await shire.act(member, id, "resize", {"flavorRef": "2"})
    await shire.reaches(admin, id, "error")
    shown = await shire.becomes(admin, id, "ACTIVE")
    assert (shown["flavor"]["vcpus"], shown["OS-EXT-SRV-ATTR:host"]) == (1, "h1")
    await shire.settles(lambda: shire.guests(id) == {"h1": "running"})
    assert await shire.held() == {"h1": {id: 1}}
    assert await shire.quota(member) == (1, 512)


async def test_a_fault_where_it_is_leaves_what_was(shire):
    member, admin = await shire.client(), await shire.client("admin")
    shire.cloud.settings = msgspec.structs.replace(shire.cloud.settings, allow_resize_to_same_host=True)
    id = (await shire.boot(member))["id"]
    shire.steered.drivers["h1"].failure = lambda it: "no space" if isinstance(it, Resize) else None
    await shire.act(member, id, "resize", {"flavorRef": "2"})
    await shire.reaches(admin, id, "error")
    await shire.becomes(admin, id, "ACTIVE")
    assert await shire.held() == {"h1": {id: 1}}
    await shire.settles(lambda: shire.guests(id) == {"h1": "running"})


async def test_without_room_it_stays_as_it_is(shire):
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    await shire.act(admin, id, "migrate")
    await shire.reaches(admin, id, "error")
    shown = await shire.becomes(admin, id, "ACTIVE")
    assert shown["OS-EXT-SRV-ATTR:host"] == "h1"
    assert await shire.held() == {"h1": {id: 1}}
    stream = await shire.cloud.log.read_stream(SERVER.stream(id), 0)
    [placed, failed] = decisions(stream)
    assert (placed["host"], failed["host"]) == ("h1", None)
    assert "Of 1 host" in failed["words"][0]


async def test_what_makes_no_sense_is_refused(shire):
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    for body, text in (
        ({"flavorRef": "1"}, "must change flavor"),
        ({"flavorRef": "77"}, "could not be found"),
    ):
        answer = await shire.act(member, id, "resize", body, expect=400)
        assert text in answer["badRequest"]["message"]
    await shire.act(member, id, "resize", {"flavorRef": "9"}, expect=403)
    await shire.act(member, id, "resize", {}, expect=400)
    await shire.act(member, id, "migrate", expect=403)
    for host in ("h1", "nowhere"):
        await shire.act(admin, id, "migrate", {"host": host}, expect=400)
    for word in ("confirmResize", "revertResize"):
        await shire.act(member, id, word, expect=409)
    assert await shire.quota(member) == (1, 512)


async def test_how_its_disk_is_partitioned_changes_with_its_size_or_not_at_all(shire):
    await shire.steered.host("h2")
    client = await shire.client()
    id = (await shire.boot(client))["id"]
    wanted = {"flavorRef": "2", "OS-DCF:diskConfig": "AUTO"}
    await shire.act(client, id, "pause", None)
    await shire.becomes(client, id, "PAUSED")
    await shire.act(client, id, "resize", wanted, expect=409)
    assert (await shire.steered.state(id)).disk_config == "MANUAL"
    await shire.act(client, id, "unpause", None)
    await shire.becomes(client, id, "ACTIVE")
    await shire.act(client, id, "resize", wanted)
    assert (await shire.becomes(client, id, "VERIFY_RESIZE"))["OS-DCF:diskConfig"] == "AUTO"


async def test_it_is_confirmed_when_nobody_said_otherwise_for_long_enough(shire):
    member, admin = await shire.client(), await shire.client("admin")
    shire.cloud.settings = msgspec.structs.replace(shire.cloud.settings, resize_confirm_window=0.2)
    id = (await shire.boot(member))["id"]
    await shire.steered.host("h2")
    await shire.act(member, id, "resize", {"flavorRef": "2"})
    await shire.reaches(admin, id, "confirmed")
    await shire.becomes(member, id, "ACTIVE")


async def test_one_that_is_deleted_on_the_way_leaves_nothing(shire):
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    await shire.steered.host("h2")
    await shire.act(member, id, "resize", {"flavorRef": "2"})
    await shire.becomes(admin, id, "VERIFY_RESIZE")
    await member("DELETE", f"/servers/{id}", expect=204)
    await shire.gone(member, id)
    await shire.settles(lambda: shire.guests(id) == {})
    assert await shire.held() == {}
    assert await shire.quota(member) == (0, 0)


async def test_the_way_back_of_one_that_is_off_is_told_to_be_over(shire):
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    await shire.steered.host("h2")
    await shire.act(member, id, "os-stop")
    await shire.becomes(member, id, "SHUTOFF")
    await shire.act(member, id, "resize", {"flavorRef": "2"})
    await shire.becomes(admin, id, "VERIFY_RESIZE")
    await shire.act(member, id, "revertResize")
    await shire.becomes(member, id, "SHUTOFF")
    path = f"/servers/{id}/os-instance-actions"
    newest, *_ = (await member("GET", path))["instanceActions"]
    [part] = (await member("GET", f"{path}/{newest['request_id']}"))["instanceAction"]["events"]
    assert (newest["action"], part["result"], part["finish_time"] is not None) == ("revertResize", "Success", True)


@pytest.mark.parametrize("in_place", [False, True])
async def test_one_that_is_back_and_does_not_start_says_so(shire, in_place):
    """As with Nova: its owner looks for an ACTIVE server, and must not wait for one that stays off."""
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    if in_place:
        shire.cloud.settings = msgspec.structs.replace(shire.cloud.settings, allow_resize_to_same_host=True)
    else:
        await shire.steered.host("h2")
    await shire.act(member, id, "resize", {"flavorRef": "2"})
    await shire.becomes(admin, id, "VERIFY_RESIZE")
    broken = shire.steered.drivers["h1"]
    broken.failure = lambda step: "no memory left" if isinstance(step, Start) else None
    await shire.act(member, id, "revertResize")
    shown = await shire.becomes(member, id, "ERROR")
    assert (shown["fault"]["message"], shown["OS-EXT-STS:power_state"]) == ("no memory left", 4)
    assert (shown["flavor"]["vcpus"], shire.guests(id), await shire.held()) == (1, {"h1": "stopped"}, {"h1": {id: 1}})
    assert await shire.quota(member) == (1, 512)
    path = f"/servers/{id}/os-instance-actions"
    newest, *_ = (await member("GET", path))["instanceActions"]
    [part] = (await admin("GET", f"{path}/{newest['request_id']}"))["instanceAction"]["events"]
    assert (newest["action"], part["result"], part["details"]) == ("revertResize", "Error", "no memory left")
    broken.failure = None
    await shire.act(member, id, "reboot", {"type": "HARD"})
    assert "fault" not in await shire.becomes(member, id, "ACTIVE")


async def test_it_goes_back_from_a_host_that_is_lost(shire):
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    await shire.steered.host("h2", fence=True)
    await shire.act(member, id, "resize", {"flavorRef": "2"})
    await shire.becomes(admin, id, "VERIFY_RESIZE")
    await shire.steered.kill("h2")
    await shire.steered.until(lambda: not shire.steered.reactor.telling.alive("h2"))
    await shire.act(member, id, "revertResize")
    shown = await shire.becomes(admin, id, "ACTIVE")
    assert (shown["OS-EXT-SRV-ATTR:host"], shown["flavor"]["vcpus"]) == ("h1", 1)
    assert await shire.held() == {"h1": {id: 1}}
    await shire.steered.host("h2")
    await shire.settles(lambda: shire.guests(id) == {"h1": "running"})


async def test_a_copy_whose_host_is_lost_is_not_started_twice(shire):
    """It may run there: where it came from it is off, until somebody who knows says otherwise."""
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    lost = await shire.steered.host("h2")
    lost.delay = lambda step: 30.0 if isinstance(step, Define) else 0.0
    await shire.act(member, id, "resize", {"flavorRef": "2"})
    await shire.settles(lambda: shire.guests(id) == {"h1": "stopped"})
    await shire.reaches(admin, id, "post-migrating")
    await shire.steered.kill("h2")
    shown = await shire.becomes(admin, id, "SHUTOFF")
    assert (shown["OS-EXT-SRV-ATTR:host"], shown["flavor"]["vcpus"]) == ("h1", 1)
    assert await shire.held() == {"h1": {id: 1}}
    await shire.act(member, id, "os-start")
    await shire.becomes(member, id, "ACTIVE")
