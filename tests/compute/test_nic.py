"""The promises of servers' network cards."""

import pytest

from agents.hypervisor.plan import Plug, Unplug
from bus import clock
from bus.execute import Wish
from handlers.compute.network_data import devices, network_data
from handlers.compute.server import SERVERS
from handlers.network.network import NETWORKS
from handlers.network.port import PORTS
from schema.compute.nic import (
    NicAddress,
    NicAttached,
    NicChanged,
    NicDetached,
    NicDetachFailed,
    NicDetachRequested,
    NicSettled,
    ServerNic,
)
from schema.compute.server_command import AttachNic, ChangeNic, DetachNic, EndServer, LoseNic, SettleNics
from schema.compute.server_event import (
    BuildFailed,
    DeletionRequested,
    ServerDeleted,
    ServerFaulted,
    ServerPlaced,
    ServerRequested,
    ServerStarted,
    StopRequested,
)
from schema.compute.server_parts import Fault, Order, ServerFlavor
from schema.network.network import CreateNetwork
from schema.network.port_command import BindPort, CreatePort
from schema.network.port_state import FixedIp
from schema.network.subnet import Subnet
from schema.network.wiring import HostRoute, tap_name
from schema.refusal import Conflict
from tests.compute.steering import steered
from tests.story import Story

server = Story(SERVERS, "4f1c")

FIRST = ServerNic(
    port_id="p1",
    network_id="n1",
    label="blue",
    mac_address="fa:16:3e:00:00:01",
    addresses=(NicAddress(ip="10.0.0.5", subnet_id="s1"),),
)
SECOND = ServerNic(port_id="p2", network_id="n1", label="blue", mac_address="fa:16:3e:00:00:02", standing="plugging")
requested = ServerRequested(
    name="web",
    project_id="p",
    order=Order(user_id="ada"),
    flavor=ServerFlavor(id="1", name="small", vcpus=1, ram_mb=512, disk_gb=1),
    nics=(FIRST,),
)
active = (requested, ServerPlaced(host="h1", provider_id="pr"), ServerStarted())


def cards(given):
    return {nic.port_id: nic.standing for nic in given.state.nics}


def test_a_card_is_plugged_into_a_running_server():
    before = server.given(*active)
    attached = before.when(AttachNic(nic=SECOND)).then(NicAttached(nic=SECOND))
    assert cards(attached) == {"p1": "plugged", "p2": "plugging"}
    assert attached.state.generation == before.state.generation + 1
    settled = attached.when(SettleNics(generation=attached.state.generation)).then(NicSettled(port_id="p2"))
    assert cards(settled) == {"p1": "plugged", "p2": "plugged"}
    assert settled.state.generation == attached.state.generation


def test_a_card_that_cannot_be_plugged_in_is_gone_again():
    attached = server.given(*active, NicAttached(nic=SECOND))
    generation = attached.state.generation
    [gone] = SERVERS.decide(attached.state, SettleNics(generation=generation, fault="no tap"))
    assert gone == NicDetached(port_id="p2", fault="no tap")
    after = attached.after(gone)
    assert cards(after) == {"p1": "plugged"}
    assert after.state.generation == generation + 1, "its host must not plug it in after all"


def test_a_card_is_let_go_of_when_the_guest_has():
    asked = server.given(*active).when(DetachNic(port_id="p1")).then(NicDetachRequested(port_id="p1"))
    assert cards(asked) == {"p1": "unplugging"}
    gone = asked.when(SettleNics(generation=asked.state.generation)).then(NicDetached(port_id="p1"))
    assert cards(gone) == {}
    assert gone.state.generation == asked.state.generation


def test_a_card_that_the_guest_does_not_let_go_of_stays():
    asked = server.given(*active, NicDetachRequested(port_id="p1"))
    generation = asked.state.generation
    [failed] = SERVERS.decide(asked.state, SettleNics(generation=generation, fault="it holds on"))
    assert failed == NicDetachFailed(port_id="p1", fault="it holds on")
    assert cards(asked.after(failed)) == {"p1": "plugged"}
    assert asked.after(failed).state.generation == generation + 1


def test_the_card_of_a_deleted_port_goes_whatever_the_guest_does():
    lost = server.given(*active).when(LoseNic(port_id="p1")).then(NicDetachRequested(port_id="p1", port_gone=True))
    assert SERVERS.decide(lost.state, SettleNics(generation=lost.state.generation, fault="it holds on")) == []
    lost.when(SettleNics(generation=lost.state.generation)).then(NicDetached(port_id="p1"))
    unplaced = server.given(requested)
    unplaced.when(LoseNic(port_id="p1")).then(NicDetached(port_id="p1"))


def test_nothing_is_settled_by_what_a_host_says_of_the_past():
    attached = server.given(*active, NicAttached(nic=SECOND))
    attached.when(SettleNics(generation=attached.state.generation - 1)).refused("has changed since", Conflict)


@pytest.mark.parametrize("command", [AttachNic(nic=SECOND), DetachNic(port_id="p1")])
def test_cards_come_and_go_only_at_rest(command):
    verb = "attach_interface" if isinstance(command, AttachNic) else "detach_interface"
    server.given(*active, StopRequested()).when(command).refused(f"Cannot '{verb}' server 4f1c while it is in task")
    server.given(requested).when(command).refused("while it is in vm_state building", Conflict)


