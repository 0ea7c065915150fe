"""The laws of the model of hosts' networks: however it grew it is the same, and it tells whatever changed."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agents.network.world import World
from bus.log import Actor, Document, Recorded
from projections.network.delta import Change, deltas
from projections.network.model import Model
from projections.network.places import COMMON, Place
from projections.network.relations import KINDS
from schema.event import Event, Kind
from schema.network.floating_ip import FLOATING_IP, FloatingIpAssociated, FloatingIpCreated, FloatingIpUpdated
from schema.network.host import NETWORK_HOST, NetworkHostFactsChanged, NetworkHostRegistered
from schema.network.network import NETWORK, NetworkCreated, NetworkUpdated, Segment
from schema.network.port import PORT
from schema.network.port_event import (
    PortBindingActivated,
    PortBindingAdded,
    PortBindingRemoved,
    PortCreated,
    PortDeleted,
    PortUpdated,
)
from schema.network.port_state import Binding, FixedIp
from schema.network.qos_policy import (
    QOS_POLICY,
    QosPolicyCreated,
    QosPolicyUpdated,
    QosRule,
    QosRuleAdded,
    QosRuleRemoved,
)
from schema.network.router import (
    ROUTER,
    ExternalGateway,
    RouterCreated,
    RouterInterface,
    RouterInterfaceAdded,
    RouterScheduled,
)
from schema.network.security_group import SECURITY_GROUP, SecurityGroupCreated, SecurityRule
from schema.network.subnet import SUBNET, AddressAllocated, SubnetCreated, SubnetUpdated
from schema.network.subnet_pool import SUBNET_POOL, SubnetPoolCreated, SubnetPoolUpdated
from schema.network.wiring import (
    AddressPair,
    BandwidthLimit,
    Members,
    NetworkHostFacts,
    Peer,
    Piece,
    Quality,
    WiredPort,
    WiredRouter,
)
from tests.network.history import HAPPENINGS
from tests.network.wiring import bound, holding, take

BEGINNING = datetime(2030, 1, 1, tzinfo=UTC)


class History:
    """A log in memory, and the model that follows it."""

    def __init__(self) -> None:
        self.model = Model()
        self.documents: dict[str, Document] = {}
        self.recorded: list[Recorded] = []
        self.position = 0

    def happens(self, kind: Kind[Any], id: str, *events: Event) -> None:
        for event in events:
            self.position += 1
            stream = kind.stream(id)
            known = self.documents.get(stream)
            version, state = (known.version, known.state) if known else (0, kind.unborn(id))
            at = BEGINNING + timedelta(seconds=self.position)
            self.documents[stream] = Document(stream, version + 1, kind.fold(state, event, at))
            recorded = Recorded(self.position, stream, version + 1, type(event).__name__, at, 0, Actor(), "", "", event)
            self.recorded.append(recorded)
            self.model.apply(recorded)

    def anew(self) -> Model:
        """A model made from the things as they are now."""
        model = Model()
        for kind in KINDS:
            living = [it for it in self.documents.values() if it.stream.startswith(kind.stream("")) and it.state.living]
            model.load(kind, self.position, living)
        model.take()
        return model


def everything(model: Model) -> dict[str, dict[str, Any]]:
    hosts = [holder for holder in model.holders() if not holder.startswith(COMMON)]
    return {host: found for host in hosts if (found := holding(model, host))}


class Follower:
    """What hosts hold who are only ever told what the model says was touched."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Any]] = {}
        self._pieces: dict[Place, Piece | None] = {}
        self._newest: dict[str, int] = {}

    def follow(self, model: Model) -> None:
        pieces = {place: model.piece(*place) for place in model.take()}
        changed = {
            place: Change(piece, self._pieces.get(place) is None)
            for place, piece in pieces.items()
            if self._pieces.get(place) != piece
        }
        self._pieces |= pieces
        for host, delta in deltas(model, self._newest, 1, changed).items():
            take(self.held.setdefault(host, {}), delta, host)

    @property
    def holding(self) -> dict[str, dict[str, Any]]:
        return {host: pieces for host, pieces in self.held.items() if pieces}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1_000_000), length=st.integers(1, 120))
