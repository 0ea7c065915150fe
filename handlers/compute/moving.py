"""What is decided about a server on its way, as wishes: claims, group, quota and migration go with what is said of it.

    asked for ─▶ its claim on the source is the migration's      placed ─▶ the target is claimed for the server
    there ─▶ the source's claim is released                      failed, returned ─▶ the target's is, and (at last) the
                                                                 source's is the server's again

A dead source that is back before there is another host keeps its server. Later it must not: what it has of it goes, so
that no guest ever runs twice.
"""

from __future__ import annotations

from msgspec.structs import replace

from bus.execute import Wish
from handlers.compute.migration import MIGRATIONS
from handlers.compute.move import attempts_left, target
from handlers.compute.server import SERVERS, decide
from handlers.compute.server_group import SERVER_GROUPS
from handlers.placement.answer import NoValidHost, Placement, told
from handlers.placement.claims import claim, released
from handlers.placement.consumer import CONSUMERS
from handlers.placement.demand import Request
from handlers.placement.provider import PROVIDERS
from schema.compute.domain import Observed
from schema.compute.migration import AdvanceMigration, BeginMigration, MigrationStatus, MigrationType
from schema.compute.move import Move, Phase
from schema.compute.server_command import (
    CancelMove,
    ConfirmResize,
    DepartMove,
    FailMove,
    FinishMove,
    GiveUpTask,
    MoveServer,
    ObserveServer,
    PlaceMove,
    PrepareMove,
    ReturnMove,
    RevertResize,
)
from schema.compute.server_group import PlaceGroupMember
from schema.compute.server_parts import Fault, ServerFlavor
from schema.compute.server_state import Server
from schema.compute.task import PowerState, Task
from schema.event import Command
from schema.placement.consumer import Allocate, EndAllocations
from schema.placement.provider import TakeOver

MIGRATION_CONSUMER = "MIGRATION"

_PLACED = {MigrationType.EVACUATION: MigrationStatus.PRE_MIGRATING, MigrationType.LIVE: MigrationStatus.PREPARING}
_THERE = {MigrationType.EVACUATION: MigrationStatus.DONE, MigrationType.LIVE: MigrationStatus.COMPLETED}


def moving(server: Server) -> bool:
    """Whether it is on its way; one that is being deleted meanwhile goes nowhere."""
    return server.move is not None and server.task is not None and server.task is server.move.task


def beginning(server: Server, action: MoveServer, begin: BeginMigration) -> tuple[Wish, ...]:
    """A move that somebody asks for. What the server holds of its host, `action.move.held`, is the migration's now."""
    move = action.move
    return (
        Wish(SERVERS, server.id, action),
        Wish(MIGRATIONS, move.migration_id, begin),
        *_handed(server, move, server.id, move.migration_id, MIGRATION_CONSUMER),
    )


def moving_request(server: Server, request: Request) -> Request:
    """What the scheduler is asked for a server on its way, from what it is asked for a new one."""
    move = server.move
    if move is None:
        return request
    tried = frozenset(move.tried if move.stays else {move.source_host, *move.tried})
    return replace(request, host=move.host, forced=move.forced, tried=tried)


def flavor_wanted(server: Server) -> ServerFlavor:
    """What it is of, or shall be of when it has moved."""
    return server.move.new_flavor if server.move and server.move.new_flavor else server.flavor


def placing_move(server: Server, answer: Placement | NoValidHost) -> tuple[Wish, ...]:
    """The scheduler's answer for a server on its way."""
    move = _move(server)
    if isinstance(answer, NoValidHost):
        fault = Fault(message=_with_last(server, answer.reason), details=told(answer.decision.remedy))
        failed = FailMove(migration_id=move.migration_id, host="", fault=fault, decision=answer.decision)
        return failing_move(server, failed)
    placed = PlaceMove(
        migration_id=move.migration_id,
        host=answer.host,
        provider_id=answer.provider_id,
        zone=answer.zone,
        topology=answer.topology,
        decision=answer.decision,
    )
    return (
        Wish(SERVERS, server.id, placed),
        *claim(
            server.id,
            {answer.provider_id: answer.resources},
            server.project_id,
            server.order.user_id,
            units={answer.provider_id: answer.units} if answer.units else None,
        ),
        *_group(server, answer.host),
        _advanced(move, _PLACED.get(move.type, MigrationStatus.MIGRATING), answer.host),
    )