def test_the_facts_of_a_port_are_followed():
    command = ChangeNic(
        port_id="p1",
        label="green",
        mac_address=FIRST.mac_address,
        mtu=1450,
        addresses=(NicAddress(ip="10.0.0.5", subnet_id="s1", floating=("203.0.113.9",)),),
        security_groups=("web",),
    )
    changed = NicChanged(**{name: getattr(command, name) for name in command.__struct_fields__})
    before = server.given(*active)
    after = before.when(command).then(changed)
    assert after.state.nics[0].label == "green"
    assert after.state.generation == before.state.generation, "its host need not hear of that"
    assert SERVERS.decide(before.state, ChangeNic(port_id="other", label="", mac_address="", mtu=1)) == []


def test_a_server_that_ends_or_never_was_has_no_cards():
    assert server.given(requested, ServerFaulted(fault=Fault(message="no host"))).state.nics == ()
    again = server.given(requested, active[1], BuildFailed(host="h1", fault=Fault(message="no tap")))
    assert cards(again) == {"p1": "plugged"}, "the next host gets them"
    ended = server.given(*active, DeletionRequested()).when(EndServer()).then(ServerDeleted())
    assert ended.state.nics == ()


def test_a_guest_is_told_of_its_networks():
    dhcp = Subnet(id="s1", ip_version=4, cidr="10.0.0.0/24", gateway_ip="10.0.0.1", dns_nameservers=("10.0.0.53",))
    static = Subnet(
        id="s2",
        ip_version=4,
        cidr="10.1.0.0/16",
        gateway_ip="10.1.0.1",
        enable_dhcp=False,
        host_routes=(HostRoute(destination="10.9.0.0/16", nexthop="10.1.0.2"),),
    )
    slaac = Subnet(id="s3", ip_version=6, cidr="fd00::/64", ipv6_address_mode="slaac")
    nic = ServerNic(
        port_id="0f0e0d0c-aaaa",
        network_id="n1",
        label="blue",
        mac_address="fa:16:3e:00:00:01",
        mtu=1450,
        tag="front",
        addresses=tuple(
            NicAddress(ip=ip, subnet_id=subnet)
            for ip, subnet in (("10.0.0.5", "s1"), ("10.1.0.5", "s2"), ("fd00::5", "s3"), ("10.8.0.1", "unknown"))
        ),
    )
    told = network_data((nic,), {"s1": dhcp, "s2": static, "s3": slaac})
    [link] = told["links"]
    assert (link["id"], link["mtu"], link["vif_id"]) == (tap_name(nic.port_id), 1450, nic.port_id)
    assert [it["type"] for it in told["networks"]] == ["ipv4_dhcp", "ipv4", "ipv6_slaac"]
    assert told["networks"][2]["ip_address"] == "fd00::5", "as it will be, for who does not ask"
    by_hand = told["networks"][1]
    assert (by_hand["ip_address"], by_hand["netmask"]) == ("10.1.0.5", "255.255.0.0")
    assert by_hand["routes"] == [
        {"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.1.0.1"},
        {"network": "10.9.0.0", "netmask": "255.255.0.0", "gateway": "10.1.0.2"},
    ]
    assert told["services"] == [{"type": "dns", "address": "10.0.0.53"}]
    assert devices((nic, FIRST)) == [
        {"type": "nic", "bus": "none", "address": "none", "mac": nic.mac_address, "tags": ["front"]}
    ]


@pytest.fixture
async def steering(settings, fresh_database):
    async with steered(settings, fresh_database, networked=True) as it:
        yield it


async def attached(steering):
    """A running server that a card is being plugged into."""
    id = clock.uuid4()
    await steering.cloud.executor.execute(Wish(NETWORKS, "n1", CreateNetwork(name="blue", mtu=1500)))
    await steering.create(made(FIRST, id), id=id, nics=(FIRST,))
    await steering.reaches(id, "active")
    bound = Wish(PORTS, SECOND.port_id, BindPort(host="h1"))
    await steering.act(id, AttachNic(nic=SECOND), made(SECOND, id), bound)
    return id


def made(nic, server_id):
    """The wish that makes the port of a card."""
    port = CreatePort(
        parent_id=nic.network_id,
        mac_address=nic.mac_address,
        fixed_ips=tuple(FixedIp(subnet_id=it.subnet_id, ip_address=it.ip) for it in nic.addresses),
        device_id=server_id,
        device_owner="compute:nova",
    )
    return Wish(PORTS, nic.port_id, port)


async def test_a_host_plugs_cards_in_and_out(steering):
    driver = await steering.host("h1")
    id = await attached(steering)
    await steering.sees(id, lambda it: not it.unsettled)
    assert driver.domains[id].seen.taps == ("tapp1", "tapp2")
    await steering.act(id, DetachNic(port_id="p1"))
    state = await steering.sees(id, lambda it: not it.unsettled)
    assert [nic.port_id for nic in state.nics] == ["p2"]
    assert driver.domains[id].seen.taps == ("tapp2",)


async def test_a_host_that_cannot_leaves_things_as_they_were(steering):
    driver = await steering.host("h1")
    driver.failure = lambda step: "the guest says no" if isinstance(step, Plug | Unplug) else None
    id = await attached(steering)
    state = await steering.sees(id, lambda it: not it.unsettled)
    assert [nic.port_id for nic in state.nics] == ["p1"]
    await steering.act(id, DetachNic(port_id="p1"))
    state = await steering.sees(id, lambda it: not it.unsettled)
    assert [nic.port_id for nic in state.nics] == ["p1"]
    assert driver.domains[id].seen.taps == ("tapp1",)
    assert (state.vm_state, state.task) == ("active", None)
