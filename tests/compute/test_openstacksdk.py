"""A day of an operator with openstacksdk, the server itself left aside: every call is the library's own."""

from collections.abc import AsyncIterator

import msgspec
import pytest
from openstack import exceptions

from api.compute.service import SERVICE as COMPUTE
from api.identity.service import SERVICE as IDENTITY
from handlers.compute.bootstrap import DEFAULT_FLAVORS
from handlers.compute.bootstrap import bootstrap as make_flavors
from handlers.compute.lease import Hosts
from handlers.identity.bootstrap import bootstrap
from schema.compute.domain import Heartbeat, HostFacts
from tests.sdk import Day, connected
from tests.serving import Served, serving

PASSWORD = "operator's own"

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")


@pytest.fixture
async def served(settings, fresh_database) -> AsyncIterator[Served]:
    async with serving(settings, fresh_database, [IDENTITY, COMPUTE]) as it:
        it.cloud.settings = msgspec.structs.replace(settings, public_url=it.url)
        await bootstrap(it.cloud, PASSWORD)
        await make_flavors(it.cloud)
        await make_flavors(it.cloud)
        facts = HostFacts(hypervisor_type="QEMU", vcpus=8, memory_mb=16_384, disk_gb=200)
        await Hosts(it.cloud).on_heartbeat("h1", Heartbeat(host="h1", epoch=0, facts=facts))
        yield it


@pytest.fixture
async def day(served) -> AsyncIterator[Day]:
    async with connected(served, PASSWORD) as day:
        yield day


async def test_flavors(day):
    def work(cloud):
        assert {flavor.name for flavor in cloud.compute.flavors()} == {it.name for it in DEFAULT_FLAVORS.values()}
        made = cloud.compute.create_flavor(name="mine", ram=64, vcpus=1, disk=1, is_public=False, description="small")
        assert cloud.compute.find_flavor("mine", get_extra_specs=True).id == made.id
        assert cloud.compute.create_flavor_extra_specs(made, {"hw:cpu_policy": "shared"}).extra_specs
        assert cloud.compute.fetch_flavor_extra_specs(made).extra_specs == {"hw:cpu_policy": "shared"}
        cloud.compute.update_flavor_extra_specs_property(made, "hw:cpu_policy", "dedicated")
        assert cloud.compute.get_flavor_extra_specs_property(made, "hw:cpu_policy") == "dedicated"
        cloud.compute.delete_flavor_extra_specs_property(made, "hw:cpu_policy")
        project = cloud.identity.find_project("service")
        cloud.compute.flavor_add_tenant_access(made, project.id)
        assert project.id in {it["tenant_id"] for it in cloud.compute.get_flavor_access(made)}
        cloud.compute.flavor_remove_tenant_access(made, project.id)
        with pytest.raises(exceptions.BadRequestException, match="not a valid project"):
            cloud.compute.flavor_add_tenant_access(made, "nobody")
        assert cloud.compute.update_flavor(made.id, description="smaller").description == "smaller"
        cloud.compute.delete_flavor(made)
        assert cloud.compute.find_flavor("mine") is None

    await day(work)


async def test_keypairs(day):
    def work(cloud):
        key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGHlt8huhUI10/sckYenvz+c77MUQVxqX0bGCoi5MtgT"
        made = cloud.compute.create_keypair(name="laptop", public_key=key)
        assert made.fingerprint.count(":") == 15
        assert [it.name for it in cloud.compute.keypairs()] == ["laptop"]
        assert cloud.compute.get_keypair("laptop").public_key == key
        with pytest.raises(exceptions.ConflictException):
            cloud.compute.create_keypair(name="laptop", public_key=key)
        cloud.compute.delete_keypair("laptop")
        assert cloud.compute.find_keypair("laptop") is None

    await day(work)


async def test_hosts(day):
    def work(cloud):
        [hypervisor] = cloud.compute.hypervisors(details=True)
        assert (hypervisor.name, hypervisor.state, hypervisor.status) == ("h1", "up", "enabled")
        assert cloud.compute.find_hypervisor("h1").id == hypervisor.id
        assert cloud.compute.get_hypervisor(hypervisor.id).hypervisor_type == "QEMU"
        [service] = cloud.compute.services(binary="nova-compute")
        cloud.compute.disable_service(service, disabled_reason="a fan")
        assert next(cloud.compute.services()).disabled_reason == "a fan"
        cloud.compute.enable_service(service)
        cloud.compute.update_service_forced_down(service, forced=True)
        assert next(cloud.compute.services()).state == "down"
        cloud.compute.update_service_forced_down(service, forced=False)
        assert [zone.name for zone in cloud.compute.availability_zones()] == ["nova"]
        aggregate = cloud.compute.create_aggregate(name="fast", availability_zone="north")
        assert cloud.compute.add_host_to_aggregate(aggregate, "h1").hosts == ["h1"]
        assert cloud.compute.set_aggregate_metadata(aggregate, {"ssd": "true"}).metadata["ssd"] == "true"
        [zone] = cloud.compute.availability_zones(details=True)
        assert (zone.name, list(zone.hosts)) == ("north", ["h1"])
        assert cloud.compute.find_aggregate("fast").id == aggregate.id
        cloud.compute.remove_host_from_aggregate(aggregate, "h1")
        cloud.compute.delete_aggregate(aggregate)
        assert list(cloud.compute.aggregates()) == []

    await day(work)


async def test_quotas_limits_and_usage(day):
    def work(cloud):
        project = cloud.identity.find_project("service")
        assert cloud.compute.get_quota_set(project).instances == 10
        assert cloud.compute.get_quota_set_defaults(project).cores == 20
        assert cloud.compute.update_quota_set(project, cores=7).cores == 7
        usage = cloud.compute.get_quota_set(project, usage=True)
        assert (usage.cores, usage.usage["cores"]) == (7, 0)
        cloud.compute.revert_quota_set(project)
        assert cloud.compute.get_quota_set(project).cores == 20
        assert cloud.compute.update_quota_class_set("default", cores=30).cores == 30
        assert cloud.compute.get_quota_class_set("default").cores == 30
        assert cloud.compute.get_limits().absolute.total_cores == 30
        assert list(cloud.compute.usages()) == []
        assert cloud.compute.get_usage(project) is not None
        assert list(cloud.compute.extensions())

    await day(work)
