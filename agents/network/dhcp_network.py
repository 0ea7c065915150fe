"""One network's DHCP on one host: its namespace, its foot and addresses, its files and its dnsmasq."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from agents.network import advertising, daemons, dnsmasq, namespace
from agents.network.advertising import Advertiser
from agents.network.daemons import CannotStart, Daemon
from agents.network.dnsmasq import ServerFiles
from agents.network.interface import set_addresses, set_neighbours
from agents.network.switch import Attachment, CannotWire, Switch
from agents.network.world import World
from schema.network.wiring import Peer, WiredNetwork, WiredPort

PROGRAM = "dnsmasq"
_KINDS = ("hosts", "options", "names")


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """What is to be served, to whom."""

    network: WiredNetwork
    ports: Sequence[WiredPort]
    peers: Sequence[Peer]
    router_ips: frozenset[str]
    """Addresses in the network that routers have (or may have)."""


class DhcpNetwork:
    """Every method may be repeated. Where one raises, make a new one and let it look at everything."""

    def __init__(self, name: str, folder: Path, switch: Switch, advertiser: Advertiser) -> None:
        self.namespace = name
        self._folder = folder
        self._switch = switch
        self._advertiser = advertiser
        self._attachment: Attachment | None = None
        self._files: dict[str, ServerFiles] | None = None
        """By port, as on the disk; None: not looked yet."""
        self._neighbours: dict[str, str] = {}

    @property
    def interface(self) -> str:
        """Of its foot in the network; empty: it has none yet."""
        return self._attachment.inside if self._attachment else ""

    async def apply(self, wanted: Wanted, world: World, keys: frozenset[str] | None) -> str:
        """`keys` of the pieces that changed; None: look at everything. What could not be done, or empty."""
        network = wanted.network
        routers_changed = keys is not None and any(not key.startswith("port/") for key in keys)
        if keys is None or f"network/{network.id}" in keys or self._files is None:
            return await self._look(wanted, world)
        ports = {port.id: port for port in wanted.ports}
        peers = {peer.id: peer for peer in wanted.peers}
        fresh = dict(self._files)
        for key in keys:
            id = key.partition("/")[2]
            if files := _files_of(network, ports.get(id), peers.get(id)):
                fresh[id] = files
            elif not key.startswith("router/"):
                fresh.pop(id, None)
        await self._write(fresh, await self._released(fresh))
        await self._know([ports[id] for key in keys if (id := key.partition("/")[2]) in ports], forget=False)
        if routers_changed:
            await self._advertise(wanted)
        return ""

    async def end(self) -> None:
        """All of it goes but the folder."""
        self._advertiser.forget(self.namespace)
        await daemons.stop(self._daemon(""))
        if self._attachment:
            await self._switch.detach(self._attachment.port_id)
        await asyncio.to_thread(namespace.remove, self.namespace)

    async def _look(self, wanted: Wanted, world: World) -> str:
        network = wanted.network
        foot = Attachment(
            port_id=network.dhcp_port_id,
            network_id=network.id,
            mac_address=network.dhcp_mac,
            mtu=network.mtu,
            namespace=self.namespace,
            local=True,
        )
        try:
            await asyncio.to_thread(_make_namespace, self.namespace)
            if self._attachment and self._attachment.port_id != foot.port_id:
                await self._switch.detach(self._attachment.port_id)
            await self._switch.attach(foot, world)
            self._attachment = foot
            inside = dnsmasq.addresses_inside(network)
            index = await asyncio.to_thread(set_addresses, self.namespace, foot.inside, inside)
            known = self._files if self._files is not None else await asyncio.to_thread(_read, self._folder)
            self._files = await asyncio.to_thread(_still_there, self._folder, known)
            ports = {port.id: port for port in wanted.ports}
            fresh = {id: dnsmasq.files_of_port(network, port) for id, port in ports.items()}
            fresh |= {it.id: _files_of_peer(network, it) for it in wanted.peers if it.ips}
            released = await self._released(fresh)
            await self._write(fresh, frozenset())
            await self._know(wanted.ports, forget=True)
            await self._run(dnsmasq.configuration(network, foot.inside, index, str(self._folder)), released)
            await self._advertise(wanted)
        except (CannotWire, CannotStart) as error:
            return f"DHCP: {error}"
        unserved = [subnet.cidr for subnet in dnsmasq.unserved(network)]
        return f"DHCP: the network's DHCP port has no address in {', '.join(unserved)}" if unserved else ""

    # dnsmasq

    def _daemon(self, digest: str) -> Daemon:
        pid_file = f"{self._folder}/pid"
        command = (PROGRAM, f"--conf-file={self._folder}/dnsmasq.{digest}.conf", f"--pid-file={pid_file}")
        return Daemon(command=command, namespace=self.namespace, pid_file=pid_file, forks=True)

    async def _run(self, text: str, released: frozenset[str]) -> None:
        daemon = self._daemon(dnsmasq.digest(text))
        path = self._folder / f"dnsmasq.{dnsmasq.digest(text)}.conf"
        if not path.exists():
            for stale in self._folder.glob("dnsmasq.*.conf"):
                stale.unlink()
            _put(path, text)
        if released:
            await self._restart(daemon, released)
        else:
            await daemons.ensure(daemon)

    async def _restart(self, daemon: Daemon, released: frozenset[str]) -> None:
        """Without the leases of addresses that were taken back: dnsmasq forgets them in no other way."""
        await daemons.stop(daemon)
        path = self._folder / "leases"
        with suppress(FileNotFoundError):
            lines = [line for line in path.read_text().splitlines(keepends=True) if not _is_of(line, released)]
            _put(path, "".join(lines))
        await daemons.ensure(daemon)

    async def _released(self, fresh: Mapping[str, ServerFiles]) -> frozenset[str]:
        """Leased addresses that are not whose they were."""
        before, now = _owners(self._files or {}), _owners(fresh)
        gone = {ip for ip, mac in before.items() if now.get(ip) != mac}
        if not gone:
            return frozenset()
        return frozenset(gone & await asyncio.to_thread(_leased, self._folder))

    # Files

    async def _write(self, fresh: dict[str, ServerFiles], released: frozenset[str]) -> None:
        before = self._files or {}
        changed = {id: files for id, files in fresh.items() if before.get(id) != files}
        gone = before.keys() - fresh.keys()
        if not changed and not gone:
            return
        await asyncio.to_thread(_write_files, self._folder, before, changed, gone)
        self._files = fresh
        if released:
            current = next(self._folder.glob("dnsmasq.*.conf"), None)
            if current:
                await self._restart(self._daemon(current.name.split(".")[1]), released)
        elif any(_said_otherwise(before.get(id), fresh.get(id)) for id in {*changed, *gone}):
            # dnsmasq takes new files in by itself, but unlearns leases and options only when it is told to.
            daemons.tell(self._daemon(""), signal.SIGHUP)

    # Neighbours

    async def _know(self, ports: Sequence[WiredPort], *, forget: bool) -> None:
        """Nail the addresses of ports here to their MACs. `forget`: these are all there are."""
        wanted = {ip: mac for port in ports for ip, mac in dnsmasq.neighbours(port).items()}
        if not forget and all(self._neighbours.get(ip) == mac for ip, mac in wanted.items()):
            return
        if self._attachment:
            await asyncio.to_thread(set_neighbours, self.namespace, self._attachment.inside, wanted, no_others=forget)
            self._neighbours = wanted if forget else self._neighbours | wanted

    # Advertisements

    async def _advertise(self, wanted: Wanted) -> None:
        """Only of subnets whose gateway is not there to speak for itself."""
        network = wanted.network
        silent = [it for it in network.subnets if it.gateway_ip not in wanted.router_ips]
        said = advertising.advertisement(silent, network.mtu, routes=False)
        if self._attachment:
            await self._advertiser.say(self.namespace, self._attachment.inside, network.dhcp_mac, said)


def _files_of(network: WiredNetwork, port: WiredPort | None, peer: Peer | None) -> ServerFiles | None:
    if port:
        return dnsmasq.files_of_port(network, port)
    return _files_of_peer(network, peer) if peer and peer.ips else None


def _files_of_peer(network: WiredNetwork, peer: Peer) -> ServerFiles:
    return ServerFiles(names=dnsmasq.names(network, peer.hostname, peer.ips))


def _said_otherwise(before: ServerFiles | None, now: ServerFiles | None) -> bool:
    """Something that was said of leases or options no longer holds."""
    was, new = before or ServerFiles(), now or ServerFiles()
    return any(old and old != fresh for old, fresh in ((was.hosts, new.hosts), (was.options, new.options)))


def _owners(files: Mapping[str, ServerFiles]) -> dict[str, str]:
    """Leased address → the MAC it is for."""
    found: dict[str, str] = {}
    for it in files.values():
        for line in it.hosts.splitlines():
            mac, *rest = line.split(",")
            found |= {part.strip("[]"): mac for part in rest if "." in part or part.startswith("[")}
    return found


def _leased(folder: Path) -> set[str]:
    try:
        lines = (folder / "leases").read_text().splitlines()
    except OSError:
        return set()
    return {parts[2] for line in lines if len(parts := line.split()) >= 4}


def _is_of(line: str, ips: frozenset[str]) -> bool:
    parts = line.split()
    return len(parts) >= 4 and parts[2] in ips


def _read(folder: Path) -> dict[str, ServerFiles]:
    """As another agent left it."""
    found: dict[str, dict[str, str]] = {}
    for kind in _KINDS:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for path in (folder / kind).iterdir():
            if path.name.startswith("."):
                path.unlink()
            else:
                found.setdefault(path.name, {})[kind] = path.read_text()
    return {id: ServerFiles(**texts) for id, texts in found.items()}


def _still_there(folder: Path, files: Mapping[str, ServerFiles]) -> dict[str, ServerFiles]:
    """What is known, without what somebody deleted; what somebody put there is taken away."""
    names: dict[str, set[str]] = {}
    for kind in _KINDS:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        names[kind] = {path.name for path in (folder / kind).iterdir()}
        for name in names[kind] - files.keys():
            (folder / kind / name).unlink(missing_ok=True)
    return {
        id: ServerFiles(**{kind: getattr(it, kind) if id in names[kind] else "" for kind in _KINDS})
        for id, it in files.items()
    }


def _write_files(
    folder: Path, before: Mapping[str, ServerFiles], changed: Mapping[str, ServerFiles], gone: set[str]
) -> None:
    for id in {*changed, *gone}:
        was, now = before.get(id, ServerFiles()), changed.get(id, ServerFiles())
        # Options before the lease that comes with them.
        for kind in ("options", "hosts", "names"):
            text = getattr(now, kind)
            if text and text != getattr(was, kind):
                _put(folder / kind / id, text)
            elif not text and getattr(was, kind):
                (folder / kind / id).unlink(missing_ok=True)


def _put(path: Path, text: str) -> None:
    """Whole or not at all; dnsmasq overlooks names that begin with a dot."""
    fresh = path.with_name(f".{path.name}")
    fresh.write_text(text)
    fresh.replace(path)


def _make_namespace(name: str) -> None:
    if namespace.create(name):
        with namespace.enter(name):
            for scope in ("default", "all"):
                namespace.sysctl(f"net/ipv6/conf/{scope}/accept_ra", 0)
                namespace.sysctl(f"net/ipv6/conf/{scope}/accept_dad", 0)
                namespace.sysctl(f"net/ipv6/conf/{scope}/forwarding", 0)
            namespace.sysctl("net/ipv4/ip_forward", 0)
