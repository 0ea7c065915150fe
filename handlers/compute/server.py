"""The rules of servers: what may be done to one, when, and what comes of what its host says."""

from __future__ import annotations

from bus.execute import Aggregate
from handlers.compute.action import ACTIONS, BUILT, row_of
from handlers.compute.details import DetailsCommand, decide_details, details_already_so
from handlers.compute.errand import ErrandCommand, decide_errand, errand_already_so
from handlers.compute.move import MoveCommand, decide_move, move_already_so
from handlers.compute.nic import NicCommand, decide_nics, nics_already_so
from handlers.compute.observed import decide_observed, given_up
from handlers.compute.snapshot import SnapshotCommand, decide_snapshot, snapshot_already_so
from handlers.compute.soft_delete import decide_deletion, deletion_already_so
from schema.compute.server import SERVER
from schema.compute.server_command import (
    Action,
    AddServerTag,
    CancelMove,
    ChangeNic,
    ChangeServerDetails,
    ClearGuestPassword,
    CreateServer,
    DeleteServer,
    DepartMove,
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
    UnlockServer,
    UnshelveServer,
)
from schema.compute.server_event import (
    ActionFailed,
    BuildFailed,
    RebuildRequested,
    RescueRequested,
    ServerDeleted,
    ServerEvent,
    ServerFaulted,
    ServerPlaced,
    ServerRequested,
    ServerStateReset,
    WishRenewed,
)
from schema.compute.server_parts import Fault
from schema.compute.server_state import Server
from schema.compute.soft_delete import ServerSoftDeleted
from schema.compute.task import Task, VmState
from schema.event import Command
from schema.refusal import Conflict, NotFound

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
        case _ if isinstance(command, DetailsCommand):
            return [decide_details(server, command)]
        case ResetServerState():
            return [ServerStateReset(vm_state=command.vm_state)]
        case _ if isinstance(command, ErrandCommand):
            return list(decide_errand(server, command))
        case _ if isinstance(command, NicCommand):
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
            return [given_up(server, command.task, command.fault)]
        case RenewWish():
            return [WishRenewed()]
        case ObserveServer():
            return decide_observed(server, command)
        case EndServer():
            return [ServerDeleted()]
    raise TypeError(f"servers know no {type(command).__name__}")


def _already_so(server: Server, command: Command) -> bool:
    match command:
        case CreateServer():
            return server.living
        case DeleteServer():
            return deletion_already_so(server, command)
        case _ if isinstance(command, ErrandCommand):
            return errand_already_so(server, command)
        case _ if isinstance(command, NicCommand):
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
        case _ if isinstance(command, DetailsCommand):
            return details_already_so(server, command)
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


SERVERS = Aggregate(SERVER, decide, ALLOWED)
