"""The rules of servers: what may be done to one, when, and what comes of what its host says."""

from __future__ import annotations

from typing import Any

from bus.execute import Aggregate
from handlers.compute.action import ACTIONS, BUILT, OUTCOMES, row_of
from handlers.compute.errand import decide_errand, errand_already_so
from handlers.compute.move import MoveCommand, decide_move, move_already_so
from handlers.compute.nic import decide_nics, nics_already_so
from handlers.compute.snapshot import SnapshotCommand, copied, decide_snapshot, snapshot_already_so
from handlers.compute.soft_delete import decide_deletion, deletion_already_so
from schema.compute.move import Phase
from schema.compute.server import SERVER, STAYS_OFF, changes
from schema.compute.server_command import (
    Action,
    AddServerTag,
    AttachNic,
    CancelMove,
    ChangeNic,
    ChangeServerDetails,
    ChangeServerPassword,
    ClearGuestPassword,
    CreateServer,
    DeleteServer,
    DepartMove,
    DetachNic,
    EndServer,
    FailBuild,
    FailMove,
    FinishMove,
    FinishOffload,
    FinishSnapshot,
    GiveUpTask,
    HardRebootServer,
    LockServer,
    LoseNic,
    ObserveServer,
    PlaceMove,
    PlaceServer,
    PostGuestPassword,
    PrepareMove,
    ProgressSnapshot,
    RebuildServer,
    RefusePlacement,
    RemoveServerTag,
    RenewWish,
    ReplaceServerMetadata,
    ReplaceServerTags,
    RescueServer,
    ResetServerState,
    ReturnMove,
    SetServerMetadata,
    SettleNics,
    TriggerCrashDump,
    UnlockServer,
    UnshelveServer,
)
from schema.compute.server_event import (
    ActionFailed,
    BuildFailed,
    PowerObserved,
    RebuildRequested,
    RescueRequested,
    ServerDeleted,
    ServerDetailsChanged,
    ServerEvent,
    ServerFaulted,
    ServerLocked,
    ServerMetadataSet,
    ServerPlaced,
    ServerRebuilt,
    ServerRequested,
    ServerStateReset,
    ServerTagsSet,
    ServerUnlocked,
    StopRequested,
    WishRenewed,
)
from schema.compute.server_parts import Fault
from schema.compute.server_state import Server
from schema.compute.shelf import ServerUnshelved
from schema.compute.snapshot import SNAPSHOTTING
from schema.compute.soft_delete import ServerSoftDeleted
from schema.compute.task import PowerState, Task, VmState
from schema.event import Command
from schema.refusal import Conflict, Invalid, NotFound, OverQuota

UNBORN = "unborn"

_LIVING = BUILT | {
    VmState.BUILDING,
    VmState.RESCUED,
    VmState.RESIZED,
    VmState.SHELVED,
    VmState.SHELVED_OFFLOADED,
    VmState.SOFT_DELETED,
}
_EVER = _LIVING | {VmState.DELETED}

ALLOWED: dict[type[Command], frozenset[str]] = {
    **{command: row.states for command, row in ACTIONS.items()},
    CreateServer: frozenset({UNBORN}),
    DeleteServer: _LIVING,
    ChangeServerDetails: _LIVING,
    SetServerMetadata: _LIVING,
    ReplaceServerMetadata: _LIVING,
    AddServerTag: _LIVING,
    RemoveServerTag: _LIVING,
    ReplaceServerTags: _LIVING,
    LockServer: _LIVING,
    UnlockServer: _LIVING,
    ResetServerState: _LIVING,
    PostGuestPassword: _LIVING,
    ClearGuestPassword: _LIVING,
    SettleNics: _LIVING,
    ChangeNic: _LIVING,
    LoseNic: _LIVING,
    PlaceMove: BUILT,
    PrepareMove: BUILT,
    DepartMove: BUILT,
    FailMove: BUILT,
    FinishMove: BUILT,
    ReturnMove: frozenset({VmState.RESIZED}),
    CancelMove: BUILT,
    ProgressSnapshot: _LIVING,
    FinishSnapshot: _LIVING,
    FinishOffload: _LIVING,
    PlaceServer: _LIVING,
    RefusePlacement: _LIVING,
    FailBuild: _LIVING,
    GiveUpTask: _LIVING,
    RenewWish: _LIVING - {VmState.BUILDING, VmState.SHELVED_OFFLOADED},
    ObserveServer: _EVER,
    EndServer: _EVER,
}

_DOWN = frozenset({PowerState.NOSTATE, PowerState.SHUTDOWN, PowerState.CRASHED})


