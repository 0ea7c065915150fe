"""The nftables ruleset of a host, worked out from the world: anti-spoofing, security groups, DSCP marks. Pure.

    tap ─▶ bridge prerouting: `guard`   the sender is who it says it is; what is tracked is marked
             │  br_netfilter ─▶ inet prerouting: `zone` (conntrack zone of the network), conntrack, `state`
             ▼                                    writes what conntrack says of the packet into its mark
           bridge forward: `sending`    rules of the port it comes from
             ▼
           bridge forward: `receiving`  rules of the port it goes to            ─▶ bridge postrouting: mark off ─▶

Conntrack cannot be asked in the bridge family on every kernel, so its answer travels in the mark; everything else is
decided in the bridge family, where each frame has its two ports' names. Sender and receiver are two base chains, since
`accept` ends only the chain it is said in: both have to accept. Ports with the same groups share one chain, so a port
comes and goes by elements of sets and maps. A port that is in no set is no guest's (a tunnel, a service's foot) and is
trusted to send; what it sends is still judged by the receiver's rules.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

from agents.network.firewall_base import CHAINS, COUNTERS, ESTABLISHED, INVALID, ND_TARGET, at
from agents.network.ruleset import Elements, Place, Ruleset, chain, named_map, named_set
from agents.network.security_rules import Network, apart, members, network_of, rule_text
from agents.network.world import World
from schema.network.wiring import Direction, WiredGroup, WiredPort, WiredRule

KNOWN = (Place("bridge", "secured"), Place("bridge", "loose"), Place("bridge", "sealed"))
"""The sets that hold the names of taps."""
_REMEMBERED = 1 << 16
_DIRECTIONS: tuple[Direction, ...] = ("ingress", "egress")


def ruleset(world: World, zones: Mapping[str, int], sealed: Iterable[str] = ()) -> Ruleset:
    """`zones`: bridge → conntrack zone. `sealed`: taps that still exist but whose ports are gone: nothing passes."""
    ports = [port for port in world.ports.values() if not port.parent_id]
    groups = {id: group for id, group in world.groups.items() if any(id in port.group_ids for port in ports)}
    chains = dict(CHAINS)
    for group in groups.values():
        for direction in _DIRECTIONS:
            chains[at(_group_chain(group.id, direction))] = chain(_group_rules(group, direction, world))
    for port in ports:
        if port.secured:
            for direction in _DIRECTIONS:
                place = at(_profile_chain(port, direction, world))
                if place not in chains:
                    chains[place] = chain(_profile_rules(port, direction, world))
        if port.quality.dscp_mark is not None:
            mark = port.quality.dscp_mark
            chains[at(f"dscp-{mark}")] = chain([f"ip dscp set {mark}", f"ip6 dscp set {mark}"])
    named = [rule.remote_members for group in groups.values() for rule in group.rules if rule.remote_members]
    sets = _port_sets(ports, world) | _member_sets(named, world)
    sets[at("sealed")] = named_set("ifname", sealed)
    sets[Place("inet", "bridges")] = named_set("ifname", zones)
    sets[Place("inet", "zones")] = Elements(
        "typeof iifname : ct zone", {bridge: str(zone) for bridge, zone in zones.items()}, "", "map"
    )
    return Ruleset(chains, sets, frozenset(at(it) for it in COUNTERS))


def stateful(port: WiredPort, world: World) -> bool:
    """Connections of the port are tracked. One stateful group is enough, and so is none at all."""
    groups = [world.groups[id] for id in port.group_ids if id in world.groups]
    return port.secured and (not groups or any(group.stateful for group in groups))


def sources(port: WiredPort) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """What a port may send from: (MAC, address) pairs, and (MAC, CIDR) pairs."""
    own = port.mac_address.lower()
    exact = {(own, _ip(address.ip)) for address in port.addresses}
    wide: dict[str, set[Network]] = {}
    for pair in port.address_pairs:
        mac = (pair.mac_address or own).lower()
        network = network_of(pair.ip)
        if network.prefixlen == network.max_prefixlen:
            exact.add((mac, _ip(str(network.network_address))))
        else:
            wide.setdefault(mac, set()).add(network)
    exact |= {(mac, link_local(mac)) for mac in {own, *(mac for mac, _ in exact), *wide}}
    return exact, {(mac, str(network)) for mac, networks in wide.items() for network in apart(networks)}


@lru_cache(_REMEMBERED)
def link_local(mac: str) -> str:
    """The address an interface gives itself, from its MAC (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    interface = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + interface))


def unusable(world: World, said: Callable[[WiredRule, World], object] = rule_text) -> dict[str, str]:
    """Faults of pieces: rules that cannot be said here, and groups that ports name but nobody told of.

    `said` raises ValueError for a rule that cannot.
    """
    faults: dict[str, str] = {}
    for group in world.groups.values():
        for rule in group.rules:
            try:
                said(rule, world)
            except ValueError as error:
                faults[f"group/{group.id}"] = f"rule {rule.id} lets nothing through: {error}"
    for port in world.ports.values():
        if port.secured and (missing := [id for id in port.group_ids if id not in world.groups]):
            faults[f"port/{port.id}"] = f"security group {missing[0]} is not known on this host yet"
    return faults


