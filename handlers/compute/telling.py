"""What hosts are told of servers: one message per host and batch, and everything a host should hold when it asks.

Whatever is told may be lost: the sweep says it again, and a host that was away asks for its manifest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from bus import clock
from bus.cloud import Cloud
from bus.documents import AnyOf, Condition, Where
from handlers.compute.desired import absent, domain, elsewhere, image_wanted, on_the_way
from handlers.compute.moving import moving
from handlers.compute.passage import passages
from handlers.compute.seed import seeds_of
from handlers.image import ticket
from schema.compute.domain import Desired, Domain, ImageRef, ImageTicket, Passage, Snapshot, encode
from schema.compute.host import HOST, Host
from schema.compute.migration import MIGRATION, OVER
from schema.compute.move import Phase
from schema.compute.question import Unable
from schema.compute.server import SERVER
from schema.compute.server_parts import ServerImage
from schema.compute.server_state import Server
from schema.compute.snapshot import SNAPSHOTTING
from schema.compute.task import Task
from schema.image.image import ACTIVE, IMAGE, Image

TOLD_AT_ONCE = 200
"""Domains in one message, at most; a manifest is always one message."""
TICKET_SECONDS = ticket.LIFETIME_SECONDS / 2
"""How long a ticket is handed out again."""

_BUILDING = frozenset({Task.SPAWNING, Task.REBUILD_SPAWNING, Task.REBUILD_DISK})
"""Its host is to make it from its image."""
Ways = Mapping[str, Passage | Unable | None]
"""By server id."""


class Unbuildable(msgspec.Struct, frozen=True):
    """A server that no host can be told to build, and why."""

    server: Server
    reason: str


class Telling:
    """One process's voice to the hosts. Make it before the mirrors start."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._hosts = cloud.mirror(HOST)
        self._tickets: dict[str, tuple[float, ImageTicket]] = {}

    def host(self, name: str | None) -> Host | None:
        """The host of that name, if there is one."""
        document = self._hosts.get(name) if name else None
        return document.state if document else None

    def alive(self, name: str | None) -> bool:
        """Whether that host may be told anything."""
        host = self.host(name)
        return host is not None and host.alive

    async def tell(self, servers: Sequence[Server]) -> list[Unbuildable]:
        """Tell the hosts of these servers what they should hold; those that cannot be built are given back."""
        position = await self._position(servers)
        ways = await passages(self._cloud, [it for it in servers if it.move and self.alive(it.host)])
        domains, unbuildable = await self._domains(servers, ways)
        by_host: dict[str, list[Domain]] = defaultdict(list)
        for server in servers:
            if server.host and server.id in domains:
                by_host[server.host].append(domains[server.id])
        for host, second in await self._elsewhere(servers, ways):
            by_host[host].append(second)
        for host, its in by_host.items():
            for start in range(0, len(its), TOLD_AT_ONCE):
                await self._say(host, its[start : start + TOLD_AT_ONCE], position)
        return unbuildable

    async def tell_absent(self, host: str, servers: Sequence[Server]) -> None:
        """Tell a host that these servers are not (any longer) its own."""
        for start in range(0, len(servers), TOLD_AT_ONCE):
            await self._say(host, [absent(server) for server in servers[start : start + TOLD_AT_ONCE]], 0)

    async def tell_everything(self, host: str) -> None:
        """The manifest: whatever else that host holds of Cumulog's goes."""
        position = await self._cloud.log.head()
        servers, moved = await self._held_by(host)
        ways = await passages(self._cloud, [it for it in [*servers, *moved] if it.move])
        domains, _ = await self._domains(servers, ways)
        others = [second for where, second in await self._elsewhere(moved, ways) if where == host]
        await self._say(host, [*domains.values(), *others], position, full=True)

    async def _held_by(self, host: str) -> tuple[list[Server], list[Server]]:
        """Its own servers, and those that are on their way from it or to it.

        They are looked for one after the other, and move meanwhile: one that was in neither place, as it changed it in
        between, would be removed from a host that has its only disk. So its own are looked for before and after.
        """
        find, own = self._cloud.documents.find, [Where("parent_id", "=", host)]
        before = await find(SERVER, where=own, sort=(), limit=None)
        there = [AnyOf([[Where("source_host", "=", host)], [Where("dest_host", "=", host)]])]
        open_ones: list[Condition] = [*there, Where("status", "not in", sorted(OVER))]
        moves = await find(MIGRATION, where=open_ones, sort=(), limit=None)
        guests = await self._cloud.executor.load([SERVER.stream(it.state.server_id) for it in moves]) if moves else {}
        after = await find(SERVER, where=own, sort=(), limit=None)
        newest = {it.stream: it for it in sorted((*before, *guests.values(), *after), key=lambda it: it.version)}
        servers = [it.state for it in newest.values() if it.state.living]
        return [it for it in servers if it.host == host], [it for it in servers if it.move]

    async def _say(self, name: str, domains: Sequence[Domain], position: int, *, full: bool = False) -> None:
        host = self.host(name)
        if host is None or not host.alive:
            return
        desired = Desired(epoch=host.epoch, domains=tuple(domains), full=full, position=position)
        await self._cloud.broker.tell(name, encode(desired))

    async def _position(self, servers: Sequence[Server]) -> int:
        """Where the log is, if something is to be built: a manifest read before that must not remove it."""
        building = any(server.task in _BUILDING or server.move is not None for server in servers)
        return await self._cloud.log.head() if building else 0

    async def _elsewhere(self, servers: Sequence[Server], ways: Ways) -> list[tuple[str, Domain]]:
        """What second hosts are to hold of servers on their way."""
        awaited = [it for it in servers if it.move and it.move.live and moving(it)]
        seeds = await seeds_of(self._cloud, awaited) if awaited else {}
        found = []
        for server in servers:
            way = _opened(ways, server)
            if server.move and server.move.phase is Phase.PREPARING and way is None:
                continue
            if second := elsewhere(server, seeds.get(server.id), way.disks if way else None):
                found.append(second)
        return found

    async def _domains(self, servers: Sequence[Server], ways: Ways) -> tuple[dict[str, Domain], list[Unbuildable]]:
        """Domains by server id, with what it takes to build those that are not built yet. One query for all."""
        fresh = [server for server in servers if server.task in _BUILDING]
        rescued = [server for server in servers if server.task is Task.RESCUING]
        images = await self._images([*fresh, *rescued])
        seeds = await seeds_of(self._cloud, fresh)
        snapshots = await self._snapshots(servers)
        domains: dict[str, Domain] = {}
        unbuildable: list[Unbuildable] = []
        for server in servers:
            if server.task is Task.RESCUING and server.rescue_image is not None:
                if server.rescue_image.id in images:
                    domains[server.id] = domain(server, rescue=images[server.rescue_image.id])
                else:
                    unbuildable.append(Unbuildable(server, f"the image {server.rescue_image.id} is not there any more"))
            elif server.move is not None and moving(server) and server.task not in _BUILDING:
                if isinstance(refused := ways.get(server.id), Unable):
                    unbuildable.append(Unbuildable(server, refused.fault))
                domains[server.id] = on_the_way(server, server.move, _opened(ways, server))
            elif server.task not in _BUILDING:
                domains[server.id] = domain(server, snapshot=snapshots.get(server.id))
            elif (wanted := _fetched(server)) is not None and wanted.id not in images:
                unbuildable.append(Unbuildable(server, f"its image {wanted.id} is not there any more"))
            else:
                image = images[wanted.id] if wanted else None
                domains[server.id] = domain(server, image, seeds[server.id])
        return domains, unbuildable

    async def _snapshots(self, servers: Sequence[Server]) -> dict[str, Snapshot]:
        """Where the copies of their disks are to be sent, by server id."""
        return {
            server.id: Snapshot(
                image_id=server.snapshot.image_id,
                url=ticket.url(self._cloud.settings, server.snapshot.image_id),
                ticket=ImageTicket(token=await self._sign(server.snapshot.image_id, ticket.WRITING)),
            )
            for server in servers
            if server.snapshot is not None and server.task in SNAPSHOTTING
        }

    async def _images(self, servers: Sequence[Server]) -> dict[str, ImageRef]:
        ids = list(dict.fromkeys(image.id for server in servers if (image := _fetched(server))))
        documents = await self._cloud.executor.load([IMAGE.stream(id) for id in ids]) if ids else {}
        return {
            document.id: image_ref(self._cloud, document.state, await self._ticket(document.id))
            for document in documents.values()
            if document.state.living and document.state.status == ACTIVE
        }

    async def _sign(self, image_id: str, audience: str) -> str:
        return await ticket.sign(self._cloud, image_id, audience=audience)

    async def _ticket(self, image_id: str) -> ImageTicket:
        known = self._tickets.get(image_id)
        if known is not None and clock.monotonic() < known[0]:
            return known[1]
        fresh = ImageTicket(token=await self._sign(image_id, ticket.READING))
        self._tickets = {id: it for id, it in self._tickets.items() if clock.monotonic() < it[0]}
        self._tickets[image_id] = (clock.monotonic() + TICKET_SECONDS, fresh)
        return fresh


def image_ref(cloud: Cloud, image: Image, leave: ImageTicket) -> ImageRef:
    """Where a host gets it, and how it knows that it has got it."""
    return ImageRef(
        id=image.id,
        url=ticket.url(cloud.settings, image.id),
        checksum=image.hash_value if image.hash_algorithm == "sha512" else "",
        disk_format=image.disk_format or "qcow2",
        size_bytes=image.size,
        ticket=leave,
    )


def _fetched(server: Server) -> ServerImage | None:
    """The image its host needs now."""
    if server.shelf is not None:
        return ServerImage(id=server.shelf.image_id)
    return server.rescue_image if server.task is Task.RESCUING else image_wanted(server)


def _opened(ways: Ways, server: Server) -> Passage | None:
    way = ways.get(server.id)
    return way if isinstance(way, Passage) else None
