"""Traffic control as netlink says it: token buckets, redirection of what comes in, and what is there of both.

Formats: linux/pkt_sched.h, linux/pkt_cls.h, linux/tc_act/tc_mirred.h. Devices are interface indexes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from agents.network import netlink
from agents.network.netlink import Request, attribute, nested, number, text

_NEW_QDISC, _DELETE_QDISC, _GET_QDISC, _NEW_FILTER, _GET_FILTER = 36, 37, 38, 44, 46
_NEW_LINK, _DELETE_LINK, _GET_LINK = 16, 17, 18
_HEAD = struct.Struct("=BxxxiIII")
_LINK = struct.Struct("=BxHiII")
_NAME, _INFORMATION, _MASK, _SKIP_STATISTICS = 3, 18, 29, 8
_KIND, _OPTIONS = 1, 2
_ROOT, _INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
_INGRESS_HANDLE = 0xFFFF0000
OURS = 0xC10D0000
"""Handle of the token buckets that are ours to change and remove."""
_PRIORITY_ALL = 1 << 16 | 0x0300
"""First filter, for frames of any protocol (ETH_P_ALL in network order)."""
_TBF_PARAMETERS, _TBF_RATE64, _TBF_BURST = 1, 4, 6
_RATE = struct.Struct("=BBHhHI")
_ETHERNET = 1
_U32_SELECTOR, _U32_ACTION = 5, 7
_EVERYTHING = struct.pack("=BBBxHHhhI", 1, 0, 1, 0, 0, 0, 0, 0) + bytes(16)
"""Terminal, one key that matches whatever is there."""
_REDIRECT, _STOLEN = 1, 4
_QUEUE_SECONDS = 0.05
"""How long a packet may wait before it is dropped instead."""
_TICK_NANOSECONDS = 64


def add_ifb(name: str) -> Request:
    """An interface that only passes on what is redirected to it, once it had its turn there."""
    body = _LINK.pack(0, 0, 0, 1, 1) + text(_NAME, name) + nested(_INFORMATION, text(1, "ifb"))
    return Request(_NEW_LINK, netlink.CREATE | netlink.EXCLUSIVE, body)


def remove_ifb(device: int) -> Request:
    return Request(_DELETE_LINK, 0, _LINK.pack(0, 0, device, 0, 0))


def limit(device: int, bytes_per_second: int, burst_bytes: int) -> Request:
    """What the device sends, by a token bucket; of one that is there, the new figures."""
    rate = _RATE.pack(0, _ETHERNET, 0, 0, 0, min(bytes_per_second, 0xFFFFFFFF))
    queue = min(int(bytes_per_second * _QUEUE_SECONDS) + burst_bytes, 0xFFFFFFFF)
    parameters = rate + bytes(_RATE.size) + struct.pack("=III", queue, 0, 0)
    options = attribute(_TBF_PARAMETERS, parameters) + number(_TBF_BURST, burst_bytes)
    if bytes_per_second > 0xFFFFFFFF:
        options += attribute(_TBF_RATE64, struct.pack("=Q", bytes_per_second))
    body = _HEAD.pack(0, device, OURS, _ROOT, 0) + text(_KIND, "tbf") + nested(_OPTIONS, options)
    return Request(_NEW_QDISC, netlink.CREATE | netlink.REPLACE, body)


def unlimit(device: int) -> Request:
    return Request(_DELETE_QDISC, 0, _HEAD.pack(0, device, OURS, _ROOT, 0))


def take_incoming(device: int) -> Request:
    """A place for filters on what comes in."""
    body = _HEAD.pack(0, device, _INGRESS_HANDLE, _INGRESS, 0) + text(_KIND, "ingress")
    return Request(_NEW_QDISC, netlink.CREATE | netlink.EXCLUSIVE, body)


def leave_incoming(device: int) -> Request:
    """With all filters."""
    return Request(_DELETE_QDISC, 0, _HEAD.pack(0, device, _INGRESS_HANDLE, _INGRESS, 0))


def redirect(device: int, to: int) -> Request:
    """All that comes in goes by way of another device."""
    parameters = struct.pack("=IIiiiiI", 0, 0, _STOLEN, 0, 0, _REDIRECT, to)
    action = text(_KIND, "mirred") + nested(_OPTIONS, attribute(2, parameters))
    options = attribute(_U32_SELECTOR, _EVERYTHING) + nested(_U32_ACTION, nested(1, action))
    body = _HEAD.pack(0, device, 0, _INGRESS_HANDLE, _PRIORITY_ALL) + text(_KIND, "u32") + nested(_OPTIONS, options)
    return Request(_NEW_FILTER, netlink.CREATE | netlink.EXCLUSIVE, body)


def interfaces(source: netlink.Socket) -> dict[str, int]:
    """Name → index of all there are."""
    body = _LINK.pack(0, 0, 0, 0, 0) + number(_MASK, _SKIP_STATISTICS)
    found: dict[str, int] = {}
    for _, it in source.ask(Request(_GET_LINK, netlink.DUMP, body)):
        found[netlink.as_text(netlink.attributes(it, _LINK.size)[_NAME])] = _LINK.unpack_from(it)[2]
    return found


def buckets(source: netlink.Socket) -> Iterator[tuple[int, str, tuple[int, int]]]:
    """(device, kind, (bytes per second, burst bytes)) of our token buckets; of `ingress` the figures say nothing."""
    for _, body in source.ask(Request(_GET_QDISC, netlink.DUMP, _HEAD.pack(0, 0, 0, 0, 0))):
        _, device, handle, _, _ = _HEAD.unpack_from(body)
        found = netlink.attributes(body, _HEAD.size)
        kind = netlink.as_text(found.get(_KIND, b""))
        if kind == "tbf" and handle == OURS:
            options = netlink.attributes(found[_OPTIONS])
            parameters = options[_TBF_PARAMETERS]
            rate = _RATE.unpack_from(parameters)[5]
            if _TBF_RATE64 in options:
                rate = netlink.as_number(options[_TBF_RATE64])
            ticks = struct.unpack_from("=I", parameters, 2 * _RATE.size + 4)[0]
            yield device, kind, (rate, round(ticks * _TICK_NANOSECONDS * rate / 1e9))
        elif kind == "ingress":
            yield device, kind, (0, 0)


def redirection(source: netlink.Socket, device: int) -> int:
    """The device that all that comes in at this one goes by way of; 0: none."""
    request = Request(_GET_FILTER, netlink.DUMP, _HEAD.pack(0, device, 0, _INGRESS_HANDLE, 0))
    for _, body in source.ask(request):
        options = netlink.attributes(netlink.attributes(body, _HEAD.size).get(_OPTIONS, b""))
        action = netlink.attributes(netlink.attributes(options.get(_U32_ACTION, b"")).get(1, b""))
        parameters = netlink.attributes(action.get(_OPTIONS, b"")).get(2, b"")
        if len(parameters) >= 28:
            return int(struct.unpack_from("=I", parameters, 24)[0])
    return 0
