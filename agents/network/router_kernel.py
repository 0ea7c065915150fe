"""Addresses and routes of a router's namespace: what the kernel has, what it lacks, and the batch that mends it.

Everything here belongs to the network namespace of the thread that calls it. Formats: linux/if_addr.h,
linux/rtnetlink.h, linux/fib_rules.h.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec

from agents.network import netlink
from agents.network.dnsmasq import METADATA_ADDRESS, link_local
from agents.network.netlink import Request, attribute, number
from agents.network.router_rules import MAIN, METADATA_TABLE, Layout, Way

LOOPBACK = "lo"
_ADD_ADDRESS, _DELETE_ADDRESS, _GET_ADDRESSES = 20, 21, 22
_ADD_ROUTE, _DELETE_ROUTE, _GET_ROUTES = 24, 25, 26
_ADD_RULE, _GET_RULES = 32, 34
_GET_LINKS, _LINK, SET_LINK = 18, 16, 19
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
LINK_HEAD = struct.Struct("=BBHiII")
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS, _IFLA_NAME = 1, 2, 4, 8, 3
_DESTINATION, _INTERFACE, _NEXT_HOP, _TABLE = 1, 4, 5, 15
_RULE_SOURCE, _RULE_PRIORITY, _RULE_TABLE = 2, 6, 15
_NO_DAD, _UP, _ON_LINK = 0x02, 0x1, 0x4
_OF_KERNEL, _STATIC = 2, 4
_EVERYWHERE, _LINK_SCOPE, _ANY_SCOPE, _UNICAST, _UNREACHABLE = 0, 253, 255, 1, 7
_LOOK_UP = 1
_RULE_ORDER = 1000
_LEAST_MTU_6 = 1280
"""A link with less has no IPv6 at all."""


class Seen(msgspec.Struct, frozen=True):
    """What is there. `addresses`: (interface, `ip/prefix`)."""

    links: Mapping[str, int]
    up: frozenset[str]
    addresses: frozenset[tuple[str, str]]
    ways: frozenset[Way]
    linked: frozenset[tuple[str, str]]
    """(interface, prefix) of the routes that the kernel made of addresses."""
    ruled: bool
    """What metadata answers goes by its own table."""


class Step(NamedTuple):
    act: Literal["raise", "add address", "remove address", "add way", "remove way", "add rule"]
    interface: str = ""
    address: str = ""
    way: Way | None = None


def wanted_addresses(layout: Layout) -> frozenset[tuple[str, str]]:
    """Of its feet and its loopback."""
    found = {(foot.name, address) for foot in layout.feet.values() for address in foot.addresses}
    found |= {(foot.name, f"{link_local(foot.port.mac_address)}/64") for foot in layout.feet.values()}
    narrow = {foot.name for foot in layout.feet.values() if foot.port.mtu < _LEAST_MTU_6}
    found = {(name, address) for name, address in found if name not in narrow or ":" not in address}
    return frozenset(found | {(LOOPBACK, f"{METADATA_ADDRESS}/32")})


def plan(layout: Layout, seen: Seen) -> list[Step]:
    """What is no longer to be goes first. Feet that are not there yet get nothing."""
    wanted = {it for it in wanted_addresses(layout) if it[0] in seen.links}
    there = {it for it in seen.addresses if (it[0] in layout.feet or it in wanted) and _is_linked(it, seen)}
    strange = {it for it in seen.addresses if it[0] in layout.feet and it not in wanted & there}
    ways = {way for way in layout.ways if not way.interface or way.interface in seen.links}
    known = {(way.destination, way.via, way.table) for way in ways}
    steps = [Step("remove way", way=way) for way in seen.ways if _plain(way) not in known]
    steps += [Step("remove address", name, address) for name, address in sorted(strange)]
    steps += [Step("raise", name) for name in layout.feet if name in seen.links and name not in seen.up]
    steps += [Step("add address", name, address) for name, address in sorted(wanted - there)]
    steps += [] if seen.ruled else [Step("add rule")]
    has = {(_plain(way), way.interface) for way in seen.ways}
    has |= {(key, "") for key, _ in has}
    for way in sorted(ways, key=lambda it: (bool(it.via), it.destination)):
        if (_plain(way), way.interface) not in has:
            steps.append(Step("add way", way=way))
    return steps


def observe(kernel: netlink.Socket) -> Seen:
    links: dict[str, int] = {}
    up: set[str] = set()
    for kind, body in kernel.ask(Request(_GET_LINKS, netlink.DUMP, LINK_HEAD.pack(0, 0, 0, 0, 0, 0))):
        if kind == _LINK:
            _, _, _, index, flags, _ = LINK_HEAD.unpack_from(body)
            name = netlink.as_text(netlink.attributes(body, 16)[_IFLA_NAME])
            links[name] = index
            if flags & _UP:
                up.add(name)
    names = {index: name for name, index in links.items()}
    ways, linked = _routes(kernel, names)
    return Seen(
        links=links,
        up=frozenset(up),
        addresses=frozenset(_addresses(kernel, names)),
        ways=frozenset(ways),
        linked=frozenset(linked),
        ruled=_ruled(kernel),
    )


def carry_out(kernel: netlink.Socket, steps: Iterable[Step], links: Mapping[str, int]) -> list[tuple[Step, str]]:
    """In one batch; what could not be done, and why."""
    pairs = [(step, _request(step, links)) for step in steps]
    answers = kernel.send([request for _, request in pairs])
    return [
        (step, str(answer))
        for (step, _), answer in zip(pairs, answers, strict=True)
        if answer.number and not step.act.startswith("remove")
    ]


def silence(kernel: netlink.Socket) -> None:
    """Take every interface but the loopback down."""
    links = observe(kernel).links
    body = [LINK_HEAD.pack(0, 0, 0, index, 0, _UP) for name, index in links.items() if name != LOOPBACK]
    kernel.send([Request(SET_LINK, 0, it) for it in body])


def describe(step: Step) -> str:
    """For a person."""
    if step.way:
        via = f" via {step.way.via}" if step.way.via else ""
        return f"route to {step.way.destination}{via}"
    return f"address {step.address}" if step.address else step.act


def _is_linked(it: tuple[str, str], seen: Seen) -> bool:
    """An address whose route somebody took away is as good as none; while its interface is down it has none."""
    network = ipaddress.ip_interface(it[1]).network
    alone = network.prefixlen == network.max_prefixlen
    return alone or it[0] not in seen.up or (it[0], str(network)) in seen.linked


def _plain(way: Way) -> tuple[str, str, int]:
    return way.destination, way.via, way.table


def _addresses(kernel: netlink.Socket, names: Mapping[int, str]) -> Iterable[tuple[str, str]]:
    for _, body in kernel.ask(Request(_GET_ADDRESSES, netlink.DUMP, _ADDRESS.pack(0, 0, 0, 0, 0))):
        family, length, _, _, index = _ADDRESS.unpack_from(body)
        found = netlink.attributes(body, _ADDRESS.size)
        packed = found.get(_IFA_LOCAL) or found[_IFA_ADDRESS]
        yield names.get(index, ""), f"{socket.inet_ntop(family, packed)}/{length}"


def _routes(kernel: netlink.Socket, names: Mapping[int, str]) -> tuple[set[Way], set[tuple[str, str]]]:
    """Those of the main table and of metadata's, and those that the kernel made of addresses itself."""
    ways: set[Way] = set()
    linked: set[tuple[str, str]] = set()
    for _, body in kernel.ask(Request(_GET_ROUTES, netlink.DUMP, bytes(_ROUTE.size))):
        family, length, _, _, _, protocol, _, _, _ = _ROUTE.unpack_from(body)
        found = netlink.attributes(body, _ROUTE.size)
        table = netlink.as_number(found[_TABLE]) if _TABLE in found else MAIN
        if table not in {MAIN, METADATA_TABLE}:
            continue
        base = found.get(_DESTINATION, bytes(4 if family == socket.AF_INET else 16))
        via = socket.inet_ntop(family, found[_NEXT_HOP]) if _NEXT_HOP in found else ""
        name = names.get(netlink.as_number(found[_INTERFACE]), "") if _INTERFACE in found else ""
        destination = f"{socket.inet_ntop(family, base)}/{length}"
        if protocol == _OF_KERNEL:
            linked.add((name, destination))
        else:
            nowhere = not via and (not name or name == LOOPBACK)
            ways.add(Way(destination, via, "" if nowhere else name, table))
    return ways, linked


