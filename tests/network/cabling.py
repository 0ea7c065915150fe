"""A host in a namespace, with bridges and guests that are namespaces too: real frames for the firewall and shaping."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

from msgspec.structs import replace
from pyroute2 import IPRoute

from agents.network import namespace, nft
from agents.network.driver import Component
from agents.network.firewall import Firewall
from agents.network.firewall_rules import link_local
from agents.network.namespace import Namespace, sysctl
from agents.network.switch import bridge_name
from agents.network.world import World
from schema.network.wiring import (
    Address,
    Members,
    Piece,
    WiredGroup,
    WiredNetwork,
    WiredPort,
    WiredRule,
    tap_name,
)

_numbers = itertools.count(1)
PATIENCE_SECONDS = 10.0


class Guest:
    """What is behind a port (or, without one, a service's foot: trusted)."""

    def __init__(self, site: Site, name: str, port: WiredPort) -> None:
        self.port, self.mac, self.ip = port, port.mac_address, port.addresses[0].ip
        self.ip6 = next((it.ip for it in port.addresses if ":" in it.ip), link_local(port.mac_address))
        self.name = f"{site.name}-{name}"
        namespace.create(self.name)
        self.space = Namespace(self.name)
        self._site = site

    def send(self, *frames: Any) -> None:
        with self._raw() as raw:
            for frame in frames:
                raw.send(bytes(frame))

    def arrivals(self, *frames: Any, at: Guest, seconds: float = PATIENCE_SECONDS) -> list[bool]:
        """Which of these frames reach another guest. An ARP question tells that all had their chance.

        A second one is asked once the first is there: a switch may turn round what came to it in one go.
        Raises TimeoutError when not even that gets through.
        """
        wanted = [bytes(frame) for frame in frames]
        heard: list[bytes] = []
        with at._raw() as hearing:
            hearing.settimeout(seconds)
            for sent in (wanted, []):
                last = self._question()
                self.send(*sent, last)
                longest = max(map(len, [last, *wanted]))
                while last not in heard:
                    heard.append(hearing.recv(65536)[:longest])
        return [frame in heard for frame in wanted]

    def _question(self) -> bytes:
        from scapy.layers.l2 import ARP, Ether

        nobody = f"10.99.{os.urandom(1)[0]}.{os.urandom(1)[0]}"
        return bytes(
            Ether(src=self.mac, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=self.mac, psrc=self.ip, pdst=nobody)
        )

    def socket(self, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET) -> socket.socket:
        made = self.space.call(socket.socket, family, kind)
        made.settimeout(PATIENCE_SECONDS)
        return made

    def listen(self, port: int, *, six: bool = False) -> socket.socket:
        server = self.socket(family=socket.AF_INET6 if six else socket.AF_INET)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((self.ip6 if six else self.ip, port))
        server.listen()
        return server

    def reaches(self, other: Guest, port: int, *, six: bool = False, seconds: float = PATIENCE_SECONDS) -> bool:
        """By TCP; somebody listens there."""
        with self.socket(family=socket.AF_INET6 if six else socket.AF_INET) as client:
            client.settimeout(seconds)
            try:
                client.connect((other.ip6 if six else other.ip, port))
            except TimeoutError:
                return False
            return True

    @contextmanager
    def _raw(self) -> Iterator[socket.socket]:
        raw = self.space.call(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        with raw:
            raw.bind(("eth0", 0))
            yield raw


class Site:
    """One host, its firewall and its world; everything is gone when it is left."""

    def __init__(self) -> None:
        self.name = f"cl-fw{os.getpid() % 100000}-{next(_numbers)}"
        namespace.create(self.name)
        self.space = Namespace(self.name)
        self.pieces: dict[str, Piece] = {}
        self.guests: list[Guest] = []
        self.firewall: Any = self._make()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for guest in self.guests:
            guest.space.close()
            namespace.remove(guest.name)
        self.space.close()
        namespace.remove(self.name)

    def _make(self) -> Component:
        return Firewall(self.space)

    @property
    def world(self) -> World:
        return World(self.pieces)

    async def apply(self, *pieces: Piece) -> dict[str, str]:
        """Have these too (or instead), and the firewall told of them alone."""
        for piece in pieces:
            self.pieces[key_of(piece)] = piece
        return await self.firewall.apply(self.world, frozenset(map(key_of, pieces)))

    async def drop(self, *keys: str) -> dict[str, str]:
        for key in keys:
            del self.pieces[key]
        return await self.firewall.apply(self.world, frozenset(keys))

    async def sweep(self) -> dict[str, str]:
        return await self.firewall.apply(self.world, None)

    async def restart(self) -> None:
        """The next agent's, which knows nothing yet."""
        await self.firewall.close()
        self.firewall = self._make()

    async def stamp(self) -> object:
        """Another one after every change of the rules, whoever made it."""
        return await self.space.run(nft.generation)

    async def counters(self) -> dict[str, int]:
        return await self.firewall.counters()

    def grown(self, group: str, ip: str) -> object:
        """The last change, if it made an address a member, and nothing else."""
        return f"add element bridge cumulog members-{group}-4 {{ {ip} }}"

    def network(self, number: int = 1) -> WiredNetwork:
        network = WiredNetwork(id=f"{number:08x}-0000-4000-8000-000000000000", network_type="local", mtu=1500)
        self.pieces[key_of(network)] = network
        self._have_bridge(network)
        return network

    def _have_bridge(self, network: WiredNetwork) -> None:
        self.space.call(_make_bridge, bridge_name(network.id))

    def guest(self, network: WiredNetwork, number: int, *groups: WiredGroup, kernel: bool = True, **more: Any) -> Guest:
        """A guest with a port of the host's world, and with addresses of its own unless `kernel` is false."""
        port = port_of(network, number, *groups, **more)
        self.pieces[key_of(port)] = port
        for group in groups:
            self.pieces.setdefault(key_of(group), group)
        return self._plug(network, port, kernel)

    async def foot(self, network: WiredNetwork, number: int, *, kernel: bool = True) -> Guest:
        """Something on the bridge that is no port of the world: a router's or DHCP server's foot, a tunnel."""
        port = port_of(network, number)
        return self._plug(network, replace(port, tap=f"h{port.id[:11]}"), kernel)

    def _bridge_of(self, network: WiredNetwork) -> str:
        """That a port is put into by who makes its tap; empty: none."""
        return bridge_name(network.id)

    def _plug(self, network: WiredNetwork, port: WiredPort, kernel: bool) -> Guest:
        guest = Guest(self, f"g{len(self.guests)}", port)
        self.guests.append(guest)
        self.space.call(_plug, self._bridge_of(network), port, guest.name)
        guest.space.call(settle, port, kernel)
        return guest


def port_of(network: WiredNetwork, number: int, *groups: WiredGroup, **more: Any) -> WiredPort:
    id = f"{number:08x}-{network.id[6:8]}00-4000-8000-000000000000"
    addresses = (
        Address(ip=f"10.0.{number >> 8}.{number & 255}", subnet_id="four", prefix_length=16),
        Address(ip=f"fd00::{number:x}", subnet_id="six", prefix_length=64),
    )
    fields: dict[str, Any] = {
        "mac_address": f"fa:16:3e:{int(network.id[:8], 16):02x}:{number >> 8:02x}:{number & 255:02x}",
        "addresses": addresses,
        "group_ids": tuple(group.id for group in groups),
    }
    return WiredPort(id=id, network_id=network.id, generation=1, tap=tap_name(id), **{**fields, **more})


def group(id: str, *rules: WiredRule, stateful: bool = True) -> WiredGroup:
    return WiredGroup(id=id, stateful=stateful, rules=rules)


def ingress(protocol: str | None = None, low: int | None = None, high: int | None = None, **more: Any) -> WiredRule:
    """IPv4 unless it says otherwise; one port when only `low` is given and it is not ICMP."""
    high = low if high is None and protocol not in {"icmp", "ipv6-icmp"} else high
    fields = {"direction": "ingress", "ethertype": "IPv4"} | more
    return WiredRule(id=f"rule-{next(_numbers)}", protocol=protocol, port_min=low, port_max=high, **fields)


def egress(protocol: str | None = None, low: int | None = None, high: int | None = None, **more: Any) -> WiredRule:
    return ingress(protocol, low, high, **({"direction": "egress"} | more))


ANYTHING_OUT = (egress(), egress(ethertype="IPv6"))


def eventually(condition: Any, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until it is so."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"never so: {condition}"
        time.sleep(0.02)


def key_of(piece: Piece) -> str:
    kinds = {WiredPort: "port", WiredNetwork: "network", WiredGroup: "group", Members: "members"}
    return f"{kinds[type(piece)]}/{piece.id}"


def _make_bridge(name: str) -> None:
    with IPRoute() as netlink:
        netlink.link("add", ifname=name, kind="bridge", br_mcast_snooping=0)
        index = netlink.link_lookup(ifname=name)[0]
        netlink.link("set", index=index, state="up")


def _plug(bridge: str, port: WiredPort, inside: str) -> None:
    with IPRoute() as netlink:
        netlink.link(
            "add",
            ifname=port.tap,
            kind="veth",
            peer={"ifname": "eth0", "net_ns_fd": inside, "address": port.mac_address},
        )
        index = netlink.link_lookup(ifname=port.tap)[0]
        master = netlink.link_lookup(ifname=bridge)[0] if bridge else 0
        sysctl(f"net/ipv6/conf/{port.tap}/disable_ipv6", 1)
        netlink.link("set", index=index, master=master, state="up")


def settle(port: WiredPort, kernel: bool) -> None:
    for where in ("all", "default", "eth0"):
        sysctl(f"net/ipv6/conf/{where}/accept_dad", 0)
        if not kernel:
            sysctl(f"net/ipv6/conf/{where}/disable_ipv6", 1)
    with IPRoute() as netlink:
        index = netlink.link_lookup(ifname="eth0")[0]
        netlink.link("set", index=index, state="up")
        for address in port.addresses if kernel else ():
            with suppress(FileExistsError):
                netlink.addr("add", index=index, address=address.ip, prefixlen=address.prefix_length)
