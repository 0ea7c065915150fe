"""A host with bare bridges, and guests in namespaces of their own, for what serves guests: DHCP, DNS, metadata."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from pyroute2 import IPRoute

from agents.network import namespace
from agents.network.driver import Faults, Touched
from agents.network.namespace import Namespace, enter
from agents.network.switch import Attachment, bridge_name
from agents.network.world import World
from schema.network.wiring import (
    Address,
    NetworkHostFacts,
    Piece,
    WiredNetwork,
    WiredPort,
    WiredSubnet,
)

P = ParamSpec("P")
T = TypeVar("T")


def apart(function: Callable[P, T]) -> Callable[P, T]:
    """In a thread of its own: pyroute2 runs a loop itself, and the test's thread stays in its namespace."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with ThreadPoolExecutor(1) as threads:
            return threads.submit(function, *args, **kwargs).result()

    return run


class BareSwitch:
    """Bridges and feet, and no more."""

    def __init__(self, host: str) -> None:
        self.host = host

    async def start(self, on_change: Callable[[], None]) -> None: ...

    async def facts(self) -> NetworkHostFacts:
        return NetworkHostFacts()

    async def apply(self, world: World, touched: Touched) -> Faults:
        return {}

    async def close(self) -> None: ...

    def bridge_of(self, network: WiredNetwork) -> str:
        return bridge_name(network.id)

    async def attach(self, attachment: Attachment, world: World) -> None:
        await asyncio.to_thread(self._attach, attachment)

    async def detach(self, port_id: str) -> None:
        await asyncio.to_thread(self._take_away, port_id)

    def _take_away(self, port_id: str) -> None:
        with enter(self.host), IPRoute() as netlink:
            for index in netlink.link_lookup(ifname=f"h{port_id[:11]}"):
                netlink.link("del", index=index)

    @apart
    def _attach(self, foot: Attachment) -> None:
        with enter(foot.namespace), IPRoute() as netlink:
            if netlink.link_lookup(ifname=foot.inside):
                return
        self._take_away(foot.port_id)
        plug(
            self.host,
            foot.outside,
            bridge_name(foot.network_id),
            foot.namespace,
            foot.inside,
            foot.mac_address,
            foot.mtu,
        )


class Guest:
    """A namespace with one card in a network, and nothing known of itself."""

    def __init__(self, place: Place, port: WiredPort) -> None:
        self.port = port
        self.namespace = f"cl-{place.tag}-g-{port.id[:11]}"
        namespace.create(self.namespace)
        self._trust()
        plug(
            place.host, f"g{port.id[:11]}", bridge_name(port.network_id), self.namespace, "eth0", port.mac_address, 1300
        )

    @apart
    def _trust(self) -> None:
        with enter(self.namespace):
            namespace.sysctl("net/ipv6/conf/default/accept_dad", 0)

    def run(self, *command: str, seconds: float = 20.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.namespace}", "--", *command],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def lease(self, folder: Path, *options: str, tries: int = 3) -> dict[str, str]:
        """What udhcpc learned; empty: nobody answered."""
        script = folder / "told"
        if not script.exists():
            script.write_text("#!/bin/sh\n[ $1 = bound ] && env > $OUT\nexit 0\n")
            script.chmod(0o755)
        out = folder / f"lease-{self.port.id}"
        out.unlink(missing_ok=True)
        wanted = [part for name in ("staticroutes", "mtu", "domain", "dns", *options) for part in ("-O", name)]
        self.run(
            *("env", f"OUT={out}", "busybox", "udhcpc", "-q", "-n", "-f", "-i", "eth0", "-t", str(tries), "-T", "1"),
            *("-s", str(script), *wanted),
        )
        if not out.exists():
            return {}
        return dict(line.split("=", 1) for line in out.read_text().splitlines() if "=" in line)

    @apart
    def give(self, *addresses: str) -> None:
        """Configure it by hand."""
        with enter(self.namespace), IPRoute() as netlink:
            index = netlink.link_lookup(ifname="eth0")[0]
            for address in addresses:
                ip, _, length = address.partition("/")
                netlink.addr("replace", index=index, address=ip, prefixlen=int(length))

    @apart
    def route_metadata(self, via: str) -> None:
        with enter(self.namespace), IPRoute() as netlink:
            netlink.route("replace", dst="169.254.169.254/32", gateway=via)

    @apart
    def addresses(self) -> set[str]:
        with enter(self.namespace), IPRoute() as netlink:
            index = netlink.link_lookup(ifname="eth0")[0]
            return {it.get_attr("IFA_ADDRESS") for it in netlink.get_addr(index=index)}

    def resolve(self, name: str, server: str) -> set[str]:
        """Every word of the answer."""
        return set(self.run("busybox", "nslookup", name, server).stdout.split())

    def fetch(self, path: str, *options: str, server: str = "169.254.169.254") -> tuple[int, str]:
        """(status, body); status 0: no answer."""
        done = self.run("curl", "-s", "-g", "-m", "8", "-w", "\n%{http_code}", *options, f"http://{server}{path}")
        body, _, status = done.stdout.rpartition("\n")
        return int(status or 0), body


