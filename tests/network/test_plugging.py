"""Ports as they are planned: their addresses, MACs and rules, and what goes when they go."""

import pytest

from bus.cloud import open_cloud
from bus.execute import Wish
from handlers.network.addressing import Wanted, eui64, with_addresses
from handlers.network.network import NETWORKS
from handlers.network.plugging import PortWanted, planned, removing
from handlers.network.quota import NETWORK_QUOTAS
from handlers.network.subnet import SUBNETS
from schema.network.network import AddNetworkSubnet, UpdateNetwork
from schema.network.port import PORT
from schema.network.quota import NETWORK_USAGE, SetNetworkQuotaLimits
from schema.network.security_group import SECURITY_GROUP
from schema.network.subnet import CreateSubnet, Pool
from schema.refusal import Conflict, Invalid, NotFound
from tests.network.routed import addresses, network, subnet


@pytest.fixture
async def cloud(settings, fresh_database):
    it = await open_cloud(settings, fresh_database)
    await it.start()
    yield it
    await it.close()


async def _plug(cloud, *wanted):
    async def attempt(picks):
        ports = await planned(cloud, picks, wanted)
        await cloud.executor.execute(*(wish for port in ports for wish in port.wishes))
        return ports

    return await with_addresses(cloud, attempt)


async def _used(cloud):
    usages = await cloud.documents.find(NETWORK_USAGE)
    return {it.state.project_id: it.state.used for it in usages if it.state.name == "port"}


async def test_ports_of_many_networks_are_planned_at_once(cloud):
    first, second = await network(cloud), await network(cloud)
    await subnet(cloud, first, "10.0.0.0/29", "10.0.0.1", "10.0.0.2", "10.0.0.6")
    await subnet(cloud, second, "10.1.0.0/24", "10.1.0.1", "10.1.0.2", "10.1.0.254")
    ports = await _plug(cloud, *(PortWanted(network_id=id, project_id="p") for id in (first, first, second)))
    assert len({port.fixed_ips for port in ports}) == len({port.command.mac_address for port in ports}) == 3
    assert await addresses(cloud) == {port.fixed_ips[0].ip_address: port.id for port in ports}
    assert ports[2].cidrs == ("10.1.0.0/24",)
    with pytest.raises(Conflict) as full:
        await _plug(cloud, *(PortWanted(network_id=first, project_id="p") for _ in range(4)))
    assert full.value.code == "IpAddressGenerationFailure"
    states = [(await cloud.documents.get(PORT, port.id)).state for port in ports]
    await cloud.executor.execute(*await removing(cloud, states))
    assert await addresses(cloud) == {}
    assert await cloud.documents.find(PORT) == []


async def test_an_address_may_follow_from_the_mac(cloud):
    assert eui64("2001:db8::/64", "fa:16:3e:12:34:56") == "2001:db8::f816:3eff:fe12:3456"
    id = await network(cloud)
    v4 = await subnet(cloud, id, "10.0.0.0/24", "10.0.0.1", "10.0.0.2", "10.0.0.254")
    command = CreateSubnet(
        project_id="p",
        parent_id=id,
        cidr="2001:db8::/64",
        ip_version=6,
        gateway_ip="2001:db8::1",
        pools=(Pool(start="2001:db8::2", end="2001:db8::ffff"),),
        ipv6_address_mode="slaac",
        ipv6_ra_mode="slaac",
    )
    await cloud.executor.execute(
        Wish(SUBNETS, "slaac", command), Wish(NETWORKS, id, AddNetworkSubnet(subnet_id="slaac"))
    )
    mac = "fa:16:3e:00:00:01"
    wanted = PortWanted(network_id=id, project_id="p", mac_address=mac, fixed_ips=[Wanted(subnet_id=v4)])
    [port] = await _plug(cloud, wanted)
    assert [it.ip_address for it in port.fixed_ips][1:] == ["2001:db8::f816:3eff:fe00:1"]
    with pytest.raises(Invalid) as chosen:
        await _plug(cloud, PortWanted(network_id=id, project_id="p", fixed_ips=[Wanted(ip="2001:db8::77")]))
    assert chosen.value.code == "AllocationOnAutoAddressSubnet"
    foot = PortWanted(
        network_id=id,
        project_id="p",
        device_owner="network:router_interface",
        fixed_ips=[Wanted(subnet_id="slaac", ip="2001:db8::1")],
    )
    [port] = await _plug(cloud, foot)
    assert [it.ip_address for it in port.fixed_ips] == ["2001:db8::1"]


async def test_port_security_is_the_networks_unless_said(cloud):
    id = await network(cloud)
    await cloud.executor.execute(Wish(NETWORKS, id, UpdateNetwork(port_security_enabled=False)))
    open_port, secured = await _plug(
        cloud,
        PortWanted(network_id=id, project_id="p"),
        PortWanted(network_id=id, project_id="p", port_security_enabled=True),
    )
    assert (open_port.command.port_security_enabled, secured.command.port_security_enabled) == (False, True)
    with pytest.raises(Invalid) as insecure:
        await _plug(cloud, PortWanted(network_id=id, project_id="p", security_group_ids=("g",)))
    assert insecure.value.code == "PortSecurityAndIPRequiredForSecurityGroups"


async def test_a_port_is_in_its_projects_default_group_and_counts(cloud):
    id = await network(cloud)
    wanted = [PortWanted(network_id=id, project_id=project) for project in ("p", "p", "q")]
    ports = await _plug(cloud, *wanted)
    groups = [port.command.security_group_ids for port in ports]
    assert groups[0] == groups[1] != groups[2]
    assert {it.state.project_id for it in await cloud.documents.find(SECURITY_GROUP)} == {"p", "q"}
    assert await _used(cloud) == {"p": 2, "q": 1}
    [alone, trusted] = await _plug(
        cloud,
        PortWanted(network_id=id, project_id="p", security_group_ids=()),
        PortWanted(network_id=id, project_id="", device_owner="network:dhcp"),
    )
    assert alone.command.security_group_ids == trusted.command.security_group_ids == ()
    await cloud.executor.execute(Wish(NETWORK_QUOTAS, "p", SetNetworkQuotaLimits(limits={"port": 4})))
    with pytest.raises(Conflict) as over:
        await _plug(cloud, *(PortWanted(network_id=id, project_id=project) for project in ("q", "p", "p")))
    assert over.value.code == "OverQuota"
    states = [(await cloud.documents.get(PORT, port.id)).state for port in ports]
    await cloud.executor.execute(*await removing(cloud, states))
    assert await _used(cloud) == {"p": 1, "q": 0}


async def test_a_network_must_be_there(cloud):
    with pytest.raises(NotFound) as absent:
        await _plug(cloud, PortWanted(network_id="nowhere", project_id="p"))
    assert absent.value.code == "NetworkNotFound"
