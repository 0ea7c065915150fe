"""Where frames go, as netlink says it: a bridge's and a tunnel's entries, and the neighbours a bridge answers for.

Formats: linux/neighbour.h. Only entries that somebody made are told of, not what bridges learn.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from agents.network import netlink
from agents.network.links import BRIDGE_FAMILY, ip_bytes, mac_bytes
from agents.network.netlink import Request, attribute

NEW_NEIGHBOUR, DELETE_NEIGHBOUR, GET_NEIGHBOUR = 28, 29, 30
EVERYBODY = "00:00:00:00:00:00"
"""In a tunnel's entries: what has no entry of its own, broadcasts above all."""
_HEAD = struct.Struct("=BxxxiHBB")
_TO, _MAC = 1, 2
_STATIC, _PERMANENT = 0x40, 0x80
_SELF, _MASTER, _STICKY = 0x02, 0x04, 0x40


class Entry(NamedTuple):
    """Of a device: frames to that MAC leave there. `to`: the tunnel's other end; empty: it is the bridge's entry."""

    mac_address: str
    to: str = ""
    sticks: bool = True
    """It stays, wherever else the MAC is heard. One that does not follows its guest, as what is learned does."""


class Neighbour(NamedTuple):
    ip: str
    mac_address: str


def forward(device: int, entry: Entry) -> Request:
    """What the MAC's entry was before is replaced; to everybody, it is one more."""
    if not entry.to:
        return Request(NEW_NEIGHBOUR, netlink.CREATE | netlink.REPLACE, _bridge_entry(device, entry))
    mode = netlink.APPEND if entry.mac_address == EVERYBODY else netlink.REPLACE
    return Request(NEW_NEIGHBOUR, netlink.CREATE | mode, _tunnel_entry(device, entry))


def unforward(device: int, entry: Entry) -> Request:
    return Request(DELETE_NEIGHBOUR, 0, _tunnel_entry(device, entry) if entry.to else _bridge_entry(device, entry))


def know(bridge: int, it: Neighbour) -> Request:
    """Have the bridge answer for it."""
    return Request(NEW_NEIGHBOUR, netlink.CREATE | netlink.REPLACE, _neighbour(bridge, it))


def forget(bridge: int, it: Neighbour) -> Request:
    return Request(DELETE_NEIGHBOUR, 0, _neighbour(bridge, it))


def all_entries(kernel: netlink.Socket) -> Iterator[tuple[int, Entry]]:
    """(device, entry): one dump."""
    for _, body in kernel.ask(Request(GET_NEIGHBOUR, netlink.DUMP, _HEAD.pack(BRIDGE_FAMILY, 0, 0, 0, 0))):
        if entry := parse_entry(body):
            yield device_of(body), entry


def all_neighbours(kernel: netlink.Socket) -> Iterator[tuple[int, Neighbour]]:
    """(device, neighbour) of those known for good: one dump."""
    for _, body in kernel.ask(Request(GET_NEIGHBOUR, netlink.DUMP, _HEAD.pack(0, 0, 0, 0, 0))):
        neighbour = parse_neighbour(body)
        if neighbour and neighbour.mac_address:
            yield device_of(body), neighbour


def family_of(body: bytes) -> int:
    return body[0]


def device_of(body: bytes) -> int:
    return int(_HEAD.unpack_from(body)[1])


def parse_entry(body: bytes) -> Entry | None:
    """None: learned, or the device's own address, or something else."""
    family, _, state, flags, _ = _HEAD.unpack_from(body)
    if family != BRIDGE_FAMILY:
        return None
    found = netlink.attributes(body, _HEAD.size)
    mac = found.get(_MAC, b"").hex(":")
    if flags & _SELF:
        to = found.get(_TO, b"")
        return Entry(mac, str(ipaddress.ip_address(to))) if state & _PERMANENT and len(to) in {4, 16} else None
    return Entry(mac, sticks=bool(flags & _STICKY)) if state & _STATIC else None


def parse_neighbour(body: bytes) -> Neighbour | None:
    """Without a MAC if it is not known for good (any more). None: it is something else."""
    family, _, state, _, _ = _HEAD.unpack_from(body)
    found = netlink.attributes(body, _HEAD.size)
    if family not in {socket.AF_INET, socket.AF_INET6} or _TO not in found:
        return None
    mac = found.get(_MAC, b"").hex(":") if state & _PERMANENT else ""
    return Neighbour(str(ipaddress.ip_address(found[_TO])), mac)


def _bridge_entry(device: int, it: Entry) -> bytes:
    flags = _MASTER | _STICKY if it.sticks else _MASTER
    return _HEAD.pack(BRIDGE_FAMILY, device, _STATIC, flags, 0) + attribute(_MAC, mac_bytes(it.mac_address))


def _tunnel_entry(device: int, it: Entry) -> bytes:
    body = _HEAD.pack(BRIDGE_FAMILY, device, _STATIC | _PERMANENT, _SELF, 0)
    return body + attribute(_MAC, mac_bytes(it.mac_address)) + attribute(_TO, ip_bytes(it.to))


def _neighbour(bridge: int, it: Neighbour) -> bytes:
    family = socket.AF_INET6 if ":" in it.ip else socket.AF_INET
    body = _HEAD.pack(family, bridge, _PERMANENT, 0, 0) + attribute(_TO, ip_bytes(it.ip))
    return body + attribute(_MAC, mac_bytes(it.mac_address))
