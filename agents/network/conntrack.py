"""Connections the kernel tracks: list those of our networks, and cut those that the rules no longer allow.

A revoked rule stops new connections by itself; established ones are marked here, and the firewall drops what bears the
mark. They are not forgotten: the next packet of one would be taken for a new connection, which whoever sends it may
well be allowed to begin. Allowed again, the mark goes. Formats: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import enum
import ipaddress
import socket
import struct
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from agents.network import netlink
from agents.network.firewall_base import CUT
from agents.network.firewall_rules import sources, stateful
from agents.network.netlink import Request, attribute, nested, short
from agents.network.world import World
from schema.network.protocol import ANY, PORTED
from schema.network.protocol import number as protocol_number
from schema.network.wiring import Direction, WiredPort, WiredRule

NETFILTER = 12
"""Netlink family."""
_CHANGE, _GET, _DELETE = 1 << 8 | 0, 1 << 8 | 1, 1 << 8 | 2
TUPLE_ORIGINAL, TUPLE_REPLY = 1, 2
_MARK, _ID, _ZONE, _MARK_MASK = 8, 12, 18, 21
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_HEAD = struct.Struct("=BBH")
_ICMP = {1: (5, 6), 58: (8, 9)}

Address = tuple[int, str]
"""Zone and IP: addresses of two networks may be the same."""


class Connection(NamedTuple):
    """As its first packet went. For ICMP the ports are type and code."""

    zone: int
    protocol: int
    source: str
    destination: str
    source_port: int
    destination_port: int
    handle: bytes
    """What the kernel wants to hear to change or delete this very one."""
    is_cut: bool = False


class Fate(enum.Enum):
    """Of a connection, after the rules have changed."""

    STANDS = enum.auto()
    CUT = enum.auto()
    FORGOTTEN = enum.auto()
    """Neither end is ours any more: an address was taken away, or a network is another's now."""


class Cut(NamedTuple):
    """How many connections."""

    new: int
    all: int
    """Those too that were cut before."""


def cut(zones: Collection[int], fate: Callable[[Connection], Fate]) -> Cut:
    """Cut, mend and forget those of the connections in these zones. In this thread's namespace. Raises OSError."""
    with netlink.Socket(family=NETFILTER) as kernel:
        ours = [(it, fate(it)) for it in connections(kernel) if it.zone in zones]
        fresh = [it.handle for it, its in ours if its is Fate.CUT and not it.is_cut]
        new = _mark(kernel, fresh, CUT)
        _mark(kernel, [it.handle for it, its in ours if its is Fate.STANDS and it.is_cut], 0)
        forget(kernel, [it.handle for it, its in ours if its is Fate.FORGOTTEN])
    return Cut(new, sum(its is Fate.CUT for _, its in ours))


def connections(kernel: netlink.Socket) -> Iterable[Connection]:
    """All that are in a zone."""
    for family in (socket.AF_INET, socket.AF_INET6):
        for found in tracked(kernel, family):
            if _ZONE in found and TUPLE_ORIGINAL in found:
                yield _read(family, found)


def tracked(kernel: netlink.Socket, family: int) -> Iterable[dict[int, bytes]]:
    """The attributes of every connection of a family. Raises OSError."""
    for _, body in kernel.ask(Request(_GET, netlink.DUMP, _HEAD.pack(family, 0, 0))):
        yield netlink.attributes(body, 4)


def forget(kernel: netlink.Socket, handles: Iterable[bytes]) -> int:
    """Have the kernel forget these; how many it knew."""
    answers = kernel.send([Request(_DELETE, 0, it) for it in handles])
    return sum(answer.number == 0 for answer in answers)


def _mark(kernel: netlink.Socket, handles: Iterable[bytes], bit: int) -> int:
    """How many of them the kernel still knew."""
    words = attribute(_MARK, struct.pack("!I", bit)) + attribute(_MARK_MASK, struct.pack("!I", CUT))
    answers = kernel.send([Request(_CHANGE, 0, it + words) for it in handles])
    return sum(answer.number == 0 for answer in answers)


def ends(tuple_: bytes, family: int) -> tuple[int, str, str, int, int]:
    """(protocol, source, destination, source port, destination port) of one direction of a connection."""
    both = netlink.attributes(tuple_)
    addresses, protocol = netlink.attributes(both[_TUPLE_IP]), netlink.attributes(both[_TUPLE_PROTOCOL])
    number = protocol[1][0]
    first, second = _ICMP.get(number, (2, 3))
    source, destination = (1, 2) if family == socket.AF_INET else (3, 4)
    return (
        number,
        socket.inet_ntop(family, addresses[source]),
        socket.inet_ntop(family, addresses[destination]),
        int.from_bytes(protocol.get(first, b""), "big"),
        int.from_bytes(protocol.get(second, b""), "big"),
    )


