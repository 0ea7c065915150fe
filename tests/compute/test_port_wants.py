"""A server goes where its ports can be: plugged at all, and on the physical network of their segment."""

import msgspec
import pytest

from agents.hypervisor.plan import Start
from agents.hypervisor.simulated import SimulatedDriver
from agents.network.simulated import SimulatedNetwork
from api.compute.service import SERVICE as COMPUTE
from api.log.service import SERVICE as LOG
from bus import clock
from bus.execute import Wish
from handlers.compute.port_wants import NOTHING, PortWants, port_wants
from handlers.network.network import NETWORKS
from handlers.network.port import PORTS
from handlers.network.subnet import SUBNETS
from schema.network.network import AddNetworkSubnet, CreateNetwork, Network, Segment
from schema.network.port_command import ChangePortBinding, CreatePort
from schema.network.port_state import Binding, FixedIp, Port
from schema.network.subnet import SUBNET, AllocateAddress, CreateSubnet, Pool, Subnet
from tests.compute.networked import networked
from tests.compute.world import PROJECT

RACKS = ("rack1", "rack2", "rack3")


def segment(place, number=7):
    kind = "vlan" if place else "vxlan"
    return Segment(id=place or "tunnel", network_type=kind, physical_network=place, segmentation_id=number)


def port(network, *subnets, vnic_type="normal", ip_allocation="immediate"):
    fixed = tuple(FixedIp(subnet_id=it, ip_address="10.0.0.9") for it in subnets)
    binding = Binding(host="", vnic_type=vnic_type)
    return Port(id="p", parent_id=network, fixed_ips=fixed, binding=binding, ip_allocation=ip_allocation)


def waiting(network, *subnets):
    return port(network, *subnets, ip_allocation="deferred")


RACKED = tuple(map(segment, RACKS))
NETS = {
    "routed": Network(id="routed", segments=RACKED, subnet_ids=("s1", "s2", "s3")),
    "double": Network(id="double", segments=RACKED, subnet_ids=("f1", "f2", "v2")),
    "full": Network(id="full", segments=RACKED, subnet_ids=("s3",)),
    "empty": Network(id="empty", segments=RACKED),
    "vlan": Network(id="vlan", segments=(segment("rack1"),)),
    "tunnels": Network(id="tunnels", segments=(segment(None),)),
    "mixed": Network(id="mixed", segments=(segment("rack1"), segment(None))),
}


def subnet(id, segment_id, *, left=True, **fields):
    pools = (Pool(start="10.0.0.9", end="10.0.0.9"),) if left else ()
    return Subnet(id=id, segment_id=segment_id, cidr="10.0.0.0/24", pools=pools, **fields)


SUBNETS_IN = {
    it.id: it
    for it in (
        subnet("s1", "rack1"),
        subnet("s2", "rack2"),
        subnet("s3", "rack3", left=False),
        subnet("st", "tunnel"),
        subnet("s9", None),
        subnet("f1", "rack1"),
        subnet("f2", "rack2"),
        subnet("v2", "rack2", left=False, ip_version=6),
    )
}


@pytest.mark.parametrize(
    "ports,wants",
    [
        ((), NOTHING),
        ((port("tunnels", "s9"),), NOTHING),
        ((port("nowhere", "s9"),), NOTHING),
        ((port("vlan", "s9"),), PortWants(reach=(frozenset({"rack1"}),))),
        ((port("routed", "s2"),), PortWants(reach=(frozenset({"rack2"}),))),
        ((port("routed"),), PortWants(reach=(frozenset(RACKS),))),
        ((port("routed", "s9"),), PortWants(reach=(frozenset(RACKS),))),
        ((port("mixed"),), NOTHING),
        ((port("mixed", "s1"),), PortWants(reach=(frozenset({"rack1"}),))),
        ((port("mixed", "st"),), NOTHING),
        (
            (port("routed", "s2"), port("vlan"), port("routed", "s2")),
            PortWants(reach=(frozenset({"rack1"}), frozenset({"rack2"}))),
        ),
        ((waiting("routed"),), PortWants(reach=(frozenset({"rack1", "rack2"}),))),
        ((waiting("routed", "s2"),), PortWants(reach=(frozenset({"rack2"}),))),
        ((waiting("double"),), PortWants(reach=(frozenset({"rack1"}),))),
        ((waiting("full"),), PortWants(reach=(frozenset(RACKS),), full="full")),
        ((waiting("empty"),), PortWants(reach=(frozenset(RACKS),))),
        ((port("tunnels", vnic_type="direct"), port("tunnels")), PortWants(vnic_types=frozenset({"direct"}))),
    ],
)
def test_what_ports_want(ports, wants):
    assert port_wants(ports, NETS, SUBNETS_IN) == wants


