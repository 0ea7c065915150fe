"""The promises of live migration: it runs all the while, on one host, and its ports with it."""

import asyncio

import pytest

from agents.hypervisor.driver import StepFailed
from agents.hypervisor.plan import Prepare, Send
from bus.execute import Wish
from handlers.compute.flavor import FLAVORS
from schema.compute.flavor import CreateFlavor
from schema.placement.consumer import CONSUMER
from tests.compute.networked import networked
from tests.compute.test_resize import shire  # noqa: F401  a fixture
from tests.compute.world import OTHER, PROJECT


async def live(cloud, admin, id, host=None, **fields):
    return await cloud.act(admin, id, "os-migrateLive", {"host": host, "block_migration": "auto"}, **fields)


async def ends(cloud, admin, id):
    async with asyncio.timeout(15):
        while True:
            migration = await cloud.migration(admin, id)
            if migration["status"] in {"completed", "error", "cancelled"}:
                return migration
            await asyncio.sleep(0.01)


async def test_a_server_goes_to_another_host_while_it_runs(shire):  # noqa: F811
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    disk = shire.steered.drivers["h1"].domains[id].disk
    await shire.steered.host("h2")
    await live(shire, admin, id)
    migration = await ends(shire, admin, id)
    assert (migration["status"], migration["migration_type"]) == ("completed", "live-migration")
    shown = await shire.becomes(admin, id, "ACTIVE")
    assert (shown["OS-EXT-SRV-ATTR:host"], shown["OS-EXT-STS:power_state"]) == ("h2", 1)
    await shire.settles(lambda: shire.guests(id) == {"h2": "running"})
    assert shire.steered.drivers["h2"].domains[id].disk == disk
    assert await shire.held() == {"h2": {id: 1}}
    await live(shire, admin, id, "h1")
    await ends(shire, admin, id)
    await shire.becomes(admin, id, "ACTIVE")
    await shire.settles(lambda: shire.guests(id) == {"h1": "running"})
    assert await shire.held() == {"h1": {id: 1}}
    actions = (await member("GET", f"/servers/{id}/os-instance-actions"))["instanceActions"]
    assert [it["action"] for it in actions] == ["live-migration", "live-migration", "create"]


async def test_a_paused_one_arrives_paused(shire):  # noqa: F811
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    await shire.steered.host("h2")
    await shire.act(member, id, "pause")
    await shire.becomes(member, id, "PAUSED")
    await live(shire, admin, id, "h2")
    await ends(shire, admin, id)
    await shire.becomes(admin, id, "PAUSED")
    await shire.settles(lambda: shire.guests(id) == {"h2": "paused"})


@pytest.mark.parametrize("step", [Prepare, Send])
async def test_a_fault_on_the_way_leaves_it_running_where_it_was(shire, step):  # noqa: F811
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    await shire.steered.host("h2")
    for driver in shire.steered.drivers.values():
        driver.failure = lambda it: "the disk is full" if isinstance(it, step) else None
    await live(shire, admin, id)
    assert (await ends(shire, admin, id))["status"] == "error"
    shown = await shire.becomes(admin, id, "ACTIVE")
    assert shown["OS-EXT-SRV-ATTR:host"] == "h1"
    await shire.settles(lambda: shire.guests(id) == {"h1": "running"})
    assert await shire.held() == {"h1": {id: 1}}


async def test_a_host_that_refuses_the_way_says_why(shire, monkeypatch):  # noqa: F811
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    await shire.steered.host("h2")

    async def refuse(server_id, way):
        raise StepFailed("its disks are on fire")

    monkeypatch.setattr(shire.steered.drivers["h1"], "open_passage", refuse)
    await live(shire, admin, id)
    assert (await ends(shire, admin, id))["status"] == "error"
    await shire.becomes(admin, id, "ACTIVE")
    assert "on fire" in (await shire.steered.state(id)).fault.message
    assert await shire.held() == {"h1": {id: 1}}


