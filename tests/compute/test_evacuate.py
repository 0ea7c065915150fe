"""The promises of evacuation: whoever loses a host gets a server elsewhere, once, and nothing is held twice."""

import asyncio

import msgspec
import pytest

from agents.hypervisor.plan import Define, Start
from api.compute.service import SERVICE
from bus.execute import Wish
from handlers.compute.flavor import FLAVORS
from handlers.compute.quota import QUOTAS
from handlers.placement.provider import PROVIDERS
from schema.compute.flavor import CreateFlavor
from schema.compute.quota import SetQuotaLimits
from schema.compute.server_command import DeleteServer
from schema.placement.consumer import CONSUMER
from schema.placement.provider import PROVIDER, Inventory, SetInventory
from tests.compute.networked import networked
from tests.compute.steering import PROJECT as STEERED
from tests.compute.steering import Steered
from tests.compute.world import IMAGE, World, wanted
from tests.serving import serving


class Shire(World):
    """A cloud whose hosts can be lost."""

    async def lose(self, host):
        await self.steered.kill(host)
        await self.steered.until(lambda: not self.steered.reactor.telling.alive(host))

    async def evacuate(self, admin, id, *, expect=200, version="2.94", **fields):
        return await admin("POST", f"/servers/{id}/action", {"evacuate": fields}, expect=expect, version=version)

    async def migrations(self, admin, query=""):
        return (await admin("GET", f"/os-migrations{query}"))["migrations"]

    async def ends(self, admin, id):
        """Its newest migration, when it is over."""
        async with asyncio.timeout(15):
            while True:
                [newest, *_] = await self.migrations(admin, f"?instance_uuid={id}")
                if newest["status"] in {"done", "error"}:
                    return newest
                await asyncio.sleep(0.01)

    async def ordered(self, client, **hints):
        """A server of that client's with these hints, once it runs. Its id."""
        made = await client("POST", "/servers", {"server": wanted(client), **hints}, expect=202)
        return (await self.becomes(client, made["server"]["id"], "ACTIVE"))["id"]

    async def held(self):
        """Host → who holds something there."""
        providers = await self.cloud.documents.find(PROVIDER)
        return {it.state.name: set(it.state.claims) for it in providers if it.state.claims}


@pytest.fixture
async def shire(settings, fresh_database):
    steering = []
    settings = msgspec.structs.replace(settings, lease_seconds=1.0)
    prepare = lambda cloud: steering.append(Steered(cloud))  # noqa: E731
    async with serving(settings, fresh_database, [SERVICE], prepare) as served, steering[0] as steered:
        it = Shire(served, steered)
        await steered.host("h1")
        await it.image(IMAGE)
        flavor = CreateFlavor(name="small", vcpus=1, ram_mb=512, disk_gb=1)
        await served.cloud.executor.execute(Wish(FLAVORS, "1", flavor))
        yield it


async def test_a_server_of_a_dead_host_is_built_elsewhere_and_never_runs_twice(shire):
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    await shire.steered.host("h2")
    await shire.lose("h1")
    assert await shire.evacuate(admin, id) is not None
    shown = await shire.becomes(admin, id, "ACTIVE")
    assert shown["OS-EXT-SRV-ATTR:host"] == "h2"
    assert await shire.held() == {"h2": {id}}
    assert [it.id for it in await shire.cloud.documents.find(CONSUMER)] == [id]
    migration = await shire.ends(admin, id)
    assert (migration["status"], migration["migration_type"]) == ("done", "evacuation")
    assert (migration["source_compute"], migration["dest_compute"]) == ("h1", "h2")
    assert migration["id"] == 1
    actions = (await admin("GET", f"/servers/{id}/os-instance-actions"))["instanceActions"]
    assert [it["action"] for it in actions] == ["evacuate", "create"]
    assert actions[0]["message"] is None
    assert set(shire.steered.drivers["h1"].domains) == {id}
    await shire.steered.host("h1")
    await shire.steered.until(lambda: not shire.steered.drivers["h1"].domains)
    assert set(shire.steered.drivers["h2"].domains) == {id}
    await member("DELETE", f"/servers/{id}", expect=204)
    await shire.gone(member, id)
    assert await shire.steered.clean()