@pytest.fixture
async def world(settings, fresh_database):
    async with networked(settings, fresh_database, [COMPUTE, LOG]) as it:
        for number, rack in enumerate(RACKS[:2], start=1):
            it.steered.networks[f"r{number}"] = SimulatedNetwork(f"r{number}", physical_networks=(rack,))
            await it.steered.host(f"r{number}")
        yield it


async def routed(world, most=9):
    """A network of three racks' segments, each with a subnet of its own. Its id, and its subnets'."""
    id = clock.uuid4()
    segments = tuple(
        Segment(id=clock.uuid4(), network_type="vlan", physical_network=rack, segmentation_id=7) for rack in RACKS
    )
    wishes = [Wish(NETWORKS, id, CreateNetwork(name="racks", project_id=PROJECT, segments=segments))]
    subnets = []
    for number, one in enumerate(segments, start=1):
        subnets.append(clock.uuid4())
        subnet = CreateSubnet(
            project_id=PROJECT,
            parent_id=id,
            cidr=f"10.9.{number}.0/24",
            pools=(Pool(start=f"10.9.{number}.2", end=f"10.9.{number}.{most}"),),
            segment_id=one.id,
        )
        wishes += [Wish(SUBNETS, subnets[-1], subnet), Wish(NETWORKS, id, AddNetworkSubnet(subnet_id=subnets[-1]))]
    await world.cloud.executor.execute(*wishes)
    return id, subnets


async def made_port(world, network, subnet, ip, **fields):
    id = clock.uuid4()
    command = CreatePort(
        project_id=PROJECT,
        parent_id=network,
        mac_address="fa:16:3e:" + ":".join(it.zfill(2) for it in ip.split(".")[1:]),
        fixed_ips=(FixedIp(subnet_id=subnet, ip_address=ip),),
        **fields,
    )
    await world.cloud.executor.execute(
        Wish(PORTS, id, command), Wish(SUBNETS, subnet, AllocateAddress(ip=ip, port_id=id))
    )
    return id


async def boots(world, member, port, status="ACTIVE"):
    return await world.boot(member, status, networks=[{"port": port}])


async def test_a_port_of_a_segment_has_its_server_on_a_host_of_that_segment(world):
    network, subnets = await routed(world)
    member, admin = await world.client(), await world.client("admin")
    for number in (2, 1):
        for ip in (5, 6):
            id = await made_port(world, network, subnets[number - 1], f"10.9.{number}.{ip}")
            shown = await boots(world, member, id)
            seen = await admin("GET", f"/servers/{shown['id']}")
            assert seen["server"]["OS-EXT-SRV-ATTR:host"] == f"r{number}"
    nowhere = await boots(world, member, await made_port(world, network, subnets[2], "10.9.3.7"), "ERROR")
    assert "4 do not reach the physical networks of its ports" in nowhere["fault"]["message"]
    state = await world.steered.state(nowhere["id"])
    assert state.fault.details.endswith("It would have fitted with host h1 on the physical network rack3.")
    await world.steered.kill("h1")
    world.steered.networks["h1"].physical_networks = ("rack3",)
    await world.steered.host("h1")
    hosts = world.steered.reactor.scheduler.index
    await world.steered.until(lambda: hosts._physical_networks["h1"] == {"rack3"})
    shown = await boots(world, member, await made_port(world, network, subnets[2], "10.9.3.8"))
    assert (await world.steered.state(shown["id"])).host == "h1"