async def test_it_is_watched_called_off_and_tried_again(shire):  # noqa: F811
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    await shire.steered.host("h2")
    sending = shire.steered.drivers["h1"]
    sending.delay = lambda step: 30.0 if isinstance(step, Send) else 0.0
    await live(shire, admin, id)
    await shire.reaches(admin, id, "running")
    shown = await admin("GET", f"/servers/{id}")
    assert (shown["server"]["status"], shown["server"]["OS-EXT-STS:task_state"]) == ("MIGRATING", "migrating")
    assert [it["id"] for it in (await admin("GET", "/servers?status=MIGRATING&all_tenants=1"))["servers"]] == [id]
    [seen] = (await admin("GET", f"/servers/{id}/migrations"))["migrations"]
    assert (seen["status"], seen["memory_total_bytes"], seen["source_compute"]) == ("running", 512 * 1024**2, "h1")
    path = f"/servers/{id}/migrations/{seen['id']}"
    await admin("POST", f"{path}/action", {"force_complete": None}, expect=202)
    await shire.act(member, id, "os-stop", expect=409)
    await admin("DELETE", path, expect=202)
    assert (await ends(shire, admin, id))["status"] == "cancelled"
    await shire.becomes(admin, id, "ACTIVE")
    await shire.settles(lambda: shire.guests(id) == {"h1": "running"})
    assert await shire.held() == {"h1": {id: 1}}
    await admin("DELETE", path, expect=404)
    sending.delay = None
    await live(shire, admin, id)
    assert (await ends(shire, admin, id))["status"] == "completed"


async def test_a_lost_target_leaves_it_where_it_was(shire):  # noqa: F811
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    waiting = await shire.steered.host("h2")
    waiting.delay = lambda step: 30.0 if isinstance(step, Prepare) else 0.0
    await live(shire, admin, id)
    await shire.reaches(admin, id, "preparing")
    await shire.steered.kill("h2")
    assert (await ends(shire, admin, id))["status"] == "error"
    await shire.becomes(admin, id, "ACTIVE")
    assert await shire.held() == {"h1": {id: 1}}


async def test_one_whose_source_is_lost_waits_for_nobody(shire):  # noqa: F811
    """It is the lost host's again, so that recovery may build it elsewhere, and the other keeps nothing of it."""
    member, admin = await shire.client(), await shire.client("admin")
    await shire.steered.kill("h1")
    sending = await shire.steered.host("h1", fence=True)
    id = (await shire.boot(member))["id"]
    await shire.steered.host("h2", fence=True)
    sending.delay = lambda step: 30.0 if isinstance(step, Send) else 0.0
    await live(shire, admin, id)
    await shire.reaches(admin, id, "running")
    await shire.steered.kill("h1")
    assert (await ends(shire, admin, id))["status"] == "error"
    server = await shire.steered.state(id)
    assert (server.host, server.task, server.move) == ("h1", None, None)
    await shire.settles(lambda: id not in shire.steered.drivers["h2"].domains)
    assert await shire.held() == {"h1": {id: 1}}


async def test_one_that_is_deleted_meanwhile_leaves_nothing(shire):  # noqa: F811
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    await shire.steered.host("h2")
    shire.steered.drivers["h1"].delay = lambda step: 30.0 if isinstance(step, Send) else 0.0
    await live(shire, admin, id)
    await shire.reaches(admin, id, "running")
    await member("DELETE", f"/servers/{id}", expect=204)
    await shire.gone(member, id)
    await shire.settles(lambda: shire.guests(id) == {})
    assert not await shire.cloud.documents.find(CONSUMER)


async def test_what_makes_no_sense_is_refused(shire):  # noqa: F811
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    await live(shire, member, id, expect=403)
    for host in ("h1", "nowhere"):
        await live(shire, admin, id, host, expect=400)
    for body in ({"host": None, "block_migration": False}, {"host": None}, {"block_migration": "auto"}):
        await shire.act(admin, id, "os-migrateLive", body, expect=400)
    early = {"host": None, "block_migration": True, "disk_over_commit": False}
    await shire.act(admin, id, "os-migrateLive", early, expect=400)
    await shire.act(admin, id, "os-migrateLive", early, version="2.24")
    assert (await ends(shire, admin, id))["status"] == "error"
    await shire.act(member, id, "os-stop")
    await shire.becomes(member, id, "SHUTOFF")
    await live(shire, admin, id, expect=409)