def preparing(server: Server) -> tuple[Wish, ...]:
    """The host it goes to waits for it."""
    move = _move(server)
    prepared = PrepareMove(migration_id=move.migration_id, host=move.target_host)
    return (Wish(SERVERS, server.id, prepared), _advanced(move, MigrationStatus.RUNNING))


def departing(server: Server) -> tuple[Wish, ...]:
    """It is off at the host it comes from."""
    move = _move(server)
    departed = DepartMove(migration_id=move.migration_id)
    return (Wish(SERVERS, server.id, departed), _advanced(move, MigrationStatus.POST_MIGRATING))


def failing_move(server: Server, failed: FailMove) -> tuple[Wish, ...]:
    """It failed at that host, or there is none: the next one is tried, or it is given back to where it came from."""
    move = _move(server)
    again = bool(failed.host) and not failed.final and attempts_left(server) > 1
    target_claim = released(server.id, (_target_provider(server),)) if failed.host else ()
    if again:
        return (Wish(SERVERS, server.id, failed), *target_claim, *_group(server, ""))
    return (
        Wish(SERVERS, server.id, failed),
        *target_claim,
        *_given_back(server, move),
        _advanced(move, MigrationStatus.CANCELLED if move.cancelled else MigrationStatus.ERROR),
    )


def failed_at(server: Server, what: str, *, off: bool = False, final: bool = False) -> FailMove:
    """It failed at the host it is going to, or on the way there."""
    fault = Fault(message=what)
    return FailMove(migration_id=_move(server).migration_id, host=target(server), fault=fault, off=off, final=final)


def arriving(server: Server, confirm_seconds: float = 0) -> tuple[Wish, ...]:
    """It is there. One that could go back keeps what it held of the host it came from."""
    move = _move(server)
    finished = FinishMove(
        migration_id=move.migration_id, host=target(server), running=move.running, confirm_seconds=confirm_seconds
    )
    if move.cold:
        return (Wish(SERVERS, server.id, finished), _advanced(move, MigrationStatus.FINISHED))
    return (
        Wish(SERVERS, server.id, finished),
        *released(move.migration_id, (move.source_provider,)),
        _advanced(move, _THERE[move.type]),
    )


def confirming(server: Server, confirm: ConfirmResize) -> tuple[Wish, ...]:
    """It stays as it is."""
    if (move := server.move) is None:
        return (Wish(SERVERS, server.id, confirm),)  # which is refused
    return (
        Wish(SERVERS, server.id, confirm),
        *released(move.migration_id, (move.source_provider,)),
        _advanced(move, MigrationStatus.CONFIRMED),
    )


def reverting(server: Server, revert: RevertResize) -> tuple[Wish, ...]:
    """It shall be what and where it was."""
    first = Wish(SERVERS, server.id, revert)
    return (first, _advanced(server.move, MigrationStatus.REVERTING)) if server.move else (first,)


def returning(server: Server) -> tuple[Wish, ...]:
    """It is nowhere but where it was."""
    move = _move(server)
    return (
        Wish(SERVERS, server.id, ReturnMove(migration_id=move.migration_id)),
        *released(server.id, (move.target_provider,)),
        *_given_back(server, move),
        _advanced(move, MigrationStatus.REVERTED),
    )


def cancelling(server: Server, cancel: CancelMove) -> tuple[Wish, ...]:
    """It shall not go, if there is time yet."""
    return (Wish(SERVERS, server.id, cancel),)


def abandoned(server: Server) -> tuple[Wish, ...]:
    """What goes with the end of a server that is on its way."""
    if server.move is None:
        return ()
    move = server.move
    status = MigrationStatus.CONFIRMED if move.phase is Phase.RESTING else MigrationStatus.ERROR
    return (*released(move.migration_id, (move.source_provider,)), _advanced(move, status))