@example(seed=6, length=120)  # a network changes on a host in the very batch in which a peer goes
@example(seed=353, length=120)
def test_any_history_makes_the_model_that_its_outcome_makes(seed: int, length: int):
    chance, history, follower = Random(seed), History(), Follower()
    for step in range(length):
        chance.choice(HAPPENINGS)(history, chance)
        if step % 5 == 0:
            follower.follow(history.model)
    follower.follow(history.model)
    made = everything(history.anew())
    assert everything(history.model) == made
    assert follower.holding == made


def test_events_of_before_a_snapshot_change_nothing_that_was_loaded_from_it():
    history = History()
    for step in range(300):
        chance = Random(step)
        chance.choice(HAPPENINGS)(history, chance)
    model = history.anew()
    for recorded in history.recorded:
        model.apply(recorded)
    assert model.take() == []
    assert everything(model) == everything(history.anew())


@pytest.fixture
def history() -> History:
    """Two hosts, a network with a subnet, and a port on each host."""
    it = History()
    for host in ("h1", "h2"):
        facts = NetworkHostFacts(endpoint_ip=f"172.31.0.{host[1:]}")
        it.happens(NETWORK_HOST, host, NetworkHostRegistered(agent_id="a", facts=facts))
    it.happens(NETWORK, "n1", NetworkCreated(segments=(Segment(id="g", segmentation_id=5),)))
    it.happens(SUBNET, "s1", SubnetCreated(parent_id="n1", cidr="10.0.0.0/24", gateway_ip="10.0.0.1"))
    guest(it, "p1", "10.0.0.11", "h1")
    guest(it, "p2", "10.0.0.12", "h2")
    it.model.take()
    return it


def guest(history: History, id: str, ip: str, host: str = "", **fields: Any) -> None:
    fields.setdefault("device_owner", "compute:nova")
    born = PortCreated(
        parent_id="n1",
        mac_address=f"fa:16:3e:00:00:{ip[-2:]}",
        fixed_ips=(FixedIp(subnet_id="s1", ip_address=ip),),
        **fields,
    )
    history.happens(PORT, id, born, *([bound(host)] if host else []))


def test_a_host_has_its_ports_their_networks_and_the_ports_elsewhere_in_them(history: History):
    here = holding(history.model, "h1")
    assert set(here) == {"port/p1", "network/n1", "peer/p2", "endpoint/n1/h2"}
    mac, ips = "fa:16:3e:00:00:12", ("10.0.0.12",)
    assert here["peer/p2"] == Peer(
        id="p2", network_id="n1", mac_address=mac, ips=ips, endpoint_ip="172.31.0.2", host="h2"
    )
    network = World(here).networks["n1"]
    assert (network.endpoints, network.segmentation_id) == (("172.31.0.2",), 5)


def test_a_port_that_is_on_no_host_is_nobodys_piece(history: History):
    guest(history, "p3", "10.0.0.13")
    assert history.model.take() == []


