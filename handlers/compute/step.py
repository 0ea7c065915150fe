"""What a server still needs done, from how it stands; doing it is handlers/compute/build.py's.

wants a host ─▶ Place      on its way, or told of something ─▶ Tell      it was tried or was elsewhere ─▶ TurnAway
lost, late, or its ports cannot be wired ─▶ the command that fails it, gives it up, ends it or takes it back
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from handlers.compute.moving import failed_at, moving
from handlers.compute.ports import Ports, unwired
from handlers.network.binding import FAILED
from schema.compute.move import Move, Phase
from schema.compute.server import deadline
from schema.compute.server_command import (
    CancelMove,
    ConfirmResize,
    DeleteServer,
    EndServer,
    FailBuild,
    FailMove,
    FinishOffload,
    GiveUpTask,
    ObserveServer,
    OffloadServer,
    RefusePlacement,
    ReturnMove,
    SettleNics,
)
from schema.compute.server_parts import Fault
from schema.compute.server_state import Server
from schema.compute.task import PowerState, Task, VmState
from schema.network.port_state import Port

WIRING_SECONDS = 10
"""What keeps a host from wiring a port of a server that is being built may pass by itself for so long."""


class Place(msgspec.Struct, frozen=True):
    """It wants a host."""


class Tell(msgspec.Struct, frozen=True):
    """Its host must hear of it."""


class TurnAway(msgspec.Struct, frozen=True):
    """This host could not build it and must give up trying."""

    host: str


class Arrive(msgspec.Struct, frozen=True):
    """It has come to the host it was on its way to."""


Step = (
    Arrive
    | FailMove
    | Place
    | Tell
    | TurnAway
    | RefusePlacement
    | FailBuild
    | GiveUpTask
    | ObserveServer
    | SettleNics
    | ConfirmResize
    | CancelMove
    | ReturnMove
    | EndServer
    | DeleteServer
    | OffloadServer
    | FinishOffload
)

_NO_PORTS: Ports = {}


class _Sight(NamedTuple):
    """What can be seen of a move from where it is decided on."""

    now: datetime
    late: bool
    host_alive: bool
    """The server's own."""
    host_fenced: bool
    """It is lost, and lets no guest run."""
    target_alive: bool
    back: bool


def advance(
    server: Server,
    now: datetime,
    *,
    host_alive: bool = True,
    host_fenced: bool = False,
    target_alive: bool = True,
    back: bool = False,
    ports: Ports = _NO_PORTS,
) -> list[Step]:
    """What a server still needs done. Looks at the state, not at the event.

    `ports`: of one that is being built. `back`: the host it is to leave, as that was down, is not any more.
    """
    due = deadline(server)
    late = due is not None and now >= due
    match server.task:
        case None if server.deleted_at is not None:
            return []
        case None if server.host is None:
            return _turning_away(server)
        case None if late and server.move is not None:
            return [ConfirmResize(overrides_lock=True)]
        case None if late and server.vm_state is VmState.SHELVED:
            return [OffloadServer(overrides_lock=True)]
        case None if late and server.vm_state is VmState.SOFT_DELETED:
            return [DeleteServer(overrides_lock=True)]
        case None if late:
            slow = f"Host {server.host} did not plug its network cards in or out in time."
            return [SettleNics(generation=server.generation, fault=slow)]
        case None:
            busy = server.fault or server.unsettled or server.move or server.left
            return [*_turning_away(server), Tell()] if busy else []
        case Task.SCHEDULING | Task.UNSHELVING if server.wants_host and late:
            return [RefusePlacement(fault=Fault(message="No host could be found for the server in time."))]
        case Task.SCHEDULING | Task.UNSHELVING if server.wants_host:
            return [*_turning_away(server), Place()]
        case Task.SPAWNING if not host_alive:
            return [_failed(server, "was lost.")]
        case Task.SPAWNING if late:
            waiting = "".join(f" Port {id} is not wired." for id in unwired(server, ports))
            return [_failed(server, f"has not built it in {server.order.build_seconds} seconds.{waiting}")]
        case Task.SPAWNING if why := _unwirable(server, ports, now):
            return [_failed(server, why)]
        case Task.SPAWNING if server.power_state is not PowerState.NOSTATE and not unwired(server, ports):
            # Its guest was there before its ports were; now these are, too.
            seen = ObserveServer(host=server.host or "", generation=server.generation, power_state=server.power_state)
            return [seen]
        case _ if server.move is not None and moving(server):
            return _moving_on(
                server, server.move, _Sight(now, late, host_alive, host_fenced, target_alive, back), ports
            )
        case Task.DELETING if server.move is not None and not late and host_alive and server.host is not None:
            both = (server.move.source_host, server.move.target_host)
            return [*(TurnAway(host) for host in both if host and host != server.host), Tell()]
        case Task.DELETING if late or not host_alive or server.host is None:
            return [EndServer()]
        case Task.SHELVING_OFFLOADING if late or not host_alive or server.host is None:
            return [FinishOffload(host=server.host or "")]
        case task if late:
            why = "" if host_alive else "; it is lost"
            fault = Fault(message=f"Host {server.host} did not finish {task} in time{why}.")
            return [GiveUpTask(task=task, fault=fault)]
    return [Tell()]


