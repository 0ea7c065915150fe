"""One router's VPN daemon: started, told its connections, asked how they are, and ended."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from agents.network import daemons, netlink
from agents.network.daemons import CannotStart, Daemon
from agents.network.namespace import enter
from agents.network.netlink import Request, number
from agents.network.router_kernel import LINK_HEAD, SET_LINK
from agents.network.router_rules import inside_name
from agents.network.vici import Vici, ViciRefused
from agents.network.vpn_rules import TUNNEL, Loaded, Unfit, connection_of, loaded, settings, tunnel_mtu
from bus import clock
from schema.network.wiring import WiredRouter

log = structlog.get_logger()

PROGRAM = "charon-systemd"
READY_SECONDS = 5.0
AGAIN_SECONDS = 30.0
"""A daemon that did not start is not tried again before that: other routers wait meanwhile."""
MOST_LOG_BYTES = 1 << 20
_LOOK_EVERY_SECONDS = 0.02
_IFLA_MTU = 4
_EVENTS = ("child-updown", "ike-updown")
_LONGEST_PATH = 100
"""Of a unix socket; the kernel's limit is not far."""
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def program() -> str | None:
    """Where it is, if this host has it."""
    return shutil.which(PROGRAM, path=_PATH)


class VpnGateway:
    """One router's daemon."""

    def __init__(self, namespace: str, folder: Path) -> None:
        self._namespace = namespace
        self._folder = folder
        self._socket = _socket_of(folder)
        self._wanted: dict[str, Loaded] = {}
        """By name."""
        self._faults: dict[str, str] = {}
        """Connection → why it cannot be."""
        self._broken = ""
        self._again_at = 0.0
        self._vici: Vici | None = None
        self._hearing: asyncio.Task[None] | None = None

    async def keep(self, router: WiredRouter, on_change: Callable[[], None]) -> bool:
        self._wanted, faults = _wanted(router)
        started = False
        try:
            if self._wanted:
                started = await self._run(router)
                await self._load(faults)
                await self._call()
                await asyncio.to_thread(_set_mtu, self._namespace, tunnel_mtu(router))
                await asyncio.to_thread(_shorten, self._folder / "log")
                await self._hear(on_change)
            else:
                await self.end()
        except (CannotStart, ViciRefused, OSError, TimeoutError) as error:
            self.let_go()
            why = f"VPN: {str(error) or 'strongSwan does not answer'}"
            faults |= {it.connection_id: why for it in self._wanted.values()}
        for id, fault in faults.items():
            if self._faults.get(id) != fault:
                log.warning("a VPN connection cannot be made", router=router.id, connection=id, fault=fault)
        self._faults = faults
        return started

    async def states(self, router: WiredRouter) -> dict[str, str]:
        up: set[str] = set()
        with suppress(ViciRefused, OSError, TimeoutError):
            if self._wanted:
                up = await self._up()
        return {
            it.id: "ERROR" if it.id in self._faults else "ACTIVE" if it.admin_up and it.id in up else "DOWN"
            for it in router.connections
        }

    async def end(self) -> None:
        self.let_go()
        await daemons.stop(self._daemon(""))
        await asyncio.to_thread(_clear, self._folder, self._socket)

    def let_go(self) -> None:
        if self._hearing:
            self._hearing.cancel()
            self._hearing = None
        if self._vici:
            self._vici.close()
            self._vici = None

    # The daemon

    def _daemon(self, digest: str) -> Daemon:
        """It takes no arguments that could tell whose it is, so it is called by a path that does."""
        return Daemon(
            command=(f"{self._folder}/{digest}/{PROGRAM}",),
            namespace=self._namespace,
            pid_file=f"{self._folder}/pid",
            mark=f"{self._folder}/",
            log=f"{self._folder}/output",
            environment=(("STRONGSWAN_CONF", f"{self._folder}/{digest}/strongswan.conf"),),
        )

    async def _run(self, router: WiredRouter) -> bool:
        text = settings(str(self._folder), self._socket, inside_name(router.gateway.port_id) if router.gateway else "")
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        daemon = self._daemon(digest)
        if daemons.running(daemon) and await asyncio.to_thread(_has_tunnel, self._namespace):
            return False
        if self._broken and clock.monotonic() < self._again_at:
            raise CannotStart(self._broken)
        self.let_go()
        await daemons.stop(daemon)
        await asyncio.to_thread(_prepare, self._folder, digest, text)
        await daemons.ensure(daemon)
        until = clock.monotonic() + READY_SECONDS
        while not await self._ready():
            if not daemons.running(daemon) or clock.monotonic() > until:
                self._broken = f"{PROGRAM} did not become ready: {_last_words(self._folder)}"
                self._again_at = clock.monotonic() + AGAIN_SECONDS
                raise CannotStart(self._broken)
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
        self._broken = ""
        return True

    async def _ready(self) -> bool:
        try:
            await self._talk()
        except OSError:
            return False
        return await asyncio.to_thread(_has_tunnel, self._namespace)

    async def _talk(self) -> Vici:
        if self._vici is None:
            self._vici = await Vici.connect(self._socket)
        return self._vici

    # Connections

    async def _load(self, faults: dict[str, str]) -> None:
        """What is no longer wanted (so) goes first: two may not claim the same peer."""
        vici = await self._talk()
        there = set((await vici.request("get-conns")).get("conns", []))
        for name in there - self._wanted.keys():
            await vici.request("unload-conn", {"name": name})
            await vici.request("unload-shared", {"id": name})
            with suppress(ViciRefused):
                await vici.request("terminate", {"ike": name, "force": "yes", "timeout": "-1"})
        for name in self._wanted.keys() - there:
            it = self._wanted[name]
            try:
                await vici.request("load-shared", it.shared)
                await vici.request("load-conn", {name: it.connection})
            except ViciRefused as error:
                faults[it.connection_id] = f"VPN: {error}"

    async def _call(self) -> None:
        """Those that are to be called and are not: charon gives up where a peer knows another key."""
        vici = await self._talk()
        under_way = await self._carrying()
        for name, it in self._wanted.items():
            if it.calls and name not in under_way:
                for child in it.connection["children"]:
                    with suppress(ViciRefused):
                        await vici.request("initiate", {"ike": name, "child": child, "timeout": "-1"})

    async def _carrying(self) -> dict[str, set[str]]:
        """Name of each connection that is up or coming up → its children that carry traffic."""
        vici = await self._talk()
        told, _ = await vici.stream("list-sas", "list-sa")
        carrying: dict[str, set[str]] = {}
        for event in told:
            for name, sa in event.items():
                children = sa.get("child-sas", {}).values()
                up = {it.get("name", "") for it in children if it.get("state") == "INSTALLED"}
                carrying.setdefault(name, set()).update(up)
        return carrying

    async def _up(self) -> set[str]:
        """Connections all of whose children carry traffic."""
        carrying = await self._carrying()
        complete = {name for name, it in self._wanted.items() if len(carrying.get(name, ())) >= it.children}
        return {connection_of(name) for name in complete}

    async def _hear(self, on_change: Callable[[], None]) -> None:
        if self._hearing is None or self._hearing.done():
            vici = await Vici.connect(self._socket)
            self._hearing = asyncio.create_task(_listen(vici, on_change), name=f"VPN events of {self._namespace}")


