"""A server's ports share its fate: what goes with each decision about it, in the same append."""

from bus.execute import Wish
from bus.log import Document
from handlers.compute.ports import port_wishes
from handlers.compute.server import SERVERS
from handlers.network.port import PORTS
from handlers.network.subnet import SUBNETS
from schema.compute.nic import ServerNic
from schema.compute.server import (
    EndServer,
    FailBuild,
    Fault,
    Order,
    PlaceServer,
    RefusePlacement,
    Server,
    ServerFlavor,
    ServerPlaced,
    ServerRequested,
)
from schema.network.port import BindPort, DeletePort, DetachPort, FixedIp, PortCreated, UnbindPort
from schema.network.subnet import ReleaseAddress
from tests.story import Story

MADE = ServerNic(port_id="made", network_id="n", label="net", mac_address="fa:16:3e:00:00:01", made=True)
LENT = ServerNic(port_id="lent", network_id="n", label="net", mac_address="fa:16:3e:00:00:02")
FAULT = Fault(message="no")
PORT_DOCUMENTS = {
    id: Document(
        f"port/{id}",
        1,
        Story(PORTS)
        .given(PortCreated(parent_id="n", device_id="it", fixed_ips=(FixedIp(subnet_id="s", ip_address=ip),)))
        .state,
    )
    for id, ip in (("made", "10.0.0.5"), ("lent", "10.0.0.6"))
}
RELEASED = (
    Wish(PORTS, "made", DeletePort()),
    Wish(SUBNETS, "s", ReleaseAddress(ip="10.0.0.5", port_id="made")),
    Wish(PORTS, "lent", DetachPort(device_id="it")),
)


def server(*more, attempts: int = 3) -> Server:
    flavor = ServerFlavor(id="1", name="m1.nano", vcpus=1, ram_mb=64, disk_gb=1)
    order = Order(user_id="u", attempts=attempts)
    requested = ServerRequested(name="web", project_id="p", order=order, flavor=flavor, nics=(MADE, LENT))
    it: Server = Story(SERVERS, id="it").given(requested, *more).state
    return it


PLACED = ServerPlaced(host="one", provider_id="rp")


def test_placed_they_are_bound_to_its_host():
    wishes = port_wishes(server(), PlaceServer(host="one", provider_id="rp"), PORT_DOCUMENTS)
    assert wishes == (Wish(PORTS, "made", BindPort(host="one")), Wish(PORTS, "lent", BindPort(host="one")))


def test_where_another_host_is_to_come_they_stay_and_are_let_go_of_this_one():
    wishes = port_wishes(server(PLACED), FailBuild(host="one", fault=FAULT), PORT_DOCUMENTS)
    assert wishes == (Wish(PORTS, "made", UnbindPort(host="one")), Wish(PORTS, "lent", UnbindPort(host="one")))


def test_after_the_last_host_exactly_those_made_for_it_go():
    assert port_wishes(server(PLACED, attempts=1), FailBuild(host="one", fault=FAULT), PORT_DOCUMENTS) == RELEASED
    assert port_wishes(server(), RefusePlacement(fault=FAULT), PORT_DOCUMENTS) == RELEASED
    assert port_wishes(server(PLACED), EndServer(), PORT_DOCUMENTS) == RELEASED


def test_a_port_that_somebody_deleted_is_nobody_s_any_more():
    assert port_wishes(server(PLACED), EndServer(), {}) == ()


def test_who_was_overtaken_takes_no_ports_away():
    elsewhere = server(ServerPlaced(host="two", provider_id="rp"), attempts=1)
    wishes = port_wishes(elsewhere, FailBuild(host="one", fault=FAULT), PORT_DOCUMENTS)
    assert not any(isinstance(wish.command, (DeletePort, DetachPort)) for wish in wishes)
