"""Networks and subnets through the clients people have: the `openstack` command and openstacksdk."""

import uuid

import msgspec
import pytest
from openstack import exceptions

from api.identity.service import SERVICE as IDENTITY
from api.network.service import SERVICE as NETWORK
from handlers.identity.bootstrap import bootstrap
from tests.command import commanding
from tests.sdk import connected
from tests.serving import serving

PASSWORD = "operator's own"

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")


@pytest.fixture
async def served(settings, fresh_database):
    async with serving(settings, fresh_database, [IDENTITY, NETWORK]) as it:
        it.cloud.settings = msgspec.structs.replace(settings, public_url=it.url)
        await bootstrap(it.cloud, PASSWORD)
        yield it


@pytest.fixture
async def day(served):
    async with connected(served, PASSWORD) as day:
        yield day


@pytest.fixture
async def do(served):
    async with commanding(served, PASSWORD) as command:
        yield command


async def test_the_command_ranges_the_numbers_of_networks(do):
    json = ("-f", "json")
    words = ("--network-type", "vxlan", "--minimum", "70000", "--maximum", "70009")
    made = await do("network", "segment", "range", "create", "far", "--shared", *words, *json)
    assert (made["shared"], made["default"], made["available"]) == (True, False, ["70000-70009"])
    await do("network", "segment", "range", "set", "far", "--minimum", "70000", "--maximum", "70004")
    listed = await do("network", "segment", "range", "list", "--long", *json)
    assert [it["Maximum ID"] for it in listed if it["Name"] == "far"] == [70004]
    assert {it["Network Type"] for it in listed} == {"vxlan", "vlan"}
    await do("network", "segment", "range", "delete", "far")


async def test_the_command(do):
    json = ("-f", "json")
    assert "network" in {it["Type"] for it in await do("catalog", "list", *json)}
    outside = await do(
        "network", "create", "public", "--external", "--default", "--provider-network-type", "flat",
        "--provider-physical-network", "external", *json,
    )  # fmt: skip
    assert (outside["router:external"], outside["provider:network_type"], outside["mtu"]) == (True, "flat", 1500)
    inner = await do("network", "create", "private", "--mtu", "1400", "--tag", "blue", "--no-share", *json)
    assert (inner["mtu"], inner["tags"], inner["shared"]) == (1400, ["blue"], False)
    subnet = await do(
        "subnet", "create", "inner", "--network", "private", "--subnet-range", "10.7.0.0/24", "--gateway", "10.7.0.254",
        "--allocation-pool", "start=10.7.0.10,end=10.7.0.20", "--dns-nameserver", "9.9.9.9",
        "--host-route", "destination=192.0.2.0/24,gateway=10.7.0.9", *json,
    )  # fmt: skip
    assert subnet["allocation_pools"] == [{"start": "10.7.0.10", "end": "10.7.0.20"}]
    assert subnet["host_routes"] == [{"destination": "192.0.2.0/24", "nexthop": "10.7.0.9"}]
    six = await do(
        "subnet", "create", "six", "--network", "private", "--ip-version", "6", "--subnet-range", "fd00:7::/64",
        "--ipv6-ra-mode", "slaac", "--ipv6-address-mode", "slaac", *json,
    )  # fmt: skip
    assert (six["gateway_ip"], six["ipv6_ra_mode"]) == ("fd00:7::1", "slaac")
    await do("subnet", "set", "inner", "--no-dhcp", "--name", "renamed", "--dns-nameserver", "8.8.8.8")
    shown = await do("subnet", "show", "renamed", *json)
    assert (shown["enable_dhcp"], shown["dns_nameservers"]) == (False, ["8.8.8.8", "9.9.9.9"])
    await do("network", "set", "private", "--disable-port-security", "--dns-domain", "here.example.")
    assert (await do("network", "show", "private", *json))["dns_domain"] == "here.example."
    listed = await do("network", "list", "--internal", "--tags", "blue", "--long", *json)
    assert [(it["Name"], len(it["Subnets"]), it["Network Type"]) for it in listed] == [("private", 2, "vxlan")]
    used = await do("ip", "availability", "show", inner["id"], *json)
    assert used["total_ips"] > 11
    assert "Port Security" in {it["Name"] for it in await do("extension", "list", "--network", *json)}
    assert "is in use" in await do.refused(
        "network", "create", "again", "--provider-network-type", "flat", "--provider-physical-network", "external"
    )
    assert "overlaps with another subnet" in await do.refused(
        "subnet", "create", "other", "--network", "private", "--subnet-range", "10.7.0.128/25"
    )
    await do("network", "delete", "private")
    assert await do("subnet", "list", *json) == []


