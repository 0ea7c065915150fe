"""What hosts are told of servers: one message per host and batch, and everything a host should hold when it asks.

Whatever is told may be lost: the sweep says it again, and a host that was away asks for its manifest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from bus import clock
from bus.cloud import Cloud
from bus.documents import AnyOf, Condition, Where
from handlers.compute.move import second_host
from handlers.compute.moving import moving
from handlers.compute.network_data import devices, network_data, subnets_of
from handlers.compute.passage import passages
from handlers.image import ticket
from schema.compute.domain import Desired, Domain, ImageRef, ImageTicket, Nic, Passage, Reboots, Seed, Snapshot, encode
from schema.compute.host import HOST, Host
from schema.compute.migration import MIGRATION, OVER
from schema.compute.move import Move, Phase
from schema.compute.question import Unable
from schema.compute.server import SERVER
from schema.compute.server_parts import Boot, ServerImage
from schema.compute.server_state import Server
from schema.compute.snapshot import SNAPSHOTTING
from schema.compute.task import WAYS, Power, PowerState, Task, VmState
from schema.image.image import ACTIVE, IMAGE, Image
from schema.network.subnet import Subnet
from schema.network.wiring import tap_name

TOLD_AT_ONCE = 200
"""Domains in one message, at most; a manifest is always one message."""
TICKET_SECONDS = ticket.LIFETIME_SECONDS / 2
"""How long a ticket is handed out again."""

_BUILDING = frozenset({Task.SPAWNING, Task.REBUILD_SPAWNING, Task.REBUILD_DISK})
"""Its host is to make it from its image."""
Ways = Mapping[str, Passage | Unable | None]
"""By server id."""

_POWER_BY_VM_STATE: dict[VmState, Power] = {
    VmState.BUILDING: "running",
    VmState.ACTIVE: "running",
    VmState.STOPPED: "stopped",
    VmState.PAUSED: "paused",
    VmState.SUSPENDED: "suspended",
    VmState.RESCUED: "running",
    VmState.SHELVED: "stopped",
    VmState.SHELVED_OFFLOADED: "absent",
    VmState.SOFT_DELETED: "stopped",
    VmState.DELETED: "absent",
}
_POWER_AS_IT_IS: dict[PowerState, Power] = {
    PowerState.RUNNING: "running",
    PowerState.PAUSED: "paused",
    PowerState.SUSPENDED: "suspended",
}


def power(server: Server) -> Power:
    """What its guest should be doing. A server in ERROR is left as it was found."""
    if moving(server) and server.move is not None and (guest := _power_on_the_way(server.move)):
        return guest
    if server.task is Task.REBUILD_DISK:
        return "stopped" if server.vm_state is VmState.STOPPED else "running"
    if server.task is not None and (guest := WAYS[server.task].guest):
        return guest
    if server.vm_state in {VmState.ERROR, VmState.RESIZED}:
        return _POWER_AS_IT_IS.get(server.power_state, "stopped")
    return _POWER_BY_VM_STATE[server.vm_state]


def _power_on_the_way(move: Move) -> Power | None:
    match move.phase:
        case Phase.ARRIVING:
            return "running" if move.running else "stopped"
        case Phase.RETURNING:
            return "stopped" if move.in_place else "absent"
        case Phase.LEAVING if move.cold:
            return "stopped"
    return None


def domain(
    server: Server,
    image: ImageRef | None = None,
    seed: Seed | None = None,
    rescue: ImageRef | None = None,
    snapshot: Snapshot | None = None,
) -> Domain:
    """What its host should hold of a server.

    Image and seed are for one that is to be built, `rescue` for one that is to boot from another disk; without it, one
    that is rescued is only said to stay so.
    """
    wanted = image_wanted(server)
    properties = wanted.properties if wanted else {}
    flavor, resizes = server.flavor, server.resizes
    move = server.move if server.move and server.move.cold and server.move.departed else None
    returning = move is not None and move.phase is Phase.RETURNING
    if move is not None and move.in_place and returning:
        flavor, resizes = move.old_flavor or flavor, resizes - 1
    return Domain(
        server_id=server.id,
        name=instance_name(server),
        generation=server.generation,
        power=power(server),
        vcpus=flavor.vcpus,
        ram_mb=flavor.ram_mb,
        disk_gb=flavor.disk_gb,
        ephemeral_gb=flavor.ephemeral_gb,
        swap_mb=flavor.swap_mb,
        image=image,
        built=server.built,
        config_drive=server.order.config_drive,
        seed=seed,
        reboots=Reboots(soft=server.soft_reboots, hard=server.hard_reboots),
        properties=_heard(server, properties) | _hardware(flavor.extra_specs),
        topology=server.topology,
        remade=server.rebuilds if server.task is Task.REBUILD_DISK else server.rebuilt,
        resized=resizes,
        kept=move is not None and not returning,
        rescue=rescue or _staying_rescued(server),
        snapshot=snapshot,
        keep_ephemeral=server.rebuild is not None and server.rebuild.keep_ephemeral,
        networks=tuple(
            Nic(port_id=nic.port_id, mac_address=nic.mac_address, tap=tap_name(nic.port_id), mtu=nic.mtu)
            for nic in server.nics
            if nic.standing != "unplugging"
        ),
    )


def elsewhere(
    server: Server, seed: Seed | None = None, disks: Mapping[str, int] | None = None
) -> tuple[str, Domain] | None:
    """A second host that is to hold something of a server on its way, and what.

    `seed`, `disks`: for one that is awaited there; the latter by name, in bytes.
    """
    host, move = second_host(server), server.move
    if not host or move is None:
        return None
    if move.live:
        return host, replace(domain(server, seed=seed), awaited=dict(disks or {}), topology=move.target_topology)
    before = replace(server, flavor=move.old_flavor or server.flavor, topology=move.source_topology, move=None)
    return host, replace(domain(before), power="stopped")


def _staying_rescued(server: Server) -> ImageRef | None:
    """For a host that has the copy already, whatever became of the image."""
    if server.rescue_image is None or server.task is Task.UNRESCUING:
        return None
    return ImageRef(id=server.rescue_image.id, url="")


def _heard(server: Server, properties: Mapping[str, str]) -> dict[str, str]:
    """What its image says; as what disk a rescue image stands beside its own is for that image to say."""
    own = {key: value for key, value in properties.items() if key not in _RESCUE_DISK}
    if server.rescue_image is None or server.task is Task.UNRESCUING:
        return own
    return own | {key: value for key, value in server.rescue_image.properties.items() if key in _RESCUE_DISK}


_RESCUE_DISK = frozenset({"hw_rescue_bus", "hw_rescue_device"})


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


def image_wanted(server: Server) -> ServerImage | None:
    """The image its root disk is of, or is to be made of now."""
    return server.rebuild.image if server.rebuild else server.image


def absent(server: Server) -> Domain:
    """That a host should hold nothing of it (any more)."""
    return Domain(server_id=server.id, name=instance_name(server), generation=server.generation, power="absent")


def instance_name(server: Server) -> str:
    """The guest's name on its host."""
    return f"instance-{server.id.partition('-')[0]}"


