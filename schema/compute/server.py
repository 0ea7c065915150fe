"""A server: a guest that somebody ordered, from the order to its end.

                     ServerPlaced        ServerStarted
    BUILD scheduling ────────────▶ spawning ─────────▶ ACTIVE ◀──────▶ SHUTOFF, PAUSED, SUSPENDED
        │   ▲    BuildFailed          │                   *Requested sets a task, the host reports how it went
        │   └─────────────────────────┤
        └──▶ ERROR ◀── ServerFaulted ─┘         any ──DeletionRequested──▶ deleting ──ServerDeleted──▶ gone

Two words say where a server is, both Nova's own: `vm_state`, the place it rests at, and `task`, the way it is on. Every
task ends: by what the host reports, or at its deadline. `generation` counts the wishes the host must be told of.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Literal

from msgspec import UNSET, field
from msgspec.structs import replace

from schema.compute.errand import CrashDumpTriggered, GuestPasswordCleared, GuestPasswordPosted, ServerPasswordChanged
from schema.compute.migration import MigrationType
from schema.compute.move import (
    Move,
    MoveCancelRequested,
    MoveConfirmed,
    MoveDeparted,
    MoveEvent,
    MoveFailed,
    MoveFinished,
    MovePlaced,
    MovePrepared,
    MoveRequested,
    MoveReturned,
    MoveReturnRequested,
    Phase,
)
from schema.compute.nic import (
    NicAttached,
    NicChanged,
    NicDetached,
    NicDetachFailed,
    NicDetachRequested,
    NicEvent,
    NicSettled,
    ServerNic,
    concerns_host,
    nics_after,
)
from schema.compute.server_command import ChangeServerDetails
from schema.compute.server_event import (
    ActionFailed,
    BuildFailed,
    DeletionRequested,
    PauseRequested,
    PowerObserved,
    RebootRequested,
    RebuildRequested,
    Requested,
    RescueRequested,
    ResumeRequested,
    ServerDeleted,
    ServerDetailsChanged,
    ServerEvent,
    ServerFaulted,
    ServerLocked,
    ServerMetadataSet,
    ServerPaused,
    ServerPlaced,
    ServerRebooted,
    ServerRebuilt,
    ServerRequested,
    ServerRescued,
    ServerResumed,
    ServerStarted,
    ServerStateReset,
    ServerStopped,
    ServerSuspended,
    ServerTagsSet,
    ServerUnlocked,
    ServerUnpaused,
    ServerUnrescued,
    StartRequested,
    StopRequested,
    SuspendRequested,
    UnpauseRequested,
    UnrescueRequested,
)
from schema.compute.server_parts import Fault, Order, Rebuild, ServerFlavor, ServerImage
from schema.compute.shelf import (
    OffloadRequested,
    ServerOffloaded,
    ServerShelved,
    ServerUnshelved,
    Shelf,
    ShelfEvent,
    ShelveRequested,
    UnshelveRequested,
)
from schema.compute.snapshot import Snapshot, SnapshotProgressed, SnapshotRequested, SnapshotTaken
from schema.compute.soft_delete import RestoreRequested, ServerRestored, ServerSoftDeleted, SoftDeletionRequested
from schema.compute.task import CARD_SECONDS, WAYS, PowerState, Task, VmState
from schema.compute.topology import Topology
from schema.event import Event, Key, Kind, State

_NO_ORDER = Order(user_id="")


_NO_FLAVOR = ServerFlavor(id="", name="", vcpus=0, ram_mb=0, disk_gb=0)


class Server(State):
    name: str = ""
    project_id: str = ""
    order: Order = _NO_ORDER
    flavor: ServerFlavor = _NO_FLAVOR
    image: ServerImage | None = None
    description: str | None = None
    hostname: str = ""
    access_ipv4: str = ""
    access_ipv6: str = ""
    disk_config: Literal["MANUAL", "AUTO"] = "MANUAL"
    metadata: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    nics: tuple[ServerNic, ...] = ()
    nics_since: datetime | None = None
    """When the newest change of its cards that its host has yet to carry out was asked for."""

    vm_state: VmState = VmState.BUILDING
    task: Task | None = None
    task_since: datetime | None = None
    request_id: str = ""
    """The request that began the task: what follows it through goes by the same name."""
    power_state: PowerState = PowerState.NOSTATE
    fault: Fault | None = None
    unbidden: bool = False
    """It is where it is because its guest was found so; nobody had wished it."""
    launched_at: datetime | None = None
    """When it first ran."""

    parent_id: str | None = None
    """Its host: where its claim and (built) its disks are."""
    provider_id: str = ""
    """The host's, in placement."""
    zone: str = ""
    topology: Topology | None = None
    """The CPUs, memory and devices of its host that it has for itself."""
    left: str = ""
    """The host it came from last, until something else is wanted of it: it must keep nothing."""
    resizes: int = 0
    """How often it has become of another size where it is, but for those it went back from."""
    failed_hosts: tuple[str, ...] = ()
    """Where building it was tried in vain."""
    move: Move | None = None
    """It is on its way to another host."""
    rescue_image: ServerImage | None = None
    """What it boots from while it is rescued; its own root disk is the second one then."""
    rebuilds: int = 0
    """How often its root disk was to be made anew, ever."""
    rebuilt: int = 0
    """The newest of them that was."""
    rebuild: Rebuild | None = None
    """What its root disk is to be made from now."""
    snapshot: Snapshot | None = None
    """What its root disk is being copied into."""
    shelf: Shelf | None = None
    """It is shelved, or on the way there or back."""
    reclaim_seconds: int = 0
    """How long its deletion may be taken back."""
    soft_deleted_at: datetime | None = None
    generation: int = 0
    """Rises with every event that changes what the host should hold."""
    soft_reboots: int = 0
    hard_reboots: int = 0

    locked_by: Literal["owner", "admin"] | None = None
    locked_reason: str | None = None
    errand: str = ""
    """The request of the newest errand that was run in its guest."""
    password_id: str = ""
    """Where the vault keeps what the guest has posted for its owner."""

    @property
    def host(self) -> str | None:
        return self.parent_id

    @property
    def pinned_zone(self) -> str | None:
        """The only availability zone it may be in, if there is such a one."""
        return self.order.zone

    def nic(self, port_id: str) -> ServerNic | None:
        """The card of that port, if it has one."""
        return next((nic for nic in self.nics if nic.port_id == port_id), None)

    @property
    def unsettled(self) -> bool:
        """Cards are being plugged in or out."""
        return any(nic.standing != "plugged" for nic in self.nics)

    @property
    def built(self) -> bool:
        """It has run: its disks are on its host, or (moved) made anew there."""
        made_anew = self.task is Task.REBUILD_SPAWNING or self.vm_state is VmState.SHELVED_OFFLOADED
        return self.launched_at is not None and not made_anew

    @property
    def wants_host(self) -> bool:
        """The scheduler is to find it one."""
        return self.task is Task.SCHEDULING or (self.task is Task.UNSHELVING and self.host is None)