def heard(
    server: Server, host: str, observed: Observed, unwired: list[str], confirm_seconds: float = 0
) -> tuple[Wish, ...]:
    """What the word of a host about a server on its way comes to. `unwired`: ports of it that are not in place yet."""
    move = _move(server)
    match move.phase:
        case Phase.PREPARING if host == move.target_host:
            if observed.fault is not None:
                return failing_move(server, failed_at(server, observed.fault))
            if observed.power != "absent":  # of a build it was late with: nothing can have been sent to it yet
                return failing_move(server, failed_at(server, f"Host {host} holds something of it already."))
            return preparing(server) if observed.awaiting else ()
        case Phase.PREPARING | Phase.LEAVING if move.live:
            return _heard_live(server, move, host, observed)
        case Phase.LEAVING:
            if observed.fault is not None or observed.power == "absent":
                why = observed.fault or f"Its guest is gone from host {host}."
                return failing_move(server, failed_at(server, why, final=True))
            return departing(server) if observed.power in {"stopped", "crashed"} else ()
        case Phase.ARRIVING if host == server.host:
            return _heard_there(server, move, observed, unwired, confirm_seconds)
        case Phase.RETURNING if host == server.host and observed.fault is not None:
            give_up = GiveUpTask(task=Task.RESIZE_REVERTING, fault=Fault(message=observed.fault))
            return (Wish(SERVERS, server.id, give_up),)
        case Phase.RETURNING if host == server.host:
            gone = observed.power == "stopped" and not observed.kept if move.in_place else observed.power == "absent"
            return returning(server) if gone else ()
    return ()


def _heard_live(server: Server, move: Move, host: str, observed: Observed) -> tuple[Wish, ...]:
    if host == move.target_host:
        if observed.power in {"running", "paused"}:
            return arriving(server)
        return failing_move(server, failed_at(server, observed.fault)) if observed.fault is not None else ()
    if observed.sent:
        return arriving(server)
    if move.cancelled and observed.power != "absent":
        return failing_move(server, failed_at(server, "It was called off.", final=True))
    if observed.fault is not None and move.phase is Phase.LEAVING:
        return failing_move(server, failed_at(server, observed.fault, final=True))
    return ()


def _heard_there(
    server: Server, move: Move, observed: Observed, unwired: list[str], confirm_seconds: float
) -> tuple[Wish, ...]:
    if observed.fault is not None:
        return failing_move(server, failed_at(server, observed.fault))
    if not move.running:
        return arriving(server, confirm_seconds) if observed.power == "stopped" else ()
    if observed.power != "running":
        return ()
    if not unwired:
        return arriving(server, confirm_seconds)
    seen = ObserveServer(host=server.host or "", generation=observed.generation, power_state=PowerState.RUNNING)
    return (Wish(SERVERS, server.id, seen),) if decide(server, seen) else ()


def _with_last(server: Server, reason: str) -> str:
    tried = _move(server).tried
    return f"{reason} Tried was {', '.join(tried)}: {server.fault.message}" if tried and server.fault else reason


def _given_back(server: Server, move: Move) -> tuple[Wish, ...]:
    """The source is the server's again."""
    return (
        *_handed(server, move, move.migration_id, server.id, "INSTANCE"),
        *_group(server, move.source_host, back=True),
    )


def _handed(server: Server, move: Move, giver: str, taker: str, consumer_type: str) -> tuple[Wish, ...]:
    """What is held of the source from one consumer to the other. It is claimed all along, so it is never another's."""
    held = dict(move.held)
    if not held:
        return ()
    return (
        Wish(PROVIDERS, move.source_provider, TakeOver(consumer_id=taker, of=giver)),
        Wish(CONSUMERS, giver, EndAllocations(providers=(move.source_provider,))),
        Wish(
            CONSUMERS,
            taker,
            Allocate(
                allocations={move.source_provider: held},
                project_id=server.project_id,
                user_id=server.order.user_id,
                consumer_type=consumer_type,
            ),
        ),
    )


def _target_provider(server: Server) -> str:
    return _move(server).target_provider or server.provider_id


def _advanced(move: Move, status: MigrationStatus, dest_host: str = "") -> Wish:
    return Wish(MIGRATIONS, move.migration_id, AdvanceMigration(status=status, dest_host=dest_host))


def _group(server: Server, host: str, *, back: bool = False) -> tuple[Wish, ...]:
    command: Command = PlaceGroupMember(server_id=server.id, host=host, back=back)
    return (Wish(SERVER_GROUPS, server.order.group_id, command),) if server.order.group_id else ()


def _move(server: Server) -> Move:
    if server.move is None:
        raise ValueError(f"server {server.id} is on its way nowhere")
    return server.move
