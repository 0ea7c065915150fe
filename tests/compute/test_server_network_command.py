"""Servers and their networks through the `openstack` command: a day of somebody who has never heard of us."""

import json

import msgspec
import pytest

from api.compute.service import SERVICE as COMPUTE
from api.identity.service import SERVICE as IDENTITY
from api.image.service import SERVICE as IMAGES
from api.network.service import SERVICE as NETWORK
from handlers.identity.bootstrap import Offered, bootstrap
from tests.command import commanding
from tests.compute.networked import networked
from tests.compute.world import IMAGE
from tests.network.wiring import until

PASSWORD = "correct horse battery staple"
JSON = ("-f", "json")
BOOT = ("server", "create", "--image", IMAGE, "--flavor", "1", "--wait", *JSON)
OFFERED = (
    Offered("identity", "keystone", "/identity"),
    Offered("compute", "nova", "/compute/v2.1"),
    Offered("image", "glance", "/image"),
    Offered("network", "neutron", "/networking"),
)


@pytest.fixture
async def world(settings, fresh_database, monkeypatch):
    monkeypatch.setattr("handlers.identity.passwords.COST", 4)
    async with networked(settings, fresh_database, [IDENTITY, COMPUTE, IMAGES, NETWORK]) as it:
        it.cloud.settings = msgspec.structs.replace(settings, public_url=it.served.url)
        await bootstrap(it.cloud, PASSWORD, offered=OFFERED)
        async with commanding(it.served, PASSWORD) as it.openstack:
            yield it


def addresses(shown):
    known = shown["addresses"] if "addresses" in shown else shown["Networks"]
    return json.loads(known) if isinstance(known, str) else known


@pytest.mark.slow
async def test_a_day_of_servers_and_networks(world):
    openstack = world.openstack
    for name, number in (("blue", 1), ("green", 2)):
        await openstack("network", "create", name, *JSON)
        subnet = ("--network", name, "--subnet-range", f"192.168.{number}.0/24")
        await openstack("subnet", "create", f"{name}-net", *subnet, *JSON)
    port = await openstack(
        "port", "create", "mine", "--network", "green", "--fixed-ip", "ip-address=192.168.2.50", *JSON
    )
    await openstack("security", "group", "create", "web", *JSON)
    made = await openstack(
        *BOOT, "web", "--network", "blue", "--port", "mine", "--security-group", "web", "--security-group", "default"
    )
    assert made["status"] == "ACTIVE"
    shown = addresses(made)
    assert set(shown) == {"blue", "green"}
    assert shown["green"] == ["192.168.2.50"]
    listed = await openstack("port", "list", "--server", "web", "-c", "ID", "-c", "Status", *JSON)
    assert [it["Status"] for it in listed] == ["ACTIVE", "ACTIVE"]

    async def has(*ips_of_networks, server="web"):
        async def so():
            shown = addresses(await openstack("server", "show", server, *JSON))
            return {(name, len(ips)) for name, ips in shown.items()} == set(ips_of_networks)

        await until(so, seconds=60)

    await openstack("server", "remove", "port", "web", "mine")
    await has(("blue", 1))
    assert (await openstack("port", "show", "mine", *JSON))["device_id"] == ""
    await openstack("server", "add", "port", "web", "mine")
    await openstack("server", "add", "network", "web", "green")
    await has(("blue", 1), ("green", 2))
    await openstack("server", "add", "fixed", "ip", "web", "blue", "--fixed-ip-address", "192.168.1.77")
    await has(("blue", 2), ("green", 2))
    old = ("--os-compute-api-version", "2.43")
    await openstack.alone(*old, "server", "remove", "fixed", "ip", "web", "192.168.1.77")
    await openstack("server", "remove", "network", "web", "green")
    await has(("blue", 1))
    await openstack("server", "remove", "security", "group", "web", "web")
    await openstack("server", "add", "security", "group", "web", "web")
    nic = await openstack(
        *BOOT,
        "other",
        "--nic",
        f"net-id={(await openstack('network', 'show', 'blue', *JSON))['id']},v4-fixed-ip=192.168.1.99",
    )
    assert addresses(nic) == {"blue": ["192.168.1.99"]}
    refused = await openstack.refused(*BOOT, "third")
    assert "Multiple possible networks found" in refused
    none = await openstack(*BOOT, "third", "--nic", "none")
    assert addresses(none) == {}
    await openstack("server", "delete", "--wait", "web", "other", "third")
    left = await openstack("port", "list", "--device-owner", "compute:nova", *JSON)
    assert left == []
    assert (await openstack("port", "show", port["id"], *JSON))["device_id"] == ""
