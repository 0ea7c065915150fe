"""The rules of images made of servers, and of the shelf: what may be wished, and what comes of what the host says.

A disk that is copied is its host's task. Until the image has its data a fault leaves the server as it was: one that was
to be shelved runs again.
"""

from __future__ import annotations

from collections.abc import Sequence

from schema.compute.server_command import (
    BackUpServer,
    FinishOffload,
    FinishSnapshot,
    ObserveServer,
    OffloadServer,
    ProgressSnapshot,
    ShelveServer,
    SnapshotServer,
    UnshelveServer,
)
from schema.compute.server_event import ActionFailed, ServerEvent
from schema.compute.server_parts import Fault
from schema.compute.server_state import Server
from schema.compute.shelf import (
    OffloadRequested,
    ServerOffloaded,
    ServerShelved,
    ShelveRequested,
    UnshelveRequested,
)
from schema.compute.snapshot import (
    COPYING,
    SNAPSHOTTING,
    UPLOADING,
    Snapshot,
    SnapshotProgressed,
    SnapshotRequested,
    SnapshotTaken,
)
from schema.compute.task import Task, VmState
from schema.refusal import Conflict

SnapshotCommand = (
    SnapshotServer
    | BackUpServer
    | ProgressSnapshot
    | FinishSnapshot
    | ShelveServer
    | OffloadServer
    | FinishOffload
    | UnshelveServer
)


def decide_snapshot(server: Server, command: SnapshotCommand) -> Sequence[ServerEvent]:
    """Of a living server that is in a state for it."""
    match command:
        case SnapshotServer():
            wanted = Snapshot(image_id=command.image_id)
            return [SnapshotRequested(snapshot=wanted, request_id=command.request_id)]
        case BackUpServer():
            wanted = Snapshot(image_id=command.image_id, backup_type=command.backup_type, rotation=command.rotation)
            return [SnapshotRequested(snapshot=wanted, request_id=command.request_id)]
        case ProgressSnapshot():
            return [SnapshotProgressed(task=_further(server, command) or Task.IMAGE_UPLOADING)]
        case FinishSnapshot():
            return _taken(server)
        case ShelveServer():
            return [
                ShelveRequested(
                    image_id=command.image_id, offload_seconds=command.offload_seconds, request_id=command.request_id
                )
            ]
        case OffloadServer():
            return [OffloadRequested(request_id=command.request_id)]
        case FinishOffload():
            if server.task is not Task.SHELVING_OFFLOADING or server.host != command.host:
                # Refused, not ignored: its claim must not be released on the word of somebody who was overtaken.
                raise Conflict(f"Server {server.id} is {server.task or server.vm_state} on {server.host} by now.")
            return [ServerOffloaded()]
        case UnshelveServer():
            if server.vm_state is VmState.SHELVED and (command.host or command.zone):
                raise Conflict(
                    f"Server {server.id} is still on its host (vm_state shelved): a host or an availability zone can "
                    "be named for one that is shelved_offloaded."
                )
            return [UnshelveRequested(zone=command.zone, host=command.host, request_id=command.request_id)]


def snapshot_already_so(server: Server, command: SnapshotCommand) -> bool:
    """Whether this very thing has been decided."""
    snapshot = server.snapshot
    match command:
        case SnapshotServer() | BackUpServer() | ShelveServer():
            return snapshot is not None and snapshot.image_id == command.image_id
        case ProgressSnapshot():
            same = snapshot is not None and snapshot.image_id == command.image_id
            return not same or _further(server, command) is None
        case FinishSnapshot():
            same = snapshot is not None and snapshot.image_id == command.image_id
            return not same or server.task not in SNAPSHOTTING
        case OffloadServer():
            return server.task is Task.SHELVING_OFFLOADING
        case FinishOffload():
            return server.vm_state is VmState.SHELVED_OFFLOADED and server.task is None
        case UnshelveServer():
            return server.task is Task.UNSHELVING


def copied(server: Server, command: ObserveServer) -> list[ServerEvent]:
    """What the word of its host comes to while its disk is being copied into an image.

    That the image has its data is said by who took it in; a host that says so, too, changes nothing by then.
    """
    task, snapshot = server.task, server.snapshot
    if task not in SNAPSHOTTING or task is None:
        return []
    if command.fault is not None:
        return [ActionFailed(task=task, fault=Fault(message=command.fault))]
    if snapshot is None or command.snapshot != snapshot.image_id:
        return []
    return _taken(server)


def _taken(server: Server) -> list[ServerEvent]:
    if server.shelf is None:
        return [SnapshotTaken()]
    offloading = [OffloadRequested(request_id=server.request_id)] if server.shelf.offload_seconds == 0 else []
    return [ServerShelved(), *offloading]


def _further(server: Server, command: ProgressSnapshot) -> Task | None:
    """The task that this brings it to, if it is not there yet."""
    return (UPLOADING if command.uploading else COPYING).get(server.task) if server.task else None
