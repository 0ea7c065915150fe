"""A day's work with servers, by openstacksdk: every call is the library's own."""

import base64
from datetime import timedelta

import msgspec
import pytest
from openstack import exceptions

from api.compute.service import SERVICE as COMPUTE
from api.identity.service import SERVICE as IDENTITY
from bus import clock
from bus.execute import Wish
from handlers.compute.bootstrap import bootstrap as make_flavors
from handlers.identity.bootstrap import bootstrap
from handlers.image.image import IMAGES
from schema.image.image import CreateImage, FinishImageUpload, StartImageUpload
from tests.compute.steering import Steered
from tests.sdk import connected
from tests.serving import serving

PASSWORD = "operator's own"
IMAGE = "11111111-1111-4111-8111-111111111111"

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")


@pytest.fixture
async def day(settings, fresh_database):
    """Runs a function of a connection in a thread, as the library blocks."""
    steering = []
    prepare = lambda cloud: steering.append(Steered(cloud))  # noqa: E731
    async with serving(settings, fresh_database, [IDENTITY, COMPUTE], prepare) as served, steering[0] as steered:
        cloud = served.cloud
        cloud.settings = msgspec.structs.replace(settings, public_url=served.url)
        await bootstrap(cloud, PASSWORD)
        await make_flavors(cloud)
        await steered.host("h1")
        deadline = clock.now() + timedelta(hours=1)
        await cloud.executor.execute(
            Wish(IMAGES, IMAGE, CreateImage(visibility="public", disk_format="qcow2", container_format="bare")),
            Wish(IMAGES, IMAGE, StartImageUpload(upload_id="u", deadline=deadline)),
            Wish(
                IMAGES,
                IMAGE,
                FinishImageUpload(upload_id="u", size=9, checksum="c", hash_algorithm="sha512", hash_value="h"),
            ),
        )
        async with connected(served, PASSWORD) as run:
            yield run


async def test_a_day_with_a_server(day):
    def work(connection):
        compute = connection.compute
        flavor = next(iter(compute.flavors()))
        keypair = compute.create_keypair(name="mine")
        server = compute.create_server(
            name="web",
            image_id=IMAGE,
            flavor_id=flavor.id,
            networks="none",
            key_name=keypair.name,
            user_data=base64.b64encode(b"#!/bin/sh\n").decode(),
            metadata={"role": "web"},
            tags=["blue"],
            description="mine",
            config_drive=True,
            min_count=1,
            max_count=1,
        )
        assert server.admin_password
        server = compute.wait_for_server(server, wait=30, interval=0.05)
        assert (server.status, server.vm_state, server.power_state) == ("ACTIVE", "active", 1)
        assert (server.key_name, server.has_config_drive, server.tags) == ("mine", "True", ["blue"])
        assert server.flavor["original_name"] == flavor.name
        assert server.image["id"] == IMAGE
        assert server.compute_host == "h1"

        compute.stop_server(server)
        compute.wait_for_server(server, status="SHUTOFF", wait=30, interval=0.05)
        with pytest.raises(exceptions.ConflictException, match="vm_state stopped"):
            compute.pause_server(server)
        compute.start_server(server)
        compute.wait_for_server(server, wait=30, interval=0.05)
        compute.reboot_server(server, "HARD")
        compute.wait_for_server(server, wait=30, interval=0.05)
        assert isinstance(compute.get_server_console_output(server, length=10)["output"], str)

        compute.set_server_metadata(server, owner="ada")
        assert compute.get_server_metadata(server).metadata == {"role": "web", "owner": "ada"}
        compute.delete_server_metadata(server, ["owner"])
        server.add_tag(compute, "green")
        assert compute.update_server(server, name="db", description=None).name == "db"
        assert [it.id for it in compute.servers(name="^db$", all_projects=True)] == [server.id]
        assert [it.id for it in compute.servers(details=False, status="ACTIVE")] == [server.id]
        assert list(compute.servers(status="SHUTOFF")) == []
        assert {it.action for it in compute.server_actions(server)} >= {"create", "stop", "start", "reboot"}
        compute.lock_server(server, locked_reason="careful")
        assert compute.get_server(server).locked_reason == "careful"
        compute.unlock_server(server)

        compute.delete_server(server)
        compute.wait_for_delete(server, wait=30, interval=0.05)
        assert compute.find_server("db") is None

    await day(work)


async def test_a_day_without_a_host(day):
    def work(connection):
        compute = connection.compute
        flavor = next(iter(compute.flavors()))
        server = compute.create_server(name="web", image_id=IMAGE, flavor_id=flavor.id, networks="none")
        server = compute.wait_for_server(server, wait=30, interval=0.05)
        with pytest.raises(exceptions.BadRequestException, match="still in use"):
            compute.evacuate_server(server)
        [service] = compute.services(binary="nova-compute")
        compute.update_service_forced_down(service, forced=True)
        compute.evacuate_server(server)
        [migration] = compute.migrations(instance_uuid=server.id)
        assert (migration.migration_type, migration.source_compute, migration.server_id) == (
            "evacuation",
            "h1",
            server.id,
        )
        assert list(compute.server_migrations(server)) == []

    await day(work)
