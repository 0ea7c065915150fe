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

import ipaddress
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from agents.network.ruleset import Elements, Hook, Place, Ruleset, chain, named_map, named_set
from agents.network.world import World
from schema.network.wiring import Direction, WiredGroup, WiredPort, WiredRule

TABLE = "cumulog"
NEW, ESTABLISHED, INVALID, UNTRACKED, TRACK, LOOSE = (0xC10D0000 + it for it in range(6))
"""Marks: what conntrack said; and before it was asked, whether it is to be asked."""
KNOWN = (Place("bridge", "secured"), Place("bridge", "loose"), Place("bridge", "sealed"))
"""The sets that hold the names of taps."""
COUNTERS = ("spoofed-mac", "spoofed-arp", "spoofed-ip", "spoofed-nd", "rogue-router", "rogue-dhcp", "other-protocol")
NUMBERS = {
    "hopopt": 0,
    "icmp": 1,
    "igmp": 2,
    "ipip": 4,
    "tcp": 6,
    "egp": 8,
    "udp": 17,
    "dccp": 33,
    "ipv6": 41,
    "ipv6-encap": 41,
    "ipv6-route": 43,
    "ipv6-frag": 44,
    "rsvp": 46,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "ipv6-icmp": 58,
    "icmpv6": 58,
    "ipv6-nonxt": 59,
    "ipv6-opts": 60,
    "ospf": 89,
    "vrrp": 112,
    "pgm": 113,
    "sctp": 132,
    "udplite": 136,
}
"""Protocols as Neutron names them, by IANA's numbers."""
WITH_PORTS = {6, 17, 33, 132, 136}
_REMEMBERED = 1 << 16
_DIRECTIONS: tuple[Direction, ...] = ("ingress", "egress")
_FAMILIES = {"IPv4": ("ip", "ip", 4), "IPv6": ("ip6", "ip6", 6)}
_ANSWERS = {
    "established": ESTABLISHED,
    "related": ESTABLISHED,
    "invalid": INVALID,
    "new": NEW,
    "untracked": UNTRACKED,
}
_STATES = ", ".join(f"{state} : {mark}" for state, mark in _ANSWERS.items())
_ND_TARGET = "iifname . @th,64,128"


def ruleset(world: World, zones: Mapping[str, int], sealed: Iterable[str] = ()) -> Ruleset:
    """`zones`: bridge → conntrack zone. `sealed`: taps that still exist but whose ports are gone: nothing passes."""
    ports = [port for port in world.ports.values() if not port.parent_id]
    groups = {id: group for id, group in world.groups.items() if any(id in port.group_ids for port in ports)}
    chains = dict(_FIXED)
    for group in groups.values():
        for direction in _DIRECTIONS:
            chains[_at(_group_chain(group.id, direction))] = chain(_group_rules(group, direction, world))
    for port in ports:
        if port.secured:
            for direction in _DIRECTIONS:
                place = _at(_profile_chain(port, direction, world))
                if place not in chains:
                    chains[place] = chain(_profile_rules(port, direction, world))
        if port.quality.dscp_mark is not None:
            mark = port.quality.dscp_mark
            chains[_at(f"dscp-{mark}")] = chain([f"ip dscp set {mark}", f"ip6 dscp set {mark}"])
    named = [rule.remote_members for group in groups.values() for rule in group.rules if rule.remote_members]
    sets = _port_sets(ports, world) | _member_sets(named, world)
    sets[_at("sealed")] = named_set("ifname", sealed)
    sets[Place("inet", "zones")] = Elements(
        "typeof iifname : ct zone", {bridge: str(zone) for bridge, zone in zones.items()}, "", "map"
    )
    return Ruleset(chains, sets, frozenset(_at(it) for it in COUNTERS))


def stateful(port: WiredPort, world: World) -> bool:
    """Connections of the port are tracked. One stateful group is enough, and so is none at all."""
    groups = [world.groups[id] for id in port.group_ids if id in world.groups]
    return port.secured and (not groups or any(group.stateful for group in groups))


