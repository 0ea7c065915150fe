"""openstacksdk against a served cloud. The library blocks, so what is done with it is done in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import openstack

from tests.serving import Served

Day = Callable[[Callable[[Any], None]], Awaitable[None]]
"""Runs a function of a connection."""


def connect(url: str, password: str, region: str = "RegionOne") -> Any:
    """The administrator's connection to the cloud at that address. Blocks."""
    return openstack.connect(
        auth={
            "auth_url": f"{url}/identity",
            "username": "admin",
            "password": password,
            "project_name": "admin",
            "user_domain_id": "default",
            "project_domain_id": "default",
        },
        region_name=region,
        load_yaml_config=False,
        load_envvars=False,
    )


@asynccontextmanager
async def connected(served: Served, password: str) -> AsyncIterator[Day]:
    connection = await asyncio.to_thread(connect, served.url, password, served.cloud.settings.region)

    async def run(work: Callable[[Any], None]) -> None:
        await asyncio.to_thread(work, connection)

    yield run
    await asyncio.to_thread(connection.close)
