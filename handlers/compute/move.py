"""The rules of moves: each outcome is decided once, on the grounds that are so by then.

What comes too late is refused, not ignored: the claims that go with it must not be given back on the word of somebody
who was overtaken.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

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
from schema.compute.server_command import (
    CancelMove,
    ConfirmResize,
    DepartMove,
    FailMove,
    FinishMove,
    MoveServer,
    PlaceMove,
    PrepareMove,
    ReturnMove,
    RevertResize,
)
from schema.compute.server_state import Server
from schema.compute.task import VmState
from schema.compute.topology import Topology
from schema.refusal import Conflict, Invalid

MoveCommand = (
    MoveServer
    | PlaceMove
    | PrepareMove
    | DepartMove
    | FailMove
    | FinishMove
    | ReturnMove
    | ConfirmResize
    | RevertResize
    | CancelMove
)


def decide_move(server: Server, command: MoveCommand) -> Sequence[MoveEvent]:
    """Of a living server that is in a state for it. Raises Conflict when it is elsewhere by now."""
    match command:
        case MoveServer():
            if server.host != command.move.source_host or server.provider_id != command.move.source_provider:
                raise Conflict(f"Server {server.id} is on {server.host} by now.")
            return [MoveRequested(move=_as_it_is(server, command.move), request_id=command.request_id)]
        case PlaceMove():
            _in_phase(server, command.migration_id, Phase.SEEKING)
            return [
                MovePlaced(
                    host=command.host,
                    provider_id=command.provider_id,
                    zone=command.zone,
                    decision=command.decision,
                    topology=command.topology,
                )
            ]
        case PrepareMove():
            _in_phase(server, command.migration_id, Phase.PREPARING)
            return [MovePrepared()]
        case DepartMove():
            _in_phase(server, command.migration_id, Phase.LEAVING)
            return [MoveDeparted()]
        case FailMove():
            return [_failed(server, command)]
        case FinishMove():
            move = _in_phase(server, command.migration_id, Phase.ARRIVING, Phase.LEAVING)
            _headed_for(server, move, command.host)
            return [MoveFinished(running=command.running, confirm_seconds=command.confirm_seconds)]
        case ReturnMove():
            _in_phase(server, command.migration_id, Phase.RETURNING)
            return [MoveReturned()]
        case ConfirmResize() | RevertResize():
            if server.move is None or server.move.phase is not Phase.RESTING:
                raise Invalid("Instance has not been resized.")
            if isinstance(command, ConfirmResize):
                return [MoveConfirmed(request_id=command.request_id)]
            return [MoveReturnRequested(request_id=command.request_id)]
        case CancelMove():
            _in_phase(server, command.migration_id, Phase.SEEKING, Phase.PREPARING, Phase.LEAVING)
            return [MoveCancelRequested(request_id=command.request_id)]


def _as_it_is(server: Server, move: Move) -> Move:
    """With what its guest does now, whatever it did when the move was thought of: so it is there, or here again."""
    evacuated = move.type is MigrationType.EVACUATION
    running = move.running if evacuated else server.vm_state is not VmState.STOPPED
    return replace(move, source_power=server.power_state, running=running)


def move_already_so(server: Server, command: MoveCommand) -> bool:
    """Whether this very thing has been decided."""
    move = server.move
    match command:
        case MoveServer():
            return move is not None and move.migration_id == command.move.migration_id
        case PlaceMove():
            there = (target(server), _topology_there(server))
            return _is(move, command.migration_id) and there == (command.host, command.topology)
        case PrepareMove():
            return _is(move, command.migration_id, Phase.LEAVING)
        case CancelMove():
            return _is(move, command.migration_id) and move is not None and move.cancelled
        case RevertResize():
            return move is not None and move.phase is Phase.RETURNING
    return False


def attempts_left(server: Server) -> int:
    """Hosts that may be tried, the one that is being tried included. A host that was asked for is the only one."""
    if server.move is None or server.move.host or server.move.cancelled:
        return 1
    return server.order.attempts - len(server.move.tried)


def target(server: Server) -> str:
    """The host it is on its way to; empty: none is found yet."""
    move = server.move
    if move is None or move.phase is Phase.SEEKING:
        return ""
    return move.target_host or server.host or ""


def _topology_there(server: Server) -> Topology | None:
    """What it has for itself at the host it is on its way to."""
    move = server.move
    return move.target_topology if move is not None and move.target_host else server.topology


def second_host(server: Server) -> str:
    """Besides its own, the host that holds something of it or is to; empty: there is none."""
    move = server.move
    if move is None or move.in_place or (server.task is not None and server.task is not move.task):
        return ""
    if move.live:
        return move.target_host if move.phase in {Phase.PREPARING, Phase.LEAVING} else ""
    return move.source_host if move.cold and move.departed else ""


def _failed(server: Server, command: FailMove) -> MoveFailed:
    seeking = (Phase.SEEKING,)
    phases = (Phase.PREPARING, Phase.LEAVING, Phase.ARRIVING) if command.host else seeking
    move = _in_phase(server, command.migration_id, *phases)
    if command.host:
        _headed_for(server, move, command.host)
    return MoveFailed(
        host=command.host,
        message=command.fault.message,
        details=command.fault.details,
        again=bool(command.host) and not command.final and attempts_left(server) > 1,
        off=command.off,
        decision=command.decision,
    )


def _in_phase(server: Server, migration_id: str, *phases: Phase) -> Move:
    move = server.move
    there = move is not None and move.migration_id == migration_id and move.phase in phases
    if move is None or not there or server.task is not move.task:
        raise Conflict(f"Server {server.id} is {server.task or server.vm_state} on {server.host} by now.")
    return move


def _headed_for(server: Server, move: Move, host: str) -> None:
    if target(server) != host:
        raise Conflict(f"Server {server.id} is on its way to {target(server)} by now.")


def _is(move: Move | None, migration_id: str, *phases: Phase) -> bool:
    return move is not None and move.migration_id == migration_id and (not phases or move.phase in phases)