_TASKS: dict[type[Event], Task] = {
    StartRequested: Task.POWERING_ON,
    StopRequested: Task.POWERING_OFF,
    PauseRequested: Task.PAUSING,
    UnpauseRequested: Task.UNPAUSING,
    SuspendRequested: Task.SUSPENDING,
    ResumeRequested: Task.RESUMING,
    UnrescueRequested: Task.UNRESCUING,
    DeletionRequested: Task.DELETING,
    OffloadRequested: Task.SHELVING_OFFLOADING,
    RestoreRequested: Task.RESTORING,
}


_ARRIVALS: dict[type[Event], tuple[VmState, PowerState]] = {
    ServerStarted: (VmState.ACTIVE, PowerState.RUNNING),
    ServerStopped: (VmState.STOPPED, PowerState.SHUTDOWN),
    ServerRebooted: (VmState.ACTIVE, PowerState.RUNNING),
    ServerPaused: (VmState.PAUSED, PowerState.PAUSED),
    ServerUnpaused: (VmState.ACTIVE, PowerState.RUNNING),
    ServerSuspended: (VmState.SUSPENDED, PowerState.SUSPENDED),
    ServerResumed: (VmState.ACTIVE, PowerState.RUNNING),
    ServerRescued: (VmState.RESCUED, PowerState.RUNNING),
    ServerUnrescued: (VmState.ACTIVE, PowerState.RUNNING),
    ServerSoftDeleted: (VmState.SOFT_DELETED, PowerState.SHUTDOWN),
    ServerRestored: (VmState.ACTIVE, PowerState.RUNNING),
}


