"""What a router's namespace must hold, worked out from the words: feet, addresses, routes and NAT. Pure.

outside ──▶ dstnat: floating IP → fixed IP, forwarded port → inner port
inside  ──▶ srcnat: fixed IP with a floating IP → that one; any other → the gateway's (SNAT)
inside  ──▶ floating IP of a neighbour ──▶ back inside: the router puts itself between, or answers would bypass it
inside  ──▶ outside of the same address scope: as it is; from one scope into another: nothing but what is translated

IPv6 is routed as it is. Guests' metadata is answered here, and only on the links its subnets lie on: no extra route
can lead an answer to anybody but the card the address belongs to.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import msgspec

from agents.network.dnsmasq import METADATA_ADDRESS, METADATA_ADDRESS_6
from agents.network.shaping import router_limits
from agents.network.vpn_rules import TUNNEL, UDP_PORTS
from schema.network.wiring import Forwarding, RouterPort, WiredNetwork, WiredRouter, WiredSubnet

TABLE = "cumulog_router"
SILENT = "cumulog_silence"
SILENCE = f"""
table inet {SILENT} {{
  chain in {{
    type filter hook prerouting priority -400; policy drop
  }}
  chain out {{
    type filter hook output priority -400; policy drop
  }}
}}
"""
"""What a router is under while its host has no lease. Any ruleset of `TABLE` ends it."""
ANY = {4: "0.0.0.0/0", 6: "::/0"}
MAIN, METADATA_TABLE = 254, 169
"""Numbers of routing tables. The latter is for what metadata answers."""


class Foot(msgspec.Struct, frozen=True):
    """An interface of the router. `addresses`: `ip/prefix`."""

    name: str
    port: RouterPort
    addresses: frozenset[str]
    gateway: bool = False
    metadata_six: bool = False
    """It answers metadata by IPv6 too: nobody else on its link does."""


class Way(msgspec.Struct, frozen=True):
    """A route.

    `interface` names the foot where the next hop need not lie in the foot's own prefix. Without `via` the destination
    is on that foot's link; without either it is nowhere.
    """

    destination: str
    via: str = ""
    interface: str = ""
    table: int = MAIN


class Layout(msgspec.Struct, frozen=True):
    """Everything in one router's namespace."""

    feet: dict[str, Foot]
    ways: frozenset[Way]
    rules: str
    """A complete nftables ruleset of `TABLE`, as text."""


def layout(router: WiredRouter, networks: Mapping[str, WiredNetwork] | None = None) -> Layout:
    """What the namespace of this router must hold; nothing at all while it is switched off.

    `networks`: those it joins, by id; they tell what else lies on the gateway's link.
    """
    if not router.admin_up:
        return Layout({}, frozenset(), _table([]))
    networks = networks or {}
    feet = {foot.name: foot for foot in _feet(router, networks)}
    outer = networks.get(router.gateway.network_id) if router.gateway else None
    ways = [*_ways(router, outer.subnets if outer else ()), *_metadata_ways(router)]
    return Layout(feet, frozenset(ways), _rules(router))


def networks_of(router: WiredRouter) -> set[str]:
    """Those it joins."""
    return {port.network_id for port in _ports(router)}


def inside_name(port_id: str) -> str:
    """A service's interface in its own namespace."""
    return f"q{port_id[:11]}"


def _feet(router: WiredRouter, networks: Mapping[str, WiredNetwork]) -> Iterable[Foot]:
    for port in router.ports:
        network = networks.get(port.network_id)
        six = network is not None and not network.dhcp_port_id and any(it.ip_version == 6 for it in network.subnets)
        own = {*_own(port), f"{METADATA_ADDRESS_6}/64"} if six else set(_own(port))
        yield Foot(inside_name(port.port_id), port, frozenset(own), metadata_six=six)
    if router.gateway:
        borrowed = {it.floating_ip for it in router.floating} | {it.floating_ip for it in router.forwardings}
        addresses = frozenset(_own(router.gateway)) | {f"{ip}/{_full(ip)}" for ip in borrowed}
        yield Foot(inside_name(router.gateway.port_id), router.gateway, addresses, gateway=True)


def _own(port: RouterPort) -> Iterable[str]:
    return (f"{it.ip}/{it.prefix_length}" for it in port.addresses)


def _full(ip: str) -> int:
    return ipaddress.ip_address(ip).max_prefixlen


