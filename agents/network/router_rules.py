"""What a router's namespace must hold, worked out from the words: feet, addresses, routes and NAT. Pure.

outside ──▶ dstnat: floating IP → fixed IP, forwarded port → inner port
inside  ──▶ srcnat: fixed IP with a floating IP → that one; any other → the gateway's (SNAT)
inside  ──▶ floating IP of a neighbour ──▶ back inside: the router puts itself between, or answers would bypass it
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

import msgspec

from schema.network.wiring import Forwarding, RouterPort, WiredRouter

TABLE = "cumulog_router"
ANY = {4: "0.0.0.0/0", 6: "::/0"}


class Foot(msgspec.Struct, frozen=True):
    """An interface of the router. `addresses`: `ip/prefix`."""

    name: str
    port: RouterPort
    addresses: frozenset[str]
    gateway: bool = False


class Way(msgspec.Struct, frozen=True):
    """A route. `interface` names the foot where the next hop need not lie in the foot's own prefix."""

    destination: str
    via: str
    interface: str = ""


class Layout(msgspec.Struct, frozen=True):
    """Everything in one router's namespace."""

    feet: dict[str, Foot]
    ways: frozenset[Way]
    rules: str
    """A complete nftables ruleset of `TABLE`, as text."""


def layout(router: WiredRouter) -> Layout:
    """What the namespace of this router must hold; nothing at all while it is switched off."""
    if not router.admin_up:
        return Layout({}, frozenset(), _table([]))
    feet = {foot.name: foot for foot in _feet(router)}
    return Layout(feet, frozenset(_ways(router)), _rules(router))


def inside_name(port_id: str) -> str:
    """A service's interface in its own namespace."""
    return f"q{port_id[:11]}"


def outside_name(port_id: str) -> str:
    """The other end of it, on the network's bridge."""
    return f"h{port_id[:11]}"


def _feet(router: WiredRouter) -> Iterable[Foot]:
    for port in router.ports:
        yield Foot(inside_name(port.port_id), port, frozenset(_own(port)))
    if router.gateway:
        borrowed = {it.floating_ip for it in router.floating} | {it.floating_ip for it in router.forwardings}
        addresses = frozenset(_own(router.gateway)) | {f"{ip}/{_full(ip)}" for ip in borrowed}
        yield Foot(inside_name(router.gateway.port_id), router.gateway, addresses, gateway=True)


def _own(port: RouterPort) -> Iterable[str]:
    return (f"{it.ip}/{it.prefix_length}" for it in port.addresses)


def _full(ip: str) -> int:
    return ipaddress.ip_address(ip).max_prefixlen


def _ways(router: WiredRouter) -> Iterable[Way]:
    if router.gateway:
        for ip in router.gateway_ips:
            yield Way(ANY[ipaddress.ip_address(ip).version], ip, inside_name(router.gateway.port_id))
    for route in router.routes:
        yield Way(str(ipaddress.ip_network(route.destination, strict=False)), route.nexthop)


def _rules(router: WiredRouter) -> str:
    gateway = router.gateway
    if gateway is None:
        return _table([])
    outside = inside_name(gateway.port_id)
    own = next((it.ip for it in gateway.addresses if ":" not in it.ip), None)
    floating = [(it.floating_ip, it.fixed_ip) for it in router.floating if ":" not in it.floating_ip]
    inside = sorted(
        {
            str(ipaddress.ip_network(f"{a.ip}/{a.prefix_length}", strict=False))
            for p in router.ports
            for a in p.addresses
        }
    )
    inside = [prefix for prefix in inside if ":" not in prefix]
    return _table(
        [
            *_map("inwards", "ipv4_addr : ipv4_addr", floating),
            *_map("outwards", "ipv4_addr : ipv4_addr", [(fixed, floating_ip) for floating_ip, fixed in floating]),
            *_set("inside", inside),
            *_chain("prerouting", "dstnat", [*_forwarded(router.forwardings), "dnat ip to ip daddr map @inwards"]),
            *_chain(
                "postrouting",
                "srcnat",
                [
                    f'oifname "{outside}" snat ip to ip saddr map @outwards',
                    *([f'oifname "{outside}" ip saddr @inside snat ip to {own}'] if own and router.snat else []),
                    *([f"ct status dnat ip saddr @inside snat ip to {own}"] if own else []),
                ],
            ),
        ]
    )


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
    return f"table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n{body}\n}}\n"


def _map(name: str, types: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    elements = [f"elements = {{ {', '.join(f'{key} : {value}' for key, value in sorted(pairs))} }}"] if pairs else []
    return [f"map {name} {{", f"  type {types}", *(f"  {line}" for line in elements), "}"]


def _set(name: str, prefixes: Sequence[str]) -> list[str]:
    elements = [f"  elements = {{ {', '.join(prefixes)} }}"] if prefixes else []
    return [f"set {name} {{", "  type ipv4_addr", "  flags interval", "  auto-merge", *elements, "}"]


def _chain(name: str, hook: str, rules: Sequence[str]) -> list[str]:
    return [f"chain {name} {{", f"  type nat hook {name} priority {hook}", *(f"  {rule}" for rule in rules), "}"]