async def test_its_ports_go_with_it(settings, fresh_database):
    async with networked(settings, fresh_database) as it:
        member, admin = await it.client(), await it.client("admin")
        shown = await it.boot(member, networks=[{"uuid": await it.network()}])
        id, source = shown["id"], (await admin("GET", f"/servers/{shown['id']}"))["server"]["OS-EXT-SRV-ATTR:host"]
        target = "h2" if source == "h1" else "h1"
        body = {"host": target, "block_migration": "auto"}
        await admin("POST", f"/servers/{id}/action", {"os-migrateLive": body}, expect=202)
        async with asyncio.timeout(15):
            while True:
                [port] = await it.ports(device_id=id)
                if port.host == target and port.wired and not port.inactive_bindings:
                    break
                await asyncio.sleep(0.01)
        assert (await it.becomes(admin, id, "ACTIVE"))["OS-EXT-SRV-ATTR:host"] == target
        flavor = CreateFlavor(name="large", vcpus=2, ram_mb=1024, disk_gb=1)
        await it.cloud.executor.execute(Wish(FLAVORS, "2", flavor))
        for host in (source, target):
            await admin("POST", f"/servers/{id}/action", {"migrate": {"host": host}}, expect=202)
            await it.becomes(admin, id, "VERIFY_RESIZE")
            [port] = await it.ports(device_id=id)
            assert port.host == host
            word = "confirmResize" if host == source else "revertResize"
            await admin("POST", f"/servers/{id}/action", {word: None}, expect=204 if host == source else 202)
            await it.becomes(admin, id, "ACTIVE")
            [port] = await it.ports(device_id=id)
            assert port.host == source
        await member("DELETE", f"/servers/{id}", expect=204)
        await it.gone(member, id)
        assert await it.nothing_left()


async def test_a_projects_manager_moves_its_servers_and_learns_of_no_host(shire):  # noqa: F811
    manager, admin = await shire.client("manager"), await shire.client("admin")
    id = (await shire.boot(manager))["id"]
    await shire.steered.host("h2")
    anywhere = {"host": None, "block_migration": "auto"}
    await shire.act(manager, id, "os-migrateLive", anywhere | {"host": "h2"}, expect=403)
    await shire.act(manager, id, "migrate", {"host": "h2"}, expect=403)
    stranger = await shire.client("manager", project=OTHER)
    await shire.act(stranger, id, "os-migrateLive", anywhere, expect=404)
    await shire.act(await shire.client(), id, "os-migrateLive", anywhere, expect=403)
    shire.steered.drivers["h1"].delay = lambda step: 30.0 if isinstance(step, Send) else 0.0
    await shire.act(manager, id, "os-migrateLive", anywhere)
    await shire.reaches(admin, id, "running")
    [seen] = (await manager("GET", f"/servers/{id}/migrations"))["migrations"]
    assert (seen["status"], seen["source_compute"], seen["dest_compute"]) == ("running", None, None)
    await manager("GET", f"/servers/{id}/migrations/{seen['id']}", expect=403)
    await manager("DELETE", f"/servers/{id}/migrations/{seen['id']}", expect=202)
    await shire.becomes(manager, id, "ACTIVE")
    await manager("GET", "/os-migrations", expect=403)
    await manager("GET", f"/os-migrations?project_id={OTHER}", expect=403)
    [its] = (await manager("GET", f"/os-migrations?project_id={PROJECT}"))["migrations"]
    assert (its["instance_uuid"], its["source_compute"], its["dest_node"]) == (id, None, None)
    [whole] = (await admin("GET", "/os-migrations"))["migrations"]
    assert (whole["source_compute"], whole["dest_compute"]) == ("h1", "h2")