def _wanted(router: WiredRouter) -> tuple[dict[str, Loaded], dict[str, str]]:
    """By name, and why others cannot be."""
    wanted, faults = {}, {}
    for it in router.connections:
        if it.admin_up:
            try:
                made = loaded(it)
                wanted[made.name] = made
            except Unfit as error:
                faults[it.id] = f"VPN: {error}"
    return wanted, faults


async def _listen(vici: Vici, on_change: Callable[[], None]) -> None:
    try:
        await vici.listen(_EVENTS, on_change)
        on_change()  # the daemon is gone
    except (OSError, ViciRefused) as error:
        log.info("a VPN daemon is not heard", error=str(error))
    finally:
        vici.close()


def _socket_of(folder: Path) -> str:
    """Beside its settings, unless that is too far down."""
    path = f"{folder}/vici"
    short = f"/run/cumulog-{hashlib.sha256(path.encode()).hexdigest()[:12]}.vici"
    return path if len(path) <= _LONGEST_PATH else short


def _clear(folder: Path, path: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    Path(path).unlink(missing_ok=True)


def _prepare(folder: Path, digest: str, text: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    inner = folder / digest
    inner.mkdir(parents=True)
    folder.chmod(0o700)
    (inner / "strongswan.conf").write_text(text)
    found = program()
    if found is None:
        raise CannotStart(f"{PROGRAM} is not on this host: install Debian's charon-systemd and libcharon-extra-plugins")
    (inner / PROGRAM).symlink_to(found)


def _shorten(log: Path) -> None:
    """The daemon appends for ever."""
    with suppress(FileNotFoundError):
        if log.stat().st_size > MOST_LOG_BYTES:
            os.truncate(log, 0)


def _last_words(folder: Path) -> str:
    with suppress(OSError):
        if said := (folder / "output").read_text(errors="replace").splitlines():
            return "; ".join(said[-3:])[-500:]
    return f"see {folder}/log"


def _has_tunnel(namespace: str) -> bool:
    try:
        with enter(namespace):
            return socket.if_nametoindex(TUNNEL) > 0
    except OSError:
        return False


def _set_mtu(namespace: str, mtu: int) -> None:
    """Raises OSError."""
    with enter(namespace), netlink.Socket() as kernel:
        index = socket.if_nametoindex(TUNNEL)
        body = LINK_HEAD.pack(0, 0, 0, index, 0, 0) + number(_IFLA_MTU, mtu)
        kernel.send([Request(SET_LINK, 0, body)])