def _moving_on(server: Server, move: Move, sight: _Sight, ports: Ports) -> list[Step]:
    match move.phase:
        case Phase.SEEKING if move.cancelled:
            return [_nowhere(move, "It was called off.")]
        case Phase.SEEKING if sight.late or sight.back:
            why = f"Host {server.host} is back." if sight.back else "No host could be found for the server in time."
            return [_nowhere(move, why)]
        case Phase.SEEKING:
            return [*(TurnAway(host) for host in move.tried[-1:] if host != move.source_host), Place()]
        case Phase.ARRIVING:
            return _building_there(server, ports, sight)
        case Phase.RETURNING if sight.host_fenced:
            return [ReturnMove(migration_id=move.migration_id)]  # should that host be back, it is told to let it go
        case Phase.RETURNING if sight.late:
            slow = f"Host {server.host} did not let it go in time."
            return [GiveUpTask(task=Task.RESIZE_REVERTING, fault=Fault(message=slow))]
        case Phase.PREPARING if not sight.host_alive:
            return [failed_at(server, f"Host {server.host} was lost.", final=True)]
        case Phase.PREPARING if not sight.target_alive:
            return [failed_at(server, f"Host {move.target_host} was lost.")]
        case Phase.LEAVING if move.cold and not sight.host_alive:
            return [failed_at(server, f"Host {server.host} was lost.", final=True)]
        case Phase.LEAVING if move.live and sight.host_fenced and sight.target_alive:
            # Had it come, the other would have said so by now; should it come yet, it is let go there.
            return [failed_at(server, f"Host {server.host} was lost.", final=True)]
        case Phase.LEAVING if move.live and sight.late and not move.cancelled:
            return [CancelMove(migration_id=move.migration_id)]
        case Phase.LEAVING if move.live and sight.late and sight.host_alive:
            pass  # it knows whether it has sent it; had it come, the other would have said so by now
        case Phase.PREPARING | Phase.LEAVING if sight.late:
            return [failed_at(server, f"Host {server.host} did not let it go in time.", final=True)]
    return [Tell()]


def _nowhere(move: Move, why: str) -> FailMove:
    return FailMove(migration_id=move.migration_id, host="", fault=Fault(message=why))


def _building_there(server: Server, ports: Ports, sight: _Sight) -> list[Step]:
    cold = server.move is not None and server.move.cold
    if not sight.host_alive:
        # What it has made of a copy may run there yet.
        return [failed_at(server, f"Host {server.host} was lost.", off=cold, final=cold)]
    if sight.late:
        return [failed_at(server, f"Host {server.host} has not built it in time.")]
    if why := _unwirable(server, ports, sight.now):
        return [failed_at(server, f"Host {server.host} {why}")]
    if server.power_state is PowerState.RUNNING and not unwired(server, ports):
        return [Arrive()]  # its guest was there before its ports were; now these are, too
    # Should a host that was down be back, it must not keep what it has of it.
    return [*([TurnAway(server.move.source_host)] if server.move and not cold else []), Tell()]


def _turning_away(server: Server) -> list[Step]:
    tried = [*server.failed_hosts[-1:], *([server.left] if server.left else [])]
    return [TurnAway(host) for host in tried if host != server.host]


def _failed(server: Server, what: str) -> FailBuild:
    return FailBuild(host=server.host or "", fault=Fault(message=f"Host {server.host} {what}"))


def _unwirable(server: Server, ports: Ports, now: datetime) -> str:
    """Which port its host cannot wire, and why, if it has had time enough."""
    patient = server.task_since is None or now < server.task_since + timedelta(seconds=WIRING_SECONDS)
    for id in unwired(server, ports):
        port: Port = ports[id].state
        if port.host == server.host and port.binding.vif_type == FAILED:
            return f"has no network agent that could wire port {id}."
        if port.host == server.host and port.fault is not None and not patient:
            return f"could not wire port {id}: {port.fault}"
    return ""