async def test_since_2_95_it_stays_stopped_and_a_stopped_one_always_does(shire):
    member, admin = await shire.client(), await shire.client("admin")
    running, stopped = [(await shire.boot(member))["id"] for _ in range(2)]
    await member("POST", f"/servers/{stopped}/action", {"os-stop": None}, expect=202)
    await shire.becomes(member, stopped, "SHUTOFF")
    await shire.steered.host("h2")
    await shire.lose("h1")
    await shire.evacuate(admin, running, version="latest")
    await shire.evacuate(admin, stopped)
    for id in (running, stopped):
        await shire.ends(admin, id)
        assert (await shire.becomes(admin, id, "SHUTOFF"))["OS-EXT-SRV-ATTR:host"] == "h2"
    await member("POST", f"/servers/{running}/action", {"os-start": None}, expect=202)
    await shire.becomes(member, running, "ACTIVE")
    assert sorted(it["id"] for it in await shire.migrations(admin)) == [1, 2]


async def test_what_cannot_be_evacuated_is_told_in_nova_s_words(shire):
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    told = await shire.evacuate(admin, id, expect=400)
    assert told["badRequest"]["message"] == "Compute service of h1 is still in use."
    await shire.evacuate(member, id, expect=403)
    await shire.lose("h1")
    assert "same" in (await shire.evacuate(admin, id, host="h1", expect=400))["badRequest"]["message"]
    told = await shire.evacuate(admin, id, host="h9", expect=404)
    assert told["itemNotFound"]["message"] == "Compute host h9 not found."
    await shire.evacuate(admin, id, host="h2", force=True, version="2.68", expect=400)
    await shire.evacuate(admin, id, version="2.13", expect=400)
    await shire.evacuate(admin, id, onSharedStorage=True, version="2.13", expect=400)
    assert await shire.migrations(admin) == []


async def test_before_2_14_who_asks_has_to_know_of_shared_storage(shire, tmp_path):
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    shire.cloud.settings = msgspec.structs.replace(shire.cloud.settings, shared_storage=tmp_path)
    await shire.steered.host("h2")
    await shire.lose("h1")
    told = await shire.evacuate(admin, id, onSharedStorage=False, version="2.13", expect=400)
    assert told["badRequest"]["message"].endswith("hosts share their storage here.")
    await shire.evacuate(admin, id, onSharedStorage=True, adminPass="melon", version="2.13", expect=400)
    assert await shire.migrations(admin) == []
    assert await shire.evacuate(admin, id, onSharedStorage=True, version="2.13") == {"adminPass": None}
    assert (await shire.ends(admin, id))["status"] == "done"


async def test_who_finds_no_host_is_its_old_self_and_says_why(shire):
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    await shire.lose("h1")
    await shire.evacuate(admin, id)
    assert (await shire.ends(admin, id))["status"] == "error"
    shown = await shire.becomes(admin, id, "ACTIVE")
    assert shown["OS-EXT-SRV-ATTR:host"] == "h1"
    assert await shire.held() == {"h1": {id}}
    assert [it.id for it in await shire.cloud.documents.find(CONSUMER)] == [id]
    [action, _] = (await admin("GET", f"/servers/{id}/os-instance-actions"))["instanceActions"]
    assert action["message"] == "Error"
    await shire.steered.host("h1")
    await shire.becomes(admin, id, "ACTIVE")
    assert set(shire.steered.drivers["h1"].domains) == {id}


async def test_the_next_host_takes_it_if_one_cannot(shire):
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    for name in ("h2", "h3"):
        driver = await shire.steered.host(name)
        if name == "h2":
            driver.failure = lambda step: "the disk is full" if isinstance(step, Define) else None
    await shire.lose("h1")
    await shire.evacuate(admin, id)
    assert (await shire.ends(admin, id))["dest_compute"] == "h3"
    await shire.becomes(admin, id, "ACTIVE")
    assert await shire.held() == {"h3": {id}}
    await shire.steered.until(lambda: not shire.steered.drivers["h2"].domains)


