"""A guest posts a password for its owner: it is kept in the vault, shown, and forgotten again."""

import asyncio

import pytest

from handlers.network.instance import instance_data
from tests.compute.networked import networked
from tests.compute.world import OTHER, wanted

SECRET = "bm90IGEgc2VjcmV0IGFueSBtb3Jl"


@pytest.fixture
async def world(settings, fresh_database):
    async with networked(settings, fresh_database) as it:
        yield it


async def test_what_a_guest_posts_is_its_owners(world):
    network, member = await world.network(), await world.client()
    made = await member("POST", "/servers", {"server": wanted(member, networks=[{"uuid": network}])}, expect=202)
    id = made["server"]["id"]
    await world.becomes(member, id, "ACTIVE")
    [port] = await world.ports(device_id=id)
    path = f"/servers/{id}/os-server-password"
    assert await member("GET", path) == {"password": ""}

    async def post(password, host=port.host):
        return await instance_data(world.cloud, host, port.id, password=password)

    assert await post(SECRET, "another host") is None
    assert await member("GET", path) == {"password": ""}
    told = await asyncio.gather(post(SECRET), post(SECRET), post(SECRET))
    assert {it.seed.posted_password for it in told} == {SECRET}
    assert (await post("b3RoZXI=")).seed.posted_password == SECRET, "it is kept until its owner clears it"
    assert (await instance_data(world.cloud, port.host, port.id)).seed.posted_password == SECRET
    assert SECRET not in repr(told)
    assert await member("GET", path) == {"password": SECRET}

    reader, stranger = await world.client("reader"), await world.client(project=OTHER)
    assert await reader("GET", path) == {"password": SECRET}
    await reader("DELETE", path, expect=403)
    await stranger("GET", path, expect=404)
    await member("DELETE", path, expect=204)
    await member("DELETE", path, expect=204)
    assert await member("GET", path) == {"password": ""}
    assert await world.cloud.pool.fetchval("SELECT count(*) FROM vault WHERE id LIKE 'guest_password/%'") == 0
    agent = world.steered.networks[port.host]
    for password in ("", "b3RoZXI=", ""):
        agent.ask(port.id, "", password)
    async with asyncio.timeout(10):
        while port.id not in agent.instances:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert agent.instances[port.id][1].posted_password == "b3RoZXI=", "a posting is not lost for a question"
    assert await world.cloud.pool.fetchval("SELECT count(*) FROM vault WHERE id LIKE 'guest_password/%'") == 1

    rows = await world.cloud.pool.fetch("SELECT data::text FROM events")
    assert not any(SECRET in row[0] or "b3RoZXI=" in row[0] for row in rows)
    await member("DELETE", f"/servers/{id}", expect=204)
    await world.gone(member, id)
    async with asyncio.timeout(10):
        while await world.cloud.pool.fetchval("SELECT count(*) FROM vault WHERE id LIKE 'guest_password/%'"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