def _ways(router: WiredRouter, outer: Sequence[WiredSubnet]) -> Iterable[Way]:
    """One to each destination: those the router was told go before the gateway's own, the lowest next hop wins.

    What lies on a foot's own link is reached there, whatever else was told.
    """
    found: dict[str, Way] = {}
    beside = {prefix for _, prefix in _prefixes(_ports(router))}
    for route in sorted(router.routes, key=lambda it: (it.destination, it.nexthop)):
        way = Way(str(ipaddress.ip_network(route.destination, strict=False)), route.nexthop)
        if way.destination not in beside:
            found.setdefault(way.destination, way)
    for way in _tunnel_ways(router):
        found.setdefault(way.destination, way)
    if router.gateway:
        foot = inside_name(router.gateway.port_id)
        for subnet in outer:
            if subnet.cidr not in beside and _family(subnet.cidr) in {
                _family(it.ip) for it in router.gateway.addresses
            }:
                found.setdefault(subnet.cidr, Way(subnet.cidr, interface=foot))
        for ip in router.gateway_ips:
            found.setdefault(ANY[_family(ip)], Way(ANY[_family(ip)], ip, foot))
    return found.values()


def _tunnel_ways(router: WiredRouter) -> Iterable[Way]:
    """What is at the other end of a tunnel, but for that end itself."""
    for connection in router.connections if router.gateway else ():
        cidrs = [ipaddress.ip_network(it, strict=False) for it in connection.peer_cidrs if connection.admin_up]
        for cidr in cidrs:
            yield Way(str(cidr), interface=TUNNEL)
        with suppress(ValueError):  # it is called by name
            peer = ipaddress.ip_address(connection.peer_address)
            if router.gateway and any(peer in cidr for cidr in cidrs):
                via = next((ip for ip in router.gateway_ips if _family(ip) == peer.version and ip != str(peer)), "")
                yield Way(f"{peer}/{peer.max_prefixlen}", via, inside_name(router.gateway.port_id))


def _metadata_ways(router: WiredRouter) -> Iterable[Way]:
    for foot, prefix in _prefixes(router.ports):
        if ":" not in prefix:
            yield Way(prefix, interface=foot, table=METADATA_TABLE)
    yield Way(ANY[4], table=METADATA_TABLE)


def _prefixes(ports: Iterable[RouterPort]) -> list[tuple[str, str]]:
    """(foot, prefix) of what lies on their links."""
    return [
        (inside_name(port.port_id), str(ipaddress.ip_network(f"{it.ip}/{it.prefix_length}", strict=False)))
        for port in ports
        for it in port.addresses
    ]


def _ports(router: WiredRouter) -> list[RouterPort]:
    return [*router.ports, *([router.gateway] if router.gateway else [])]


def _family(address: str) -> int:
    return 6 if ":" in address else 4


def _rules(router: WiredRouter) -> str:
    lines: list[str] = []
    gateway = router.gateway
    if gateway is not None:
        outside = inside_name(gateway.port_id)
        lines += _translation(router, gateway, outside)
        lines += _chain("input", "filter", "filter", _not_served(router, outside))
        ways = [*_never_in_clear(router, outside), *_between_scopes(router), *router_limits(router, outside)]
    else:
        ways = list(_between_scopes(router))
    if gateway is not None or ways:
        lines += _chain("forward", "filter", "filter", ways)
    return _table(lines)


def _translation(router: WiredRouter, gateway: RouterPort, outside: str) -> list[str]:
    own = next((it.ip for it in gateway.addresses if ":" not in it.ip), None)
    floating = [(it.floating_ip, it.fixed_ip) for it in router.floating if ":" not in it.floating_ip]
    inside = sorted({prefix for _, prefix in _prefixes(router.ports) if ":" not in prefix})
    outwards = [f'oifname "{outside}" snat ip to ip saddr map @outwards']
    back_inside = ["ct status dnat snat ip to ip saddr map @outwards"]
    if own and router.snat:
        if plain := ", ".join(untranslated(router)):
            outwards.append(f'oifname "{outside}" ip saddr {{ {plain} }} accept')
        outwards.append(f'oifname "{outside}" ip saddr != {own} snat ip to {own}')
    if own:
        back_inside.append(f"ct status dnat ip saddr @inside snat ip to {own}")
    return [
        *_map("inwards", "ipv4_addr : ipv4_addr", floating),
        *_map("outwards", "ipv4_addr : ipv4_addr", [(fixed, floating_ip) for floating_ip, fixed in floating]),
        *_set("inside", inside),
        *_chain("prerouting", "nat", "dstnat", [*_forwarded(router.forwardings), "dnat ip to ip daddr map @inwards"]),
        *_chain("postrouting", "nat", "srcnat", [*outwards, *back_inside]),
    ]


def untranslated(router: WiredRouter) -> list[str]:
    """What is in the scope of the outside: its addresses mean the same there."""
    outer = _scope(router, router.gateway, 4) if router.gateway and router.scopes else ""
    own = (port for port in router.ports if outer and _scope(router, port, 4) == outer)
    return sorted({prefix for _, prefix in _prefixes(own) if ":" not in prefix})


