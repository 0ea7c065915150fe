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
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from schema.compute.errand import CrashDumpTriggered, GuestPasswordCleared, GuestPasswordPosted, ServerPasswordChanged
from schema.compute.move import MoveEvent, Phase
from schema.compute.nic import (
    NicAttached,
    NicChanged,
    NicDetached,
    NicDetachFailed,
    NicDetachRequested,
    NicEvent,
    NicSettled,
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
    WishRenewed,
)
from schema.compute.server_moved import moved
from schema.compute.server_shelved import shelved
from schema.compute.server_state import Server, at_rest, faulted, towards
from schema.compute.shelf import (
    OffloadRequested,
    ServerOffloaded,
    ServerShelved,
    ServerUnshelved,
    ShelveRequested,
    UnshelveRequested,
)
from schema.compute.snapshot import SnapshotProgressed, SnapshotRequested, SnapshotTaken
from schema.compute.soft_delete import RestoreRequested, ServerRestored, ServerSoftDeleted, SoftDeletionRequested
from schema.compute.task import CARD_SECONDS, WAYS, PowerState, Task, VmState
from schema.event import Event, Key, Kind

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
_SHELVED = frozenset({VmState.SHELVED, VmState.SHELVED_OFFLOADED})
_WHATEVER_IT_DOES = _SHELVED | {VmState.BUILDING, VmState.RESCUED, VmState.SOFT_DELETED, VmState.ERROR}
"""Where a server is, however its guest is found."""
STAYS_OFF = frozenset({VmState.SHELVED, VmState.SOFT_DELETED})
"""Where a server is off, and stays when its guest had to be stopped again."""

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
            return towards(placed, Task.SPAWNING, server.request_id, at)
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
            return towards(faulted(failed, event.fault, at), again, server.request_id, at)
        case ServerFaulted():
            return at_rest(faulted(replace(server, nics=()), event.fault, at), VmState.ERROR)
        case RescueRequested():
            return towards(replace(server, rescue_image=event.image), Task.RESCUING, event.request_id, at)
        case RebuildRequested():
            order = replace(
                server.order,
                key_name=server.order.key_name if event.key_name is UNSET else event.key_name,
                secret_id=event.secret_id,
                has_user_data=event.scripted,
            )
            wanted = replace(server, order=order, rebuild=event.rebuild, rebuilds=server.rebuilds + 1)
            return towards(wanted, Task.REBUILD_DISK, event.request_id, at)
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
            return at_rest(rebuilt, VmState.STOPPED if rests else VmState.ACTIVE)
        case RebootRequested(hard=False):
            counted = replace(server, soft_reboots=server.soft_reboots + 1)
            return towards(counted, Task.REBOOTING, event.request_id, at)
        case RebootRequested():
            counted = replace(server, hard_reboots=server.hard_reboots + 1)
            return towards(counted, Task.REBOOTING_HARD, event.request_id, at)
        case ActionFailed():
            withdrawn = replace(
                faulted(server, event.fault, at),
                rebuild=None,
                move=replace(server.move, phase=Phase.RESTING) if server.move else None,
                snapshot=None,
                shelf=server.shelf if server.vm_state in _SHELVED else None,
                rescue_image=None if event.task is Task.RESCUING else server.rescue_image,
                generation=server.generation + 1,
            )
            return at_rest(withdrawn, VmState.ERROR if event.in_error else server.vm_state)
        case PowerObserved():
            stays = server.vm_state in _WHATEVER_IT_DOES or server.move is not None
            vm_state = server.vm_state if stays else _FOLLOWS[event.power_state]
            return replace(
                server, power_state=event.power_state, vm_state=vm_state, unbidden=vm_state is not server.vm_state
            )
        case WishRenewed():
            return replace(server, generation=server.generation + 1)
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
            return at_rest(reset, event.vm_state)
        case ServerDeleted():
            gone = replace(server, deleted_at=at, power_state=PowerState.NOSTATE, nics=(), move=None)
            gone = replace(gone, snapshot=None, shelf=None)
            return at_rest(gone, VmState.DELETED)
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
            return moved(server, event, at)
        case SnapshotRequested():
            task = Task.IMAGE_BACKUP if event.snapshot.backup_type else Task.IMAGE_SNAPSHOT
            return towards(replace(server, snapshot=event.snapshot), task, event.request_id, at)
        case SnapshotProgressed():
            return replace(server, task=event.task, task_since=at)
        case SnapshotTaken():
            return at_rest(replace(server, snapshot=None), server.vm_state)
        case ShelveRequested() | ServerShelved() | ServerOffloaded() | UnshelveRequested() | ServerUnshelved():
            return shelved(server, event, at)
        case SoftDeletionRequested():
            kept = replace(server, reclaim_seconds=event.reclaim_seconds, soft_deleted_at=at)
            return towards(kept, Task.SOFT_DELETING, event.request_id, at)
        case Requested() | OffloadRequested() | RestoreRequested() if type(event) in _TASKS:
            return towards(server, _TASKS[type(event)], event.request_id, at)
    vm_state, power_state = _ARRIVALS[type(event)]
    if isinstance(event, ServerStopped) and server.vm_state in STAYS_OFF:
        vm_state = server.vm_state
    arrived = replace(
        server,
        power_state=power_state,
        launched_at=server.launched_at or at,
        fault=None,
        unbidden=False,
        rescue_image=server.rescue_image if vm_state is VmState.RESCUED else None,
        soft_deleted_at=server.soft_deleted_at if vm_state is VmState.SOFT_DELETED else None,
    )
    return at_rest(arrived, vm_state)


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


def _secrets(server: Server) -> Iterable[str]:
    return server.order.secret_id, server.password_id


SERVER = Kind("server", Server, ServerEvent, evolve, unique=_unique, secrets=_secrets, deadline=deadline)