def test_the_host_a_port_may_move_to_has_it_before_it_moves(history: History):
    history.happens(
        NETWORK_HOST, "h3", NetworkHostRegistered(agent_id="a", facts=NetworkHostFacts(endpoint_ip="172.31.0.3"))
    )
    history.happens(PORT, "p1", PortBindingAdded(binding=Binding(host="h3", status="INACTIVE")))
    there = holding(history.model, "h3")
    others = {"endpoint/n1/h1", "endpoint/n1/h2"}
    assert set(there) == {"port/p1", "network/n1", "peer/p1", "peer/p2", *others}
    assert there["peer/p1"].endpoint_ip == "172.31.0.1", "until then it is where it was"  # type: ignore[union-attr]
    assert holding(history.model, "h2")["peer/p1"] == there["peer/p1"]
    assert {("h3", "port/p1"), ("h1", "port/p1")} <= set(history.model.take())
    going = holding(history.model, "h1")["port/p1"]
    assert isinstance(going, WiredPort)
    assert going.bound_for == ("172.31.0.3",)
    facts = NetworkHostFacts(endpoint_ip="172.31.0.33")
    history.happens(NETWORK_HOST, "h3", NetworkHostFactsChanged(facts=facts))
    assert ("h1", "port/p1") in history.model.take(), "it may go where it can be reached now"
    history.happens(NETWORK_HOST, "h3", NetworkHostFactsChanged(facts=replace(facts, endpoint_ip="172.31.0.3")))
    history.happens(PORT, "p1", PortBindingActivated(host="h3"))
    assert set(holding(history.model, "h3")) == {"port/p1", "network/n1", "peer/p2", *others}
    others = {"endpoint/n1/h2", "endpoint/n1/h3"}
    assert set(holding(history.model, "h1")) == {"port/p1", "network/n1", "peer/p1", "peer/p2", *others}
    assert holding(history.model, "h2")["peer/p1"].endpoint_ip == "172.31.0.3"  # type: ignore[union-attr]
    history.happens(PORT, "p1", PortBindingRemoved(host="h1"))
    assert holding(history.model, "h1") == {}
    settled = holding(history.model, "h3")["port/p1"]
    assert isinstance(settled, WiredPort)
    assert settled.bound_for == ()


def test_an_event_touches_what_it_is_about_and_no_more(history: History):
    history.happens(PORT, "p2", PortUpdated(dns_name="web"))
    assert set(history.model.take()) == {("h2", "port/p2"), ("*network/n1", "peer/p2")}
    history.happens(SUBNET, "s1", AddressAllocated(ip="10.0.0.99", port_id="p9"))
    assert history.model.take() == []


def test_each_host_carries_a_network_by_the_first_segment_it_can(history: History):
    tagged = Segment(id="t", network_type="vlan", physical_network="datacentre", segmentation_id=9)
    both = (tagged, Segment(id="g", segmentation_id=5))
    history.happens(NETWORK, "n1", NetworkUpdated(segments=both))
    history.model.take()
    facts = NetworkHostFacts(endpoint_ip="172.31.0.1", physical_networks=("datacentre",))
    history.happens(NETWORK_HOST, "h1", NetworkHostFactsChanged(facts=facts))
    assert ("h1", "network/n1") in history.model.take()
    pieces = [history.model.piece(host, "network/n1") for host in ("h1", "h2")]
    assert [(it.network_type, it.segmentation_id) for it in pieces] == [("vlan", 9), ("vxlan", 5)]


def test_dhcp_is_answered_at_the_networks_own_port(history: History):
    somebodys = PortCreated(parent_id="n1", mac_address="fa:16:3e:00:00:71", device_owner="network:dhcp")
    history.happens(PORT, "a", somebodys)
    assert history.model.piece("h1", "network/n1").dhcp_port_id == ""
    own = PortCreated(parent_id="n1", mac_address="fa:16:3e:00:00:72", device_owner="network:dhcp", made_by="n1")
    history.happens(PORT, "b", own)
    assert history.model.piece("h1", "network/n1").dhcp_port_id == "b"


def test_members_are_all_addresses_of_the_ports_in_a_named_group_wherever_they_are(history: History):
    rule = SecurityRule(id="r", direction="ingress", remote_group_id="web")
    history.happens(SECURITY_GROUP, "db", SecurityGroupCreated(name="db", project_id="p", rules=(rule,)))
    guest(history, "p3", "10.0.0.13", "h1", security_group_ids=("db",))
    pair = AddressPair(ip="192.0.2.0/24", mac_address="fa:16:3e:00:00:14")
    guest(history, "p4", "10.0.0.14", security_group_ids=("web",), allowed_address_pairs=(pair,))
    assert ("h1", "members/web") in history.model.take()
    members = World(holding(history.model, "h1")).members
    assert members == {"web": Members(id="web", addresses=("10.0.0.14", "192.0.2.0/24"))}
    assert not World(holding(history.model, "h2")).members
    history.happens(PORT, "p4", PortDeleted())
    assert World(holding(history.model, "h1")).members == {"web": Members(id="web")}