async def test_whom_no_host_can_build_is_in_error_where_it_was(shire):
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    driver = await shire.steered.host("h2")
    driver.failure = lambda step: "no room in memory" if isinstance(step, Start) else None
    await shire.lose("h1")
    await shire.evacuate(admin, id, host="h2")
    assert (await shire.ends(admin, id))["status"] == "error"
    shown = await shire.becomes(admin, id, "ERROR")
    assert shown["OS-EXT-SRV-ATTR:host"] == "h1"
    assert "no room in memory" in shown["fault"]["message"]
    assert await shire.held() == {"h1": {id}}
    await shire.steered.until(lambda: not driver.domains)
    driver.failure = lambda step: None
    await shire.evacuate(admin, id, host="h2")
    assert (await shire.becomes(admin, id, "ACTIVE"))["OS-EXT-SRV-ATTR:host"] == "h2"


async def test_it_may_be_deleted_on_its_way_and_leaves_nothing(shire):
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    slow = await shire.steered.host("h2")
    slow.delay = lambda step: 30.0
    await shire.lose("h1")
    await shire.evacuate(admin, id)
    await shire.steered.sees(id, lambda state: state.host == "h2")
    assert (await member("GET", f"/servers/{id}"))["server"]["status"] == "REBUILD"
    told = await admin("POST", f"/servers/{id}/action", {"os-resetState": {"state": "error"}}, expect=409)
    assert "another host" in told["conflictingRequest"]["message"]
    slow.delay = lambda step: 0.0
    await shire.steered.act(id, DeleteServer())
    await shire.gone(member, id)
    await shire.steered.host("h1")
    await shire.steered.until(lambda: not shire.steered.drivers["h1"].domains)
    assert await shire.steered.clean()
    assert (await shire.ends(admin, id))["status"] == "error"


async def test_a_host_lost_while_it_builds_is_left_for_another(shire):
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    slow = await shire.steered.host("h2")
    slow.delay = lambda step: 30.0
    await shire.lose("h1")
    await shire.evacuate(admin, id)
    await shire.steered.sees(id, lambda state: state.host == "h2")
    await shire.steered.host("h3")
    await shire.lose("h2")
    assert (await shire.ends(admin, id))["dest_compute"] == "h3"
    assert await shire.held() == {"h3": {id}}


async def test_a_password_goes_with_it_before_2_14(shire):
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    driver, steps = await shire.steered.host("h2"), []
    driver.failure = steps.append
    await shire.lose("h1")
    answer = await shire.evacuate(admin, id, onSharedStorage=False, adminPass="melon", version="2.13")
    assert answer == {"adminPass": "melon"}
    await shire.becomes(admin, id, "ACTIVE")
    [made] = [step for step in steps if isinstance(step, Define)]
    assert made.domain.seed.admin_password == "melon"


async def test_migrations_are_listed_by_page_and_by_filter(shire):
    member, admin = await shire.client(), await shire.client("admin")
    ids = [(await shire.boot(member))["id"] for _ in range(3)]
    await shire.steered.host("h2")
    await shire.lose("h1")
    await asyncio.gather(*(shire.evacuate(admin, id) for id in ids))
    for id in ids:
        await shire.ends(admin, id)
    assert len({it["id"] for it in await shire.migrations(admin)}) == 3
    first = await admin("GET", "/os-migrations?limit=2")
    assert len(first["migrations"]) == 2
    marker = first["migrations"][-1]["uuid"]
    assert marker in first["migrations_links"][0]["href"]
    assert len(await shire.migrations(admin, f"?limit=2&marker={marker}")) == 1
    for query, count in (
        ("?host=h1", 3),
        ("?host=h3", 0),
        ("?source_compute=h2", 0),
        ("?status=done", 3),
        ("?migration_type=evacuation", 3),
        ("?migration_type=resize", 0),
        (f"?instance_uuid={ids[0]}", 1),
        ("?changes-since=2020-01-01T00:00:00Z", 3),
        ("?changes-before=2020-01-01T00:00:00Z", 0),
    ):
        assert len(await shire.migrations(admin, query)) == count, query
    await admin("GET", "/os-migrations?marker=00000000-0000-4000-8000-000000000000", expect=400)
    await admin(
        "GET", "/os-migrations?changes-since=2021-01-01T00:00:00Z&changes-before=2020-01-01T00:00:00Z", expect=400
    )
    oldest = (await admin("GET", "/os-migrations", version="2.1"))["migrations"][0]
    assert not {"uuid", "migration_type", "user_id"} & set(oldest)
    await member("GET", "/os-migrations", expect=403)
    assert await admin("GET", f"/servers/{ids[0]}/migrations") == {"migrations": []}
    await admin("GET", f"/servers/{ids[0]}/migrations/1", expect=404)