async def test_before_anybody_orders_it_is_told_where_servers_in_a_network_would_go(world):
    network, _ = await routed(world)
    token = await world.served.token("admin")
    asked = {"flavor": "small", "networks": [network], "count": 3}
    answer = await world.served.call("POST", "/log/v1/why", asked, token=token)
    assert answer.status == 200, answer.body
    assert set(answer.json["hosts"]) <= {"r1", "r2"}
    assert {"filter": "RoutedNetworks", "hosts": 2} in answer.json["decision"]["turned_down"]
    asked["networks"] = ["nowhere"]
    answer = await world.served.call("POST", "/log/v1/why", asked, token=token)
    assert (answer.status, b"Network nowhere could not be found." in answer.body) == (400, True)


async def test_a_port_of_a_type_that_no_host_plugs(world):
    """Simulated hosts play any; one that says it runs QEMU plugs normal ones."""
    network, admin = await world.network(), await world.client("admin")
    driver = world.steered.drivers["q1"] = SimulatedDriver("q1")
    driver._facts = msgspec.structs.replace(driver._facts, hypervisor_type="QEMU")
    await world.steered.host("q1")
    for ip, fields in (("10.1.0.5", {"vnic_type": "direct"}), ("10.1.0.6", {})):
        id = await world.port(network, ip)
        await world.cloud.executor.execute(Wish(PORTS, id, ChangePortBinding(**fields)))
        status = "ERROR" if fields else "ACTIVE"
        shown = await world.boot(admin, status, networks=[{"port": id}], availability_zone="nova:q1")
        assert not fields or "1 plug no ports of the type direct" in shown["fault"]["message"]


async def test_a_server_of_a_routed_network_has_an_address_of_where_it_comes(world):
    """Of three racks one has no host: its addresses are for nobody."""
    network, subnets = await routed(world, most=3)
    member, admin = await world.client(), await world.client("admin")
    places = []
    for _ in range(4):
        shown = await world.boot(member, networks=[{"uuid": network}])
        host = (await admin("GET", f"/servers/{shown['id']}"))["server"]["OS-EXT-SRV-ATTR:host"]
        [address] = shown["addresses"]["racks"]
        [port] = await world.ports(device_id=shown["id"])
        assert [it.ip_address for it in port.fixed_ips] == [address["addr"]]
        assert address["addr"].startswith(f"10.9.{host[1:]}.")
        places.append(host)
    assert sorted(places) == ["r1", "r1", "r2", "r2"]
    more = await world.boot(member, "ERROR", networks=[{"uuid": network}])
    rack = "It would have fitted with host h1 on the physical network rack3."
    assert (await world.steered.state(more["id"])).fault.details.endswith(rack)
    there = (await world.cloud.documents.get_many(SUBNET, subnets)).values()
    await world.cloud.executor.execute(
        *(
            Wish(SUBNETS, it.id, AllocateAddress(ip=ip, port_id="x"))
            for it in there
            for ip in (it.state.pools[0].start, it.state.pools[0].end)
            if not it.state.allocation.has(ip)
        )
    )
    more = await world.boot(member, "ERROR", networks=[{"uuid": network}])
    assert more["fault"]["message"] == f"No fixed IP addresses available for network: {network}"


async def test_a_server_that_fails_in_one_rack_has_an_address_of_the_next(world):
    network, subnets = await routed(world)
    member = await world.client()
    for name in ("h1", "h2"):
        await world.steered.kill(name)
    first = {}

    def fails(step):
        if isinstance(step, Start) and not first:
            first["host"] = step
            return "no"
        return None

    for name in ("r1", "r2"):
        world.steered.drivers[name].failure = fails
    shown = await world.boot(member, networks=[{"uuid": network}])
    state = await world.steered.state(shown["id"])
    assert state.failed_hosts
    assert state.host not in state.failed_hosts
    [address] = shown["addresses"]["racks"]
    assert address["addr"].startswith(f"10.9.{state.host[1:]}.")
    held = [it.state.taken for it in (await world.cloud.documents.get_many(SUBNET, subnets)).values() if it.state.taken]
    assert len(held) == 1
    await member("DELETE", f"/servers/{shown['id']}", expect=204)
    await world.gone(member, shown["id"])
    assert await world.nothing_left()