def test_the_feet_of_a_router_are_peers_of_where_it_lives(history: History):
    guest(history, "p5", "10.0.0.1", device_owner="network:router_interface", device_id="r1")
    foot = RouterInterface(port_id="p5", network_id="n1", subnet_ids=("s1",))
    history.happens(ROUTER, "r1", RouterCreated(name="r"), RouterInterfaceAdded(interface=foot))
    assert "peer/p5" not in holding(history.model, "h1")
    history.happens(ROUTER, "r1", RouterScheduled(host="h2"))
    there = holding(history.model, "h1")["peer/p5"]
    assert isinstance(there, Peer)
    assert there.endpoint_ip == "172.31.0.2"
    router = holding(history.model, "h2")["router/r1"]
    assert isinstance(router, WiredRouter)
    assert [port.addresses[0].ip for port in router.ports] == ["10.0.0.1"]
    history.happens(ROUTER, "r1", RouterScheduled(host="h3"))
    assert "router/r1" not in holding(history.model, "h2")
    assert set(holding(history.model, "h3")) == {
        "router/r1",
        "network/n1",
        "peer/p1",
        "peer/p2",
        "endpoint/n1/h1",
        "endpoint/n1/h2",
    }


def test_a_port_without_port_security_needs_no_groups(history: History):
    history.happens(SECURITY_GROUP, "web", SecurityGroupCreated(name="web", project_id="p"))
    guest(history, "p6", "10.0.0.16", "h1", security_group_ids=("web",), port_security_enabled=False)
    here = holding(history.model, "h1")
    assert "group/web" not in here
    port = here["port/p6"]
    assert isinstance(port, WiredPort)
    assert (port.secured, port.group_ids) == (False, ())


def test_a_ports_own_policy_goes_before_its_networks(history: History):
    def quality(id: str) -> Quality:
        piece = history.model.piece("h1", f"port/{id}")
        assert isinstance(piece, WiredPort)
        return piece.quality

    slow = BandwidthLimit(direction="egress", max_kbps=1000, max_burst_kbps=100)
    rule = QosRule(id="r", type="bandwidth_limit", max_kbps=1000, max_burst_kbps=100)
    mark = QosRule(id="m", type="dscp_marking", dscp_mark=46)
    history.happens(QOS_POLICY, "q1", QosPolicyCreated(name="slow"), QosRuleAdded(rule=rule))
    history.happens(QOS_POLICY, "q2", QosPolicyCreated(name="marked"), QosRuleAdded(rule=mark))
    assert history.model.take() == []
    history.happens(NETWORK, "n1", NetworkUpdated(qos_policy_id="q1"))
    assert {("h1", "port/p1"), ("h2", "port/p2")} <= set(history.model.take())
    assert quality("p1") == Quality(limits=(slow,))
    history.happens(PORT, "p1", PortUpdated(qos_policy_id="q2"))
    assert quality("p1") == Quality(dscp_mark=46)
    wide = BandwidthLimit(direction="egress", max_kbps=9000)
    history.happens(PORT, "p1", PortUpdated(card_limits=(wide,)))
    assert quality("p1") == Quality(limits=(wide,), dscp_mark=46)
    history.happens(PORT, "p1", PortUpdated(qos_policy_id="q1"))
    assert quality("p1") == Quality(limits=(slow,))
    history.happens(PORT, "p1", PortUpdated(qos_policy_id="q2", card_limits=()))
    history.model.take()
    history.happens(QOS_POLICY, "q1", QosPolicyUpdated(name="slower"))
    assert history.model.take() == []
    history.happens(QOS_POLICY, "q1", QosRuleRemoved(rule_id="r"))
    assert set(history.model.take()) == {("h1", "port/p1"), ("h2", "port/p2")}
    history.happens(QOS_POLICY, "q2", QosRuleRemoved(rule_id="m"))
    assert history.model.take() == [("h1", "port/p1")]
    assert quality("p1") == Quality()


