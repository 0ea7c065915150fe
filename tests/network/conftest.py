"""Somebody at the networking API, and two hosts with a switch of either kind: for whoever asks for them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from agents.network import namespace
from agents.network.linux_bridge import LinuxBridge
from api.network.service import SERVICE
from bus.config import Settings
from tests.network.hosts import Fabric
from tests.network.ovs_place import open_vswitches
from tests.network.routed import OTHERS, Client
from tests.network.switched import PLACE, Make, Two
from tests.serving import Served, serving


@pytest.fixture(params=["linuxbridge", "ovs"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(kind: str) -> Iterator[Make]:
    if kind == "linuxbridge":
        yield lambda host: LinuxBridge(host.space, **PLACE)
    else:
        with open_vswitches(**PLACE, protecting=False) as opened:
            yield lambda host: opened(host.space)


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric() as fabric:
        yield fabric


@pytest.fixture
async def two(fabric: Fabric, make: Make) -> AsyncIterator[Two]:
    two = Two(fabric, make)
    yield two
    await two.close()


@pytest.fixture
def service(fabric: Fabric) -> Callable[[], str]:
    def make() -> str:
        name = f"{fabric.tag}-s{os.urandom(2).hex()}"
        namespace.create(name)
        return name

    return make


@pytest.fixture
async def served(settings: Settings, fresh_database: str) -> AsyncIterator[Served]:
    async with serving(settings, fresh_database, [SERVICE]) as it:
        yield it


@pytest.fixture
async def admin(served: Served) -> Client:
    return Client(served, await served.token("admin"))


@pytest.fixture
async def member(served: Served) -> Client:
    return Client(served, await served.token("member"))


@pytest.fixture
async def stranger(served: Served) -> Client:
    return Client(served, await served.token("member", project=OTHERS))
