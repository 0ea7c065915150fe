"""The rules of deletion that can be taken back: the server is off, counts for no quota and keeps its place."""

from __future__ import annotations

from schema.compute.server_command import DeleteServer
from schema.compute.server_event import DeletionRequested
from schema.compute.server_state import Server
from schema.compute.soft_delete import SoftDeletionRequested
from schema.compute.task import Task, VmState


def deleted_softly(server: Server, reclaim_seconds: int) -> bool:
    """Whether such a deletion leaves something that can be restored: a guest that ran, on its host."""
    there = server.built and server.host is not None and server.move is None
    going = server.vm_state is VmState.SOFT_DELETED or server.task in {Task.DELETING, Task.SOFT_DELETING}
    return reclaim_seconds > 0 and there and not going


def decide_deletion(server: Server, command: DeleteServer) -> DeletionRequested | SoftDeletionRequested:
    if deleted_softly(server, command.reclaim_seconds):
        return SoftDeletionRequested(reclaim_seconds=command.reclaim_seconds, request_id=command.request_id)
    return DeletionRequested(request_id=command.request_id)


def deletion_already_so(server: Server, command: DeleteServer) -> bool:
    if server.task is Task.DELETING or server.deleted_at is not None:
        return True
    softly = server.task is Task.SOFT_DELETING or server.vm_state is VmState.SOFT_DELETED
    return softly and command.reclaim_seconds > 0
