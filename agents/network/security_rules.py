"""A security group's rule as nftables says it, and the sets of the groups it lets in. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from agents.network.world import World
from schema.network.protocol import ANY, ICMP, ICMP_V6, PORTED
from schema.network.protocol import number as protocol_number
from schema.network.wiring import WiredRule

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_FAMILIES = {"IPv4": ("ip", 4), "IPv6": ("ip6", 6)}
_REMEMBERED, _REMEMBERED_MEMBERS = 1 << 16, 1 << 10


def rule_text(rule: WiredRule, world: World) -> tuple[str, ...]:
    """The rule as nft says it, at most twice: for single members, and for their prefixes. Raises ValueError."""
    family, version = _FAMILIES[rule.ethertype]
    side = "saddr" if rule.direction == "ingress" else "daddr"
    what = _protocol_match(rule, version)
    remote = [""]
    if rule.remote_members:
        names = members(rule.remote_members, world, version)
        remote = [f"{family} {side} @{name}" for name, items in names.items() if items or not name.endswith("p")]
    elif rule.remote_prefix:
        network = network_of(rule.remote_prefix)
        if network.version != version:
            raise ValueError(f"{rule.remote_prefix} is not {rule.ethertype}")
        remote = [f"{family} {side} {network}" if network.prefixlen else ""]
    return tuple(" ".join(filter(None, [f"ether type {family}", it, what, "accept"])) for it in remote)


def _protocol_match(rule: WiredRule, version: int) -> str:
    number = ANY if rule.protocol in {None, "any"} else protocol_number(rule.protocol or "")
    if number == ANY:
        return ""
    if version == 6 and number == ICMP:
        number = ICMP_V6
    low, high = rule.port_min, rule.port_max
    if number == (ICMP if version == 4 else ICMP_V6):
        name = "icmp" if version == 4 else "icmpv6"
        parts = [f"{name} type {low}" if low is not None else f"meta l4proto {number}"]
        if low is not None and high is not None:
            parts.append(f"{name} code {high}")
        return " ".join(parts)
    if number not in PORTED or low is None:
        return f"meta l4proto {number}"
    ports = f"{low}" if high is None or high == low else f"{low}-{high}"
    return f"meta l4proto {number} th dport {ports}"


def members(id: str, world: World, version: int) -> dict[str, frozenset[str]]:
    """Name of a set → what is in it: single addresses by hash, and `…p` for prefixes, which never overlap."""
    single, wide = _sorted_out(world.members[id].addresses if id in world.members else (), version)
    return {f"members-{id}-{version}": single, f"members-{id}-{version}p": wide}


@lru_cache(_REMEMBERED_MEMBERS)
def _sorted_out(addresses: tuple[str, ...], version: int) -> tuple[frozenset[str], frozenset[str]]:
    mine = [network for network in map(network_of, addresses) if network.version == version]
    single = {str(it.network_address) for it in mine if it.prefixlen == it.max_prefixlen}
    wide = apart(it for it in mine if it.prefixlen < it.max_prefixlen)
    return frozenset(single), frozenset(map(str, wide))


def apart(networks: Iterable[Network]) -> list[Network]:
    """Without those that lie in another: the kernel takes no intervals that overlap."""
    found: list[Network] = []
    for network in sorted(set(networks), key=lambda it: it.prefixlen):
        if not any(network.version == other.version and network.subnet_of(other) for other in found):  # type: ignore[arg-type]
            found.append(network)
    return found


@lru_cache(_REMEMBERED)
def network_of(cidr: str) -> Network:
    return ipaddress.ip_network(cidr, strict=False)
