"""The metadata service's HTTP: sockets made inside namespaces, served by the agent's own event loop."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Protocol

import msgspec
import structlog
from aiohttp import web

from agents import instance_documents
from agents.network.dnsmasq import METADATA_ADDRESS, METADATA_ADDRESS_6
from agents.network.interface import index_of
from agents.network.nailing import Nailing
from agents.network.namespace import FOLDER, enter
from schema.network.wiring import Peer, WiredPort

if TYPE_CHECKING:
    from agents.network.metadata import Instance

log = structlog.get_logger()

PORT = 80
BACKLOG = 64
MOST_AT_ONCE = 256
"""Requests that are being answered on a host."""
IDLE_SECONDS = 15.0
CLOSE_SECONDS = 1.0
READ_SECONDS = 5.0
"""A guest may take so long to post something."""

_IP_FREEBIND, _IPV6_FREEBIND = 15, 78


class Directory(Protocol):
    """Who is behind an address."""

    def port_at(self, network_ids: Iterable[str], ip: str, *, elsewhere: bool = False) -> WiredPort | Peer | None: ...

    async def about(self, port: WiredPort | Peer, router_id: str = "") -> Instance: ...

    async def keep(self, port: WiredPort | Peer, password: str, router_id: str = "") -> Instance: ...


class InnerFoot(msgspec.Struct, frozen=True):
    """A router's interface in a network of guests. `six`: it has fe80::a9fe:a9fe too."""

    interface: str
    network_id: str
    six: bool = False


class Through(msgspec.Struct, frozen=True):
    """A router through which guests ask."""

    router_id: str
    feet: tuple[InnerFoot, ...]