_OFF = frozenset({PowerState.NOSTATE, PowerState.SHUTDOWN, PowerState.CRASHED})
_SHELVED = frozenset({VmState.SHELVED, VmState.SHELVED_OFFLOADED})
_WHATEVER_IT_DOES = _SHELVED | {VmState.BUILDING, VmState.RESCUED, VmState.SOFT_DELETED, VmState.ERROR}
"""Where a server is, however its guest is found."""

_FOLLOWS: dict[PowerState, VmState] = {
    PowerState.NOSTATE: VmState.STOPPED,
    PowerState.RUNNING: VmState.ACTIVE,
    PowerState.PAUSED: VmState.PAUSED,
    PowerState.SHUTDOWN: VmState.STOPPED,
    PowerState.CRASHED: VmState.STOPPED,
    PowerState.SUSPENDED: VmState.SUSPENDED,
}
"""Where a server is whose guest was found like that."""


def evolve(server: Server, event: ServerEvent, at: datetime) -> Server:
    match event:
        case ServerRequested():
            return Server(
                id=server.id,
                name=event.name,
                project_id=event.project_id,
                order=event.order,
                flavor=event.flavor,
                image=event.image,
                description=event.description,
                hostname=event.hostname,
                access_ipv4=event.access_ipv4,
                access_ipv6=event.access_ipv6,
                disk_config=event.disk_config,
                metadata=event.metadata,
                tags=event.tags,
                nics=event.nics,
                task=Task.SCHEDULING,
                task_since=at,
                request_id=event.request_id,
            )
        case ServerPlaced():
            placed = replace(
                server,
                parent_id=event.host,
                provider_id=event.provider_id,
                zone=event.zone,
                topology=event.topology,
            )
            return _towards(placed, Task.SPAWNING, server.request_id, at)
        case BuildFailed():
            tried = (*server.failed_hosts, event.host)
            failed = replace(
                server,
                parent_id=None,
                provider_id="",
                zone="",
                topology=None,
                failed_hosts=tried,
                power_state=PowerState.NOSTATE,
            )
            again = Task.SCHEDULING if server.shelf is None else Task.UNSHELVING
            return _towards(_faulted(failed, event.fault, at), again, server.request_id, at)
        case ServerFaulted():
            return _at_rest(_faulted(replace(server, nics=()), event.fault, at), VmState.ERROR)
        case RescueRequested():
            return _towards(replace(server, rescue_image=event.image), Task.RESCUING, event.request_id, at)
        case RebuildRequested():
            order = replace(
                server.order,
                key_name=server.order.key_name if event.key_name is UNSET else event.key_name,
                secret_id=event.secret_id,
                has_user_data=event.scripted,
            )
            wanted = replace(server, order=order, rebuild=event.rebuild, rebuilds=server.rebuilds + 1)
            return _towards(wanted, Task.REBUILD_DISK, event.request_id, at)
        case ServerRebuilt():
            rests = server.vm_state is VmState.STOPPED
            rebuilt = replace(
                server,
                image=server.rebuild.image if server.rebuild else server.image,
                rebuild=None,
                rebuilt=server.rebuilds,
                power_state=PowerState.SHUTDOWN if rests else PowerState.RUNNING,
                launched_at=at,
                fault=None,
                unbidden=False,
            )
            return _at_rest(rebuilt, VmState.STOPPED if rests else VmState.ACTIVE)
        case RebootRequested(hard=False):
            counted = replace(server, soft_reboots=server.soft_reboots + 1)
            return _towards(counted, Task.REBOOTING, event.request_id, at)
        case RebootRequested():
            counted = replace(server, hard_reboots=server.hard_reboots + 1)
            return _towards(counted, Task.REBOOTING_HARD, event.request_id, at)
        case ActionFailed():
            withdrawn = replace(
                _faulted(server, event.fault, at),
                rebuild=None,
                move=replace(server.move, phase=Phase.RESTING) if server.move else None,
                snapshot=None,
                shelf=server.shelf if server.vm_state in _SHELVED else None,
                rescue_image=None if event.task is Task.RESCUING else server.rescue_image,
                generation=server.generation + 1,
            )
            return _at_rest(withdrawn, server.vm_state)
        case PowerObserved():
            at_rest = server.vm_state in _WHATEVER_IT_DOES or server.move is not None
            vm_state = server.vm_state if at_rest else _FOLLOWS[event.power_state]
            return replace(
                server, power_state=event.power_state, vm_state=vm_state, unbidden=vm_state is not server.vm_state
            )
        case ServerDetailsChanged():
            changed = changes(event)
            if "pinned_zone" in changed:
                changed["order"] = replace(server.order, zone=changed.pop("pinned_zone"))
            return replace(server, **changed)
        case ServerMetadataSet():
            merged = server.metadata | event.metadata
            return replace(server, metadata={key: value for key, value in merged.items() if value is not None})
        case ServerTagsSet():
            return replace(server, tags=event.tags)
        case ServerLocked():
            return replace(server, locked_by=event.by, locked_reason=event.reason)
        case ServerUnlocked():
            return replace(server, locked_by=None, locked_reason=None)
        case ServerStateReset():
            reset = replace(server, rebuild=None, rescue_image=None, snapshot=None, shelf=None, soft_deleted_at=None)
            return _at_rest(reset, event.vm_state)
        case ServerDeleted():
            gone = replace(server, deleted_at=at, power_state=PowerState.NOSTATE, nics=(), move=None)
            gone = replace(gone, snapshot=None, shelf=None)
            return _at_rest(gone, VmState.DELETED)
        case NicAttached():
            return _with_nics(server, event.nic.port_id, event, at)
        case NicSettled() | NicDetachRequested() | NicDetached() | NicDetachFailed() | NicChanged():
            return _with_nics(server, event.port_id, event, at)
        case ServerPasswordChanged() | CrashDumpTriggered():
            return replace(server, errand=event.request_id)
        case GuestPasswordPosted():
            return replace(server, password_id=event.secret_id)
        case GuestPasswordCleared():
            return replace(server, password_id="")
        case _ if isinstance(event, MoveEvent):
            return _moved(server, event, at)
        case SnapshotRequested():
            task = Task.IMAGE_BACKUP if event.snapshot.backup_type else Task.IMAGE_SNAPSHOT
            return _towards(replace(server, snapshot=event.snapshot), task, event.request_id, at)
        case SnapshotProgressed():
            return replace(server, task=event.task, task_since=at)
        case SnapshotTaken():
            return _at_rest(replace(server, snapshot=None), server.vm_state)
        case ShelveRequested() | ServerShelved() | ServerOffloaded() | UnshelveRequested() | ServerUnshelved():
            return _shelved(server, event, at)
        case SoftDeletionRequested():
            kept = replace(server, reclaim_seconds=event.reclaim_seconds, soft_deleted_at=at)
            return _towards(kept, Task.SOFT_DELETING, event.request_id, at)
        case Requested() | OffloadRequested() | RestoreRequested() if type(event) in _TASKS:
            return _towards(server, _TASKS[type(event)], event.request_id, at)
    vm_state, power_state = _ARRIVALS[type(event)]
    arrived = replace(
        server,
        power_state=power_state,
        launched_at=server.launched_at or at,
        fault=None,
        unbidden=False,
        rescue_image=server.rescue_image if vm_state is VmState.RESCUED else None,
        soft_deleted_at=server.soft_deleted_at if vm_state is VmState.SOFT_DELETED else None,
    )
    return _at_rest(arrived, vm_state)


