"""Trunks on hosts: subports go where their parent goes, and what a host cannot do shows."""

import pytest

from agents.network.simulated import SimulatedNetwork
from bus.consumer import Reactions
from bus.execute import Wish
from handlers.network.instance import instance_data
from handlers.network.port import PORTS
from handlers.network.trunking import TrunkReactor, ending, making, ports_of, trunk_status
from schema.compute.server import SERVER
from schema.compute.server_event import ServerRequested
from schema.compute.server_parts import Order, ServerFlavor
from schema.network.port import PORT
from schema.network.port_command import AttachPort, BindPort, UnbindPort
from schema.network.trunk import TRUNK, CreateTrunk, TrunkSubport
from schema.network.wiring import Subport
from tests.network.wiring import Wired, happened, until, wiring


@pytest.fixture
async def wired(settings, fresh_database):
    async with wiring(settings, fresh_database) as it:
        cloud = it.cloud
        reactions = Reactions(cloud.log, cloud.executor, cloud.broker, cloud.checkpoints, [TrunkReactor(cloud)])
        it.start(reactions.run)
        yield it


async def trunk(wired: Wired) -> None:
    """`t`: p0 the parent, p1 of another network its subport, on no host."""
    await wired.network(0)
    await wired.network(1)
    await wired.port(0)
    await wired.port(1, network=1)
    command = CreateTrunk(parent_id="p0", subports=(TrunkSubport(port_id="p1", segmentation_id=7),))
    ports = await ports_of(wired.cloud, [], ["p0", "p1"])
    await wired.happens(*await making(wired.cloud, "t", command, ports))


async def status(wired: Wired) -> str:
    state = await wired.state(TRUNK, "t")
    wired.cloud.executor.forget(["port/p0", "port/p1"])
    return trunk_status(state, await ports_of(wired.cloud, [state]))


async def is_(wired: Wired, wanted: str) -> bool:
    return await status(wired) == wanted


async def test_a_trunk_moves_whole(wired):
    await trunk(wired)
    assert await status(wired) == "DOWN"
    there = {host: SimulatedNetwork(host) for host in ("h1", "h2")}
    for host, driver in there.items():
        await wired.agent(host, driver)
    for host, driver in there.items():
        await wired.happens(Wish(PORTS, "p0", UnbindPort()))
        await wired.happens(Wish(PORTS, "p0", BindPort(host=host)))
        await until(lambda: is_(wired, "ACTIVE"))
        assert (await wired.state(PORT, "p1")).host == host
        parent, sub = (driver.world.ports[id] for id in ("p0", "p1"))
        assert parent.subports == (Subport(port_id="p1", segmentation_id=7),)
        assert (sub.parent_id, sub.segmentation_id, sub.tap) == ("p0", 7, "")
        assert set(driver.world.networks) == {"n0", "n1"}
    await until(lambda: not there["h1"].world.ports)
    await wired.happens(Wish(PORTS, "p0", UnbindPort()))
    await until(lambda: is_(wired, "DOWN"))
    await until(lambda: not there["h2"].world.ports)
    await wired.happens(*ending(await wired.state(TRUNK, "t")))
    assert (await wired.state(PORT, "p1")).subport_of == ""


async def test_a_host_without_trunks_says_so(wired):
    await trunk(wired)
    why = "it is a trunk's subport, which this host cannot wire"
    await wired.agent("h1", SimulatedNetwork("h1", faults={"port/p1": why}))
    await wired.happens(Wish(PORTS, "p0", BindPort(host="h1")))
    await until(lambda: is_(wired, "DEGRADED"))
    parent, sub = await wired.state(PORT, "p0"), await wired.state(PORT, "p1")
    assert (parent.status, parent.fault) == ("ACTIVE", None)
    assert (sub.status, sub.fault) == ("DOWN", why)


async def test_a_reaction_that_was_missed_is_made_up_for(wired):
    await trunk(wired)
    await wired.happens(Wish(PORTS, "p0", BindPort(host="h1")))
    reactor = TrunkReactor(wired.cloud)
    for _ in range(2):
        await reactor.react([await wired.cloud.documents.get(TRUNK, "t")])
        assert (await wired.state(PORT, "p1")).host == "h1"


async def test_a_guest_is_itself_on_every_network_of_its_trunk(wired):
    await trunk(wired)
    flavor = ServerFlavor(id="1", name="m1", vcpus=1, ram_mb=64, disk_gb=1)
    born = ServerRequested(name="web", project_id="p", order=Order(user_id="u"), flavor=flavor)
    await wired.happens(happened(SERVER, "s", born))
    await wired.happens(
        Wish(PORTS, "p0", AttachPort(device_id="s", device_owner="compute:nova")),
        Wish(PORTS, "p0", BindPort(host="h1")),
        Wish(PORTS, "p1", BindPort(host="h1")),
    )
    for id in ("p0", "p1"):
        answer = await instance_data(wired.cloud, "h1", id)
        assert answer is not None
        assert answer.server_id == "s"