class Listeners:
    """One HTTP server for each namespace."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._nailing = Nailing()
        self._listening: dict[str, _Listener] = {}
        self._at_once = 0
        self._lock = asyncio.Lock()

    async def serve(
        self, name: str, network_ids: frozenset[str], interface: str, through: Through | None = None
    ) -> None:
        """Raises OSError."""
        six = {interface: network_ids} if interface else {}
        six |= {foot.interface: frozenset({foot.network_id}) for foot in (through.feet if through else ()) if foot.six}
        place = await asyncio.to_thread(_place, name, tuple(six))
        async with self._lock:
            there = self._listening.get(name)
            if there and (there.place, there.network_ids, there.through) == (place, network_ids, through):
                return
            if there:
                await self._drop(name)
            there = self._listening[name] = _Listener(place, network_ids, through)
            loop = asyncio.get_running_loop()
            sockets = await asyncio.to_thread(_open, name, place[1:])
            # By its MAC alone, which is all that fe80:: tells, a guest is known only within one network.
            for opened, networks in zip(sockets, [network_ids, *six.values()], strict=True):
                server = web.Server(
                    partial(self._handle, name, networks, through),
                    keepalive_timeout=IDLE_SECONDS,
                    access_log=None,
                    max_field_size=4096,
                )
                there.serving.append((server, await loop.create_server(server, sock=opened, backlog=BACKLOG)))

    async def leave(self, name: str) -> None:
        async with self._lock:
            await self._drop(name)

    async def close(self) -> None:
        async with self._lock:
            for name in list(self._listening):
                await self._drop(name)
            await self._nailing.close()

    async def _drop(self, name: str) -> None:
        there = self._listening.pop(name, None)
        if there:
            for _, listener in there.serving:
                listener.close()
            await asyncio.gather(*(server.shutdown(CLOSE_SECONDS) for server, _ in there.serving))

    async def _handle(
        self, name: str, network_ids: frozenset[str], through: Through | None, request: web.BaseRequest
    ) -> web.StreamResponse:
        path = "/".join(part for part in request.path.split("/") if part)
        posting = request.method == "POST" and instance_documents.takes_password(path)
        if request.method not in {"GET", "HEAD"} and not posting:
            return web.Response(status=405, text="metadata can only be read\n", headers={"Allow": "GET, HEAD"})
        # Only the connection itself says who asks: whatever a header says, the guest may have written.
        ip = str(ipaddress.ip_address((request.remote or "::").partition("%")[0]))
        port = self._directory.port_at(network_ids, ip, elsewhere=through is not None)
        if port is None:
            return web.Response(status=404, text=f"no server here has the address {ip}\n")
        if self._at_once >= MOST_AT_ONCE:
            return _try_later("too many ask at once")
        self._at_once += 1
        try:
            for foot in through.feet if through else ():
                if foot.network_id == port.network_id:
                    await self._nailing.hold(name, foot.interface, ip, port.mac_address)
            router_id = through.router_id if through else ""
            return await (self._post(port, router_id, request) if posting else self._answer(port, router_id, path))
        except OSError as error:
            return _try_later(str(error))
        finally:
            self._at_once -= 1

    async def _answer(self, port: WiredPort | Peer, router_id: str, path: str) -> web.Response:
        same_for_all = instance_documents.versions(path)
        if same_for_all is not None:
            return _text(path, same_for_all)
        try:
            found = await self._directory.about(port, router_id)
        except TimeoutError:
            return _try_later("the control plane did not answer in time")
        if not found.server_id or found.seed is None:
            return web.Response(status=404, text=f"no server is behind port {port.id}\n")
        content = instance_documents.answer(found.server_id, found.seed, path)
        if content is None:
            return web.Response(status=404, text=f"there is no /{path} here\n")
        return _text(path, content)

    async def _post(self, port: WiredPort | Peer, router_id: str, request: web.BaseRequest) -> web.Response:
        """A password is kept until its owner clears it; the same one again, whose answer was lost, is no other."""
        try:
            async with asyncio.timeout(READ_SECONDS):
                password = (await request.read()).decode("ascii")
        except (TimeoutError, UnicodeDecodeError, web.HTTPRequestEntityTooLarge):
            password = ""
        if not 0 < len(password) <= instance_documents.PASSWORD_BYTES:
            words = f"a password is posted encrypted, in Base64, in at most {instance_documents.PASSWORD_BYTES} bytes\n"
            return web.Response(status=400, text=words)
        try:
            found = await self._directory.keep(port, password, router_id)
        except TimeoutError:
            return _try_later("the control plane did not answer in time")
        if not found.server_id or found.seed is None:
            return web.Response(status=404, text=f"no server is behind port {port.id}\n")
        if found.seed.posted_password != password:
            return web.Response(status=409, text="a password was posted already\n")
        return web.Response()


class _Listener:
    def __init__(self, place: tuple[int, ...], network_ids: frozenset[str], through: Through | None) -> None:
        self.place = place
        self.network_ids = network_ids
        self.through = through
        self.serving: list[tuple[web.Server, asyncio.Server]] = []


def _text(path: str, content: bytes) -> web.Response:
    if path.endswith(".json"):
        return web.Response(body=content, content_type="application/json")
    binary = path.endswith(("user_data", "user-data"))
    kind = "application/octet-stream" if binary else "text/plain"
    return web.Response(body=content, content_type=kind)


def _try_later(why: str) -> web.Response:
    return web.Response(status=503, text=f"{why}; ask again\n", headers={"Retry-After": "2"})


def _place(name: str, interfaces: tuple[str, ...]) -> tuple[int, ...]:
    """Which namespace and interfaces these names stand for now."""
    return (FOLDER / name).stat().st_ino, *(index_of(name, it) for it in interfaces)


def _open(name: str, indexes: Iterable[int]) -> list[socket.socket]:
    """One for IPv4, and one for IPv6 on each of these interfaces."""
    opened: list[socket.socket] = []
    try:
        with enter(name):
            four = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            opened.append(four)
            four.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            four.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            four.bind((METADATA_ADDRESS, PORT))
            for index in indexes:
                six = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
                opened.append(six)
                six.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
                six.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                six.bind((METADATA_ADDRESS_6, PORT, 0, index))
        for it in opened:
            it.setblocking(False)
        return opened
    except OSError:
        for it in opened:
            it.close()
        raise
