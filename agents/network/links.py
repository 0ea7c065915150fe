"""Links as netlink says them: bridges, VXLAN devices, pairs, the flags of a bridge's ports, and what is there of all.

Formats: linux/if_link.h, linux/rtnetlink.h.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from agents.network import netlink
from agents.network.netlink import Request, attribute, byte, nested, number, short, text

NEW_LINK, DELETE_LINK, GET_LINK, SET_LINK = 16, 17, 18, 19
BRIDGE_FAMILY = 7
VXLAN_PORT = 4789
_GET_ADDRESS = 22
_LINK = struct.Struct("=BxHiII")
_ADDRESS_HEAD = struct.Struct("=BBBBi")
_UP = 1
_ADDRESS, _NAME, _MTU, _PEER, _MASTER, _PROTOCOL, _INFORMATION, _NAMESPACE, _MASK = 1, 3, 4, 5, 10, 12, 18, 28, 29
_SKIP_STATISTICS = 8
_KIND, _DATA, _PORT_KIND, _PORT_DATA = 1, 2, 4, 5
_VNI, _LOCAL, _LEARNING, _PORT, _LOCAL6 = 1, 4, 7, 15, 17
_STP, _SNOOPING, _MOST_LEARNED = 5, 23, 49
MOST_LEARNED = 4096
"""Addresses that a bridge learns; those that the log tells of are beside them."""
_FLOOD, _SUPPRESS, _ISOLATED = 9, 32, 33

Kind = Literal["bridge", "vxlan", "tun", "veth", ""]
"""Empty: some other, which we did not make."""


class Tunnel(msgspec.Struct, frozen=True):
    """What a VXLAN device is made with, and cannot be without being made anew."""

    segmentation_id: int
    endpoint_ip: str
    learning: bool = False


class PortFlags(msgspec.Struct, frozen=True):
    """How a bridge treats one of its ports; as the kernel has it unless told otherwise."""

    isolated: bool = False
    """Nothing passes between it and other isolated ones."""
    suppress: bool = False
    """What the bridge can answer of ARP and ND does not leave here."""
    flood: bool = True
    """Frames to unknown addresses leave here."""


class Link(msgspec.Struct, frozen=True):
    name: str
    kind: str
    mtu: int = 0
    up: bool = False
    master: str = ""
    mac_address: str = ""
    tunnel: Tunnel | None = None
    flags: PortFlags = PortFlags()
    """Of one that has a master."""
    index: int = 0
    peer: int = 0
    """Of a pair: the number of the other end, where that is."""


class Inside(msgspec.Struct, frozen=True):
    """The other end of a pair, in the namespace of an open file."""

    name: str
    mac_address: str
    mtu: int
    namespace: int


def add(link: Link, inside: Inside | None = None) -> Request:
    """A bridge, a VXLAN device or a pair, down, with the number it is to have."""
    body = _LINK.pack(0, 0, link.index, 0, 0) + text(_NAME, link.name)
    data = b""
    match link.kind:
        case "bridge":
            body += attribute(_ADDRESS, mac_bytes(link.mac_address))
            data = nested(_DATA, number(_STP, 0), byte(_SNOOPING, 0), number(_MOST_LEARNED, MOST_LEARNED))
        case "vxlan" if link.tunnel:
            data = nested(_DATA, *_tunnel(link.tunnel))
        case "veth" if inside:
            peer = _LINK.pack(0, 0, 0, 0, 0) + text(_NAME, inside.name) + number(_MTU, inside.mtu)
            peer += attribute(_ADDRESS, mac_bytes(inside.mac_address)) + number(_NAMESPACE, inside.namespace)
            data = nested(_DATA, attribute(1 | 0x8000, peer))
    body += nested(_INFORMATION, text(_KIND, link.kind), data)
    return Request(NEW_LINK, netlink.CREATE | netlink.EXCLUSIVE, body)


def remove(index: int) -> Request:
    return Request(DELETE_LINK, 0, _LINK.pack(0, 0, index, 0, 0))


def change(
    index: int, *, mtu: int | None = None, master: int | None = None, up: bool | None = None, mac_address: str = ""
) -> Request:
    """In that order. Master 0: none."""
    flags, mask = (_UP if up else 0, _UP) if up is not None else (0, 0)
    body = _LINK.pack(0, 0, index, flags, mask)
    if mac_address:
        body += attribute(_ADDRESS, mac_bytes(mac_address))
    if mtu is not None:
        body += number(_MTU, mtu)
    if master is not None:
        body += number(_MASTER, master)
    return Request(SET_LINK, 0, body)


def set_flags(index: int, flags: PortFlags) -> Request:
    """Of a port that is in a bridge."""
    words = byte(_ISOLATED, flags.isolated) + byte(_SUPPRESS, flags.suppress) + byte(_FLOOD, flags.flood)
    return Request(SET_LINK, 0, _LINK.pack(BRIDGE_FAMILY, 0, index, 0, 0) + nested(_PROTOCOL, words))


def all_links(kernel: netlink.Socket) -> dict[str, Link]:
    """Every link of the namespace by name: one dump."""
    body = _LINK.pack(0, 0, 0, 0, 0) + number(_MASK, _SKIP_STATISTICS)
    bodies = [it for _, it in kernel.ask(Request(GET_LINK, netlink.DUMP, body))]
    names = {index_of(it): name_of(it) for it in bodies}
    return {link.name: link for link in (parse(it, names) for it in bodies)}


def one_link(kernel: netlink.Socket, name: str) -> Link | None:
    body = _LINK.pack(0, 0, 0, 0, 0) + text(_NAME, name) + number(_MASK, _SKIP_STATISTICS)
    try:
        found = kernel.ask(Request(GET_LINK, 0, body))
    except OSError:
        return None
    return parse(found[0][1], {})


def addresses(kernel: netlink.Socket) -> Iterator[tuple[int, str]]:
    """(link, address) of what can be reached from elsewhere, IPv4 first."""
    for family, size in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
        request = Request(_GET_ADDRESS, netlink.DUMP, _ADDRESS_HEAD.pack(family, 0, 0, 0, 0))
        for _, body in kernel.ask(request):
            found = netlink.attributes(body, _ADDRESS_HEAD.size)
            value = found.get(2, found.get(1, b""))
            if len(value) == size:
                ip = ipaddress.ip_address(value)
                if not ip.is_link_local:
                    yield _ADDRESS_HEAD.unpack_from(body)[4], str(ip)


def family_of(body: bytes) -> int:
    return body[0]


def index_of(body: bytes) -> int:
    return int(_LINK.unpack_from(body)[2])


def name_of(body: bytes) -> str:
    return netlink.as_text(netlink.attributes(body, _LINK.size).get(_NAME, b""))


def parse(body: bytes, names: Mapping[int, str]) -> Link:
    """`names`: of links by number, for its master's."""
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = netlink.attributes(body, _LINK.size)
    about = netlink.attributes(found.get(_INFORMATION, b""))
    kind = netlink.as_text(about.get(_KIND, b""))
    master = netlink.as_number(found.get(_MASTER, b""))
    in_bridge = netlink.as_text(about.get(_PORT_KIND, b"")) == "bridge"
    return Link(
        name=netlink.as_text(found.get(_NAME, b"")),
        kind=kind,
        mtu=netlink.as_number(found.get(_MTU, b"")),
        up=bool(flags & _UP),
        master=names.get(master, f"#{master}") if master else "",
        mac_address=found.get(_ADDRESS, b"").hex(":"),
        tunnel=_seen_tunnel(netlink.attributes(about.get(_DATA, b""))) if kind == "vxlan" else None,
        flags=_seen_flags(netlink.attributes(about.get(_PORT_DATA, b""))) if in_bridge else PortFlags(),
        index=index,
        peer=netlink.as_number(found.get(_PEER, b"")) if kind == "veth" else 0,
    )


