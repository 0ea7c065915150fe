"""Tells neighbours where an address is now: gratuitous ARP (RFC 5227), unsolicited advertisements (RFC 4861).

A router that came from another host, a floating IP that came to a router: who still has the old MAC, or the old way to
the same one, would wait for minutes. What is told may be lost, so it is told several times.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

import structlog

from agents.network.namespace import enter

log = structlog.get_logger()

REPEAT_SECONDS = (0.2, 0.6, 1.5, 4.0, 10.0)
"""After the first time, which is at once."""
MOST_ADDRESSES = 1000
"""Told in one go."""

_EVERYBODY = b"\xff" * 6
_ALL_NODES, _ALL_NODES_MAC = ipaddress.IPv6Address("ff02::1"), bytes.fromhex("333300000001")
_ARP, _IPV6, _ICMP6 = 0x0806, 0x86DD, 58
_REQUEST, _REPLY = 1, 2
_ADVERTISEMENT, _ROUTER, _OVERRIDE = 136, 1 << 31, 1 << 29


class Announcer:
    """Tells in the background; `forget` before a namespace goes."""

    def __init__(self) -> None:
        self._telling: set[_Telling] = set()
        self._closing = ThreadPoolExecutor(1, thread_name_prefix="closing")
        """To close such a socket takes the kernel as long as packets are under way: 10 ms and more."""

    async def tell(self, namespace: str, interface: str, mac: str, ips: Collection[str]) -> None:
        """That these addresses are at that MAC, on the link of this interface, which is up. Raises OSError."""
        messages = [frame for ip in sorted(ips)[:MOST_ADDRESSES] for frame in frames(ip, mac)]
        if not messages:
            return
        opened = await asyncio.to_thread(_open, namespace, interface)
        _send(opened, messages)
        self._telling.add(_Telling(namespace, opened, messages, self._end))

    def forget(self, namespace: str) -> None:
        for telling in [it for it in self._telling if it.namespace == namespace]:
            self._end(telling)

    def close(self) -> None:
        """At once; it may tell again afterwards."""
        for telling in list(self._telling):
            self._end(telling)

    def _end(self, telling: _Telling) -> None:
        self._telling.discard(telling)
        self._closing.submit(telling.cancel().close)


class _Telling:
    """What is still to be told again."""

    def __init__(
        self, namespace: str, opened: socket.socket, messages: list[bytes], end: Callable[[_Telling], None]
    ) -> None:
        self.namespace = namespace
        self._socket = opened
        self._messages = messages
        self._end = end
        loop = asyncio.get_running_loop()
        self._timers = [loop.call_later(seconds, self._again, seconds) for seconds in REPEAT_SECONDS]

    def cancel(self) -> socket.socket:
        """Nothing more is told; the socket is left to be closed."""
        for timer in self._timers:
            timer.cancel()
        return self._socket

    def _again(self, seconds: float) -> None:
        if not _send(self._socket, self._messages) or seconds == REPEAT_SECONDS[-1]:
            self._end(self)


def frames(ip: str, mac: str) -> list[bytes]:
    """Ethernet frames that say who has an address: for IPv4 as question and as answer, for some heed only one."""
    it, source = ipaddress.ip_address(ip), bytes.fromhex(mac.replace(":", ""))
    if isinstance(it, ipaddress.IPv6Address):
        return [_advertisement(it, source)]
    head = struct.pack("!6s6sHHHBB", _EVERYBODY, source, _ARP, 1, 0x0800, 6, 4)
    return [
        head + struct.pack("!H6s4s6s4s", kind, source, it.packed, target, it.packed)
        for kind, target in ((_REQUEST, bytes(6)), (_REPLY, source))
    ]


def _advertisement(ip: ipaddress.IPv6Address, source: bytes) -> bytes:
    body = struct.pack("!I", _ROUTER | _OVERRIDE) + ip.packed + struct.pack("!BB", 2, 1) + source
    length = 4 + len(body)
    pseudo = ip.packed + _ALL_NODES.packed + struct.pack("!II", length, _ICMP6)
    plain = struct.pack("!BBH", _ADVERTISEMENT, 0, 0) + body
    total = struct.pack("!BBH", _ADVERTISEMENT, 0, _checksum(pseudo + plain)) + body
    head = struct.pack("!6s6sH", _ALL_NODES_MAC, source, _IPV6)
    return head + struct.pack("!IHBB", 6 << 28, length, _ICMP6, 255) + ip.packed + _ALL_NODES.packed + total


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _open(namespace: str, interface: str) -> socket.socket:
    with enter(namespace):
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            opened.setblocking(False)
            opened.bind((interface, 0))
        except OSError:
            opened.close()
            raise
    return opened


def _send(opened: socket.socket, messages: list[bytes]) -> bool:
    """False: the interface is gone, or was taken down."""
    try:
        for message in messages:
            opened.send(message)
    except BlockingIOError:
        return True  # the rest is told next time
    except OSError as error:
        log.info("neighbours were not told of an address", error=str(error))
        return False
    return True