def decide(server: Server, command: Command) -> list[ServerEvent]:
    if _already_so(server, command):
        return []
    _must_be_allowed(server, command)
    row = row_of(command)
    if row and row.begins and isinstance(command, Action):
        return [row.begins(command.request_id)]
    match command:
        case CreateServer():
            return [_requested(command)]
        case DeleteServer():
            return [decide_deletion(server, command)]
        case ChangeServerDetails():
            return [_changed(server, command)]
        case SetServerMetadata() | ReplaceServerMetadata():
            return [_metadata_set(server, command)]
        case AddServerTag():
            if len(server.tags) >= command.limit:
                raise Invalid(f"A server may have {command.limit} tags at most; {server.id} has as many.")
            return [ServerTagsSet(tags=(*server.tags, command.tag))]
        case RemoveServerTag():
            return [ServerTagsSet(tags=tuple(tag for tag in server.tags if tag != command.tag))]
        case ReplaceServerTags():
            return [ServerTagsSet(tags=command.tags)]
        case LockServer():
            return [ServerLocked(by=command.by, reason=command.reason)]
        case UnlockServer():
            return [ServerUnlocked()]
        case ResetServerState():
            return [ServerStateReset(vm_state=command.vm_state)]
        case ChangeServerPassword() | TriggerCrashDump() | PostGuestPassword() | ClearGuestPassword():
            return list(decide_errand(server, command))
        case AttachNic() | DetachNic() | SettleNics() | ChangeNic() | LoseNic():
            return list(decide_nics(server, command))
        case RescueServer():
            if not server.built:
                raise Conflict(f"Cannot 'rescue' server {server.id}: it was never built.")
            return [RescueRequested(image=command.image, request_id=command.request_id)]
        case RebuildServer():
            return _rebuild_requested(server, command)
        case _ if isinstance(command, MoveCommand):
            return list(decide_move(server, command))
        case _ if isinstance(command, SnapshotCommand):
            return list(decide_snapshot(server, command))
        case PlaceServer():
            return [
                ServerPlaced(
                    host=command.host,
                    provider_id=command.provider_id,
                    zone=command.zone,
                    decision=command.decision,
                    topology=command.topology,
                )
            ]
        case RefusePlacement() if server.shelf is not None:
            return [ActionFailed(task=Task.UNSHELVING, fault=command.fault, decision=command.decision)]
        case RefusePlacement():
            return [ServerFaulted(fault=command.fault, decision=command.decision)]
        case FailBuild():
            return _build_failed(server, command)
        case GiveUpTask() if command.task is Task.SOFT_DELETING:
            return [ServerSoftDeleted()]
        case GiveUpTask():
            return [_given_up(server, command.task, command.fault)]
        case RenewWish():
            return [WishRenewed()]
        case ObserveServer():
            return _observed(server, command)
        case EndServer():
            return [ServerDeleted()]
    raise TypeError(f"servers know no {type(command).__name__}")


def _already_so(server: Server, command: Command) -> bool:
    match command:
        case CreateServer():
            return server.living
        case DeleteServer():
            return deletion_already_so(server, command)
        case ChangeServerPassword() | TriggerCrashDump() | PostGuestPassword() | ClearGuestPassword():
            return errand_already_so(server, command)
        case AttachNic() | DetachNic() | SettleNics() | ChangeNic() | LoseNic():
            return nics_already_so(server, command)
        case _ if isinstance(command, MoveCommand):
            return move_already_so(server, command)
        case _ if isinstance(command, SnapshotCommand):
            return snapshot_already_so(server, command)
        case RebuildServer():
            # From another image, or with another password, it is another wish, and not to be passed over.
            same = (server.rebuild, server.request_id) == (command.rebuild, command.request_id)
            return server.task is Task.REBUILD_DISK and same
        case RescueServer():
            return server.task is Task.RESCUING and server.rescue_image == command.image
        case Action() if row := row_of(command):
            return row.task is not None and server.task is row.task
        case ChangeServerDetails():
            return not _different(server, command)
        case SetServerMetadata() | ReplaceServerMetadata():
            return not _metadata_changes(server, command)
        case AddServerTag():
            return command.tag in server.tags
        case RemoveServerTag():
            return command.tag not in server.tags
        case ReplaceServerTags():
            return set(server.tags) == set(command.tags)
        case LockServer():
            return (server.locked_by, server.locked_reason) == (command.by, command.reason)
        case UnlockServer():
            return server.locked_by is None
        case ResetServerState():
            return server.vm_state is command.vm_state and server.task is None
        case PlaceServer():
            # On the same host, but on other CPUs: refused, or the claim would be of what its guest does not have.
            return (server.host, server.topology) == (command.host, command.topology)
        case RefusePlacement():
            return server.task is None
        case FailBuild():
            return server.host != command.host and command.host in server.failed_hosts
        case GiveUpTask():
            return server.task is not command.task
        case RenewWish():
            return server.generation != command.generation or server.task is not None
        case ObserveServer():
            return server.host != command.host or command.generation < server.generation
        case EndServer():
            return server.deleted_at is not None
    return False


