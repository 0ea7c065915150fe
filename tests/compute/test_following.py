"""Cards follow their ports, and a server is there when its ports are."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from bus import clock
from bus.execute import Wish
from bus.log import Document
from handlers.compute import step
from handlers.compute.following import Facts, NicReactor, card_of, lagging
from handlers.compute.server import SERVERS
from handlers.compute.step import Tell, advance
from handlers.network.network import NETWORKS
from handlers.network.port import PORTS
from schema.compute.nic import NicAddress, NicChanged, ServerNic
from schema.compute.server import cards_deadline
from schema.compute.server_command import AttachNic, ChangeNic, FailBuild, LoseNic, ObserveServer, SettleNics
from schema.compute.server_event import BuildFailed, PowerObserved, ServerPlaced, ServerRequested, ServerStarted
from schema.compute.server_parts import Fault, Order, ServerFlavor
from schema.compute.task import PowerState
from schema.network.floating_ip import FLOATING_IP, FloatingIpAssociated, FloatingIpCreated, FloatingIpDisassociated
from schema.network.network import CreateNetwork, UpdateNetwork
from schema.network.port_command import CreatePort, DeletePort, UpdatePort
from schema.network.port_event import PortAttached, PortBound, PortCreated, PortWired
from schema.network.port_state import FixedIp
from schema.network.security_group import (
    SECURITY_GROUP,
    SecurityGroupCreated,
    SecurityGroupUpdated,
)
from schema.network.subnet import SUBNET, SubnetCreated
from schema.refusal import NotFound
from tests.compute.steering import steered
from tests.network.wiring import happened
from tests.story import Story

OWNER = "compute:nova"
PORT = PortCreated(
    parent_id="n",
    mac_address="fa:16:3e:00:00:01",
    fixed_ips=(FixedIp(subnet_id="s", ip_address="10.0.0.5"),),
    security_group_ids=("g", "unknown"),
    device_id="it",
    device_owner=OWNER,
)
FACTS = Facts(labels={"n": "blue"}, mtus={"n": 1450}, groups={"g": "web"}, floating={("p", "10.0.0.5"): ("192.0.2.7",)})
CARD = ServerNic(
    port_id="p",
    network_id="n",
    label="blue",
    mac_address="fa:16:3e:00:00:01",
    mtu=1450,
    addresses=(NicAddress(ip="10.0.0.5", subnet_id="s", floating=("192.0.2.7",)),),
    security_groups=("web",),
)


def port(*more):
    return Story(PORTS, id="p").given(PORT, *more).state


def server(*more, nics=(CARD,), **order):
    flavor = ServerFlavor(id="1", name="small", vcpus=1, ram_mb=64, disk_gb=1)
    requested = ServerRequested(name="web", project_id="p", order=Order(user_id="u", **order), flavor=flavor, nics=nics)
    return Story(SERVERS, id="it").given(requested, *more).state


def documents(state):
    return {state.id: Document(f"port/{state.id}", 1, state)}


def test_a_card_shows_what_is_so_of_its_port():
    assert card_of(port(), FACTS) == CARD
    assert card_of(port(), Facts()).label == ""


def test_who_lags_behind_catches_up_and_nothing_else_is_touched():
    assert lagging(server(), {"p": port()}, FACTS) == []
    [command] = lagging(server(), {"p": port()}, replace(FACTS, labels={"n": "green"}))
    assert isinstance(command, ChangeNic)
    assert command.label == "green"
    gone = [LoseNic(port_id="p")]
    assert lagging(server(), {}, FACTS) == gone
    assert lagging(server(), {"p": replace(port(), device_id="another")}, FACTS) == gone


PLACED = ServerPlaced(host="one", provider_id="rp")
BOUND = PortBound(host="one", vif_type="bridge")


def test_a_server_is_not_there_before_its_ports_are():
    seen = ObserveServer(host="one", generation=2, power_state=PowerState.RUNNING)
    building = server(PLACED)
    assert SERVERS.decide(building, seen) == [ServerStarted()]
    [event] = SERVERS.decide(building, replace(seen, unwired=("p",)))
    assert event == PowerObserved(power_state=PowerState.RUNNING)
    waiting = server(PLACED, event)
    assert (waiting.task, waiting.power_state) == ("spawning", PowerState.RUNNING)
    assert SERVERS.decide(waiting, replace(seen, unwired=("p",))) == []
    now = waiting.task_since
    assert advance(waiting, now, ports=documents(port(BOUND))) == [Tell()]
    [there] = advance(waiting, now, ports=documents(port(BOUND, PortWired(up=True))))
    assert SERVERS.decide(waiting, there) == [ServerStarted()]
    tried = server(PLACED, event, BuildFailed(host="one", fault=Fault(message="lost")))
    assert tried.power_state is PowerState.NOSTATE, "the next host begins anew"


def test_a_port_that_cannot_be_wired_fails_the_build_with_its_reason():
    building = server(PLACED)
    early, in_time = (building.task_since + timedelta(seconds=it) for it in (1, step.WIRING_SECONDS))
    ports = documents(port(BOUND, PortWired(up=False, fault="no room for a tap")))
    assert not any(isinstance(it, FailBuild) for it in advance(building, early, ports=ports))
    [failed] = advance(building, in_time, ports=ports)
    assert failed.host == "one"
    assert failed.fault.message == "Host one could not wire port p: no room for a tap"
    for fine in (port(BOUND, PortWired(up=True)), replace(port(BOUND), admin_state_up=False), port(BOUND)):
        assert not any(isinstance(it, FailBuild) for it in advance(building, in_time, ports=documents(fine)))
    nobody = documents(port(PortBound(host="one", vif_type="binding_failed")))
    [failed] = advance(building, early, ports=nobody)
    assert failed.fault.message == "Host one has no network agent that could wire port p."
    late = building.task_since + timedelta(seconds=building.order.build_seconds)
    [failed] = advance(building, late, ports=documents(port(BOUND)))
    assert failed.fault.message.endswith(" Port p is not wired.")


def test_a_card_that_nobody_plugs_in_is_given_up():
    attached = Story(SERVERS, id="it").given(
        *[ServerRequested(name="web", project_id="p", order=Order(user_id="u"), flavor=server().flavor)],
        PLACED,
        ServerStarted(),
    )
    [event] = SERVERS.decide(attached.state, AttachNic(nic=replace(CARD, standing="plugging"), request_id="req-1"))
    waiting = attached.after(event).state
    assert waiting.request_id == "req-1"
    due = cards_deadline(waiting)
    assert not any(isinstance(it, SettleNics) for it in advance(waiting, due - timedelta(seconds=1)))
    [given_up] = advance(waiting, due)
    after = attached.after(event, *SERVERS.decide(waiting, given_up)).state
    assert (after.nics, after.nics_since, after.request_id) == ((), None, "")


@pytest.fixture
async def steering(settings, fresh_database):
    async with steered(settings, fresh_database, networked=True) as it:
        yield it


async def booting(steering, port_id="p", **fields):
    """A server with a port that was made for it; its id."""
    id = clock.uuid4()
    command = CreatePort(
        project_id="project-1",
        parent_id="n",
        mac_address=PORT.mac_address,
        fixed_ips=PORT.fixed_ips,
        security_group_ids=("g",),
        device_id=id,
        device_owner=OWNER,
        made_by=id,
    )
    await steering.cloud.executor.execute(
        Wish(NETWORKS, "n", CreateNetwork(name="blue")),
        happened(SUBNET, "s", SubnetCreated(parent_id="n", cidr="10.0.0.0/24")),
        happened(SECURITY_GROUP, "g", SecurityGroupCreated(name="web", project_id="project-1")),
    )
    card = replace(CARD, port_id=port_id, made=True)
    return await steering.create(Wish(PORTS, port_id, command), id=id, nics=(card,), **fields)


async def test_what_becomes_of_a_port_is_seen_on_its_server(steering):
    await steering.host("h1")
    execute = steering.cloud.executor.execute
    id = await booting(steering)
    await steering.reaches(id, "active")
    assert (await steering.cloud.documents.get(PORTS.kind, "p")).state.status == "ACTIVE"

    async def sees(**facts):
        await steering.sees(id, lambda it: it.nics and all(getattr(it.nics[0], k) == v for k, v in facts.items()))

    await sees(addresses=(NicAddress(ip="10.0.0.5", subnet_id="s"),))
    await execute(Wish(NETWORKS, "n", UpdateNetwork(name="green", mtu=1400)))
    await sees(label="green", mtu=1400)
    await execute(happened(SECURITY_GROUP, "g", SecurityGroupUpdated(name="www")))
    await sees(security_groups=("www",))
    await execute(Wish(PORTS, "p", UpdatePort(mac_address="fa:16:3e:00:00:09", security_group_ids=())))
    await sees(mac_address="fa:16:3e:00:00:09", security_groups=())
    given = FloatingIpAssociated(port_id="p", fixed_ip_address="10.0.0.5", router_id="r")
    await execute(happened(FLOATING_IP, "f", FloatingIpCreated(floating_ip_address="192.0.2.7"), given))
    await sees(addresses=CARD.addresses)
    await execute(happened(FLOATING_IP, "f", FloatingIpDisassociated()))
    await sees(addresses=(NicAddress(ip="10.0.0.5", subnet_id="s"),))
    await execute(Wish(PORTS, "p", DeletePort()))
    await steering.sees(id, lambda it: not it.nics)
    assert steering.drivers["h1"].domains[id].seen.taps == ()


async def test_whatever_went_wrong_is_put_right_by_the_sweep(steering):
    await steering.host("h1")
    id = await booting(steering)
    await steering.reaches(id, "active")
    reactor = NicReactor(steering.cloud)
    await reactor.sweep()
    right = (await steering.state(id)).nics
    wrong = NicChanged(port_id="p", label="nobody's", mac_address=PORT.mac_address, mtu=9)
    await steering.cloud.executor.execute(happened(SERVERS.kind, id, wrong))
    assert (await steering.state(id)).nics != right
    await reactor.sweep()
    assert (await steering.state(id)).nics != right, "not so soon again"
    await NicReactor(steering.cloud).sweep()
    assert (await steering.state(id)).nics == right


async def test_a_port_that_is_given_to_another_is_no_longer_the_first_one_s(steering):
    await steering.host("h1")
    id = await booting(steering)
    await steering.reaches(id, "active")
    taken = PortAttached(device_id="another", device_owner=OWNER)
    await steering.cloud.executor.execute(happened(PORTS.kind, "p", taken))
    await steering.sees(id, lambda it: not it.nics)
    port = (await steering.cloud.documents.get(PORTS.kind, "p")).state
    assert port.device_id == "another", "whoever has it now keeps it"


async def test_a_build_goes_on_elsewhere_where_a_host_cannot_wire(steering, monkeypatch):
    monkeypatch.setattr(step, "WIRING_SECONDS", 0)
    for host in ("h1", "h2"):
        await steering.host(host)
        steering.networks[host].faults = {"port/p": f"no room for a tap on {host}"}
    id = await booting(steering)
    state = await steering.reaches(id, "error")
    assert set(state.failed_hosts) == {"h1", "h2"}
    assert f"could not wire port p: no room for a tap on {state.failed_hosts[-1]}" in state.fault.message
    assert state.nics == ()
    with pytest.raises(NotFound):
        await steering.cloud.documents.get(PORTS.kind, "p")
    await steering.until(lambda: not any(driver.domains for driver in steering.drivers.values()))
    assert (await steering.cloud.documents.get(SUBNET, "s")).state.taken == b""


async def test_a_server_with_ports_goes_where_somebody_wires_them(steering):
    await steering.host("h1", wires=False)
    alone = await booting(steering)
    failed = await steering.reaches(alone, "error")
    assert "Host h1 has no network agent that could wire port p." in failed.fault.message
    await steering.host("h2")
    for port_id in ("p2", "p3", "p4"):
        assert (await steering.reaches(await booting(steering, port_id), "active")).host == "h2"
        await steering.cloud.executor.execute(Wish(PORTS, port_id, DeletePort()))


async def test_the_next_host_wires_what_the_first_could_not(steering, monkeypatch):
    monkeypatch.setattr(step, "WIRING_SECONDS", 0)
    await steering.host("h1")
    await steering.host("h2")
    steering.networks["h1"].faults = {"port/p": "no room for a tap"}
    id = await booting(steering)
    state = await steering.reaches(id, "active")
    port = (await steering.cloud.documents.get(PORTS.kind, "p")).state
    assert (state.host, port.host, port.wired) == ("h2", "h2", True)