def _shelved(server: Server, event: ShelfEvent, at: datetime) -> Server:
    match event:
        case ShelveRequested():
            snapshot = Snapshot(image_id=event.image_id)
            shelf = Shelf(image_id=event.image_id, offload_seconds=event.offload_seconds)
            return _towards(replace(server, snapshot=snapshot, shelf=shelf), Task.SHELVING, event.request_id, at)
        case ServerShelved() if server.shelf is not None:
            shelf = replace(server.shelf, since=at)
            off = replace(server, snapshot=None, shelf=shelf, power_state=PowerState.SHUTDOWN, fault=None)
            return _at_rest(off, VmState.SHELVED)
        case ServerOffloaded():
            return _at_rest(_at(server, None, "", "", None), VmState.SHELVED_OFFLOADED)
        case UnshelveRequested() if server.shelf is not None:
            order = server.order if event.zone is UNSET else replace(server.order, zone=event.zone)
            wanted = replace(server, order=order, shelf=replace(server.shelf, host=event.host), failed_hosts=())
            return _towards(wanted, Task.UNSHELVING, event.request_id, at)
        case ServerUnshelved():
            runs = replace(server, shelf=None, power_state=PowerState.RUNNING, fault=None, unbidden=False)
            return _at_rest(runs, VmState.ACTIVE)
    return server


