"""A server's ports share its fate: what goes with each decision about it, in the same append."""

from msgspec.structs import replace

from bus import clock
from bus.execute import Wish
from bus.log import Document
from handlers.compute.ports import Known, doomed, port_wishes
from handlers.compute.server import SERVERS
from handlers.network.addressing import unmaking
from handlers.network.binding import Vif
from handlers.network.floating_ip import FLOATING_IPS
from handlers.network.port import PORTS
from handlers.network.quota import giving_back
from schema.compute.nic import ServerNic
from schema.compute.server_command import EndServer, FailBuild, PlaceServer, RefusePlacement
from schema.compute.server_event import ServerPlaced, ServerRequested
from schema.compute.server_parts import Fault, Order, ServerFlavor
from schema.compute.server_state import Server
from schema.network.floating_ip import DisassociateFloatingIp
from schema.network.port import PORT
from schema.network.port_command import DeletePort, DetachPort
from schema.network.port_event import PortCreated
from schema.network.port_state import FixedIp, Port
from schema.network.subnet import ReleaseAddress
from tests.story import Story

MADE = ServerNic(port_id="made", network_id="n", label="net", mac_address="fa:16:3e:00:00:01", made=True)
LENT = ServerNic(port_id="lent", network_id="n", label="net", mac_address="fa:16:3e:00:00:02")
FAULT = Fault(message="no")


def _port(id: str, ip: str) -> Document:
    created = PortCreated(
        parent_id="n",
        project_id="p",
        device_id="it",
        device_owner="compute:nova",
        fixed_ips=(FixedIp(subnet_id="s", ip_address=ip),),
    )
    return Document(f"port/{id}", 1, Story(PORTS, id=id).given(created).state)


PORT_DOCUMENTS = {"made": _port("made", "10.0.0.5"), "lent": _port("lent", "10.0.0.6")}
FREE = Wish(FLOATING_IPS, "f", DisassociateFloatingIp())
RELEASED = (
    *unmaking(PORT_DOCUMENTS["made"].state),
    FREE,
    Wish(PORTS, "lent", DetachPort(device_id="it")),
)


def server(*more, attempts: int = 3) -> Server:
    flavor = ServerFlavor(id="1", name="m1.nano", vcpus=1, ram_mb=64, disk_gb=1)
    order = Order(user_id="u", attempts=attempts)
    requested = ServerRequested(name="web", project_id="p", order=order, flavor=flavor, nics=(MADE, LENT))
    it: Server = Story(SERVERS, id="it").given(requested, *more).state
    return it


def after(wishes: tuple[Wish, ...], known: Known) -> dict[str, Port]:
    """Its ports when that has been granted."""
    states = {id: document.state for id, document in known.ports.items()}
    for wish in wishes:
        assert wish.aggregate is PORTS
        for event in wish.aggregate.decide(states[wish.id], wish.command):
            states[wish.id] = PORT.fold(states[wish.id], event, clock.now())
    return states


VIFS = {"one": Vif("bridge")}
PLACED = ServerPlaced(host="one", provider_id="rp")


def test_placed_they_are_bound_to_its_host():
    placed = PlaceServer(host="one", provider_id="rp", zone="north")
    known = Known(PORT_DOCUMENTS, vifs={"one": Vif("ovs", {"a": 1})})
    ports = after(port_wishes(server(), placed, known), known)
    assert {id: (it.host, it.device_id, it.device_owner) for id, it in ports.items()} == {
        "made": ("one", "it", "compute:north"),
        "lent": ("one", "it", "compute:north"),
    }
    assert [(it.binding.vif_type, it.binding.vif_details) for it in ports.values()] == [("ovs", {"a": 1})] * 2


def test_where_another_host_is_to_come_they_stay_and_are_let_go_of_this_one():
    fresh = Known(PORT_DOCUMENTS, vifs=VIFS)
    bound = after(port_wishes(server(), PlaceServer(host="one", provider_id="rp"), fresh), fresh)
    known = Known({id: Document(f"port/{id}", 2, it) for id, it in bound.items()})
    ports = after(port_wishes(server(PLACED), FailBuild(host="one", fault=FAULT), known), known)
    assert {id: (it.living, it.host, it.device_id) for id, it in ports.items()} == {
        "made": (True, "", "it"),
        "lent": (True, "", "it"),
    }


def test_with_a_port_go_its_addresses_and_what_it_counts():
    commands = [(wish.stream, type(wish.command)) for wish in RELEASED]
    assert {("port/made", DeletePort), ("subnet/s", ReleaseAddress)} <= set(commands)
    assert set(giving_back("p", "port", ["made"])) <= set(RELEASED)


def test_after_the_last_host_exactly_those_made_for_it_go():
    for its, command in (
        (server(PLACED, attempts=1), FailBuild(host="one", fault=FAULT)),
        (server(), RefusePlacement(fault=FAULT)),
        (server(PLACED), EndServer()),
    ):
        assert doomed(its, command, PORT_DOCUMENTS) == ["made"]
        assert port_wishes(its, command, Known(PORT_DOCUMENTS, {"made": [FREE]})) == RELEASED


def test_a_port_it_made_that_is_another_s_by_now_stays():
    given = replace(PORT_DOCUMENTS["made"].state, device_id="another")
    ports = {"made": Document("port/made", 2, given)}
    assert port_wishes(server(PLACED), EndServer(), Known(ports)) == (Wish(PORTS, "made", DetachPort(device_id="it")),)


def test_a_port_that_somebody_deleted_is_nobody_s_any_more():
    assert port_wishes(server(PLACED), EndServer(), Known()) == ()


def test_who_was_overtaken_takes_no_ports_away():
    elsewhere = server(ServerPlaced(host="two", provider_id="rp"), attempts=1)
    wishes = port_wishes(elsewhere, FailBuild(host="one", fault=FAULT), Known(PORT_DOCUMENTS))
    assert not any(isinstance(wish.command, (DeletePort, DetachPort)) for wish in wishes)


def test_a_port_that_is_gone_or_another_s_by_now_is_not_bound_any_more():
    """Whose card is yet to come out would keep its server from ever being placed, which a refusal of its port would."""
    gone = replace(PORT_DOCUMENTS["made"].state, deleted_at=clock.now())
    lent = replace(PORT_DOCUMENTS["lent"].state, device_id="other")
    known = Known({"made": Document("port/made", 2, gone), "lent": Document("port/lent", 2, lent)}, vifs=VIFS)
    for its, command in (
        (server(), PlaceServer(host="one", provider_id="rp")),
        (server(PLACED), FailBuild(host="one", fault=FAULT)),
    ):
        assert after(port_wishes(its, command, known), known) == {"made": gone, "lent": lent}