def _ruled(kernel: netlink.Socket) -> bool:
    for _, body in kernel.ask(Request(_GET_RULES, netlink.DUMP, _ROUTE.pack(socket.AF_INET, *[0] * 8))):
        found = netlink.attributes(body, _ROUTE.size)
        if netlink.as_number(found.get(_RULE_TABLE, b"")) == METADATA_TABLE:
            return True
    return False


def _request(step: Step, links: Mapping[str, int]) -> Request:
    match step.act:
        case "raise":
            return Request(SET_LINK, 0, LINK_HEAD.pack(0, 0, 0, links[step.interface], _UP, _UP))
        case "add address":
            return Request(_ADD_ADDRESS, netlink.CREATE | netlink.REPLACE, _address(step, links))
        case "remove address":
            return Request(_DELETE_ADDRESS, 0, _address(step, links))
        case "add rule":
            head = _ROUTE.pack(socket.AF_INET, 0, 32, 0, METADATA_TABLE, 0, 0, _LOOK_UP, 0)
            source = attribute(_RULE_SOURCE, socket.inet_aton(METADATA_ADDRESS))
            return Request(_ADD_RULE, netlink.CREATE, head + source + number(_RULE_PRIORITY, _RULE_ORDER))
        case "add way" if step.way:
            return Request(_ADD_ROUTE, netlink.CREATE | netlink.REPLACE, _route(step.way, links))
        case "remove way" if step.way:
            return Request(_DELETE_ROUTE, 0, _route(step.way, links, of_anybody=True))
    raise AssertionError(step)


