"""Somebody at the networking API, and two hosts with a switch of either kind: for whoever asks for them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator

import msgspec
import pytest

from agents.network import namespace
from agents.network.linux_bridge import LinuxBridge
from api.identity.service import SERVICE as IDENTITY
from api.network.service import SERVICE
from bus.config import Settings
from handlers.identity.bootstrap import Offered, bootstrap
from tests.command import Command, commanding
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


PASSWORD = "correct horse battery staple"


@pytest.fixture
async def openstack(settings: Settings, fresh_database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Command]:
    """The `openstack` command at such a cloud, as its administrator."""
    monkeypatch.setattr("handlers.identity.passwords.COST", 4)
    async with serving(settings, fresh_database, [IDENTITY, SERVICE]) as it:
        it.cloud.settings = msgspec.structs.replace(settings, public_url=it.url)
        offered = (Offered("identity", "keystone", "/identity"), Offered("network", "neutron", "/networking"))
        await bootstrap(it.cloud, PASSWORD, offered=offered)
        async with commanding(it, PASSWORD) as command:
            yield command
