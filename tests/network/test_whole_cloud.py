"""`serve all` with hosts that are played: each has a network agent, and a port bound to one becomes active."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest

from api.cli import roles
from api.cli.steering import network_driver
from bus.cloud import open_cloud
from bus.config import Networking, Settings
from projections import projections
from schema.network.host import NETWORK_HOST
from schema.network.network import NETWORK, NetworkCreated
from schema.network.port import PORT
from schema.network.port_event import PortCreated
from tests.network.wiring import bound, happened, until


async def test_every_host_has_a_network_agent(settings: Settings, fresh_database: str, free_port: Callable[[], int]):
    settings = msgspec.structs.replace(
        settings, postgres=fresh_database, listen=f"127.0.0.1:{free_port()}", hypervisor="simulated", hosts=3
    )
    stop = asyncio.Event()
    serving = asyncio.create_task(roles.run(settings, "all", stop))
    projections()
    cloud = await open_cloud(settings, fresh_database)
    try:

        async def registered() -> bool:
            hosts = await cloud.documents.find(NETWORK_HOST)
            return {it.id for it in hosts if it.state.up} == {"host-1-001", "host-1-002", "host-1-003"}

        await until(registered, seconds=30.0)
        await cloud.executor.execute(
            happened(NETWORK, "n1", NetworkCreated()),
            happened(PORT, "p1", PortCreated(parent_id="n1", device_owner="compute:nova"), bound("host-1-002")),
        )

        async def active() -> bool:
            state = (await cloud.documents.get(PORT, "p1")).state
            return bool(state.status == "ACTIVE")

        await until(active)
    finally:
        stop.set()
        with suppress(asyncio.CancelledError):
            await serving
        await cloud.close()


@pytest.mark.parametrize(
    "hypervisor, driver, used",
    [
        ("simulated", "", "simulated"),
        ("none", "", "none"),
        ("simulated", "none", "none"),
        ("libvirt", "", "linuxbridge"),
        ("libvirt", "ovs", "ovs"),
    ],
)
def test_the_driver_goes_with_the_hypervisor_unless_the_settings_name_one(
    settings: Settings, hypervisor: str, driver: str, used: str
):
    chosen = msgspec.structs.replace(settings, hypervisor=hypervisor, network=Networking(driver=driver))
    assert network_driver(chosen) == used