def _must_be_allowed(server: Server, command: Command) -> None:
    """Raise the refusal that tells a person why not."""
    if isinstance(command, CreateServer):
        if server.created_at is not None:
            raise Conflict(f"The id {server.id} was another server's; ids are not used again.")
        return
    if not server.living:
        raise NotFound(f"Server {server.id} could not be found.", code="InstanceNotFound")
    if isinstance(command, Action) and server.locked_by and not command.overrides_lock:
        raise Conflict(f"Server {server.id} is locked; unlock it first.", code="InstanceIsLocked")
    if isinstance(command, UnlockServer) and server.locked_by == "admin" and not command.overrides_lock:
        raise Conflict(f"Server {server.id} was locked by an administrator, and only one can unlock it.")
    row = row_of(command)
    verb = row.verb if row else ""
    if server.vm_state not in ALLOWED[type(command)]:
        raise Conflict(f"Cannot {verb!r} server {server.id} while it is in vm_state {server.vm_state}")
    if verb and server.host is None and not isinstance(command, UnshelveServer):
        raise Conflict(f"Cannot {verb!r} server {server.id}: no host has it.")
    if verb and server.task and not (isinstance(command, HardRebootServer) and server.task is Task.REBOOTING):
        raise Conflict(f"Cannot {verb!r} server {server.id} while it is in task_state {server.task}")
    if isinstance(command, ResetServerState) and server.move is not None:
        # What it holds of two hosts is given back by how the move ends, and every move has an end.
        raise Conflict(f"Server {server.id} is on its way to another host; wait for it.")
    if isinstance(command, ResetServerState) and server.vm_state is VmState.SHELVED_OFFLOADED:
        raise Conflict(f"Server {server.id} is on no host; unshelve it.")
    if isinstance(command, ResetServerState) and server.soft_deleted_at is not None:
        raise Conflict(f"Server {server.id} is deleted softly; restore it.")
    if isinstance(command, PlaceServer) and not server.wants_host:
        raise Conflict(f"Server {server.id} wants no host: it is {server.task or server.vm_state} by now.")
    if isinstance(command, RefusePlacement) and not server.wants_host:
        # Refused, not ignored: its ports must not go with a refusal that came too late.
        raise Conflict(f"Server {server.id} has got a host: it is {_whereabouts(server)}.")
    if isinstance(command, FailBuild) and (server.task is not Task.SPAWNING or server.host != command.host):
        # Refused, not ignored: its claim must not be released on the word of somebody who was overtaken.
        raise Conflict(f"Server {server.id} is not being built on {command.host}: it is {_whereabouts(server)}.")
    if isinstance(command, EndServer) and server.task is not Task.DELETING:
        raise Conflict(f"Server {server.id} cannot end: nobody asked for its deletion.")


def _whereabouts(server: Server) -> str:
    return f"{server.task or server.vm_state} on {server.host or 'no host'} by now"


def _requested(command: CreateServer) -> ServerRequested:
    return ServerRequested(
        name=command.name,
        project_id=command.project_id,
        order=command.order,
        flavor=command.flavor,
        image=command.image,
        description=command.description,
        hostname=command.hostname,
        access_ipv4=command.access_ipv4,
        access_ipv6=command.access_ipv6,
        disk_config=command.disk_config,
        metadata=command.metadata,
        tags=command.tags,
        nics=command.nics,
        request_id=command.request_id,
    )


def _build_failed(server: Server, command: FailBuild) -> list[ServerEvent]:
    failed = BuildFailed(host=command.host, fault=command.fault)
    if len(server.failed_hosts) + 1 < server.order.attempts:
        return [failed]
    tried = ", ".join((*server.failed_hosts, command.host))
    message = f"No host could build the server; tried {tried}. The last one said: {command.fault.message}"
    fault = Fault(message=message, details=command.fault.details)
    if server.shelf is not None:
        return [failed, ActionFailed(task=Task.UNSHELVING, fault=fault)]
    return [failed, ServerFaulted(fault=fault)]


