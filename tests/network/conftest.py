"""Two hosts with a switch of either kind, for whoever asks for them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from agents.network import namespace
from agents.network.linux_bridge import LinuxBridge
from tests.network.hosts import Fabric
from tests.network.ovs_place import open_vswitches
from tests.network.switched import PLACE, Make, Two


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
