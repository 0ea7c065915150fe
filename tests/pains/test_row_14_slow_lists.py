"""Row 14: a list of a thousand servers asks the database a thousand times."""

from contextlib import asynccontextmanager

from api.compute.service import SERVICE as COMPUTE
from tests.compute.networked import networked

FEW, MANY = 2, 9
LISTS = ("/servers", "/servers/detail", "/servers/detail?not-tags=none", "/os-hypervisors/detail", "/limits")


@asynccontextmanager
async def queries(pool):
    """What this pool's connections are asked meanwhile."""
    asked: list[str] = []
    connections = [await pool.acquire() for _ in range(pool.get_size())]
    for connection in connections:
        connection.add_query_logger(lambda record: asked.append(record.query))
    for connection in connections:
        await pool.release(connection)
    yield asked
    for holder in pool._holders:
        if holder._con is not None:
            holder._con._query_loggers.clear()


async def test_however_many_there_are_a_list_asks_as_often(settings, fresh_database):
    async with networked(settings, fresh_database, (COMPUTE,)) as world:
        client, admin = await world.client(), await world.client("admin")
        network = await world.network()
        asked: dict[str, list[int]] = {}
        made = 0
        for count in (FEW, MANY):
            while made < count:
                await world.boot(client, networks=[{"uuid": network}])
                made += 1
            for path in LISTS:
                await admin("GET", path)  # what is looked up once and remembered is so
                async with queries(world.cloud.pool) as seen:
                    await admin("GET", path)
                about = [it for it in seen if "documents" in it or "events" in it]
                asked.setdefault(path, []).append(len(about))
        for path, (few, many) in asked.items():
            assert many <= few + 1, f"{path} asks {few} times for {FEW} servers, {many} times for {MANY}"
