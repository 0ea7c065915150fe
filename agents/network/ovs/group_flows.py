"""Security groups as flows: each group's rules once, asked for each port that has the group. Pure.

A rule that names neither group nor address group is one flow, or a few where a range of ports takes several masks. Of
one that does, GROUP asks REMOTE whether the rest of the rule fits, and that asks MEMBER for the address: a member comes
and goes as one flow, whatever rules name its group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agents.network.ovs.flows import Flow, key
from agents.network.ovs.network_flows import port_key
from agents.network.ovs.pipeline import (
    ALLOWED,
    ASKED,
    GROUP,
    MEMBER,
    RECEIVED,
    RECEIVER,
    RECEIVING,
    REMOTE,
    SENDER,
    SENDING,
    SENT,
    load,
    to,
)
from agents.network.security_rules import members, network_of
from agents.network.world import World
from schema.network.protocol import ANY, ICMP, ICMP_V6, PORTED
from schema.network.protocol import number as protocol_number
from schema.network.wiring import Direction, WiredGroup, WiredPort, WiredRule

_FAMILIES = {"IPv4": ("ip", "nw", 4), "IPv6": ("ipv6", "ipv6", 6)}
_NAMED = {6: "tcp", 17: "udp", 132: "sctp"}
_MOST_PORT = 0xFFFF
_SIDES: dict[Direction, str] = {"ingress": "src", "egress": "dst"}


def asking_flows(port: WiredPort, world: World) -> list[Flow]:
    """Which groups are asked what a protected port may send and be sent."""
    flows: list[Flow] = []
    places: tuple[tuple[Direction, int, str, int], ...] = (
        ("egress", SENDING, SENDER, SENT),
        ("ingress", RECEIVING, RECEIVER, RECEIVED),
    )
    for direction, table, register, then in places:
        asked = [key("group", id, direction) for id in sorted(set(port.group_ids)) if id in world.groups]
        words = [load(ALLOWED, 0), *(f"{load(ASKED, it)},{to(GROUP)}" for it in asked), to(then)]
        flows.append(Flow(table, 50, f"{register}={port_key(port.id)}", ",".join(words)))
    return flows


def group_flows(group: WiredGroup, direction: Direction) -> list[Flow]:
    """Its rules of one direction, but for those that cannot be said: `unusable` tells."""
    asked = f"{ASKED}={key('group', group.id, direction)}"
    flows: list[Flow] = []
    further: list[str] = []
    for rule in group.rules:
        if rule.direction != direction:
            continue
        try:
            matches = rule_matches(rule)
        except ValueError:
            continue
        if rule.remote_members is None:
            flows += [Flow(GROUP, 10, f"{asked},{match}", load(ALLOWED, 1)) for match in matches]
        else:
            this, version = key("rule", rule.id), _FAMILIES[rule.ethertype][2]
            further.append(f"{load(ASKED, this)},{to(REMOTE)}")
            member = f"{load(ASKED, _members_key(rule.remote_members, version, direction))},{to(MEMBER)}"
            flows += [Flow(REMOTE, 10, f"{ASKED}={this},{match}", member) for match in matches]
    if further:
        flows.append(Flow(GROUP, 5, asked, ",".join(further)))
    return flows


def member_flows(id: str, direction: Direction, world: World) -> list[Flow]:
    """The addresses of a group or address group, as they stand on the other side of a rule of that direction."""
    flows: list[Flow] = []
    for family, field, version in _FAMILIES.values():
        asked = f"{ASKED}={_members_key(id, version, direction)},{family}"
        for ip in sorted(ip for items in members(id, world, version).values() for ip in items):
            at = "" if ip.endswith("/0") else f",{field}_{_SIDES[direction]}={ip}"
            flows.append(Flow(MEMBER, 10, asked + at, load(ALLOWED, 1)))
    return flows


def named_members(groups: Iterable[WiredGroup]) -> set[tuple[str, Direction]]:
    """Groups and address groups that rules name, with the direction of the rules."""
    return {(rule.remote_members, rule.direction) for it in groups for rule in it.rules if rule.remote_members}


def rule_matches(rule: WiredRule) -> tuple[str, ...]:
    """The rule as Open vSwitch says it, without its remote group; several for a range of ports. Raises ValueError."""
    family, _, version = _FAMILIES[rule.ethertype]
    number = ANY if rule.protocol in {None, "any"} else protocol_number(rule.protocol or "")
    number = ICMP_V6 if version == 6 and number == ICMP else number
    remote = _remote(rule)
    low, high = rule.port_min, rule.port_max
    if number == ANY:
        return (family + remote,)
    if number == (ICMP if version == 4 else ICMP_V6):
        name = "icmp" if version == 4 else "icmp6"
        kind = f",icmp_type={low}" if low is not None else ""
        code = f",icmp_code={high}" if low is not None and high is not None else ""
        return (name + kind + code + remote, *([_later(rule, number)] if kind else []))
    if number not in PORTED or low is None:
        return (f"{family},nw_proto={number}{remote}",)
    if number not in _NAMED:
        raise ValueError(f"Open vSwitch does not look into the ports of {rule.protocol}")
    name = _NAMED[number] + ("6" if version == 6 else "")
    ports = [_masked(*it) for it in port_masks(low, low if high is None else high)]
    exact = [f"{name},tp_dst={it}{remote}" if it else name + remote for it in ports]
    return (*exact, *([_later(rule, number)] if all(ports) else []))


def _later(rule: WiredRule, number: int) -> str:
    """Fragments but the first bear no ports. Without the first, which is judged by them, they are of no use."""
    return f"{_FAMILIES[rule.ethertype][0]},ip_frag=later,nw_proto={number}{_remote(rule)}"


def _remote(rule: WiredRule) -> str:
    """Raises ValueError."""
    if not rule.remote_prefix:
        return ""
    _, field, version = _FAMILIES[rule.ethertype]
    network = network_of(rule.remote_prefix)
    if network.version != version:
        raise ValueError(f"{rule.remote_prefix} is not {rule.ethertype}")
    return f",{field}_{_SIDES[rule.direction]}={network}" if network.prefixlen else ""


def _masked(value: int, mask: int) -> str:
    """Empty: any."""
    if not mask:
        return ""
    return str(value) if mask == _MOST_PORT else f"{value:#06x}/{mask:#06x}"


def port_masks(low: int, high: int) -> Iterator[tuple[int, int]]:
    """A range of ports as (value, mask), as few as can be."""
    while low <= high:
        size = low & -low or _MOST_PORT + 1
        while low + size - 1 > high:
            size >>= 1
        yield low, _MOST_PORT & ~(size - 1)
        low += size


def _members_key(id: str, version: int, direction: Direction) -> str:
    return key("members", id, str(version), direction)