def _fetched(server: Server) -> ServerImage | None:
    """The image its host needs now."""
    if server.shelf is not None:
        return ServerImage(id=server.shelf.image_id)
    return server.rescue_image if server.task is Task.RESCUING else image_wanted(server)


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
        for host, domain in await self._elsewhere(servers, ways):
            by_host[host].append(domain)
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
        documents = await self._cloud.documents.find(SERVER, where=[Where("parent_id", "=", host)], sort=(), limit=None)
        servers = [document.state for document in documents]
        there = [AnyOf([[Where("source_host", "=", host)], [Where("dest_host", "=", host)]])]
        open_ones: list[Condition] = [*there, Where("status", "not in", sorted(OVER))]
        moves = await self._cloud.documents.find(MIGRATION, where=open_ones, sort=(), limit=None)
        guests = await self._cloud.executor.load([SERVER.stream(it.state.server_id) for it in moves]) if moves else {}
        moved = [it.state for it in guests.values() if it.state.living and it.state.move]
        ways = await passages(self._cloud, [it for it in [*servers, *moved] if it.move])
        domains, _ = await self._domains(servers, ways)
        others = [domain for where, domain in await self._elsewhere(moved, ways) if where == host]
        await self._say(host, [*domains.values(), *others], position, full=True)

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
                domains[server.id] = _on_the_way(server, server.move, _opened(ways, server))
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


def _opened(ways: Ways, server: Server) -> Passage | None:
    way = ways.get(server.id)
    return way if isinstance(way, Passage) else None


def _on_the_way(server: Server, move: Move, way: Passage | None) -> Domain:
    """What its host should hold of it. A way without a secret is one that is told later."""
    if move.cold and move.phase is Phase.ARRIVING and not move.in_place:
        return replace(domain(server), copy_from=way or Passage(host=move.source_host))
    if move.live and move.phase is Phase.LEAVING and not move.cancelled:
        way = way or Passage(host=move.target_host)
        return replace(domain(server), send_to=way, topology=move.target_topology)
    return domain(server)


async def seeds_of(cloud: Cloud, servers: Sequence[Server]) -> dict[str, Seed]:
    """What guests may learn of themselves, by server id: by config drive or from the metadata service."""
    given = await boots(cloud, servers)
    subnets = await subnets_of(cloud, servers)
    return {server.id: seed(server, given.get(server.order.secret_id, Boot()), subnets) for server in servers}


async def boots(cloud: Cloud, servers: Sequence[Server]) -> Mapping[str, Boot]:
    """What guests are given at their first boot, by `order.secret_id`; those that were given nothing are left out."""
    secret_ids = [server.order.secret_id for server in servers if server.order.secret_id]
    opened = await cloud.vault.open_many(secret_ids) if secret_ids else {}
    return {id: _decode_boot(plain) for id, plain in opened.items()}


def seed(server: Server, boot: Boot, subnets: Mapping[str, Subnet] | None = None) -> Seed:
    """What one guest may learn of itself. `subnets`: those its addresses are of, by id."""
    fours = [address for nic in server.nics for address in nic.addresses if address.version == 4]
    return Seed(
        name=server.name,
        hostname=server.hostname,
        metadata=server.metadata,
        user_data=boot.user_data,
        public_keys=boot.public_keys,
        admin_password=boot.admin_password,
        network_data=network_data(server.nics, subnets or {}),
        devices=devices(server.nics),
        project_id=server.project_id,
        availability_zone=server.zone,
        instance_type=server.flavor.name,
        image_id=image.id if (image := image_wanted(server)) else "",
        reservation_id=server.order.reservation_id,
        launch_index=server.order.launch_index,
        security_groups=tuple(sorted({name for nic in server.nics for name in nic.security_groups})),
        local_ipv4=fours[0].ip if fours else "",
        public_ipv4=next((outside for address in fours for outside in address.floating), ""),
    )


def _hardware(extra_specs: Mapping[str, Any]) -> dict[str, str]:
    return {key: value for key, value in extra_specs.items() if key.startswith(_HEARD)}


_HEARD = ("hw:", "hw_rng:", "hw_video:", "hide_hypervisor_id", "os:", "quota:")
"""Extra specs that a hypervisor heeds."""

_decode_boot = msgspec.json.Decoder(Boot).decode
