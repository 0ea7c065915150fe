"""Flows and ports of a switch as data: what is wanted, what is there, and the least that leads to it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agents.network.ovs import bridge, connections, database
from agents.network.ovs.flows import Flow, by_cookie, plan, read
from agents.network.ovs.group_flows import port_masks, rule_matches
from agents.network.ovs.host_flows import HostFlows, Plugged
from agents.network.ovs.network_flows import Place
from agents.network.world import World
from schema.network.wiring import Peer, WiredRule
from tests.network.cabling import egress, group, ingress
from tests.network.hosts import network, port

ONE, TWO = Flow(0, 10, "in_port=1", "drop"), Flow(0, 10, "in_port=2", "output:1")


def listing(*flows: Flow) -> str:
    lines = [f" cookie={it.cookie}, priority={it.priority},{it.match} actions={it.actions}" for it in flows]
    return "\n".join(["OFPST_FLOW reply (OF1.5) (xid=0x2):", *lines])


def test_what_is_as_it_should_be_is_left_alone() -> None:
    assert plan(by_cookie([ONE, TWO]), read(listing(ONE, TWO)), {}) == []


def test_a_flow_takes_anothers_place_before_that_is_taken_away() -> None:
    other = TWO._replace(actions="output:7")
    assert plan(by_cookie([ONE, other]), read(listing(ONE, TWO)), {}) == [
        other.line,
        f"delete cookie={TWO.cookie}/-1",
    ]


def test_what_is_no_flow_of_ours_goes() -> None:
    foreign = " priority=99,ip actions=NORMAL"  # of no cookie nothing is said
    assert plan(by_cookie([ONE]), read(f"{listing(ONE)}\n{foreign}"), {}) == ["delete cookie=0x0/-1"]


def test_a_flow_whose_words_were_changed_is_made_anew() -> None:
    known = read(listing(ONE, TWO))
    tampered = read(listing(ONE, TWO).replace("output:1", "output:9"))
    assert plan(by_cookie([ONE, TWO]), tampered, known) == [f"delete cookie={TWO.cookie}/-1", TWO.line]
    doubled = read(f"{listing(ONE, TWO)}\n cookie={TWO.cookie}, priority=99,ip actions=NORMAL")
    assert plan(by_cookie([ONE, TWO]), doubled, known) == [f"delete cookie={TWO.cookie}/-1", TWO.line]


@given(st.integers(0, 65535), st.integers(0, 65535), st.integers(0, 65535))
def test_masks_cover_a_range_of_ports_and_nothing_else(one: int, other: int, probe: int) -> None:
    low, high = sorted((one, other))
    masks = list(port_masks(low, high))
    hits = [value for value, mask in masks if probe & mask == value]
    assert len(hits) == (1 if low <= probe <= high else 0)
    assert len(masks) <= 30


@pytest.mark.parametrize(
    "rule, matches",
    [
        (ingress(), ("ip",)),
        (ingress(ethertype="IPv6"), ("ipv6",)),
        (ingress("tcp", 22), ("tcp,tp_dst=22",)),
        (ingress("udp", 8, 11, ethertype="IPv6"), ("udp6,tp_dst=0x0008/0xfffc",)),
        (ingress("tcp", 0, 65535), ("tcp",)),
        (ingress("tcp", 1, 3), ("tcp,tp_dst=1", "tcp,tp_dst=0x0002/0xfffe")),
        (ingress("icmp", 8, 0), ("icmp,icmp_type=8,icmp_code=0",)),
        (ingress("icmp", ethertype="IPv6"), ("icmp6",)),
        (ingress("47", remote_prefix="10.0.0.0/8"), ("ip,nw_proto=47,nw_src=10.0.0.0/8",)),
        (egress(remote_prefix="10.0.0.0/8"), ("ip,nw_dst=10.0.0.0/8",)),
        (egress(remote_prefix="::/0", ethertype="IPv6"), ("ipv6",)),
    ],
)
def test_a_rule_as_the_switch_says_it(rule: WiredRule, matches: tuple[str, ...]) -> None:
    assert tuple(it for it in rule_matches(rule) if "ip_frag=later" not in it) == matches


def test_later_fragments_have_no_ports_and_need_the_first() -> None:
    later = "ip,ip_frag=later,nw_proto=17,nw_src=10.0.0.0/8"
    assert rule_matches(ingress("udp", 53, remote_prefix="10.0.0.0/8"))[1:] == (later,)


@pytest.mark.parametrize("rule", [ingress("dccp", 5), ingress("no-such"), ingress(remote_prefix="fd00::/8")])
def test_a_rule_that_cannot_be_said_is_refused(rule: WiredRule) -> None:
    with pytest.raises(ValueError, match=r"."):
        rule_matches(rule)


def plugged(of: World, **taps: Place) -> Plugged:
    return Plugged({id: number for number, id in enumerate(sorted(of.networks), 1)}, taps, {}, {})


def test_a_rule_more_is_a_flow_more_whatever_ports_have_the_group() -> None:
    net = network(1)
    web = group("web", ingress("tcp", 80), ingress("tcp", 443))
    ports = [port(net, number, group_ids=("web",)) for number in range(1, 41)]
    pieces: dict[str, Any] = {f"network/{net.id}": net, "group/web": web} | {f"port/{it.id}": it for it in ports}
    world = World(pieces)
    places = {it.id: Place(number) for number, it in enumerate(ports, 1)}
    known = HostFlows()
    before = known.of(world, plugged(world, **places))
    more = World(pieces | {"group/web": replace(web, rules=(*web.rules, ingress("tcp", 22)))})
    after = known.of(more, plugged(more, **places))
    assert before.keys() <= after.keys()
    new = [flow.match for cookie, flow in after.items() if cookie not in before]
    assert [it.rpartition(",")[2] for it in new] == ["tp_dst=22"]


def test_a_port_that_is_down_or_not_plugged_in_has_no_flows() -> None:
    net = network(1)
    one, other = port(net, 1), port(net, 2)
    pieces: dict[str, Any] = {f"network/{net.id}": net, f"port/{one.id}": one, f"port/{other.id}": other}
    world = World(pieces)
    none = HostFlows().of(world, plugged(world))
    assert HostFlows().of(world, plugged(world, **{one.id: Place(1)})) != none
    down = World(pieces | {f"port/{one.id}": replace(one, admin_up=False)})
    assert HostFlows().of(down, plugged(down, **{one.id: Place(1)})) == none


def test_a_port_that_a_migration_may_bring_or_take_is_sought_here_and_elsewhere() -> None:
    net = network(1)
    one = port(net, 1)
    peer = Peer(id=one.id, network_id=net.id, mac_address=one.mac_address, endpoint_ip="10.77.0.2")
    pieces: dict[str, Any] = {f"network/{net.id}": net, f"port/{one.id}": one}

    def ways(of: World) -> list[str]:
        there = Plugged({net.id: 1}, {one.id: Place(1)}, {}, {net.id: Place(2)})
        flows = HostFlows().of(of, there).values()
        return [
            it.actions for it in flows if (it.table, it.priority) == (40, 20) and it.match.endswith(one.mac_address)
        ]

    [settled], [coming] = ways(World(pieces)), ways(World(pieces | {f"peer/{one.id}": peer}))
    [going] = ways(World(pieces | {f"port/{one.id}": replace(one, bound_for=("10.77.0.2",))}))
    assert coming.startswith(f"{settled},")
    assert "set_field:0x1->xreg1" in coming
    assert going == coming


def seen_of(operations: list[Any]) -> bridge.Seen:
    """What the database has once those were done."""
    devices = {it["row"]["name"]: it["row"] for it in operations if it.get("table") == "Interface"}
    devices.pop(bridge.BRIDGE, None)
    return bridge.Seen(
        bridge="b",
        right=True,
        ports={name: f"uuid of {name}" for name in devices},
        numbers={name: row["ofport_request"] for name, row in devices.items()},
        devices={name: int(dict(row["external_ids"][1])["device"]) for name, row in devices.items()},
        networks={"n": 1},
        qos="q",
    )


def test_ports_keep_their_numbers_and_nobody_inherits_one() -> None:
    numbers, operations = bridge.plan({"tapa": 11, "tapb": 12}, frozenset(), ["n"], {}, bridge.Seen())
    seen = seen_of(operations)
    assert bridge.plan({"tapa": 11, "tapb": 12}, frozenset(), ["n"], {}, seen) == (numbers, [])
    later, operations = bridge.plan({"tapb": 12, "tapc": 13}, frozenset(), ["n"], {}, seen)
    assert later.ports["tapb"] == numbers.ports["tapb"]
    assert later.ports["tapc"] not in numbers.ports.values()
    assert [it["op"] for it in operations] == ["mutate", "insert", "insert", "mutate"]


@pytest.mark.parametrize("device, new", [(99, frozenset[str]()), (11, frozenset({"tapa"}))])
def test_a_device_that_was_made_anew_gets_another_number(device: int, new: frozenset[str]) -> None:
    numbers, operations = bridge.plan({"tapa": 11}, frozenset(), ["n"], {}, bridge.Seen())
    later, operations = bridge.plan({"tapa": device}, new, ["n"], {}, seen_of(operations))
    assert later.ports["tapa"] != numbers.ports["tapa"]
    assert operations


def test_connections_as_the_switch_lists_them() -> None:
    text = (
        "tcp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=45184,dport=22),reply=(src=10.0.0.2,dst=10.0.0.1,sport=22,"
        "dport=45184),zone=5,protoinfo=(state=ESTABLISHED)\n"
        "icmpv6,orig=(src=fd00::1,dst=fd00::2,id=7,type=128,code=0),reply=(src=fd00::2,dst=fd00::1,id=7,type=129,"
        "code=0),zone=6\n"
        "icmp,orig=(src=10.0.0.1,dst=10.0.0.2,id=1,type=8,code=0),reply=(src=10.0.0.2,dst=10.0.0.1,id=1,type=0,code=0)"
    )
    tcp, ping = connections.read(text)
    assert (tcp.zone, tcp.protocol, tcp.source, tcp.destination_port) == (5, 6, "10.0.0.1", 22)
    assert (ping.zone, ping.protocol, ping.source_port, ping.destination_port) == (6, 58, 128, 0)
    assert ping.handle.startswith(b"ct_ipv6_src=fd00::1,")


def test_rows_as_the_database_tells_of_them() -> None:
    told = database.Database(SimpleNamespace(gone=False), lambda: None)  # type: ignore[arg-type]  it is never asked
    row = {"name": "br-int", "ports": ["set", [["uuid", "p1"]]], "external_ids": ["map", [["network/n", "4"]]]}
    assert told.take({"Bridge": {"b": {"new": row}}})
    assert told.named("Bridge", "br-int") == (
        "b",
        {"name": "br-int", "ports": ["p1"], "external_ids": {"network/n": "4"}},
    )
    assert not told.take({"Open_vSwitch": {"r": {"new": {"cur_cfg": 3}}}})
    assert told.take({"Bridge": {"b": {"old": {}}}})
    assert told.named("Bridge", "br-int") is None
