"""Servers with CPUs, pages and devices of their own, on simulated hosts: one server's each until it is gone."""

import asyncio

import msgspec
import pytest

from agents.hypervisor.plan import Define, Start
from api.compute.service import SERVICE
from bus import clock
from bus.cloud import open_cloud
from bus.config import Hardware, Scheduler
from bus.execute import Wish
from handlers.compute.build import ServerReactor
from handlers.compute.fate import ending
from handlers.compute.flavor import FLAVORS
from handlers.compute.server import SERVERS
from schema.compute.flavor import CreateFlavor, SetFlavorExtraSpecs
from schema.compute.host import HOST
from schema.compute.server_command import CreateServer, DeleteServer, PlaceServer
from schema.compute.server_parts import Order, ServerFlavor
from schema.compute.topology import GuestCell, Topology
from schema.placement.provider import PROVIDER
from schema.placement.resource_class import RESOURCE_CLASS
from schema.refusal import Conflict
from tests.compute.steering import PROJECT, Steered, steered
from tests.compute.test_resize import Shire
from tests.compute.test_server import placed, requested, server
from tests.compute.world import IMAGE, wanted
from tests.serving import serving

HARDWARE = Hardware(dedicated_cpus="2-3", devices=("10de:1eb8",), simulated_cells=1, simulated_pages={"2048": "256"})
PINNED = {"hw:cpu_policy": "dedicated"}
LARGE = {"hw:mem_page_size": "2MB"}
GPU = {"pci_passthrough:alias": "gpu:1"}


def flavor(specs, vcpus=2):
    return ServerFlavor(id="9", name="own", vcpus=vcpus, ram_mb=512, disk_gb=1, extra_specs=specs)


@pytest.fixture
def knowing(settings):
    scheduler = Scheduler(pci_aliases={"gpu": "10de:1eb8"})
    return msgspec.structs.replace(settings, lease_seconds=1.0, scheduler=scheduler)


@pytest.fixture
async def cloud(knowing, fresh_database):
    async with steered(knowing, fresh_database) as it:
        yield it


async def held(cloud):
    providers = await cloud.cloud.documents.find(PROVIDER)
    return {it.state.name: it.state.held for it in providers}


async def test_a_host_offers_what_it_has(cloud):
    await cloud.host("h1", vcpus=8, memory_mb=4096, hardware=HARDWARE)
    [provider] = await cloud.cloud.documents.find(PROVIDER)
    totals = {name: it.total for name, it in provider.state.inventories.items()}
    assert (totals["VCPU"], totals["PCPU"], totals["CUSTOM_PCI_10DE_1EB8"]) == (6, 2, 1)
    assert provider.state.units == {
        "cpu 2": 1,
        "cpu 3": 1,
        "pages 0 2048": 256,
        "memory 0": 3584,
        "pci 0000:01:00.0": 1,
    }
    assert await cloud.cloud.documents.get(RESOURCE_CLASS, "CUSTOM_PCI_10DE_1EB8")


async def test_a_server_has_its_own_until_it_is_gone(cloud):
    driver = await cloud.host("h1", vcpus=8, hardware=HARDWARE)
    told = []
    driver.delay = lambda step: told.append(step.domain) or 0.0 if isinstance(step, Define) else 0.0
    id = await cloud.create(flavor=flavor({**PINNED, **LARGE, **GPU}))
    state = await cloud.reaches(id, "active")
    assert state.topology.pins == {0: 2, 1: 3}
    assert (state.topology.cells[0].page_kib, state.topology.devices[0].alias) == (2048, "gpu")
    assert [it.topology for it in told] == [state.topology]
    units = {"cpu 2": 1, "cpu 3": 1, "pages 0 2048": 256, "pci 0000:01:00.0": 1}
    assert await held(cloud) == {"h1": {id: units}}
    other = await cloud.create(flavor=flavor(PINNED))
    fault = (await cloud.reaches(other, "error")).fault
    assert "have not the NUMA nodes, CPUs or pages free" in fault.message
    await cloud.act(id, DeleteServer())
    await cloud.sees(id, lambda state: state.deleted_at is not None)
    assert await held(cloud) == {"h1": {}}
    third = await cloud.create(flavor=flavor(PINNED))
    assert (await cloud.reaches(third, "active")).topology.pins == {0: 2, 1: 3}