async def test_networks_through_the_sdk(day):
    def work(cloud):
        network = cloud.network.create_network(name="n", description="d", is_port_security_enabled=False)
        assert (network.mtu, network.status, network.is_port_security_enabled) == (1450, "ACTIVE", False)
        assert cloud.network.find_network("n").id == network.id
        assert cloud.network.set_tags(network, ["red"]).tags == ["red"]
        assert [it.id for it in cloud.network.networks(tags="red", is_shared=False)] == [network.id]
        fresh = cloud.network.get_network(network)
        changed = cloud.network.update_network(fresh, if_revision=fresh.revision_number, name="m")
        assert changed.name == "m"
        with pytest.raises(exceptions.HttpException, match="Constrained to"):
            cloud.network.update_network(changed, if_revision=1, name="late")
        made = cloud.network.create_subnet(network_id=network.id, ip_version=4, cidr="10.0.0.0/24", name="s")
        assert made.gateway_ip == "10.0.0.1"
        assert cloud.network.find_subnet("s", network_id=network.id).id == made.id
        assert [it.id for it in cloud.network.subnets(network_id=network.id, is_dhcp_enabled=True)] == [made.id]
        with pytest.raises(exceptions.BadRequestException, match="overlaps"):
            cloud.network.create_subnet(network_id=network.id, ip_version=4, cidr="10.0.0.0/25")
        assert cloud.network.update_subnet(made, is_dhcp_enabled=False).is_dhcp_enabled is False
        [segment] = cloud.network.segments(network_id=network.id)
        assert cloud.network.update_segment(segment, name="one").name == "one"
        assert cloud.network.find_extension("net-mtu").alias == "net-mtu"
        used = cloud.network.get_network_ip_availability(network.id)
        assert (used.total_ips, used.used_ips) == (253, 0)
        cloud.network.delete_subnet(made, ignore_missing=False)
        cloud.network.delete_network(network.id, ignore_missing=False)
        with pytest.raises(exceptions.NotFoundException):
            cloud.network.get_network(network.id)
        with pytest.raises(exceptions.NotFoundException):
            cloud.network.delete_network(str(uuid.uuid4()), ignore_missing=False)

    await day(work)


async def test_a_topology_through_the_sdk(day):
    def work(cloud):
        with pytest.raises(exceptions.ConflictException, match="No default router:external network"):
            cloud.network.validate_auto_allocated_topology()
        outside = cloud.network.create_network(name="public", is_router_external=True, is_default=True)
        cloud.network.create_subnet(network_id=outside.id, ip_version=4, cidr="203.0.113.0/27", is_dhcp_enabled=False)
        assert cloud.network.validate_auto_allocated_topology().id == "dry-run=pass"
        made = cloud.network.get_auto_allocated_topology()
        assert cloud.network.get_network(made.id).name == "auto_allocated_network"
        assert cloud.network.get_auto_allocated_topology().id == made.id
        cloud.network.delete_auto_allocated_topology()
        assert [it.id for it in cloud.network.networks()] == [outside.id]

    await day(work)


async def test_several_at_once_through_the_sdk(day):
    def work(cloud):
        answer = cloud.network.post("/networks", json={"networks": [{"name": "a"}, {"name": "b"}]})
        assert answer.status_code == 201
        made = [it["id"] for it in answer.json()["networks"]]
        assert [it.id for it in cloud.network.networks(sort_key="name", sort_dir="asc", limit=1)] == made

    await day(work)
