"""The rules of moves: each outcome is decided once, on the grounds that are so by then.

What comes too late is refused, not ignored: the claims that go with it must not be given back on the word of somebody
who was overtaken.
"""

from __future__ import annotations

from collections.abc import Sequence

from schema.compute.move import MoveEvent, MoveFailed, MoveFinished, MovePlaced, MoveRequested
from schema.compute.server import Server
from schema.compute.server_command import EvacuateServer, FailMove, FinishMove, PlaceMove
from schema.compute.task import Task
from schema.refusal import Conflict

MoveCommand = EvacuateServer | PlaceMove | FailMove | FinishMove


def decide_move(server: Server, command: MoveCommand) -> Sequence[MoveEvent]:
    """Of a living server that is in a state for it. Raises Conflict when it is elsewhere by now."""
    match command:
        case EvacuateServer():
            if server.host != command.move.source_host or server.provider_id != command.move.source_provider:
                raise Conflict(f"Server {server.id} is on {server.host} by now.")
            return [MoveRequested(move=command.move, request_id=command.request_id)]
        case PlaceMove():
            _must_be(server, command.migration_id, Task.REBUILDING)
            return [
                MovePlaced(
                    host=command.host,
                    provider_id=command.provider_id,
                    zone=command.zone,
                    decision=command.decision,
                    topology=command.topology,
                )
            ]
        case FailMove():
            _must_be(server, command.migration_id, Task.REBUILD_SPAWNING if command.host else Task.REBUILDING)
            if command.host and server.host != command.host:
                raise Conflict(f"Server {server.id} is on its way to {server.host} by now.")
            return [
                MoveFailed(
                    host=command.host,
                    message=command.fault.message,
                    details=command.fault.details,
                    again=bool(command.host) and attempts_left(server) > 1,
                    decision=command.decision,
                )
            ]
        case FinishMove():
            _must_be(server, command.migration_id, Task.REBUILD_SPAWNING)
            if server.host != command.host:
                raise Conflict(f"Server {server.id} is on its way to {server.host} by now.")
            return [MoveFinished(running=command.running)]


def move_already_so(server: Server, command: MoveCommand) -> bool:
    """Whether this very thing has been decided."""
    match command:
        case EvacuateServer():
            return server.move is not None and server.move.migration_id == command.move.migration_id
        case PlaceMove():
            placed = server.task is Task.REBUILD_SPAWNING and server.host == command.host
            return placed and server.move is not None and server.move.migration_id == command.migration_id
    return False


def attempts_left(server: Server) -> int:
    """Hosts that may be tried, the one that is being tried included. A host that was asked for is the only one."""
    if server.move is None or server.move.host:
        return 1
    return server.order.attempts - len(server.move.tried)


def _must_be(server: Server, migration_id: str, task: Task) -> None:
    if server.move is None or server.move.migration_id != migration_id or server.task is not task:
        raise Conflict(f"Server {server.id} is {server.task or server.vm_state} on {server.host} by now.")