class Place:
    """One host's namespace and its guests; everything goes with `remove`."""

    def __init__(self) -> None:
        self.tag = os.urandom(2).hex()
        self.host = f"cl-{self.tag}-h"
        namespace.create(self.host)
        self.inside = Namespace(self.host)
        self.switch = BareSwitch(self.host)

    @apart
    def network(self, network_id: str) -> None:
        """Make its bridge."""
        with enter(self.host), IPRoute() as netlink:
            netlink.link("add", ifname=bridge_name(network_id), kind="bridge", br_mcast_snooping=0)
            netlink.link("set", index=netlink.link_lookup(ifname=bridge_name(network_id))[0], state="up")

    def guest(self, port: WiredPort) -> Guest:
        return Guest(self, port)

    def remove(self, folder: Path) -> None:
        """With whatever processes were started for a folder."""
        self.inside.close()
        for path in Path("/proc").iterdir():
            with suppress(OSError):
                if path.name.isdigit() and f"{folder}/".encode() in (path / "cmdline").read_bytes():
                    os.kill(int(path.name), signal.SIGKILL)
        for name in namespace.names(f"cl-{self.tag}-"):
            namespace.remove(name)


@apart
def plug(host: str, outside: str, bridge: str, into: str, inside: str, mac: str, mtu: int = 1450) -> None:
    """A veth pair from a bridge of a host to another namespace, both ends up."""
    opened = os.open(namespace.FOLDER / into, os.O_RDONLY)
    try:
        with enter(host), IPRoute() as netlink:
            peer = {"ifname": inside, "net_ns_fd": opened, "address": mac, "mtu": mtu}
            netlink.link("add", ifname=outside, kind="veth", peer=peer)
            index = netlink.link_lookup(ifname=outside)[0]
            netlink.link("set", index=index, state="up", master=netlink.link_lookup(ifname=bridge)[0])
        with enter(into), IPRoute() as netlink:
            netlink.link("set", index=netlink.link_lookup(ifname=inside)[0], state="up")
    finally:
        os.close(opened)


def subnet(id: str, cidr: str, **more: Any) -> WiredSubnet:
    return WiredSubnet(id=id, cidr=cidr, ip_version=6 if ":" in cidr else 4, **more)


def network(id: str, *subnets: WiredSubnet, **more: Any) -> WiredNetwork:
    """Its DHCP port has the second address of every subnet (the gateway, if any, the first)."""
    more.setdefault("mtu", 1400)
    return WiredNetwork(
        id=id,
        network_type="local",
        subnets=subnets,
        dhcp_port_id=f"d{id}",
        dhcp_mac="fa:16:3e:00:00:02",
        dhcp_addresses=tuple(address(it, 2) for it in subnets if it.dhcp),
        **more,
    )


def address(of: WiredSubnet, number: int) -> Address:
    base, _, length = of.cidr.partition("/")
    ip = f"{base}{number:x}" if of.ip_version == 6 else f"{base.rpartition('.')[0]}.{number}"
    return Address(ip=ip, subnet_id=of.id, prefix_length=int(length))


def port(id: str, of: WiredNetwork, number: int, **more: Any) -> WiredPort:
    """A guest's, with that address in every subnet."""
    more.setdefault("generation", 1)
    more.setdefault("addresses", tuple(address(it, number) for it in of.subnets))
    return WiredPort(
        id=id,
        network_id=of.id,
        tap=f"tap{id}",
        mac_address=f"fa:16:3e:00:01:{number:02x}",
        device_owner="compute:nova",
        **more,
    )


def world(*pieces: Piece) -> World:
    return World({f"{type(it).__struct_config__.tag}/{it.id}": it for it in pieces})


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait for it; the condition is asked in a thread of its own."""
    end = time.monotonic() + seconds
    while not (found := await asyncio.to_thread(condition)):
        assert time.monotonic() < end, "it did not come about in time"
        await asyncio.sleep(0.02)
    return found
