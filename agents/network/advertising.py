"""Router advertisements: what tells IPv6 guests their prefix, their MTU, and whether to ask DHCPv6 (RFC 4861, 8106).

Sent by a router for the networks it has a foot in, and by a network's DHCP namespace where no router does. The latter
is never anybody's way out: its lifetime is 0. One raw socket for each interface, in the event loop.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress

import structlog

from agents.network.dnsmasq import link_local
from agents.network.interface import index_of
from agents.network.namespace import FOLDER, enter
from bus import clock
from schema.compute.domain import Word
from schema.network.wiring import WiredSubnet

log = structlog.get_logger()

INTERVAL_SECONDS = 200.0
ROUTER_LIFETIME_SECONDS = 1800
PREFIX_LIFETIME_SECONDS = 86400
ANSWER_EVERY_SECONDS = 0.05
"""Solicitations are answered to everybody at most this often."""

_ALL_NODES, _ALL_ROUTERS = "ff02::1", "ff02::2"
_SOLICITATION, _ADVERTISEMENT = 133, 134
_ICMP6_FILTER = 1
_MOST_BYTES = 1280


class Prefix(Word):
    cidr: str
    autonomous: bool
    """Guests make themselves an address in it."""


class Advertisement(Word):
    """What a router says of itself on one link."""

    prefixes: tuple[Prefix, ...]
    mtu: int
    managed: bool = False
    """Addresses come by DHCPv6."""
    other: bool = False
    """Other things do."""
    lifetime_seconds: int = 0
    """For how long it is a way out; 0: it is none."""
    nameservers: tuple[str, ...] = ()


def advertisement(subnets: Iterable[WiredSubnet], mtu: int, *, routes: bool) -> Advertisement | None:
    """Of the subnets on one link; None: nothing is to be said. `routes`: by a router that leads out of them."""
    said = [it for it in subnets if it.ip_version == 6 and it.dhcp and it.ipv6_ra_mode]
    if not said:
        return None
    modes = {it.ipv6_ra_mode for it in said}
    nameservers = {ip: None for it in said for ip in it.dns_nameservers if ":" in ip}
    return Advertisement(
        prefixes=tuple(Prefix(cidr=it.cidr, autonomous=it.ipv6_ra_mode != "dhcpv6-stateful") for it in said),
        mtu=mtu,
        managed="dhcpv6-stateful" in modes,
        other=bool(modes & {"dhcpv6-stateful", "dhcpv6-stateless"}),
        lifetime_seconds=ROUTER_LIFETIME_SECONDS if routes else 0,
        nameservers=tuple(nameservers),
    )


def packed(said: Advertisement, mac: str) -> bytes:
    """The ICMPv6 message; the kernel fills its checksum in."""
    flags = (0x80 if said.managed else 0) | (0x40 if said.other else 0)
    message = struct.pack("!BBHBBHII", _ADVERTISEMENT, 0, 0, 64, flags, said.lifetime_seconds, 0, 0)
    message += struct.pack("!BB", 1, 1) + bytes.fromhex(mac.replace(":", ""))
    message += struct.pack("!BBHI", 5, 1, 0, said.mtu)
    for prefix in said.prefixes:
        network = ipaddress.IPv6Network(prefix.cidr)
        how = 0x80 | (0x40 if prefix.autonomous else 0)
        lifetime = PREFIX_LIFETIME_SECONDS
        message += struct.pack("!BBBBIII", 3, 4, network.prefixlen, how, lifetime, lifetime, 0)
        message += network.network_address.packed
    if said.nameservers:
        ips = b"".join(ipaddress.IPv6Address(ip).packed for ip in said.nameservers)
        message += struct.pack("!BBHI", 25, 1 + 2 * len(said.nameservers), 0, int(3 * INTERVAL_SECONDS)) + ips
    return message


class Advertiser:
    """Says on each link what it was last told to, again and again and when asked, until `close`."""

    def __init__(self) -> None:
        self._links: dict[tuple[str, str], _Link] = {}

    async def say(self, namespace: str, interface: str, mac: str, said: Advertisement | None) -> None:
        """From now on, on this interface (which must be up); None: nothing any more. Raises OSError.

        A router that falls silent takes its promise back first. Nothing happens when it is said already.
        """
        key = namespace, interface
        link = self._links.get(key)
        if said is None:
            if link:
                del self._links[key]
                link.close(farewell=True)
            return
        place = await asyncio.to_thread(_place, namespace, interface)
        if link and link.place != place:
            link.close()
            link = None
        if link is None:
            opened = await asyncio.to_thread(_open, namespace, interface, place[1], mac)
            link = self._links[key] = _Link(opened, place)
        link.say(said, mac)

    def forget(self, namespace: str) -> None:
        """The namespace goes, and with it its links."""
        for key in [key for key in self._links if key[0] == namespace]:
            self._links.pop(key).close()

    def close(self) -> None:
        """Fall silent at once; who was told something goes by it until it lapses."""
        for link in self._links.values():
            link.close()
        self._links.clear()


class _Link:
    """One interface's socket."""

    def __init__(self, opened: socket.socket, place: tuple[int, int]) -> None:
        self.place = place
        self._socket = opened
        self._said: Advertisement | None = None
        self._mac = ""
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(opened.fileno(), self._asked)

    def say(self, said: Advertisement, mac: str) -> None:
        if (said, mac) != (self._said, self._mac):
            self._said, self._mac = said, mac
            self._send()

    def close(self, *, farewell: bool = False) -> None:
        if farewell and self._said and self._said.lifetime_seconds:
            self._tell(Advertisement(prefixes=(), mtu=self._said.mtu))
        if self._timer:
            self._timer.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _asked(self) -> None:
        with suppress(OSError):
            while self._socket.recv(_MOST_BYTES):
                since = clock.monotonic() - self._last
                self._later(max(0.0, ANSWER_EVERY_SECONDS - since))

    def _send(self) -> None:
        self._last = clock.monotonic()
        if self._said:
            self._tell(self._said)
        self._timer = None
        self._later(INTERVAL_SECONDS * (0.75 + 0.25 * clock.fraction()))

    def _later(self, seconds: float) -> None:
        due = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > due:
            if self._timer:
                self._timer.cancel()
            self._timer = self._loop.call_at(due, self._send)

    def _tell(self, said: Advertisement) -> None:
        try:
            self._socket.sendto(packed(said, self._mac), (_ALL_NODES, 0, 0, self.place[1]))
        except OSError as error:
            log.info("a router advertisement was not sent", error=str(error))


def _place(namespace: str, interface: str) -> tuple[int, int]:
    """Which namespace and interface these names stand for now."""
    return (FOLDER / namespace).stat().st_ino, index_of(namespace, interface)


def _open(namespace: str, interface: str, index: int, mac: str) -> socket.socket:
    with enter(namespace):
        opened = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        wanted = bytearray(b"\xff" * 32)
        wanted[_SOLICITATION >> 3] &= 0xFF ^ (1 << (_SOLICITATION & 7))
        opened.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, bytes(wanted))
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        everybody = socket.inet_pton(socket.AF_INET6, _ALL_ROUTERS) + struct.pack("@I", index)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, everybody)
        opened.bind((link_local(mac), 0, 0, index))
        return opened
    except OSError:
        opened.close()
        raise