def handle(found: Mapping[int, bytes], family: int) -> bytes:
    """What the kernel wants to hear to change or delete this very one."""
    made = _HEAD.pack(family, 0, 0) + nested(TUPLE_ORIGINAL, found[TUPLE_ORIGINAL])
    if _ZONE in found:
        made += short(_ZONE, socket.htons(int.from_bytes(found[_ZONE], "big")))
    return made + attribute(_ID, found[_ID])


class Judge:
    """Whether a connection may go on: every port of ours at either end has to have a rule for it."""

    def __init__(self, world: World, zones: Mapping[str, int]) -> None:
        """`zones`: network → zone."""
        self._world = world
        self._ports: dict[Address, list[WiredPort]] = {}
        self._wide: list[tuple[int, ipaddress.IPv4Network | ipaddress.IPv6Network, WiredPort]] = []
        for port in world.ports.values():
            if port.network_id in zones and port.secured and stateful(port, world):
                zone = zones[port.network_id]
                exact, wide = sources(port)
                for ip in {ip for _, ip in exact}:
                    self._ports.setdefault((zone, ip), []).append(port)
                self._wide += [(zone, ipaddress.ip_network(cidr), port) for _, cidr in wide]

    def fate(self, it: Connection) -> Fate:
        if _always(it):
            return Fate.STANDS
        senders, receivers = self._at(it.zone, it.source), self._at(it.zone, it.destination)
        if not senders and not receivers:
            return Fate.FORGOTTEN
        allowed = (not senders or any(self._may(port, "egress", it, it.destination) for port in senders)) and (
            not receivers or any(self._may(port, "ingress", it, it.source) for port in receivers)
        )
        return Fate.STANDS if allowed else Fate.CUT

    def _at(self, zone: int, ip: str) -> list[WiredPort]:
        """Several ports may share an address: a virtual one that moves between them."""
        found = self._ports.get((zone, ip), [])
        if self._wide:
            address = ipaddress.ip_address(ip)
            found = [*found, *(port for at, network, port in self._wide if at == zone and address in network)]
        return found

    def _may(self, port: WiredPort, direction: Direction, it: Connection, other: str) -> bool:
        for id in port.group_ids:
            group = self._world.groups.get(id)
            for rule in group.rules if group else ():
                if rule.direction == direction and _matches(rule, it, other, self._world):
                    return True
        return False


def _always(it: Connection) -> bool:
    """DHCP, which no rule is needed for."""
    return it.protocol == 17 and {it.source_port, it.destination_port} in ({67, 68}, {546, 547})


def _matches(rule: WiredRule, it: Connection, other: str, world: World) -> bool:
    six = ":" in it.source
    if (rule.ethertype == "IPv6") != six or not _protocol_fits(rule, it):
        return False
    if rule.remote_members:
        members = world.members.get(rule.remote_members)
        return members is not None and any(_covers(prefix, other) for prefix in members.addresses)
    return rule.remote_prefix is None or _covers(rule.remote_prefix, other)


def _protocol_fits(rule: WiredRule, it: Connection) -> bool:
    try:
        number = ANY if rule.protocol in {None, "any"} else protocol_number(rule.protocol or "")
    except ValueError:
        return False
    if number == ANY:
        return True
    number = 58 if number == 1 and rule.ethertype == "IPv6" else number
    if number != it.protocol:
        return False
    low, high = rule.port_min, rule.port_max
    if low is None:
        return True
    if number in _ICMP:
        return it.source_port == low and high in {None, it.destination_port}
    return number not in PORTED or low <= it.destination_port <= (low if high is None else high)


def _covers(prefix: str, ip: str) -> bool:
    if prefix == ip:
        return True
    if "/" not in prefix:
        return ":" in prefix and ipaddress.ip_address(prefix) == ipaddress.ip_address(ip)
    network = ipaddress.ip_network(prefix, strict=False)
    return ipaddress.ip_address(ip) in network


def _read(family: int, found: Mapping[int, bytes]) -> Connection:
    protocol, source, destination, source_port, destination_port = ends(found[TUPLE_ORIGINAL], family)
    return Connection(
        zone=int.from_bytes(found[_ZONE], "big"),
        protocol=protocol,
        source=source,
        destination=destination,
        source_port=source_port,
        destination_port=destination_port,
        handle=handle(found, family),
        is_cut=bool(int.from_bytes(found.get(_MARK, b""), "big") & CUT),
    )