def _observed(server: Server, command: ObserveServer) -> list[ServerEvent]:
    """The host has carried out the newest wish, or failed to: what the guest was found like tells which.

    A build that failed is not settled here: its claim must be released along with it (`FailBuild`).
    """
    found, task = command.power_state, server.task
    if task is None:
        return _out_of_the_blue(server, found)
    if server.move is not None and server.move.phase is Phase.ARRIVING and command.fault is None:
        return _followed(server, found)
    if task is Task.REBUILD_DISK:
        return _rebuilt(server, command)
    if task in SNAPSHOTTING:
        events = copied(server, command)
        return [*events, *_followed(server, found)] if events and server.shelf is None else events
    if task is Task.SOFT_DELETING and command.fault is not None:
        # Whatever its guest does, it is its owner's no more.
        return [ServerSoftDeleted(), *([] if found in _DOWN else [PowerObserved(power_state=found)])]
    if task not in OUTCOMES or (task is Task.SPAWNING and command.fault is not None):
        return []
    if task is Task.SPAWNING and command.unwired:
        return _followed(server, found)
    wanted, outcome = OUTCOMES[task]
    if task is Task.SPAWNING and server.shelf is not None:
        outcome = ServerUnshelved()
    if command.fault is None and (found is wanted or {found, wanted} <= _DOWN):
        return [outcome]
    if task is Task.SPAWNING:
        return [] if found is PowerState.NOSTATE else [outcome, PowerObserved(power_state=found)]
    if command.fault is not None:
        return [_given_up(server, task, Fault(message=command.fault)), *_followed(server, found)]
    surprise = Fault(message=f"the guest was found {found.name.lower()} when it was done")
    return [ActionFailed(task=task, fault=surprise), *_followed(server, found)]


def _given_up(server: Server, task: Task, fault: Fault) -> ActionFailed:
    """One that is back where it was, but does not run there as it did, has no state of before to show."""
    return ActionFailed(task=task, fault=fault, in_error=task is Task.RESIZE_REVERTING and server.move is None)


def _rebuild_requested(server: Server, command: RebuildServer) -> list[ServerEvent]:
    if not server.built:
        raise Conflict(f"Cannot 'rebuild' server {server.id}: it was never built; delete it and order another.")
    return [
        RebuildRequested(
            rebuild=command.rebuild,
            key_name=command.key_name,
            secret_id=command.secret_id,
            scripted=command.scripted,
            request_id=command.request_id,
        )
    ]


def _rebuilt(server: Server, command: ObserveServer) -> list[ServerEvent]:
    """Until the new disk is there, a fault leaves the old server. Afterwards it is the new one, whatever it does."""
    fault = [ActionFailed(task=Task.REBUILD_DISK, fault=Fault(message=command.fault))] if command.fault else []
    if command.remade < server.rebuilds:
        return [*fault, *_followed(server, command.power_state)] if fault else []
    after = PowerState.SHUTDOWN if server.vm_state is VmState.STOPPED else PowerState.RUNNING
    same = after is command.power_state or {after, command.power_state} <= _DOWN
    return [ServerRebuilt(), *fault, *([] if same else [PowerObserved(power_state=command.power_state)])]


def _out_of_the_blue(server: Server, found: PowerState) -> list[ServerEvent]:
    """Follow the guest, but for one that runs where it was to be off: that is stopped again."""
    followed = _followed(server, found)
    off = server.vm_state in STAYS_OFF or (server.vm_state is VmState.STOPPED and not server.unbidden)
    if followed and off and found is PowerState.RUNNING:
        return [*followed, StopRequested()]
    return followed


def _followed(server: Server, found: PowerState) -> list[ServerEvent]:
    same = server.power_state is found or (server.power_state in _DOWN and found in _DOWN)
    return [] if same else [PowerObserved(power_state=found)]


def _different(server: Server, command: ChangeServerDetails) -> dict[str, Any]:
    return {name: value for name, value in changes(command).items() if getattr(server, name) != value}


def _changed(server: Server, command: ChangeServerDetails) -> ServerDetailsChanged:
    """Raises Conflict: a server is pinned to where it is, or to nowhere."""
    different = _different(server, command)
    zone = different.get("pinned_zone")
    if zone and server.pinned_zone:
        raise Conflict(
            f"Server {server.id} is pinned to the availability zone {server.pinned_zone} and cannot be pinned to "
            f"{zone}; unpin it first."
        )
    if zone and zone != server.zone:
        here = f"is in the availability zone {server.zone}" if server.zone else "is in no availability zone yet"
        raise Conflict(f"Server {server.id} {here} and cannot be pinned to {zone}.")
    return ServerDetailsChanged(**different)


def _metadata_changes(server: Server, command: SetServerMetadata | ReplaceServerMetadata) -> dict[str, str | None]:
    wanted: dict[str, str | None] = dict(command.metadata)
    if isinstance(command, ReplaceServerMetadata):
        wanted = dict.fromkeys(server.metadata) | wanted
    return {key: value for key, value in wanted.items() if server.metadata.get(key) != value}


def _metadata_set(server: Server, command: SetServerMetadata | ReplaceServerMetadata) -> ServerMetadataSet:
    changed = _metadata_changes(server, command)
    after = {key for key, value in (server.metadata | changed).items() if value is not None}
    if isinstance(command, SetServerMetadata) and len(after) > command.limit:
        raise OverQuota(f"Maximum number of metadata items exceeds {command.limit}")
    return ServerMetadataSet(metadata=changed)


SERVERS = Aggregate(SERVER, decide, ALLOWED)