def _address(step: Step, links: Mapping[str, int]) -> bytes:
    it = ipaddress.ip_interface(step.address)
    family = socket.AF_INET6 if it.version == 6 else socket.AF_INET
    scope = _LINK_SCOPE if it.is_link_local and step.interface != LOOPBACK else _EVERYWHERE
    body = _ADDRESS.pack(family, it.network.prefixlen, 0, scope, links[step.interface])
    body += attribute(_IFA_LOCAL, it.packed) + attribute(_IFA_ADDRESS, it.packed)
    if it.version == 4 and it.network.prefixlen < 31:
        body += attribute(_IFA_BROADCAST, it.network.broadcast_address.packed)
    return body + number(_IFA_FLAGS, _NO_DAD if it.version == 6 else 0)


def _route(way: Way, links: Mapping[str, int], *, of_anybody: bool = False) -> bytes:
    network = ipaddress.ip_network(way.destination)
    family = socket.AF_INET6 if network.version == 6 else socket.AF_INET
    nowhere = not way.via and not way.interface
    scope = _LINK_SCOPE if way.interface and not way.via and network.version == 4 else _EVERYWHERE
    kind = _UNREACHABLE if nowhere else _UNICAST
    flags = _ON_LINK if way.via and way.interface else 0
    protocol = _STATIC
    if of_anybody:
        protocol, scope, kind, flags = 0, _ANY_SCOPE, 0, 0
    body = _ROUTE.pack(family, network.prefixlen, 0, 0, way.table, protocol, scope, kind, flags)
    body += attribute(_DESTINATION, network.network_address.packed) if network.prefixlen else b""
    if way.via:
        body += attribute(_NEXT_HOP, ipaddress.ip_address(way.via).packed)
    if way.interface:
        body += number(_INTERFACE, links[way.interface])
    return body
