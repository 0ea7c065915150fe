"""Hosts with routers on them, guests behind the routers, and an outside that is one bridge for all hosts."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pyroute2 import IPRoute

from agents.network.namespace import Namespace, enter
from agents.network.routers import Routers
from agents.network.switch import bridge_name
from agents.network.world import World
from schema.network.wiring import Piece, RouterPort, WiredNetwork, WiredRouter
from tests.network.dhcp_place import Guest, Place, address, apart, network, plug, port, subnet, world

PATIENCE_SECONDS = 3.0

ONE = network("n1", subnet("s1", "10.1.0.0/24", gateway_ip="10.1.0.1"))
TWO = network("n2", subnet("s2", "10.2.0.0/24", gateway_ip="10.2.0.1"))
PUBLIC = network("public", subnet("sp", "203.0.113.0/24", gateway_ip="203.0.113.1", dhcp=False), external=True)


def foot(of: WiredNetwork, number: int, id: str = "", **more: Any) -> RouterPort:
    """A router's, with that address in every subnet."""
    addresses = tuple(address(it, number) for it in of.subnets)
    mac = f"fa:16:3e:{sum(of.id.encode()) % 256:02x}:00:{number:02x}"
    more.setdefault("mtu", of.mtu)
    return RouterPort(port_id=id or f"f{of.id}", network_id=of.id, mac_address=mac, addresses=addresses, **more)


def router(*inner: RouterPort, gateway: RouterPort | None = None, **more: Any) -> WiredRouter:
    more.setdefault("gateway_ips", ("203.0.113.1",) if gateway else ())
    more.setdefault("generation", 1)
    more.setdefault("id", "r1")
    return WiredRouter(ports=inner, gateway=gateway, **more)


class Host:
    """One more network host of a place. `routers` may be replaced by a new agent's."""

    def __init__(self, place: Place, *networks: WiredNetwork) -> None:
        self.place = place
        for it in networks:
            place.network(it.id)
        self.changes = 0
        self.routers = self.agent()

    def agent(self, **more: Any) -> Routers:
        return Routers(self.place.tag, self.place.switch, **more)

    async def apply(self, *pieces: Piece, touched: frozenset[str] | None = None) -> dict[str, str]:
        return await self.routers.apply(self.world(*pieces), touched)

    def world(self, *pieces: Piece) -> World:
        return world(*pieces)

    def guest(self, of: WiredNetwork, number: int, *, id: str = "", mac: str = "") -> Someone:
        more = {"mac_address": mac} if mac else {}
        return Someone(self.place, port(id or f"{of.id}-{number}", of, number, **more))

    def note(self) -> None:
        self.changes += 1


class Someone(Guest):
    """A guest (or somebody outside) with its addresses, and the subnets' first addresses as its ways out."""

    def __init__(self, place: Place, of: Any) -> None:
        super().__init__(place, of)
        self.ips = [it.ip for it in of.addresses]
        self.ip = self.ips[0]
        self.give(*(f"{it.ip}/{it.prefix_length}" for it in of.addresses))
        self.space = Namespace(self.namespace)

    @apart
    def leads_by(self, *gateways: str, to: str = "default") -> None:
        for it in gateways:
            done = self.run("ip", "-6" if ":" in it else "-4", "route", "replace", to, "via", it)
            assert done.returncode == 0, done.stderr

    def pings(self, ip: str, *, seconds: int = 2, more: tuple[str, ...] = ()) -> bool:
        return self.run("ping", "-c", "1", "-W", str(seconds), *more, ip).returncode == 0

    def open(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        made = self.space.call(socket.socket, family, kind)
        made.settimeout(PATIENCE_SECONDS)
        return made

    @contextmanager
    def listening(self, number: int, ip: str = "") -> Iterator[socket.socket]:
        ip = ip or self.ip
        with self.open(socket.AF_INET6 if ":" in ip else socket.AF_INET) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((ip, number))
            server.listen()
            yield server

    @apart
    def sees(self, client: Someone, ip: str, number: int, *, at: int = 0, own: str = "") -> str:
        """From which address the other's connection to that address arrives here; empty: it does not arrive."""
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        with self.listening(at or number, own) as server, client.open(family) as calling:
            try:
                calling.connect((ip, number))
            except OSError:
                return ""
            accepted, who = server.accept()
            with accepted:
                accepted.sendall(b"hello")
                assert calling.recv(10) == b"hello"
            return str(who[0])

    def close(self) -> None:
        self.space.close()


class Line:
    """A TCP connection that says one word each way whenever it is asked whether it still lives."""

    def __init__(self, client: Someone, server: Someone, ip: str, number: int) -> None:
        with server.listening(number) as listening:
            self._near = client.open()
            self._near.connect((ip, number))
            self._far = listening.accept()[0]
        self._far.settimeout(0.5)
        threading.Thread(target=self._echo, daemon=True).start()

    def alive(self, seconds: float = 1.0) -> bool:
        self._near.settimeout(seconds)
        try:
            self._near.sendall(b"x")
            return self._near.recv(1) == b"x"
        except OSError:
            return False

    def close(self) -> None:
        self._near.close()
        self._far.close()

    def _echo(self) -> None:
        self._far.settimeout(None)
        with suppress(OSError):
            while data := self._far.recv(1):
                self._far.sendall(data)


@apart
def join(one: Place, other: Place, network_id: str) -> None:
    """The same network on two hosts: what the tunnels do."""
    name = bridge_name(network_id)
    plug(one.host, f"j{network_id}", name, other.host, f"j{network_id}", "fe:00:00:00:00:01")
    with enter(other.host), IPRoute() as netlink:
        index = netlink.link_lookup(ifname=f"j{network_id}")[0]
        netlink.link("set", index=index, master=netlink.link_lookup(ifname=name)[0])


async def in_thread(function: Any, *args: Any, **kwargs: Any) -> Any:
    return await asyncio.to_thread(function, *args, **kwargs)