def test_policies_of_floating_ips_and_ways_out_are_their_routers_business(history: History):
    rule = QosRule(id="r", type="bandwidth_limit", max_kbps=1000, direction="ingress")
    limited = Quality(limits=(BandwidthLimit(direction="ingress", max_kbps=1000),))
    history.happens(QOS_POLICY, "q1", QosPolicyCreated(name="slow"))
    guest(history, "p5", "203.0.113.5", device_owner="network:router_gateway", device_id="r1")
    way = ExternalGateway(network_id="n1", port_id="p5", qos_policy_id="q1")
    history.happens(ROUTER, "r1", RouterCreated(gateway=way), RouterScheduled(host="h2"))
    born = FloatingIpCreated(parent_id="n1", floating_ip_address="203.0.113.9", qos_policy_id="q1")
    given = FloatingIpAssociated(port_id="p1", fixed_ip_address="10.0.0.11", router_id="r1")
    history.happens(FLOATING_IP, "f1", born, given)
    history.model.take()
    history.happens(QOS_POLICY, "q1", QosRuleAdded(rule=rule))
    assert history.model.take() == [("h2", "router/r1")]
    router = history.model.piece("h2", "router/r1")
    assert isinstance(router, WiredRouter)
    assert (router.quality, router.floating[0].quality) == (limited, limited)
    history.happens(FLOATING_IP, "f1", FloatingIpUpdated(qos_policy_id=None))
    history.model.take()
    history.happens(NETWORK, "n1", NetworkUpdated(qos_policy_id="q1"))
    assert ("h2", "router/r1") in history.model.take()
    router = history.model.piece("h2", "router/r1")
    assert isinstance(router, WiredRouter)
    assert router.floating[0].quality == limited
    history.happens(QOS_POLICY, "q1", QosRuleRemoved(rule_id="r"))
    assert ("h2", "router/r1") in history.model.take()


def test_peers_are_told_the_macs_a_port_may_send_from():
    history = History()
    history.happens(NETWORK, "n", NetworkCreated())
    for id, host in (("p", "h"), ("q", "i")):
        history.happens(PORT, id, PortCreated(parent_id="n", mac_address=f"fa:16:3e:00:00:0{host}"), bound(host))
    assert history.model.piece("*network/n", "peer/q").more_macs == ()
    history.model.take()
    own = AddressPair(ip="192.0.2.2", mac_address="fa:16:3e:00:00:0i")
    other = AddressPair(ip="192.0.2.1", mac_address="00:00:5E:00:01:07")
    history.happens(PORT, "q", PortUpdated(allowed_address_pairs=(own, other)))
    assert ("*network/n", "peer/q") in history.model.take()
    assert history.model.piece("*network/n", "peer/q").more_macs == ("00:00:5e:00:01:07",)


def test_a_router_is_told_the_address_scopes_of_its_subnets():
    history = History()
    history.happens(SUBNET_POOL, "l", SubnetPoolCreated(prefixes=("10.0.0.0/8",), address_scope_id="x"))
    history.happens(NETWORK, "n", NetworkCreated())
    history.happens(SUBNET, "s", SubnetCreated(parent_id="n", cidr="10.0.0.0/24"))
    fixed = (FixedIp(subnet_id="s", ip_address="10.0.0.1"),)
    owner = {"device_owner": "network:router_interface", "device_id": "r"}
    history.happens(PORT, "f", PortCreated(parent_id="n", fixed_ips=fixed, **owner))
    foot = RouterInterface(port_id="f", network_id="n", subnet_ids=("s",))
    history.happens(ROUTER, "r", RouterCreated(), RouterInterfaceAdded(interface=foot), RouterScheduled(host="h"))
    assert history.model.piece("h", "router/r").scopes == {}
    history.model.take()
    history.happens(SUBNET, "s", SubnetUpdated(subnetpool_id="l"))
    assert ("h", "router/r") in history.model.take()
    assert history.model.piece("h", "router/r").scopes == {"s": "x"}
    history.happens(SUBNET_POOL, "l", SubnetPoolUpdated(address_scope_id="y"))
    assert ("h", "router/r") in history.model.take()
    assert history.model.piece("h", "router/r").scopes == {"s": "y"}
    history.happens(SUBNET_POOL, "l", SubnetPoolUpdated(address_scope_id=None))
    assert history.model.piece("h", "router/r").scopes == {}
