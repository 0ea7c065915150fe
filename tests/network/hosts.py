"""Several hosts on one machine: namespaces with a fabric between them and a way outside, and guests in them."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import json
import os
import re
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from pyroute2 import IPRoute

from agents.network import namespace
from agents.network.fabric import _end_all_in
from agents.network.namespace import Namespace, enter
from agents.network.switch import Switch
from agents.network.world import World
from schema.network.wiring import Address, Peer, Piece, WiredNetwork, WiredPort, tap_name
from tests.network.dhcp_place import apart

_numbers = itertools.count(1)
FABRIC_MTU = 1500
_TAKE = """#!/bin/sh
[ "$1" = bound ] || exit 0
env > {told}
ip address replace "$ip/$mask" dev "$interface"
set -- $staticroutes
while [ $# -ge 2 ]; do [ "$2" = 0.0.0.0 ] || ip route replace "$1" via "$2"; shift 2; done
"""


class Fabric:
    """Hosts `fabric` and `external` interfaces lead to two bridges here; all is gone when it is left."""

    def __init__(self, mtu: int = FABRIC_MTU) -> None:
        self.tag = f"cl-{os.getpid() % 100000}x{next(_numbers)}"
        self.name = f"{self.tag}-f"
        self.mtu = mtu
        self.hosts: list[Host] = []
        namespace.create(self.name)
        self._make()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts:
            host.space.close()
        for name in namespace.names(f"{self.tag}-"):
            namespace.remove(name)

    def end_all(self) -> None:
        """End the daemons that serve in namespaces of ours."""
        _end_all_in(namespace.names(f"{self.tag}-"))

    def host(self) -> Host:
        host = Host(self, len(self.hosts) + 1)
        self.hosts.append(host)
        return host

    @apart
    def _make(self) -> None:
        with enter(self.name), IPRoute() as netlink:
            for name in ("fabric", "external"):
                netlink.link("add", ifname=name, kind="bridge", br_mcast_snooping=0, mtu=self.mtu)
                netlink.link("set", index=netlink.link_lookup(ifname=name)[0], state="up")

    @apart
    def join(self, name: str, number: int) -> None:
        with enter(self.name), IPRoute() as netlink:
            for way in ("fabric", "external"):
                peer = {"ifname": way, "net_ns_fd": name, "mtu": self.mtu}
                end = f"{way[0]}{number}"
                netlink.link("add", ifname=end, kind="veth", peer=peer, mtu=self.mtu)
                index = netlink.link_lookup(ifname=end)[0]
                netlink.link("set", index=index, master=netlink.link_lookup(ifname=way)[0], state="up")

    @apart
    def cut(self, number: int, *, up: bool) -> None:
        """A host's cable to the fabric."""
        with enter(self.name), IPRoute() as netlink:
            netlink.link("set", index=netlink.link_lookup(ifname=f"f{number}")[0], state="up" if up else "down")


class Host:
    """Its switch is given by who makes it."""

    switch: Switch

    def __init__(self, fabric: Fabric, number: int) -> None:
        self.number = number
        self.name = f"{fabric.tag}-h{number}"
        self.endpoint_ip = f"10.77.0.{number}"
        self.guests: dict[str, Guest] = {}
        self.pieces: dict[str, Piece] = {}
        self._tag = fabric.tag
        namespace.create(self.name)
        fabric.join(self.name, number)
        self._settle()
        self.space = Namespace(self.name)

    @property
    def world(self) -> World:
        return World(self.pieces, endpoint_ip=self.endpoint_ip)

    def has(self, *pieces: Piece) -> frozenset[str]:
        """From now on, or instead; their keys."""
        keys = {f"{type(it).__struct_config__.tag}/{it.id}": it for it in pieces}
        self.pieces |= keys
        return frozenset(keys)

    def lacks(self, *keys: str) -> frozenset[str]:
        for key in keys:
            self.pieces.pop(key, None)
        return frozenset(keys)

    async def wire(self, *pieces: Piece) -> None:
        keys = self.has(*pieces)
        assert await self.switch.apply(self.world, keys) == {}

    async def unwire(self, *keys: str) -> None:
        gone = self.lacks(*keys)
        assert await self.switch.apply(self.world, gone) == {}

    async def sweep(self) -> None:
        assert await self.switch.apply(self.world, None) == {}

    def run(self, *command: str) -> str:
        return run(self.name, *command)

    def guest(self, port: WiredPort, mtu: int = 1450, *, addressed: bool = True) -> Guest:
        """A namespace behind that port's tap, before the switch makes one; with its addresses unless it is to ask."""
        guest = Guest(f"{self._tag}-g{next(_numbers)}", port)
        _plug(self.name, port, guest.name, mtu)
        guest.settle(addressed=addressed)
        self.guests[port.id] = guest
        return guest

    def has_link(self, name: str) -> bool:
        return any(it["ifname"] == name for it in self.links())

    def links(self, *options: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run("ip", "-j", "-d", "link", "show", *options) or "[]")
        return found

    def link(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("ip", "-j", "-d", "link", "show", "dev", name))[0]
        found["flags"] = sorted({"UP"} & set(found["flags"]))
        return found

    @contextmanager
    def opened(self, tap: str) -> Iterator[int]:
        """As QEMU opens a tap: one queue, with virtio's header, of which nothing is said here."""
        opened = _open_tap(self.name, tap)
        try:
            yield opened
        finally:
            os.close(opened)

    def fragments(self) -> int:
        """That its tunnels made."""
        counters = self.run("nstat", "-asz", "IpFragCreates", "Ip6FragCreates")
        return sum(int(line.split()[1]) for line in counters.splitlines() if "FragCreates" in line)

    @apart
    def _settle(self) -> None:
        with enter(self.name), IPRoute() as netlink:
            for name in ("fabric", "external"):
                netlink.link("set", index=netlink.link_lookup(ifname=name)[0], state="up")
            index = netlink.link_lookup(ifname="fabric")[0]
            netlink.addr("add", index=index, address=self.endpoint_ip, prefixlen=24)


class Noticed:
    """What an agent does: everything is looked at, some time after the switch said that something was changed."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._event = asyncio.Event()

    async def start(self) -> None:
        await self._host.switch.start(self._event.set)

    @property
    def anything(self) -> bool:
        return self._event.is_set()

    async def healed(self) -> None:
        async with asyncio.timeout(5):
            await self._event.wait()
        self._event.clear()
        await self._host.sweep()


class Guest:
    """What is behind a port."""

    def __init__(self, name: str, port: WiredPort, card: str = "eth0") -> None:
        self.name, self.port, self.card = name, port, card
        namespace.create(name)

    @property
    def ip(self) -> str:
        return self.port.addresses[0].ip

    @property
    def ip6(self) -> str:
        return self.port.addresses[1].ip

    def run(self, *command: str) -> str:
        return run(self.name, *command)

    def pings(self, ip: str, *options: str, count: int = 1, seconds: float = 3.0) -> bool:
        command = ["ping", "-q", "-c", str(count), "-W", str(int(seconds)), *options, ip]
        return subprocess.run(_inside(self.name, *command), capture_output=True, check=False).returncode == 0

    def send(self, *frames: Any) -> None:
        with self.raw() as raw:
            for frame in frames:
                raw.send(bytes(frame))

    def raw(self) -> AbstractContextManager[socket.socket]:
        """Every frame that comes to its card."""
        return raw(self.name, self.card)

    def to_all(self, number: int = 255) -> Any:
        """A broadcast of its, like no other with another number."""
        from scapy.layers.inet import ICMP, IP
        from scapy.layers.l2 import Ether

        packet = IP(src=self.ip, dst=f"10.0.255.{number}") / ICMP()
        return Ether(src=self.port.mac_address, dst="ff:ff:ff:ff:ff:ff") / packet

    @contextmanager
    def flood(self, ip: str, every_seconds: float = 0.005) -> Iterator[Flood]:
        """Ping without a pause while this lasts."""
        with Flood.of(self.name, ip, every_seconds) as flood:
            yield flood

    def lease(self, folder: Path) -> dict[str, str]:
        """Ask for an address until there is one, and take it; what was told."""
        told = folder / f"lease-{self.port.id}"
        script = folder / f"take-{self.port.id}"
        script.write_text(_TAKE.format(told=told))
        script.chmod(0o755)
        tries = ("-O", "staticroutes", "-t", "10", "-T", "1")
        self.run("busybox", "udhcpc", "-q", "-n", "-f", "-i", self.card, *tries, "-s", str(script))
        return dict(line.split("=", 1) for line in told.read_text().splitlines() if "=" in line)

    @apart
    def settle(self, *, addressed: bool = True) -> None:
        with enter(self.name), IPRoute() as netlink:
            for where in ("all", "default", self.card):
                namespace.sysctl(f"net/ipv6/conf/{where}/accept_dad", 0)
            index = netlink.link_lookup(ifname=self.card)[0]
            netlink.link("set", index=index, state="up")
            for it in self.port.addresses if addressed else ():
                with suppress(FileExistsError):
                    netlink.addr("add", index=index, address=it.ip, prefixlen=it.prefix_length)


class Flood:
    """A running `ping`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.sent, self.lost = 0, -1

    @classmethod
    @contextmanager
    def of(cls, name: str, ip: str, every_seconds: float) -> Iterator[Self]:
        """From a namespace, without a pause while this lasts."""
        command = _inside(name, "ping", "-q", "-i", str(every_seconds), "-W", "1", ip)
        flood = cls(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        try:
            yield flood
        finally:
            flood.stop()

    def stop(self) -> None:
        """What was under way when it ends does not count as lost: one packet at most."""
        if self._process.returncode is not None:
            return
        self._process.send_signal(2)
        text = self._process.communicate(timeout=10)[0]
        found = re.search(r"(\d+) packets transmitted, (\d+) received", text)
        assert found, text
        self.sent = int(found[1])
        self.lost = max(0, self.sent - int(found[2]) - 1)


def network(number: int = 1, **more: Any) -> WiredNetwork:
    fields: dict[str, Any] = {"network_type": "vxlan", "segmentation_id": 1000 + number, "mtu": 1450} | more
    return WiredNetwork(id=f"{number:08x}-0000-4000-8000-000000000000", **fields)


def port(of: WiredNetwork, number: int, **more: Any) -> WiredPort:
    """With an address of both families, of which another network may have the same."""
    id = f"{number:08x}-{of.id[6:8]}00-4000-8000-000000000000"
    fields: dict[str, Any] = {
        "mac_address": f"fa:16:3e:{int(of.id[:8], 16):02x}:{number >> 8:02x}:{number & 255:02x}",
        "addresses": (
            Address(ip=f"10.0.{number >> 8}.{number & 255}", subnet_id="four", prefix_length=16),
            Address(ip=f"fd00::{number:x}", subnet_id="six", prefix_length=64),
        ),
        "generation": 1,
    }
    return WiredPort(id=id, network_id=of.id, tap=tap_name(id), **(fields | more))


def peer(of: WiredPort, host: Host) -> Peer:
    """As the other hosts see it."""
    return Peer(
        id=of.id,
        network_id=of.network_id,
        mac_address=of.mac_address,
        ips=tuple(it.ip for it in of.addresses),
        endpoint_ip=host.endpoint_ip,
        more_macs=tuple(it.mac_address for it in of.address_pairs if it.mac_address != of.mac_address),
    )


def run(name: str, *command: str) -> str:
    """What it printed. Raises CalledProcessError."""
    return subprocess.run(_inside(name, *command), capture_output=True, text=True, check=True, timeout=60).stdout


@contextmanager
def raw(name: str, interface: str) -> Iterator[socket.socket]:
    """Every frame that passes an interface, in and out."""
    with _raw(name) as made:
        made.bind((interface, 0))
        made.settimeout(5.0)
        yield made


def arrives(heard: socket.socket, frame: Any, last: Any) -> bool:
    """Whether that frame comes before (or after) another, which does come, and came once it had its chance."""
    wanted, until = bytes(frame), bytes(last)
    found = False
    while True:
        got = heard.recv(65536)
        found |= got[: len(wanted)] == wanted
        if got[: len(until)] == until:
            return found


def drained(heard: socket.socket) -> list[bytes]:
    """What came until now."""
    found = []
    heard.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            found.append(heard.recv(65536))
    return found


def _inside(name: str, *command: str) -> list[str]:
    return ["nsenter", f"--net={namespace.FOLDER / name}", "--", *command]


@apart
def _raw(name: str) -> socket.socket:
    with enter(name):
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))


@apart
def _open_tap(host: str, name: str) -> int:
    with enter(host):
        opened = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(opened, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1002))
        return opened


@apart
def _plug(host: str, port: WiredPort, inside: str, mtu: int) -> None:
    with enter(host), IPRoute() as netlink:
        peer = {"ifname": "eth0", "net_ns_fd": inside, "address": port.mac_address, "mtu": mtu}
        netlink.link("add", ifname=port.tap, kind="veth", peer=peer)
