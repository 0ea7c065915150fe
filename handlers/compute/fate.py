"""What is decided about a server, as wishes: with it goes everything that shares its fate, in one append.

placed ─▶ the claim on its host, the binding of its ports     failed there ─▶ the claim is released, ports unbound
ended ─▶ claim, quota, membership of its group, and the ports that were made for it
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from bus.cloud import Cloud
from bus.execute import Context, Following, Wish
from bus.mirror import Mirror
from handlers.compute.late_addresses import late_addresses
from handlers.compute.moving import abandoned, flavor_wanted, moving, moving_request, placing_move
from handlers.compute.port_wants import NOTHING, PortWants
from handlers.compute.ports import Known, known_of, port_wishes
from handlers.compute.quota import counting
from handlers.compute.server import SERVERS, decide
from handlers.compute.server_group import SERVER_GROUPS
from handlers.compute.shelving import unshelving_request
from handlers.compute.snapshot_image import image_wishes
from handlers.network.addressing import Picks
from handlers.placement.answer import NoValidHost, Placement, told
from handlers.placement.claims import claim, released
from handlers.placement.demand import Group, Request, demanded
from handlers.placement.hardware import Hardware
from handlers.placement.wishes import wanted
from schema.compute.server_command import EndServer, FailBuild, PlaceServer, RefusePlacement, SettleNics
from schema.compute.server_group import LeaveServerGroup, PlaceGroupMember, ServerGroup
from schema.compute.server_parts import Fault, ServerFlavor, ServerImage
from schema.compute.server_state import Server
from schema.event import Command
from schema.refusal import Invalid, Refused

HINTS = frozenset(
    {"group", "same_host", "different_host", "build_near_host_ip", "cidr", "query", "target_cell", "different_cell"}
)
"""Those Nova knows. Of cells there is one, so the last two change nothing."""
Wished = tuple[Server, tuple[Wish, ...]]
"""Wishes to be granted together, and the server they are about."""


def request(
    server: Server,
    group: ServerGroup | None = None,
    cut_off: frozenset[str] = frozenset(),
    ports: PortWants = NOTHING,
) -> Request:
    """What the scheduler is asked. `cut_off`: hosts that cannot wire ports."""
    flavor, hints = flavor_wanted(server), server.order.scheduler_hints
    disk_gb = flavor.disk_gb + flavor.ephemeral_gb + -(-flavor.swap_mb // 1024)
    asked = Request(
        consumer_id=server.id,
        resources=demanded(flavor.vcpus, flavor.ram_mb, disk_gb, flavor.extra_specs),
        project_id=server.project_id,
        zone=server.order.zone or "",
        host=server.order.host or "",
        forced=server.order.host is not None,
        tried=frozenset(server.failed_hosts),
        cut_off=cut_off if server.nics else frozenset(),
        vnic_types=ports.vnic_types,
        reach=ports.reach,
        flavor=flavor.name,
        extra_specs=flavor.extra_specs,
        hardware=hardware_of(flavor, server.image),
        image_id=server.image.id if server.image else "",
        image_format=server.image.disk_format if server.image else "",
        image_properties=server.image.properties if server.image else {},
        same_host=tuple(hints.get("same_host", ())),
        different_host=tuple(hints.get("different_host", ())),
        group=_wish_of(group) if group else None,
        near_ip=_one(hints, "build_near_host_ip"),
        near_cidr=_one(hints, "cidr"),
        query=_one(hints, "query"),
        hints={name: said for name, said in hints.items() if name not in HINTS},
    )
    return unshelving_request(server, moving_request(server, asked))


def hardware_of(flavor: ServerFlavor, image: ServerImage | None) -> Hardware | None:
    """What it wants of a host for itself. What contradicts itself is refused at the door; older ones want nothing."""
    try:
        return wanted(flavor.vcpus, flavor.ram_mb, flavor.extra_specs, image.properties if image else {})
    except Invalid:
        return None


def cut_off(hosts: Mirror, network_hosts: Mirror) -> frozenset[str]:
    """Hosts whose network agent is away, as long as there are others: where none is, one may come back in time."""
    wiring = {document.id for document in network_hosts.values() if document.state.alive}
    return frozenset({it.id for it in hosts.values()} - wiring) if wiring else frozenset()


def placing(server: Server, answer: Placement | NoValidHost) -> tuple[Wish, ...]:
    """The scheduler's answer as wishes: the server's, and the claim that goes with it."""
    if moving(server):
        return placing_move(server, answer)
    if isinstance(answer, NoValidHost):
        details = ", ".join(f"{name}: {hosts}" for name, hosts in answer.rejected.items())
        helps = told(answer.decision.remedy)
        tried = f" Tried was {', '.join(server.failed_hosts)}: {server.fault.message}" if server.fault else ""
        fault = Fault(
            message=f"{answer.reason}{tried}",
            details=f"{answer.hosts} hosts; turned down by {details}. {helps}".rstrip() if details else helps,
        )
        return (Wish(SERVERS, server.id, RefusePlacement(fault=fault, decision=answer.decision)),)
    placed = PlaceServer(
        host=answer.host,
        provider_id=answer.provider_id,
        zone=answer.zone,
        topology=answer.topology,
        decision=answer.decision,
    )
    claimed = {answer.provider_id: answer.resources}
    units = {answer.provider_id: answer.units} if answer.units else None
    return (
        Wish(SERVERS, server.id, placed),
        *claim(server.id, claimed, server.project_id, server.order.user_id, units=units),
        *_in_group(server, PlaceGroupMember(server_id=server.id, host=answer.host)),
    )


def addressless(server: Server, network_id: str) -> tuple[Wish, ...]:
    """No host will do, as no segment of a network has an address left."""
    fault = Fault(message=f"No fixed IP addresses available for network: {network_id}")
    return (Wish(SERVERS, server.id, RefusePlacement(fault=fault)),)


def failing(server: Server, fault: Fault) -> tuple[Wish, ...]:
    """A build that failed: with it goes the claim on that host."""
    failed = FailBuild(host=server.host or "", fault=fault)
    return (
        Wish(SERVERS, server.id, failed),
        *released(server.id, _providers(server)),
        *_in_group(server, PlaceGroupMember(server_id=server.id)),
    )


def ending(server: Server) -> tuple[Wish, ...]:
    """The end of a server: with it go claim and membership."""
    return (
        Wish(SERVERS, server.id, EndServer()),
        *released(server.id, _providers(server)),
        *_in_group(server, LeaveServerGroup(server_id=server.id)),
        *abandoned(server),
    )


def settling(server: Server, generation: int, fault: str | None, *, gone: bool = False) -> tuple[Wish, ...]:
    """The host has plugged its cards in and out, or could not; `gone`: it holds nothing of the server at all."""
    settle = SettleNics(generation=generation, fault=fault, gone=gone)
    return (Wish(SERVERS, server.id, settle),) if decide(server, settle) else ()


async def execute_all(cloud: Cloud, wishes: Sequence[Wished]) -> list[Refused | None]:
    """Each in the name of the request that began the server's task; why it was refused, where it was.

    What follows for the quota, and for the server's ports and images, is wished along with it.
    Raises what an unreachable log raises: the whole is done again then.
    """
    if not wishes:
        return []
    pairs = [(server, command) for server, some in wishes for command in _commands(some)]
    images = await image_wishes(cloud, pairs)
    picks = Picks(cloud)
    try:
        known = await known_of(cloud, pairs)
        addresses, refused = await late_addresses(cloud, picks, pairs, known)
        known = replace(known, addresses=addresses)

        async def submit(server: Server, some: Sequence[Wish]) -> None:
            if server.id in refused:
                raise refused[server.id]
            more = (*_counted(server, some), *_with_ports(server, some, known), *images.get(server.id, ()))
            await cloud.executor.submit((*some, *more), Context(request_id=server.request_id))

        outcomes = await asyncio.gather(*(submit(*it) for it in wishes), return_exceptions=True)
    finally:
        picks.release()
    refusals: list[Refused | None] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, Refused):
            raise outcome
        refusals.append(outcome if isinstance(outcome, Refused) else None)
    return refusals


def _counted(server: Server, wishes: Sequence[Wish]) -> tuple[Wish, ...]:
    return (counting(server.id, server.project_id),) if _commands(wishes) else ()


def _with_ports(server: Server, wishes: Sequence[Wish], known: Known) -> list[Wish]:
    return [more for command in _commands(wishes) for more in port_wishes(server, command, known)]


def _commands(wishes: Sequence[Wish]) -> list[Command]:
    """Those about servers."""
    of_servers = (wish.command for wish in wishes if wish.aggregate is SERVERS)
    return [command for command in of_servers if not isinstance(command, Following)]


def _in_group(server: Server, command: Command) -> tuple[Wish, ...]:
    return (Wish(SERVER_GROUPS, server.order.group_id, command),) if server.order.group_id else ()


def _wish_of(group: ServerGroup) -> Group:
    return Group(id=group.id, policy=group.policy, members=tuple(group.members), max_per_host=group.max_per_host)


def _one(hints: Mapping[str, Sequence[str]], name: str) -> str:
    return next(iter(hints.get(name, ())), "")


def _providers(server: Server) -> tuple[str, ...]:
    """Those that its own consumer may hold something of."""
    target = server.move.target_provider if server.move else ""
    return tuple(dict.fromkeys(id for id in (server.provider_id, target) if id))