def _group_rules(group: WiredGroup, direction: Direction, world: World) -> Iterable[str]:
    for rule in group.rules:
        if rule.direction == direction:
            try:
                yield from (f"{text} # rule {rule.id}" for text in rule_text(rule, world))
            except ValueError:
                continue  # `unusable` tells


def _profile_rules(port: WiredPort, direction: Direction, world: World) -> Iterable[str]:
    yield "ether type arp accept"
    if stateful(port, world):
        yield f"meta mark {ESTABLISHED} accept"
        yield f"meta mark {INVALID} counter drop"
    yield f"jump always-{direction}"
    for id in sorted(port.group_ids):
        if id in world.groups:
            yield f"jump {_group_chain(id, direction)}"
    yield "counter drop"


def _port_sets(ports: Sequence[WiredPort], world: World) -> dict[Place, Elements]:
    macs, from4, from4p, from6, from6p, targets, anywhere = (set[str]() for _ in range(7))
    secured, loose, stateless_macs, tracked, tracked_macs = (set[str]() for _ in range(5))
    senders: dict[str, str] = {}
    receivers: dict[str, str] = {}
    marked: dict[str, str] = {}
    for port in ports:
        tap, tracks = port.tap, stateful(port, world)
        own = {port.mac_address.lower()} | {pair.mac_address.lower() for pair in port.address_pairs} - {""}
        if port.quality.dscp_mark is not None:
            marked[tap] = f"jump dscp-{port.quality.dscp_mark}"
        if tracks:
            tracked.add(tap)
            tracked_macs |= own
        else:
            stateless_macs |= own
        if not port.secured:
            loose.add(tap)
            continue
        secured.add(tap)
        senders[tap] = f"goto {_profile_chain(port, 'egress', world)}"
        receivers[tap] = f"goto {_profile_chain(port, 'ingress', world)}"
        macs |= {f"{tap} . {mac}" for mac in own}
        exact, wide = sources(port)
        for mac, ip in exact:
            (from6 if ":" in ip else from4).add(f"{tap} . {mac} . {ip}")
            if ":" in ip:
                targets.add(f"{tap} . {_as_number(ip)}")
        for mac, cidr in wide:
            (from6p if ":" in cidr else from4p).add(f"{tap} . {mac} . {cidr}")
            if ":" in cidr:
                anywhere.add(tap)
    return {
        at("secured"): named_set("ifname", secured),
        at("loose"): named_set("ifname", loose),
        at("tracked"): named_set("ifname", tracked),
        at("tracked-macs"): named_set("ether_addr", tracked_macs),
        at("stateless-macs"): named_set("ether_addr", stateless_macs),
        at("macs"): named_set("ifname . ether_addr", macs),
        at("from4"): named_set("ifname . ether_addr . ipv4_addr", from4),
        at("from4p"): named_set("ifname . ether_addr . ipv4_addr", from4p, "interval"),
        at("from6"): named_set("ifname . ether_addr . ipv6_addr", from6),
        at("from6p"): named_set("ifname . ether_addr . ipv6_addr", from6p, "interval"),
        at("targets"): Elements(f"typeof {ND_TARGET}", dict.fromkeys(targets, "")),
        at("any-target"): named_set("ifname", anywhere),
        at("senders"): named_map("ifname : verdict", senders),
        at("receivers"): named_map("ifname : verdict", receivers),
        at("marked"): named_map("ifname : verdict", marked),
    }


def _member_sets(ids: Iterable[str], world: World) -> dict[Place, Elements]:
    found: dict[Place, Elements] = {}
    for id in set(ids):
        for version in (4, 6):
            for name, items in members(id, world, version).items():
                flags = "interval" if name.endswith("p") else ""
                if items or not flags:
                    found[at(name)] = named_set(f"ipv{version}_addr", items, flags)
    return found


def _profile_chain(port: WiredPort, direction: Direction, world: World) -> str:
    """One name for all ports with the same groups."""
    known = tuple(sorted(id for id in port.group_ids if id in world.groups))
    return f"ports-{_digest(known)}-{'stateful' if stateful(port, world) else 'stateless'}-{direction}"


@lru_cache(_REMEMBERED)
def _digest(words: tuple[str, ...]) -> str:
    return hashlib.sha256(",".join(words).encode()).hexdigest()[:16]


def _group_chain(id: str, direction: Direction) -> str:
    return f"group-{id}-{direction}"


@lru_cache(_REMEMBERED)
def _ip(ip: str) -> str:
    return str(ipaddress.ip_address(ip))


@lru_cache(_REMEMBERED)
def _as_number(ip: str) -> str:
    """As nft writes an integer."""
    return f"{int(ipaddress.IPv6Address(ip)):#x}"