def _moved(server: Server, event: MoveEvent, at: datetime) -> Server:
    move = event.move if isinstance(event, MoveRequested) else server.move
    if move is None:
        return server
    match event:
        case MoveRequested():
            return _on_the_way(server, move, Phase.SEEKING, event.request_id, at)
        case MovePlaced() if move.type is MigrationType.EVACUATION:
            there = _at(server, event.host, event.provider_id, event.zone, event.topology)
            return _on_the_way(there, move, Phase.ARRIVING, server.request_id, at)
        case MovePlaced():
            placed = replace(
                move,
                target_host=event.host,
                target_provider=event.provider_id,
                target_zone=event.zone,
                target_topology=event.topology,
            )
            phase = Phase.PREPARING if move.live else Phase.LEAVING
            return _on_the_way(server, placed, phase, server.request_id, at)
        case MovePrepared():
            return _on_the_way(server, move, Phase.LEAVING, server.request_id, at)
        case MoveDeparted():
            there = _at(server, move.target_host, move.target_provider, move.target_zone, move.target_topology)
            sized = replace(there, flavor=move.new_flavor or server.flavor)
            resized = replace(sized, resizes=server.resizes + move.in_place)
            return _on_the_way(resized, move, Phase.ARRIVING, server.request_id, at)
        case MoveFinished() if move.live:
            there = _at(server, move.target_host, move.target_provider, move.target_zone, move.target_topology)
            arrived = replace(
                there,
                move=None,
                left=move.source_host,
                power_state=server.power_state,
                generation=server.generation + 1,
            )
            return _at_rest(replace(arrived, fault=None), server.vm_state)
        case MoveFinished():
            power_state = PowerState.RUNNING if event.running else PowerState.SHUTDOWN
            arrived = replace(
                server,
                move=None,
                power_state=power_state,
                launched_at=server.launched_at or at,
                fault=None,
                unbidden=False,
                failed_hosts=(),
            )
            if move.cold:
                by = at + timedelta(seconds=event.confirm_seconds) if event.confirm_seconds else None
                resting = replace(move, phase=Phase.RESTING, confirm_by=by)
                return _at_rest(replace(arrived, move=resting), VmState.RESIZED)
            return _at_rest(arrived, VmState.ACTIVE if event.running else VmState.STOPPED)
        case MoveConfirmed():
            stays = replace(server, move=None, left=move.source_host, generation=server.generation + 1)
            return _at_rest(stays, VmState.STOPPED if server.power_state in _OFF else VmState.ACTIVE)
        case MoveReturnRequested():
            return _on_the_way(server, move, Phase.RETURNING, event.request_id, at)
        case MoveReturned():
            returned = replace(_back(server, move), power_state=PowerState.SHUTDOWN)
            off = replace(returned, vm_state=VmState.STOPPED, generation=server.generation + 1)
            if not move.running:
                return _at_rest(off, VmState.STOPPED)
            return _towards(off, Task.RESIZE_REVERTING, server.request_id, at)
        case MoveCancelRequested():
            return replace(server, move=replace(move, cancelled=True), generation=server.generation + 1)
        case MoveFailed():
            return _move_failed(server, move, event, at)


def _move_failed(server: Server, move: Move, event: MoveFailed, at: datetime) -> Server:
    back = _faulted(_back(server, move), Fault(message=event.message, details=event.details), at)
    if event.again:
        untargeted = replace(move, tried=(*move.tried, event.host), target_host="", target_provider="")
        return _on_the_way(back, untargeted, Phase.SEEKING, server.request_id, at)
    withdrawn = replace(
        back,
        generation=server.generation + 1,
        power_state=server.power_state if move.live else PowerState(move.source_power),
        left=move.target_host if move.target_host != move.source_host else "",
        failed_hosts=(event.host,) if event.host and event.host != move.source_host else (),
    )
    if move.type is MigrationType.EVACUATION and (event.host or move.tried):
        return _at_rest(withdrawn, VmState.ERROR)
    if event.off:
        return _at_rest(replace(withdrawn, power_state=PowerState.SHUTDOWN), VmState.STOPPED)
    return _at_rest(withdrawn, server.vm_state)


