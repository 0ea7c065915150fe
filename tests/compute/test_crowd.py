"""Very many servers at once for very few places: as many are placed as there is room for, and nothing is left over."""

import asyncio
from collections import Counter

import pytest

from bus.cloud import Cloud, open_cloud
from bus.execute import Wish
from handlers.compute.build import ServerReactor
from handlers.compute.fate import ending
from handlers.compute.host import HOSTS
from handlers.compute.server import SERVERS
from handlers.compute.server_group import SERVER_GROUPS
from handlers.placement.provider import offering
from schema.compute.domain import HostFacts
from schema.compute.host import RegisterHost
from schema.compute.server import SERVER
from schema.compute.server_command import CreateServer, DeleteServer
from schema.compute.server_group import SERVER_GROUP, CreateServerGroup, GroupPolicy, JoinServerGroup
from schema.compute.server_parts import Order, ServerFlavor
from schema.compute.server_state import Server
from schema.compute.task import Task, VmState
from schema.placement.consumer import CONSUMER
from schema.placement.provider import PROVIDER, Inventory

SMALL = ServerFlavor(id="1", name="small", vcpus=1, ram_mb=512, disk_gb=1)
ROOM = {name: Inventory(total=100_000) for name in ("VCPU", "MEMORY_MB", "DISK_GB")}
CHUNK = 250


async def hosts(cloud: Cloud, count: int) -> None:
    for number in range(count):
        name, provider = f"h{number}", f"p{number}"
        registered = RegisterHost(provider_id=provider, service_id=f"s{number}", facts=HostFacts())
        await cloud.executor.execute(Wish(HOSTS, name, registered), *offering(provider, name, ROOM))


async def create(cloud: Cloud, id: str) -> None:
    command = CreateServer(name=id, project_id="p", order=Order(user_id="u", group_id="g"), flavor=SMALL)
    await cloud.executor.submit(
        (Wish(SERVERS, id, command), Wish(SERVER_GROUPS, "g", JoinServerGroup(server_id=id, limit=10_000)))
    )


async def placed(clouds: list[Cloud], reactors: list[ServerReactor], ids: list[str]) -> list[Server]:
    """The servers, once none of them waits for a host any more; each process places its share, all at once."""
    async with asyncio.timeout(120):
        while True:
            documents = list((await clouds[0].log.load([SERVER.stream(id) for id in ids])).values())
            waiting = [it for it in documents if it.state.task is Task.SCHEDULING]
            if not waiting:
                return [it.state for it in documents]
            chunks = [waiting[n : n + CHUNK] for n in range(0, len(waiting), CHUNK)]
            await asyncio.gather(*(reactors[n % len(reactors)].react(chunk) for n, chunk in enumerate(chunks)))


@pytest.mark.parametrize("servers,count,most", [(5000, 5, 1), (300, 4, 3)])
async def test_an_anti_affinity_group_has_as_many_as_its_hosts_may_have(settings, fresh_database, servers, count, most):
    clouds = [await open_cloud(settings, fresh_database) for _ in range(2)]
    reactors = [ServerReactor(cloud) for cloud in clouds]
    try:
        await hosts(clouds[0], count)
        for cloud in clouds:
            await cloud.start()
        made = CreateServerGroup(
            name="g", project_id="p", user_id="u", policy=GroupPolicy.ANTI_AFFINITY, max_per_host=most
        )
        await clouds[0].executor.execute(Wish(SERVER_GROUPS, "g", made))
        ids = [f"s{n}" for n in range(servers)]
        await asyncio.gather(*(create(clouds[n % 2], id) for n, id in enumerate(ids)))
        states = await placed(clouds, reactors, ids)
        there = [it for it in states if it.host]
        assert Counter(it.host for it in there) == {f"h{n}": most for n in range(count)}
        assert {it.vm_state for it in states if not it.host} == {VmState.ERROR}
        assert all("No valid host was found" in it.fault.message for it in states if not it.host)
        documents = clouds[0].documents
        claims = {it.id: set(it.state.claims) for it in await documents.find(PROVIDER)}
        assert {host: its for host, its in claims.items() if its} == {
            it.provider_id: {other.id for other in there if other.host == it.host} for it in there
        }
        assert {it.id for it in await documents.find(CONSUMER)} == {it.id for it in there}
        [group] = await documents.find(SERVER_GROUP)
        assert {id: host for id, host in group.state.members.items() if host} == {it.id: it.host for it in there}
        # Where one goes, one more may come.
        gone = there[0]
        await clouds[0].executor.execute(Wish(SERVERS, gone.id, DeleteServer()))
        await clouds[0].executor.execute(*ending(gone))
        head = await clouds[0].log.head()
        while any(it.mirrors.position < head for it in clouds):  # noqa: ASYNC110  mirrors follow by themselves
            await asyncio.sleep(0.01)
        await create(clouds[1], "late")
        [late] = await placed(clouds, reactors, ["late"])
        assert late.host == gone.host
    finally:
        for cloud in clouds:
            await cloud.close()
