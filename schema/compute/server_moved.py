"""What becomes of a server on its way from a host to another."""

from __future__ import annotations

from datetime import datetime, timedelta

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
from schema.compute.server_parts import Fault
from schema.compute.server_state import Server, at_rest, faulted, placed_at, towards
from schema.compute.task import PowerState, Task, VmState

_OFF = frozenset({PowerState.NOSTATE, PowerState.SHUTDOWN, PowerState.CRASHED})


def moved(server: Server, event: MoveEvent, at: datetime) -> Server:
    move = event.move if isinstance(event, MoveRequested) else server.move
    if move is None:
        return server
    match event:
        case MoveRequested():
            return _on_the_way(server, move, Phase.SEEKING, event.request_id, at)
        case MovePlaced() if move.type is MigrationType.EVACUATION:
            there = placed_at(server, event.host, event.provider_id, event.zone, event.topology)
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
            there = placed_at(server, move.target_host, move.target_provider, move.target_zone, move.target_topology)
            sized = replace(there, flavor=move.new_flavor or server.flavor)
            resized = replace(sized, resizes=server.resizes + move.in_place)
            return _on_the_way(resized, move, Phase.ARRIVING, server.request_id, at)
        case MoveFinished() if move.live:
            there = placed_at(server, move.target_host, move.target_provider, move.target_zone, move.target_topology)
            arrived = replace(
                there,
                move=None,
                left=move.source_host,
                power_state=server.power_state,
                generation=server.generation + 1,
            )
            return at_rest(replace(arrived, fault=None), server.vm_state)
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
                return at_rest(replace(arrived, move=resting), VmState.RESIZED)
            return at_rest(arrived, VmState.ACTIVE if event.running else VmState.STOPPED)
        case MoveConfirmed():
            stays = replace(server, move=None, left=move.source_host, generation=server.generation + 1)
            return at_rest(stays, VmState.STOPPED if server.power_state in _OFF else VmState.ACTIVE)
        case MoveReturnRequested():
            # Somebody wants it back: should that fail, nobody takes it to be confirmed.
            return _on_the_way(server, replace(move, confirm_by=None), Phase.RETURNING, event.request_id, at)
        case MoveReturned():
            returned = replace(_back(server, move), power_state=PowerState.SHUTDOWN)
            off = replace(returned, vm_state=VmState.STOPPED, generation=server.generation + 1)
            if not move.running:
                return at_rest(off, VmState.STOPPED)
            return towards(off, Task.RESIZE_REVERTING, server.request_id, at)
        case MoveCancelRequested():
            return replace(server, move=replace(move, cancelled=True), generation=server.generation + 1)
        case MoveFailed():
            return _move_failed(server, move, event, at)


def _move_failed(server: Server, move: Move, event: MoveFailed, at: datetime) -> Server:
    power_state = server.power_state if move.live else PowerState(move.source_power)
    back = faulted(_back(server, move), Fault(message=event.message, details=event.details), at)
    back = replace(back, power_state=power_state)
    if event.again:
        untargeted = replace(move, tried=(*move.tried, event.host), target_host="", target_provider="")
        return _on_the_way(back, untargeted, Phase.SEEKING, server.request_id, at)
    withdrawn = replace(
        back,
        generation=server.generation + 1,
        left=move.target_host if move.target_host != move.source_host else "",
        failed_hosts=(event.host,) if event.host and event.host != move.source_host else (),
    )
    if move.type is MigrationType.EVACUATION and (event.host or move.tried):
        return at_rest(withdrawn, VmState.ERROR)
    if event.off:
        return at_rest(replace(withdrawn, power_state=PowerState.SHUTDOWN), VmState.STOPPED)
    return at_rest(withdrawn, server.vm_state)


def _on_the_way(server: Server, move: Move, phase: Phase, request_id: str, at: datetime) -> Server:
    moving = replace(move, phase=phase)
    assert moving.task
    return towards(replace(server, move=moving), moving.task, request_id, at)


def _back(server: Server, move: Move) -> Server:
    """Where it came from, as what it was."""
    there = placed_at(server, move.source_host, move.source_provider, move.source_zone, move.source_topology)
    return replace(
        there,
        move=None,
        flavor=move.old_flavor or server.flavor,
        resizes=server.resizes - (move.in_place and move.departed),
    )