def _on_the_way(server: Server, move: Move, phase: Phase, request_id: str, at: datetime) -> Server:
    moving = replace(move, phase=phase)
    assert moving.task
    return _towards(replace(server, move=moving), moving.task, request_id, at)


def _back(server: Server, move: Move) -> Server:
    """Where it came from, as what it was."""
    there = _at(server, move.source_host, move.source_provider, move.source_zone, move.source_topology)
    return replace(
        there,
        move=None,
        flavor=move.old_flavor or server.flavor,
        resizes=server.resizes - (move.in_place and move.departed),
    )


def _at(server: Server, host: str | None, provider_id: str, zone: str, topology: Topology | None) -> Server:
    """On that host, whose guest nothing is known of yet."""
    return replace(
        server,
        parent_id=host,
        provider_id=provider_id,
        zone=zone,
        topology=topology,
        power_state=PowerState.NOSTATE,
    )


def _with_nics(server: Server, port_id: str, event: NicEvent, at: datetime) -> Server:
    generation = server.generation + concerns_host(server.nic(port_id), event)
    after = replace(server, nics=nics_after(server.nics, event), generation=generation)
    if isinstance(event, NicAttached | NicDetachRequested):
        return replace(after, nics_since=at, request_id=event.request_id)
    if after.unsettled or server.nics_since is None:
        return after
    return replace(after, nics_since=None, request_id="" if server.task is None else server.request_id)


def changes(details: ServerDetailsChanged | ChangeServerDetails) -> dict[str, Any]:
    """The fields that are to change, with their new values."""
    return {name: value for name in _DETAILS if (value := getattr(details, name)) is not UNSET}


_DETAILS = ServerDetailsChanged.__struct_fields__


def deadline(server: Server) -> datetime | None:
    """When the task under way has taken too long, or what is to be done to its cards; or it may not stay as it is."""
    if server.task is None or server.task_since is None:
        confirmed_by = server.move.confirm_by if server.move else None
        return confirmed_by or stay_deadline(server) or cards_deadline(server)
    building = server.task in {Task.SPAWNING, Task.REBUILD_SPAWNING}
    seconds = server.order.build_seconds if building else WAYS[server.task].seconds
    return server.task_since + timedelta(seconds=seconds)


def stay_deadline(server: Server) -> datetime | None:
    """When a shelved server is to leave its host, or a deleted one can be restored no more."""
    shelf = server.shelf
    if server.vm_state is VmState.SHELVED and shelf is not None and shelf.since and shelf.offload_seconds > 0:
        return shelf.since + timedelta(seconds=shelf.offload_seconds)
    if server.vm_state is VmState.SOFT_DELETED and server.soft_deleted_at is not None:
        return server.soft_deleted_at + timedelta(seconds=server.reclaim_seconds)
    return None


def cards_deadline(server: Server) -> datetime | None:
    """When its host has taken too long to plug cards in or out. One whose port is gone goes whenever that may be."""
    waited_for = any(nic.standing != "plugged" and not nic.port_gone for nic in server.nics)
    if not waited_for or server.nics_since is None or not server.living:
        return None
    return server.nics_since + timedelta(seconds=CARD_SECONDS)


def _unique(server: Server) -> Iterable[Key]:
    """A port is one server's card; and whoever shows an outside address is found by it."""
    for nic in server.nics:
        yield CARD_SCOPE, nic.port_id
        for ip in {ip for address in nic.addresses for ip in address.floating}:
            yield showing(ip), f"{server.id} {nic.port_id}"


CARD_SCOPE = "card"


def showing(outside_ip: str) -> str:
    """The scope in which every card that shows this outside address holds a reservation."""
    return f"shows {outside_ip}"


def _towards(server: Server, task: Task, request_id: str, at: datetime) -> Server:
    generation = server.generation + 1
    return replace(server, task=task, task_since=at, request_id=request_id, generation=generation, left="")


def _at_rest(server: Server, vm_state: VmState) -> Server:
    return replace(server, vm_state=vm_state, task=None, task_since=None, request_id="")


def _faulted(server: Server, fault: Fault, at: datetime) -> Server:
    return replace(server, fault=replace(fault, at=at))


SERVER = Kind("server", Server, ServerEvent, evolve, unique=_unique, deadline=deadline)