async def test_a_build_that_fails_gives_them_back(cloud):
    broken, good = [await cloud.host(name, vcpus=8, hardware=HARDWARE) for name in ("h1", "h2")]
    broken.failure = lambda step: "no" if isinstance(step, Start) else None
    ids = [await cloud.create(flavor=flavor(PINNED)) for _ in range(2)]
    states = [await cloud.sees(id, lambda state: state.task is None) for id in ids]
    assert sorted(str(state.vm_state) for state in states) == ["active", "error"]
    [active] = [state for state in states if state.host]
    assert await held(cloud) == {"h1": {}, "h2": {active.id: {"cpu 2": 1, "cpu 3": 1, "memory 0": 512}}}
    assert list(good.domains) == [active.id]


@pytest.mark.parametrize("specs,vcpus", [(PINNED, 2), (GPU, 1)])
async def test_two_schedulers_that_race_for_the_last_one(knowing, fresh_database, specs, vcpus):
    """Both see it free on the host that both like best; one of them has it, the other server is placed elsewhere."""
    knowing = msgspec.structs.replace(knowing, lease_seconds=60.0)
    async with steered(knowing, fresh_database) as cloud:
        await cloud.host("h1", vcpus=8, memory_mb=300_000, hardware=HARDWARE)
        await cloud.host("h2", vcpus=8, memory_mb=200_000, hardware=HARDWARE)
        for name in ("h1", "h2"):
            await cloud.kill(name)
        cloud.reactor.react = nothing
        others = [await open_cloud(knowing, fresh_database) for _ in range(2)]
        reactors = [ServerReactor(other) for other in others]
        try:
            for other in others:
                await other.start()
                assert len(list(other.mirror(HOST).values())) == 2
            for _ in range(2):
                ids = [clock.uuid4(), clock.uuid4()]
                documents = []
                for id in ids:
                    order = Order(user_id="ada")
                    command = CreateServer(name="web", project_id=PROJECT, order=order, flavor=flavor(specs, vcpus))
                    documents += await cloud.cloud.executor.execute(Wish(SERVERS, id, command))
                await asyncio.gather(*(it.react([document]) for it, document in zip(reactors, documents, strict=True)))
                states = [await cloud.state(id) for id in ids]
                assert {state.host for state in states} == {"h1", "h2"}
                claims = await held(cloud)
                assert {host: set(its) for host, its in claims.items()} == {it.host: {it.id} for it in states}
                for state in states:
                    await cloud.act(state.id, DeleteServer())
                    await cloud.cloud.executor.execute(*ending(state))
                assert await held(cloud) == {"h1": {}, "h2": {}}
                head = await cloud.cloud.log.head()
                await cloud.until(lambda head=head: all(it.mirrors.position >= head for it in others))
        finally:
            for other in others:
                await other.close()


async def nothing(documents):
    """What another reactor does, this one does not."""


def test_a_server_that_is_placed_keeps_its_cpus():
    """Two processes may place it on the same host: the second must not claim other CPUs there for it."""
    one, other = [Topology(cells=(GuestCell(id=0, host_cell=0, cpus=(0,), memory_mb=1, pins={0: n}),)) for n in (2, 3)]
    placing = PlaceServer(host="h1", provider_id="p1", zone="nova", topology=one)
    given = server.given(requested).when(placing).then(msgspec.structs.replace(placed, topology=one))
    given.when(msgspec.structs.replace(placing, topology=other)).refused("wants no host", Conflict)


# At the door


async def door(world, client, specs, **fields):
    """POST /servers with a flavor of these extra specs."""
    execute = world.cloud.executor.execute
    id = clock.uuid4()
    await execute(Wish(FLAVORS, id, CreateFlavor(name=id, vcpus=2, ram_mb=512, disk_gb=1)))
    await execute(Wish(FLAVORS, id, SetFlavorExtraSpecs(extra_specs=specs)))
    return await client("POST", "/servers", {"server": wanted(flavorRef=id, **fields)}, expect=400)


async def test_what_contradicts_itself_is_no_server(world):
    client = await world.client()
    answer = await door(world, client, {"hw:numa_nodes": "3"})
    assert answer["badRequest"]["message"].startswith("Instance CPUs and/or memory cannot be evenly distributed")
    answer = await door(world, client, GPU)
    assert answer["badRequest"]["message"] == "PCI alias gpu is not defined"


async def test_a_rebuild_must_keep_cpus_and_pages(world):
    client = await world.client()
    id = (await world.boot(client))["id"]
    image = clock.uuid4()
    await world.image(image, properties={"hw_numa_nodes": "1"})
    answer = await client("POST", f"/servers/{id}/action", {"rebuild": {"imageRef": image}}, expect=400)
    assert "NUMA topology cannot be changed as part of a rebuild" in answer["badRequest"]["message"]


