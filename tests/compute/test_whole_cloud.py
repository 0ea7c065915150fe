"""`serve all` with hosts that are played, and a client that boots servers into networks."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from api.cli import roles
from api.cli.choices import admin_password
from bus.cloud import open_cloud
from bus.config import Settings
from projections import projections
from schema.compute.host import HOST
from schema.network.host import NETWORK_HOST
from tests.network.wiring import until
from tests.sdk import connect

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning"),
]

SERVERS = 8
SECONDS = 120


def day(cloud: Any) -> None:
    network = cloud.network.create_network(name="blue")
    subnet = cloud.network.create_subnet(network_id=network.id, ip_version=4, cidr="192.168.7.0/24")
    image = cloud.image.create_image(name="none", data=b"no guest", disk_format="raw", container_format="bare")
    flavor = cloud.compute.find_flavor("m1.nano")
    order = {"image_id": image.id, "flavor_id": flavor.id, "min_count": SERVERS, "max_count": SERVERS}
    cloud.compute.create_server(name="many", networks=[{"uuid": network.id}], **order)
    servers = [
        cloud.compute.wait_for_server(server, status="ACTIVE", interval=0.2, wait=SECONDS)
        for server in list(cloud.compute.servers())
    ]
    assert len({server.compute_host for server in servers}) > 1
    ports = list(cloud.network.ports(network_id=network.id, device_owner="compute:nova"))
    assert {port.status for port in ports} == {"ACTIVE"}
    assert {port.device_id for port in ports} == {server.id for server in servers}
    assert len({port.fixed_ips[0]["ip_address"] for port in ports}) == SERVERS
    [first, *_] = servers
    shown = cloud.compute.get_server(first).addresses["blue"]
    assert [it["OS-EXT-IPS-MAC:mac_addr"] for it in shown] == [
        port.mac_address for port in ports if port.device_id == first.id
    ]
    card = cloud.compute.create_server_interface(first, net_id=network.id)
    assert {it.port_id for it in cloud.compute.server_interfaces(first)} >= {card.port_id}
    for server in servers:
        cloud.compute.delete_server(server)
    for server in servers:
        cloud.compute.wait_for_delete(server, interval=0.2, wait=SECONDS)
    assert list(cloud.network.ports(device_owner="compute:nova")) == []
    cloud.network.delete_subnet(subnet)
    cloud.network.delete_network(network)


async def test_servers_live_in_networks(settings: Settings, fresh_database: str, free_port: Callable[[], int]):
    settings = msgspec.structs.replace(
        settings, postgres=fresh_database, listen=f"127.0.0.1:{free_port()}", hypervisor="simulated", hosts=3
    )
    stop = asyncio.Event()
    serving = asyncio.create_task(roles.run(settings, "all", stop))
    projections()
    behind = await open_cloud(settings, fresh_database)

    async def ready() -> bool:
        found = [it for kind in (HOST, NETWORK_HOST) for it in await behind.documents.find(kind)]
        return len([it for it in found if it.state.alive]) == 6

    try:
        await until(ready, seconds=SECONDS)
        cloud = await asyncio.to_thread(connect, settings.url, admin_password(settings.home), settings.region)
        await asyncio.to_thread(day, cloud)
        await asyncio.to_thread(cloud.close)
    finally:
        stop.set()
        with suppress(asyncio.CancelledError):
            await serving
        await behind.close()
