"""What is kept of servers, through the `openstack` command: images, backups, the shelf, and deletion taken back."""

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
        changed = {"public_url": it.served.url, "reclaim_instance_interval": 3600, "shelved_offload_time": -1}
        it.cloud.settings = msgspec.structs.replace(settings, **changed)
        await bootstrap(it.cloud, PASSWORD, offered=OFFERED)
        async with commanding(it.served, PASSWORD) as it.openstack:
            yield it


@pytest.mark.slow
async def test_a_day_of_keeping(world):
    openstack = world.openstack
    await openstack("network", "create", "blue", *JSON)
    await openstack("subnet", "create", "blue-net", "--network", "blue", "--subnet-range", "192.168.1.0/24", *JSON)
    boot = ("server", "create", "--flavor", "1", "--network", "blue", "--wait", *JSON)
    id = (await openstack(*boot, "--image", IMAGE, "web"))["id"]

    async def shown():
        return await openstack("server", "show", id, *JSON)

    await openstack("server", "image", "create", "--name", "mine", "--property", "k=v", "--wait", "web")
    image = await openstack("image", "show", "mine", *JSON)
    assert (image["name"], image["status"], image["properties"]["k"]) == ("mine", "active", "v")
    assert (await openstack(*boot, "--image", "mine", "second"))["status"] == "ACTIVE"
    for name in ("monday", "tuesday"):
        backup = ("--name", name, "--type", "daily", "--rotate", "1", "--wait")
        await openstack("server", "backup", "create", *backup, "web")

    async def one_is_kept():
        listed = await openstack("image", "list", "--property", "backup_type=daily", *JSON)
        return [it["Name"] for it in listed] == ["tuesday"]

    await until(one_is_kept, seconds=60)

    port = (await openstack("port", "list", "--server", id, *JSON))[0]["ID"]
    await openstack("server", "shelve", "--wait", id)
    assert (await shown())["status"] == "SHELVED"
    await openstack("server", "unshelve", "--wait", id)
    await openstack("server", "shelve", "--offload", "--wait", id)
    assert (await shown())["status"] == "SHELVED_OFFLOADED"
    assert not (await openstack("port", "show", port, *JSON))["binding_host_id"]
    await openstack("server", "unshelve", "--host", "h2", "--wait", id)
    back = await shown()
    assert (back["status"], back["OS-EXT-SRV-ATTR:host"]) == ("ACTIVE", "h2")
    bound = await openstack("port", "show", port, *JSON)
    assert (bound["binding_host_id"], bound["status"]) == ("h2", "ACTIVE")
    assert await openstack("image", "list", "--name", "web-shelved", *JSON) == []

    await openstack("server", "delete", id)

    async def is_deleted():
        return (await shown())["status"] == "SOFT_DELETED"

    await until(is_deleted, seconds=60)
    assert [it["Name"] for it in await openstack("server", "list", *JSON)] == ["second"]
    await openstack("server", "restore", id)

    async def is_back():
        return (await shown())["status"] == "ACTIVE"

    await until(is_back, seconds=60)