@pytest.fixture
async def shire(knowing, fresh_database):
    steering = []
    settings = msgspec.structs.replace(knowing, allow_resize_to_same_host=False)
    prepare = lambda cloud: steering.append(Steered(cloud))  # noqa: E731
    async with serving(settings, fresh_database, [SERVICE], prepare) as served, steering[0] as steering_one:
        it = Shire(served, steering_one)
        for name in ("h1", "h2"):
            await steering_one.host(name, vcpus=8, hardware=HARDWARE)
        await it.image(IMAGE)
        for id, vcpus, specs in (
            ("1", 1, PINNED),
            ("2", 2, {**PINNED, **LARGE, **GPU}),
            ("3", 3, {"hw:numa_nodes": "2"}),
        ):
            await served.cloud.executor.execute(
                Wish(FLAVORS, id, CreateFlavor(name=id, vcpus=vcpus, ram_mb=512, disk_gb=1))
            )
            await served.cloud.executor.execute(Wish(FLAVORS, id, SetFlavorExtraSpecs(extra_specs=specs)))
        yield it


@pytest.mark.parametrize("word,answers,stays", [("confirmResize", 204, False), ("revertResize", 202, True)])
async def test_a_resize_holds_both_ends_until_one_is_given_back(shire, word, answers, stays):
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    before = await shire.steered.state(id)
    await shire.act(member, id, "resize", {"flavorRef": "3"}, expect=400)
    await shire.act(member, id, "resize", {"flavorRef": "2"})
    await shire.becomes(admin, id, "VERIFY_RESIZE")
    after = await shire.steered.state(id)
    assert (after.host != before.host, after.topology.pins) == (True, {0: 2, 1: 3})
    migration = (await shire.migration(admin, id))["uuid"]
    small, large = {"cpu 2": 1, "memory 0": 512}, {"cpu 2": 1, "cpu 3": 1, "pages 0 2048": 256, "pci 0000:01:00.0": 1}
    assert await held(shire) == {before.host: {migration: small}, after.host: {id: large}}
    await shire.act(member, id, word, expect=answers)
    await shire.becomes(admin, id, "ACTIVE")
    now = await shire.steered.state(id)
    kept = before if stays else after
    assert (now.host, now.topology) == (kept.host, kept.topology)
    other = after.host if stays else before.host
    assert await held(shire) == {kept.host: {id: small if stays else large}, other: {}}
    nodes = (await admin("GET", f"/servers/{id}/topology"))["nodes"]
    assert nodes[0]["cpu_pinning"] == {str(vcpu): cpu for vcpu, cpu in kept.topology.pins.items()}


async def test_a_device_cannot_go_along_while_its_server_runs(shire):
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member, flavorRef="2"))["id"]
    live = {"host": None, "block_migration": "auto"}
    answer = await shire.act(admin, id, "os-migrateLive", live, expect=400)
    assert answer["badRequest"]["message"].startswith("Migration pre-check error: the server has PCI devices")
    before = await shire.steered.state(id)
    await shire.act(admin, id, "migrate")
    await shire.becomes(admin, id, "VERIFY_RESIZE")
    after = await shire.steered.state(id)
    assert (after.host != before.host, after.topology) == (True, before.topology)
    await shire.act(member, id, "confirmResize", expect=204)
    await shire.becomes(admin, id, "ACTIVE")
    await member("DELETE", f"/servers/{id}", expect=204)
    await shire.gone(member, id)


async def test_pinned_servers_move_while_they_run_to_cpus_that_are_free(shire):
    member, admin = await shire.client(), await shire.client("admin")
    live = {"host": None, "block_migration": "auto"}
    ids = [(await shire.boot(member))["id"] for _ in range(3)]
    hosts = [(await shire.steered.state(id)).host for id in ids]
    [alone] = [id for id, host in zip(ids, hosts, strict=True) if hosts.count(host) == 1]
    [one, other] = [id for id in ids if id != alone]
    await shire.act(admin, alone, "os-migrateLive", live)
    await shire.reaches(admin, alone, "error")  # both CPUs of the other host are taken
    await shire.act(admin, one, "os-migrateLive", live)
    await shire.reaches(admin, one, "completed")
    states = [await shire.steered.state(id) for id in ids]
    mine = {it.id: (it.host, set(it.topology.pins.values())) for it in states}
    assert mine[one][0] == mine[alone][0] != mine[other][0]
    assert mine[one][1] | mine[alone][1] == {2, 3}
    its = {it.id: {**{f"cpu {cpu}": 1 for cpu in mine[it.id][1]}, "memory 0": 512} for it in states}
    assert {id: units for held_there in (await held(shire)).values() for id, units in held_there.items()} == its