def parse_flags(body: bytes) -> PortFlags | None:
    """Of a bridge's own word on one of its ports."""
    found = netlink.attributes(body, _LINK.size).get(_PROTOCOL)
    return _seen_flags(netlink.attributes(found)) if found else None


def mac_bytes(address: str) -> bytes:
    return bytes.fromhex(address.replace(":", ""))


def ip_bytes(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def _tunnel(it: Tunnel) -> tuple[bytes, ...]:
    local = attribute(_LOCAL6 if ":" in it.endpoint_ip else _LOCAL, ip_bytes(it.endpoint_ip))
    port = short(_PORT, socket.htons(VXLAN_PORT))
    return number(_VNI, it.segmentation_id), local, byte(_LEARNING, it.learning), port


def _seen_tunnel(found: Mapping[int, bytes]) -> Tunnel:
    local = found.get(_LOCAL) or found.get(_LOCAL6) or b""
    return Tunnel(
        netlink.as_number(found.get(_VNI, b"")),
        str(ipaddress.ip_address(local)) if len(local) in {4, 16} else "",
        bool(found.get(_LEARNING, b"\0")[0]),
    )


def _seen_flags(found: Mapping[int, bytes]) -> PortFlags:
    return PortFlags(
        isolated=found.get(_ISOLATED, b"\0") != b"\0",
        suppress=found.get(_SUPPRESS, b"\0") != b"\0",
        flood=found.get(_FLOOD, b"\1") != b"\0",
    )
