"""Projections: what is built again from position 0 equals what grew with it, however it was cut into batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import asyncpg
import pytest

from bus.broker import Broker
from bus.checkpoint import PostgresCheckpoints
from bus.cloud import Cloud, open_cloud
from bus.config import Settings
from bus.consumer import PROJECTIONS, ProjectionWorker
from bus.execute import Wish
from bus.memory_broker import MemoryBroker
from bus.postgres_log import PostgresLog
from bus.rebuild import rebuild
from handlers.compute.server import SERVERS
from projections import projections
from projections.compute.usage import USAGE
from schema.compute.server import SERVER
from schema.compute.server_command import (
    ChangeServerDetails,
    CreateServer,
    DeleteServer,
    EndServer,
    ObserveServer,
    PlaceServer,
    RefusePlacement,
    StopServer,
)
from schema.compute.server_parts import Fault, Order, ServerFlavor
from schema.compute.task import PowerState
from schema.refusal import Refused

pytestmark = pytest.mark.law

LIVES = 40
ROWS = "SELECT * FROM compute_usage_v1 ORDER BY server_id"


@pytest.fixture
async def cloud(settings: Settings, fresh_database: str) -> AsyncIterator[Cloud]:
    projections()
    cloud = await open_cloud(settings, fresh_database)
    yield cloud
    await cloud.close()


@asynccontextmanager
async def worked(pool: asyncpg.Pool, broker: Broker) -> AsyncIterator[ProjectionWorker]:
    worker = ProjectionWorker(pool, PostgresLog(pool), broker, PostgresCheckpoints(pool), USAGE)
    task = asyncio.create_task(worker.run())
    yield worker
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def live(cloud: Cloud, id: str, chance: Random) -> None:
    """A server's life, cut short anywhere."""
    flavor = ServerFlavor(id="1", name=f"f{chance.randrange(3)}", vcpus=2, ram_mb=64, disk_gb=chance.randrange(9))
    create = CreateServer(name=id, project_id=f"p{chance.randrange(3)}", order=Order(user_id="u"), flavor=flavor)
    [document] = await cloud.executor.execute(Wish(SERVERS, id, create))
    for _ in range(chance.randrange(12)):
        seen = ObserveServer(
            host="h1",
            generation=document.state.generation,
            power_state=chance.choice([PowerState.RUNNING, PowerState.SHUTDOWN]),
        )
        command = chance.choice(
            [
                PlaceServer(host="h1", provider_id="p"),
                RefusePlacement(fault=Fault(message="no room")),
                seen,
                seen,
                seen,
                StopServer(),
                ChangeServerDetails(name=f"{id}-{chance.randrange(100)}"),
                ChangeServerDetails(description="no name in it"),
                DeleteServer(),
                EndServer(),
            ]
        )
        try:
            [document] = await cloud.executor.execute(Wish(SERVERS, id, command))
        except Refused:
            continue


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_rebuilt_projection_equals_the_live_one(cloud: Cloud, fresh_database: str, seed: int):
    async with worked(cloud.pool, cloud.broker):
        await asyncio.gather(*(live(cloud, f"s{n:02}", Random(f"{seed}/{n}")) for n in range(LIVES)))
        assert await USAGE.caught_up(cloud.pool)
    grown = await cloud.pool.fetch(ROWS)
    assert USAGE.name in (await rebuild(fresh_database)).projections
    assert await cloud.pool.fetch(ROWS) == []
    async with worked(cloud.pool, MemoryBroker()):  # whole lives in one batch
        assert await USAGE.caught_up(cloud.pool, timeout_seconds=10.0)
    assert await cloud.pool.fetch(ROWS) == grown
    assert await cloud.pool.fetchval("SELECT count(*) FROM parked") == 0


async def test_usage_says_what_each_server_says_of_itself(cloud: Cloud):
    async with worked(cloud.pool, cloud.broker):
        await asyncio.gather(*(live(cloud, f"s{n:02}", Random(f"told/{n}")) for n in range(LIVES)))
        assert await USAGE.caught_up(cloud.pool)
    told: dict[str, Any] = {row["server_id"]: row for row in await cloud.pool.fetch(ROWS)}
    states = [document.state for document in await cloud.documents.find(SERVER, gone=None)]
    assert len(told) == len(states) == LIVES
    assert (
        {bool(state.launched_at) for state in states} == {bool(state.deleted_at) for state in states} == {True, False}
    )
    for state in states:
        row = told[state.id]
        assert (row["name"], row["project_id"], row["flavor"]) == (state.name, state.project_id, state.flavor.name)
        times = (row["created_at"], row["started_at"], row["ended_at"])
        assert times == (state.created_at, state.launched_at, state.deleted_at)


def test_every_projection_is_found_and_keeps_its_version_in_its_tables():
    for projection in projections().values():
        assert PROJECTIONS[projection.name] is projection
        assert f"{projection.name.replace('.', '_')}_v{projection.version}" in projection.tables