async def test_a_host_full_of_servers_is_emptied_at_once(shire):
    unlimited = SetQuotaLimits(limits={"instances": -1, "cores": -1, "ram": -1})
    await shire.cloud.executor.execute(Wish(QUOTAS, STEERED, unlimited))
    ids = await asyncio.gather(*(shire.steered.create() for _ in range(60)))
    for id in ids:
        await shire.steered.reaches(id, "active")
    admin = await shire.client("admin")
    await shire.steered.host("h2")
    await shire.lose("h1")
    await asyncio.gather(*(shire.evacuate(admin, id) for id in ids))
    for id in ids:
        await shire.steered.sees(id, lambda state: state.host == "h2" and state.task is None)
    assert len({it["id"] for it in await shire.migrations(admin)}) == 60
    assert await shire.held() == {"h2": set(ids)}


async def test_an_overcommitted_host_is_left_and_given_back_all_the_same(shire):
    member, admin = await shire.client(), await shire.client("admin")
    id = (await shire.boot(member))["id"]
    await shire.lose("h1")
    [provider] = await shire.cloud.documents.find(PROVIDER)
    scarce = SetInventory(resource_class="MEMORY_MB", inventory=Inventory(total=16, max_unit=16), fresh=False)
    await shire.cloud.executor.execute(Wish(PROVIDERS, provider.id, scarce))
    await shire.evacuate(admin, id)
    assert (await shire.ends(admin, id))["status"] == "error"
    assert await shire.held() == {"h1": {id}}


async def test_a_group_stays_apart(shire):
    member, admin = await shire.client(), await shire.client("admin")
    apart = {"server_group": {"name": "apart", "policy": "anti-affinity"}}
    group = (await member("POST", "/os-server-groups", apart))["server_group"]
    hints = {"os:scheduler_hints": {"group": group["id"]}}
    first = await shire.ordered(member, **hints)
    await shire.steered.host("h2")
    second = await shire.ordered(member, **hints)
    assert (await shire.steered.state(second)).host == "h2"
    await shire.lose("h1")
    await shire.evacuate(admin, first)
    assert (await shire.ends(admin, first))["status"] == "error"
    await shire.steered.host("h3")
    await shire.evacuate(admin, first)
    assert (await shire.ends(admin, first))["dest_compute"] == "h3"


async def test_its_ports_come_along_and_are_given_back_with_it(settings, fresh_database):
    async with networked(msgspec.structs.replace(settings, lease_seconds=1.0), fresh_database) as world:
        member, admin = await world.client(), await world.client("admin")
        network = await world.network()
        id = (await world.boot(member, networks=[{"uuid": network}]))["id"]
        lost = (await world.steered.state(id)).host
        other = "h2" if lost == "h1" else "h1"
        await world.steered.kill(lost)
        await world.steered.until(lambda: not world.steered.reactor.telling.alive(lost))
        driver = world.steered.drivers[other]
        driver.failure = lambda step: "the disk is full" if isinstance(step, Define) else None
        path = f"/servers/{id}/action"
        await admin("POST", path, {"evacuate": {"host": other}}, version="2.94")
        await world.becomes(admin, id, "ERROR")
        [port] = await world.ports(device_id=id)
        assert port.host == lost
        driver.failure = None
        await admin("POST", path, {"evacuate": {}}, version="2.94")
        await world.becomes(admin, id, "ACTIVE")
        [port] = await world.ports(device_id=id)
        assert (port.host, port.wired) == (other, True)
        await world.steered.host(lost)
        await world.steered.until(lambda: not world.steered.drivers[lost].domains)
        await member("DELETE", f"/servers/{id}", expect=204)
        await world.gone(member, id)
        assert await world.nothing_left()