def _between_scopes(router: WiredRouter) -> Iterable[str]:
    """From one address scope into another nothing is routed, unless it is translated on the way."""
    if not router.scopes:
        return
    for family, word in ((4, "ipv4"), (6, "ipv6")):
        scopes: dict[str, list[str]] = {}
        for port in router.ports:
            if any(_family(it.ip) == family for it in port.addresses):
                scopes.setdefault(_scope(router, port, family), []).append(inside_name(port.port_id))
        head = f"meta nfproto {word}"
        for scope, names in sorted(scopes.items()):
            others = [name for other, its in sorted(scopes.items()) if other != scope for name in its]
            if others:
                yield f"{head} iifname {_names(names)} oifname {_names(others)} ct status & dnat == 0 drop"
        if router.gateway is None:
            continue
        outside = inside_name(router.gateway.port_id)
        outer = _scope(router, router.gateway, family)
        strangers = [name for scope, its in sorted(scopes.items()) if scope != outer for name in its]
        if not strangers:
            continue
        yield f'{head} iifname "{outside}" oifname {_names(strangers)} ct state new ct status & dnat == 0 drop'
        if family == 6:
            yield f'{head} iifname {_names(strangers)} oifname "{outside}" ct state new drop'
        elif not router.snat:
            known = ", ".join(sorted({it.fixed_ip for it in router.floating if ":" not in it.fixed_ip}))
            but = f"ip saddr != {{ {known} }} " if known else ""
            yield f'{head} iifname {_names(strangers)} oifname "{outside}" {but}ct state new drop'


def _scope(router: WiredRouter, port: RouterPort, family: int) -> str:
    """Of a foot in that family; empty: none. All subnets of a network are of one pool."""
    its = (router.scopes.get(it.subnet_id, "") for it in port.addresses if _family(it.ip) == family)
    return next((scope for scope in its if scope), "")


def _names(interfaces: Iterable[str]) -> str:
    quoted = [f'"{it}"' for it in sorted(interfaces)]
    return f"{{ {', '.join(quoted)} }}"


def _not_served(router: WiredRouter, outside: str) -> list[str]:
    """Metadata is for the inside alone, and a VPN's daemon for the outside."""
    found = [f'iifname "{outside}" ip daddr {METADATA_ADDRESS} drop']
    if router.connections:
        found.append(f'iifname != "{outside}" udp dport {{ {", ".join(map(str, UDP_PORTS))} }} drop')
    return found


def _never_in_clear(router: WiredRouter, outside: str) -> Iterable[str]:
    """What belongs into a tunnel does not go out beside it while the tunnel is down."""
    for connection in router.connections:
        for family, word in ((4, "ip"), (6, "ip6")):
            local, peers = _joined(connection.local_cidrs, family), _joined(connection.peer_cidrs, family)
            if connection.admin_up and local and peers:
                yield f'oifname "{outside}" {word} saddr {{ {local} }} {word} daddr {{ {peers} }} drop'


def _joined(cidrs: Iterable[str], family: int) -> str:
    """Of one family, without what lies in another."""
    networks = [ipaddress.ip_network(it, strict=False) for it in cidrs if _family(it) == family]
    return ", ".join(map(str, ipaddress.collapse_addresses(networks)))  # type: ignore[type-var]


def _forwarded(forwardings: Sequence[Forwarding]) -> Iterable[str]:
    """One rule for each; a range goes to the range of the same length port by port."""
    for it in sorted(forwardings, key=lambda it: it.id):
        head = f"ip daddr {it.floating_ip} {it.protocol} dport"
        if it.external_port == it.external_port_end:
            yield f"{head} {it.external_port} dnat ip to {it.internal_ip}:{it.internal_port}"
            continue
        inner = zip(
            range(it.external_port, it.external_port_end + 1),
            range(it.internal_port, it.internal_port_end + 1),
            strict=False,
        )
        pairs = ", ".join(f"{outer} : {port}" for outer, port in inner)
        ends = f"{it.external_port}-{it.external_port_end}"
        yield f"{head} {ends} dnat ip to {it.internal_ip} : {it.protocol} dport map {{ {pairs} }}"


def _table(lines: Sequence[str]) -> str:
    """Replaces the table that is there, whatever is in it, in one transaction."""
    body = "\n".join(f"  {line}" for line in lines)
    fresh = "".join(f"table inet {name}\ndelete table inet {name}\n" for name in (SILENT, TABLE))
    return f"{fresh}table inet {TABLE} {{\n{body}\n}}\n"


def _map(name: str, types: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    elements = (
        [f"elements = {{ {', '.join(f'{key} : {value}' for key, value in sorted(dict(pairs).items()))} }}"]
        if pairs
        else []
    )
    return [f"map {name} {{", f"  type {types}", *(f"  {line}" for line in elements), "}"]


def _set(name: str, prefixes: Sequence[str]) -> list[str]:
    elements = [f"  elements = {{ {', '.join(prefixes)} }}"] if prefixes else []
    return [f"set {name} {{", "  type ipv4_addr", "  flags interval", "  auto-merge", *elements, "}"]


def _chain(name: str, type: str, priority: str, rules: Sequence[str]) -> list[str]:
    return [f"chain {name} {{", f"  type {type} hook {name} priority {priority}", *(f"  {it}" for it in rules), "}"]
