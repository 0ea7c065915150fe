"""The promises of leases: who beats is up, who is silent for a lease is lost, and nobody is lost unheard."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from bus import clock
from bus.cloud import Cloud, open_cloud
from bus.execute import Wish
from bus.memory_broker import MemoryBroker
from handlers.compute.host import HOSTS
from handlers.compute.lease import Hosts
from handlers.lease import SharedHeard
from handlers.placement.provider import PROVIDERS
from schema.compute.domain import Heartbeat, HostFacts, Lease, decode_to_host
from schema.compute.host import HOST, EndForcedDown, ForceHostDown, RemoveHost
from schema.placement.provider import PROVIDER, DeleteProvider, Inventory, SetInventory

facts = HostFacts(hypervisor_type="QEMU", vcpus=8, memory_mb=16_384, disk_gb=200, traits=("HW_CPU_X86_VMX",))


def beat(host="h1", number=1, facts=facts, **fields):
    return Heartbeat(host=host, epoch=1, facts=facts, beat=number, **fields)


@pytest.fixture
def time():
    """Seconds that pass when told to."""
    passed = [100.0]
    before = clock.use(clock.SeededClock(1, lambda: passed[0]))

    def wait(seconds):
        passed[0] += seconds

    yield wait
    clock.use(before)


@pytest.fixture
async def cloud(settings, fresh_database) -> AsyncIterator[Cloud]:
    it = await open_cloud(msgspec.structs.replace(settings, lease_seconds=10.0), fresh_database)
    it.mirror(HOST)
    await it.start()
    yield it
    await it.close()


async def state(cloud, host="h1"):
    return (await cloud.documents.get(HOST, host)).state


async def test_a_host_that_beats_is_registered_with_what_it_offers(cloud):
    link = await cloud.broker.link("h1")
    await Hosts(cloud).on_heartbeat("h1", beat(number=7))
    registered = await state(cloud)
    assert registered.usable
    provider = (await cloud.documents.get(PROVIDER, registered.provider_id)).state
    assert provider.name == "h1"
    assert provider.inventories == {
        "VCPU": Inventory(total=8, max_unit=8, allocation_ratio=4.0),
        "MEMORY_MB": Inventory(total=16_384, max_unit=16_384, reserved=512),
        "DISK_GB": Inventory(total=200, max_unit=200),
    }
    assert provider.traits == ("HW_CPU_X86_VMX",)
    assert decode_to_host(await link.receive()) == Lease(epoch=1, beat=7)


async def test_beats_alone_are_no_events(cloud):
    hosts = Hosts(cloud)
    await hosts.on_heartbeat("h1", beat())
    head = await cloud.log.head()
    for number in range(2, 20):
        await hosts.on_heartbeat("h1", beat(number=number))
    assert await cloud.log.head() == head


async def test_two_processes_register_a_host_once(settings, fresh_database):
    clouds = [await open_cloud(settings, fresh_database) for _ in range(2)]
    both = [Hosts(cloud) for cloud in clouds]
    for cloud in clouds:
        await cloud.start()
    for hosts in both:
        await hosts.on_heartbeat("h1", beat())
    assert len(await clouds[0].documents.find(PROVIDER)) == 1
    assert len(await clouds[0].log.read_stream("host/h1")) == 1
    for cloud in clouds:
        await cloud.close()


async def test_changed_facts_change_what_is_offered_but_not_what_an_operator_set(cloud):
    hosts = Hosts(cloud)
    await hosts.on_heartbeat("h1", beat())
    provider_id = (await state(cloud)).provider_id
    packed = Inventory(total=8, max_unit=8, allocation_ratio=16.0)
    await cloud.executor.execute(
        Wish(PROVIDERS, provider_id, SetInventory(resource_class="VCPU", inventory=packed, fresh=False))
    )
    await hosts.on_heartbeat("h1", beat(facts=msgspec.structs.replace(facts, vcpus=16, memory_mb=32_768)))
    offered = (await cloud.documents.get(PROVIDER, provider_id)).state.inventories
    assert offered["VCPU"] == Inventory(total=16, max_unit=16, allocation_ratio=16.0)
    assert offered["MEMORY_MB"].total == 32_768


async def test_a_silent_host_is_lost_and_comes_back(cloud, time):
    link = await cloud.broker.link("h1")
    hosts = Hosts(cloud)
    await hosts.on_heartbeat("h1", beat())
    await hosts.on_heartbeat("h2", beat("h2"))
    time(9)
    await hosts.on_heartbeat("h2", beat("h2"))
    assert await hosts.look() == []
    time(2)
    assert await hosts.look() == ["h1"]
    assert await hosts.look() == []
    lost = await state(cloud)
    assert (lost.up, lost.epoch) == (False, 2)
    assert (await state(cloud, "h2")).up
    await hosts.on_heartbeat("h1", beat(number=2))
    assert (await state(cloud)).usable
    assert [decode_to_host(await link.receive()).epoch for _ in range(2)] == [1, 2]


async def test_a_control_plane_just_started_listens_for_a_lease_before_it_loses_anybody(cloud, time):
    await Hosts(cloud).on_heartbeat("h1", beat())
    time(3600)
    restarted = Hosts(cloud)
    assert await restarted.look() == []
    time(9)
    assert await restarted.look() == []
    time(2)
    assert await restarted.look() == ["h1"]


async def test_a_host_forced_down_gets_no_lease(cloud):
    link = await cloud.broker.link("h1")
    hosts = Hosts(cloud)
    await hosts.on_heartbeat("h1", beat(number=1))
    await cloud.executor.execute(Wish(HOSTS, "h1", ForceHostDown()))
    await hosts.on_heartbeat("h1", beat(number=2))
    await cloud.executor.execute(Wish(HOSTS, "h1", EndForcedDown()))
    await hosts.on_heartbeat("h1", beat(number=3))
    assert [decode_to_host(await link.receive()).beat for _ in range(2)] == [1, 3]


async def test_who_has_just_started_is_told_what_it_should_hold(cloud):
    asked = []

    async def manifest(host):
        asked.append(host)

    hosts = Hosts(cloud, manifest)
    await hosts.on_heartbeat("h1", beat(manifest_wanted=True))
    await hosts.on_heartbeat("h1", beat(number=2))
    assert asked == ["h1"]


async def test_a_removed_host_that_beats_again_is_a_new_one(cloud):
    hosts = Hosts(cloud)
    await hosts.on_heartbeat("h1", beat())
    before = await state(cloud)
    await cloud.executor.execute(Wish(HOSTS, "h1", RemoveHost()), Wish(PROVIDERS, before.provider_id, DeleteProvider()))
    await hosts.on_heartbeat("h1", beat())
    after = await state(cloud)
    assert (after.usable, after.epoch) == (True, 2)
    assert after.provider_id != before.provider_id
    assert cloud.mirror(HOST).get("h1").state == after


async def test_what_another_process_heard_is_not_silent(pool):
    here, there = SharedHeard(pool, "heard_hosts"), SharedHeard(pool, "heard_hosts")
    await here.share([])
    await there.share(["h1"])
    assert await here.silent(["h1", "h2"], 30.0) == {"h2"}
    assert await here.silent(["h1"], 0.0) == {"h1"}


class Earmuffs(MemoryBroker):
    """A broker that loses and finds its connection, or stands still, when told to."""

    hears = True
    echoes = True

    async def echo(self, timeout_seconds: float) -> bool:
        return self.echoes


async def test_who_has_just_returned_to_another_process_is_not_lost(settings, fresh_database, time):
    """That it is back is in the log; that it was heard is yet to be shared."""
    settings, bus = msgspec.structs.replace(settings, lease_seconds=10.0), MemoryBroker()
    clouds = [await open_cloud(settings, fresh_database, bus) for _ in range(2)]
    one, other = [Hosts(cloud) for cloud in clouds]
    for cloud in clouds:
        await cloud.start()
    try:
        await other.on_heartbeat("h1", beat())
        time(11)
        assert await other.look() == ["h1"]
        time(1)
        await one.on_heartbeat("h1", beat(number=2))
        async with asyncio.timeout(10):
            while not clouds[1].mirror(HOST).get("h1").state.up:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert await other.look() == []
        time(9)
        assert await other.look() == []
        time(2)
        assert await other.look() == ["h1"]
    finally:
        for cloud in clouds:
            await cloud.close()


async def test_who_is_deaf_loses_nobody(settings, fresh_database, time):
    earmuffs = Earmuffs()
    cloud = await open_cloud(msgspec.structs.replace(settings, lease_seconds=10.0), fresh_database, earmuffs)
    hosts = Hosts(cloud)
    await cloud.start()
    await hosts.on_heartbeat("h1", beat())
    earmuffs.hears = False
    time(60)
    assert await hosts.look() == []
    earmuffs.hears = True
    time(9)
    assert await hosts.look() == []
    time(2)
    assert await hosts.look() == ["h1"]
    await cloud.close()


async def test_a_bus_that_stands_still_loses_nobody(settings, fresh_database, time):
    """Its connection looks as good as ever; a word of our own that does not come back shows it."""
    still = Earmuffs()
    cloud = await open_cloud(msgspec.structs.replace(settings, lease_seconds=10.0), fresh_database, still)
    hosts = Hosts(cloud)
    await cloud.start()
    await hosts.on_heartbeat("h1", beat())
    still.echoes = False
    time(60)
    assert await hosts.look() == []
    still.echoes = True
    time(9)
    assert await hosts.look() == []
    time(2)
    assert await hosts.look() == ["h1"]
    await cloud.close()