def sources(port: WiredPort) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """What a port may send from: (MAC, address) pairs, and (MAC, CIDR) pairs."""
    own = port.mac_address.lower()
    exact = {(own, _ip(address.ip)) for address in port.addresses}
    wide: set[tuple[str, str]] = set()
    for pair in port.address_pairs:
        mac = (pair.mac_address or own).lower()
        network = _network(pair.ip)
        if network.prefixlen == network.max_prefixlen:
            exact.add((mac, _ip(str(network.network_address))))
        else:
            wide.add((mac, _cidr(network)))
    exact |= {(mac, link_local(mac)) for mac in {own, *(mac for mac, _ in exact | wide)}}
    return exact, wide


@lru_cache(_REMEMBERED)
def link_local(mac: str) -> str:
    """The address an interface gives itself, from its MAC (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    interface = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + interface))


def protocol_number(protocol: str) -> int:
    """Raises ValueError."""
    number = NUMBERS[protocol] if protocol in NUMBERS else int(protocol)
    if not 0 <= number <= 255:
        raise ValueError(f"{protocol} is no IP protocol: use a name such as tcp, or a number from 0 to 255")
    return number


def unusable(world: World) -> dict[str, str]:
    """Faults of pieces: rules that cannot be said here, and groups that ports name but nobody told of."""
    faults: dict[str, str] = {}
    for group in world.groups.values():
        for rule in group.rules:
            try:
                rule_text(rule, world)
            except ValueError as error:
                faults[f"group/{group.id}"] = f"rule {rule.id} lets nothing through: {error}"
    for port in world.ports.values():
        if port.secured and (missing := [id for id in port.group_ids if id not in world.groups]):
            faults[f"port/{port.id}"] = f"security group {missing[0]} is not known on this host yet"
    return faults


def rule_text(rule: WiredRule, world: World) -> tuple[str, ...]:
    """The rule as nft says it, at most twice: for single members, and for their prefixes. Raises ValueError."""
    ether, family, version = _FAMILIES[rule.ethertype]
    side = "saddr" if rule.direction == "ingress" else "daddr"
    what = _protocol_match(rule, version)
    remote = [""]
    if rule.remote_members:
        names = _members(rule.remote_members, world, version)
        remote = [f"{family} {side} @{name}" for name, items in names.items() if items or not name.endswith("p")]
    elif rule.remote_prefix:
        network = _network(rule.remote_prefix)
        if network.version != version:
            raise ValueError(f"{rule.remote_prefix} is not {rule.ethertype}")
        remote = [f"{family} {side} {_cidr(network)}" if network.prefixlen else ""]
    return tuple(" ".join(filter(None, [f"ether type {ether}", it, what, "accept"])) for it in remote)


def _protocol_match(rule: WiredRule, version: int) -> str:
    if rule.protocol is None or rule.protocol == "any":
        return ""
    number = protocol_number(rule.protocol)
    if version == 6 and number == 1:
        number = 58
    low, high = rule.port_min, rule.port_max
    if number == (1 if version == 4 else 58):
        name = "icmp" if version == 4 else "icmpv6"
        parts = [f"{name} type {low}" if low is not None else f"meta l4proto {number}"]
        if low is not None and high is not None:
            parts.append(f"{name} code {high}")
        return " ".join(parts)
    if number not in WITH_PORTS or low is None:
        return f"meta l4proto {number}"
    ports = f"{low}" if high is None or high == low else f"{low}-{high}"
    return f"meta l4proto {number} th dport {ports}"


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
        tap, own = (
            port.tap,
            {port.mac_address.lower()} | {pair.mac_address.lower() for pair in port.address_pairs} - {""},
        )
        if port.quality.dscp_mark is not None:
            marked[tap] = f"jump dscp-{port.quality.dscp_mark}"
        if stateful(port, world):
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
                targets.add(f"{tap} . {int(ipaddress.IPv6Address(ip)):#x}")
        for mac, cidr in wide:
            (from6p if ":" in cidr else from4p).add(f"{tap} . {mac} . {cidr}")
            if ":" in cidr:
                anywhere.add(tap)
    return {
        _at("secured"): named_set("ifname", secured),
        _at("loose"): named_set("ifname", loose),
        _at("tracked"): named_set("ifname", tracked),
        _at("tracked-macs"): named_set("ether_addr", tracked_macs),
        _at("stateless-macs"): named_set("ether_addr", stateless_macs),
        _at("macs"): named_set("ifname . ether_addr", macs),
        _at("from4"): named_set("ifname . ether_addr . ipv4_addr", from4),
        _at("from4p"): named_set("ifname . ether_addr . ipv4_addr", from4p, "interval"),
        _at("from6"): named_set("ifname . ether_addr . ipv6_addr", from6),
        _at("from6p"): named_set("ifname . ether_addr . ipv6_addr", from6p, "interval"),
        _at("targets"): Elements(f"typeof {_ND_TARGET}", dict.fromkeys(targets, "")),
        _at("any-target"): named_set("ifname", anywhere),
        _at("senders"): named_map("ifname : verdict", senders),
        _at("receivers"): named_map("ifname : verdict", receivers),
        _at("marked"): named_map("ifname : verdict", marked),
    }


def _member_sets(ids: Iterable[str], world: World) -> dict[Place, Elements]:
    found: dict[Place, Elements] = {}
    for id in set(ids):
        for version in (4, 6):
            for name, items in _members(id, world, version).items():
                flags = "interval" if name.endswith("p") else ""
                if items or not flags:
                    found[_at(name)] = named_set(f"ipv{version}_addr", items, flags)
    return found


def _members(id: str, world: World, version: int) -> dict[str, set[str]]:
    """Name of a set → what is in it: single addresses by hash, and `…p` for prefixes, which never overlap."""
    addresses = world.members[id].addresses if id in world.members else ()
    networks = {_network(it) for it in addresses}
    mine = [it for it in networks if it.version == version]
    wide = sorted((it for it in mine if it.prefixlen < it.max_prefixlen), key=lambda it: it.prefixlen)
    apart: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    for network in wide:
        if not any(_within(network, other) for other in apart):
            apart.append(network)
    single = {str(it.network_address) for it in mine if it.prefixlen == it.max_prefixlen}
    return {f"members-{id}-{version}": single, f"members-{id}-{version}p": {_cidr(it) for it in apart}}


def _within(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network, other: ipaddress.IPv4Network | ipaddress.IPv6Network
) -> bool:
    return other.network_address <= network.network_address and network.broadcast_address <= other.broadcast_address  # type: ignore[operator]


def _profile_chain(port: WiredPort, direction: Direction, world: World) -> str:
    """One name for all ports with the same groups."""
    known = sorted(id for id in port.group_ids if id in world.groups)
    digest = f"{zlib.crc32(','.join(known).encode()):08x}{zlib.adler32(','.join(known).encode()):08x}"
    return f"ports-{digest}-{'stateful' if stateful(port, world) else 'stateless'}-{direction}"


def _group_chain(id: str, direction: Direction) -> str:
    return f"group-{id}-{direction}"


def _at(name: str) -> Place:
    return Place("bridge", name)


@lru_cache(_REMEMBERED)
def _ip(ip: str) -> str:
    return str(ipaddress.ip_address(ip))


@lru_cache(_REMEMBERED)
def _network(cidr: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(cidr, strict=False)


def _cidr(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    return str(network) if network.prefixlen < network.max_prefixlen else _ip(str(network.network_address))


_DHCP4_SERVER, _DHCP6_SERVER = "udp sport 67 udp dport 68", "udp sport 547 udp dport 546"
_DHCP4_CLIENT, _DHCP6_CLIENT = "udp sport 68 udp dport 67", "udp sport 546 udp dport 547"
_OTHERS_TARGET = f'iifname != @any-target {_ND_TARGET} != @targets counter name "spoofed-nd" drop'
_FIXED = {
    _at("guard"): chain(
        [
            "iifname @sealed drop",
            "iifname @secured jump check",
            f"iifname @tracked meta mark set {TRACK}",
            f"ether daddr @tracked-macs meta mark set {TRACK}",
            f"meta mark != {TRACK} iifname @loose meta mark set {LOOSE}",
            f"meta mark != {TRACK} iifname @secured meta mark set {LOOSE}",
            f"meta mark != {TRACK} ether daddr @stateless-macs meta mark set {LOOSE}",
            "iifname vmap @marked",
        ],
        Hook("prerouting", -300),
    ),
    _at("check"): chain(
        [
            'iifname . ether saddr != @macs counter name "spoofed-mac" drop',
            "ether type arp goto check-arp",
            "jump rogue",
            "ether type ip goto check-ip",
            "ether type ip6 goto check-ip6",
            'counter name "other-protocol" drop',
        ]
    ),
    _at("check-arp"): chain(
        [
            "iifname . arp saddr ether . arp saddr ip @from4 return",
            "iifname . arp saddr ether . arp saddr ip @from4p return",
            "arp saddr ip 0.0.0.0 iifname . arp saddr ether @macs return",
            'counter name "spoofed-arp" drop',
        ]
    ),
    _at("check-ip"): chain(
        [
            "iifname . ether saddr . ip saddr @from4 return",
            "iifname . ether saddr . ip saddr @from4p return",
            f"ip saddr 0.0.0.0 {_DHCP4_CLIENT} return",
            'counter name "spoofed-ip" drop',
        ]
    ),
    _at("check-ip6"): chain(
        [
            "iifname . ether saddr . ip6 saddr @from6 return",
            "iifname . ether saddr . ip6 saddr @from6p return",
            "ip6 saddr :: icmpv6 type { 131, 135, 143 } return",
            'counter name "spoofed-ip" drop',
        ]
    ),
    # Once more here, where fragments have become whole packets again.
    _at("sending"): chain(["iifname @secured jump rogue", "iifname vmap @senders"], Hook("forward", -210)),
    _at("receiving"): chain(["oifname @sealed drop", "oifname vmap @receivers"], Hook("forward", -200)),
    _at("to-host"): chain(["iifname @secured jump rogue", "iifname vmap @senders"], Hook("input", -200)),
    _at("leaving"): chain(
        [f"meta mark {{ {NEW}, {ESTABLISHED}, {INVALID}, {UNTRACKED}, {TRACK}, {LOOSE} }} meta mark set 0"],
        Hook("postrouting", 300),
    ),
    _at("rogue"): chain(
        [
            f'{_DHCP4_SERVER} counter name "rogue-dhcp" drop',
            f'{_DHCP6_SERVER} counter name "rogue-dhcp" drop',
            'icmpv6 type { 134, 137 } counter name "rogue-router" drop',
            f"icmpv6 type 136 {_OTHERS_TARGET}",
            f"icmpv6 type 135 ip6 saddr :: {_OTHERS_TARGET}",
        ]
    ),
    _at("always-egress"): chain(
        [
            f"ether type ip {_DHCP4_CLIENT} accept",
            f"ether type ip6 {_DHCP6_CLIENT} accept",
            "icmpv6 type { 130, 131, 132, 133, 135, 136, 143 } accept",
        ]
    ),
    _at("always-ingress"): chain(
        [
            f"ether type ip {_DHCP4_SERVER} accept",
            f"ether type ip6 {_DHCP6_SERVER} ip6 saddr fe80::/10 accept",
            "icmpv6 type { 130, 131, 132, 134, 135, 136 } accept",
        ]
    ),
    Place("inet", "zone"): chain(
        [f"meta mark {TRACK} ct zone set iifname map @zones", f"meta mark {LOOSE} notrack"], Hook("prerouting", -300)
    ),
    Place("inet", "state"): chain(
        [f"meta mark {TRACK} meta mark set ct state map {{ {_STATES} }}"], Hook("prerouting", -150)
    ),
}
