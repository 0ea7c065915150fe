"""What is decided about a server on its way, as wishes: claims, group, migration and what is said of it go together.

    asked for ─▶ its claim on the source is the migration's      placed ─▶ the target is claimed for the server
    arrived ─▶ the source's claim is released                    failed ─▶ the target's is, and (at last) the source's
                                                                           is the server's again

A source that is back before there is another host keeps its server. Later it must not: what it has of it goes, so that
no guest ever runs twice.
"""

from __future__ import annotations

from msgspec.structs import replace

from bus.execute import Wish
from handlers.compute.migration import MIGRATIONS
from handlers.compute.move import attempts_left
from handlers.compute.server import SERVERS, decide
from handlers.compute.server_group import SERVER_GROUPS
from handlers.placement.claims import claim, released
from handlers.placement.consumer import CONSUMERS
from handlers.placement.demand import Request
from handlers.placement.provider import PROVIDERS
from handlers.placement.schedule import NoValidHost, Placement, told
from schema.compute.domain import Observed
from schema.compute.migration import AdvanceMigration, BeginMigration, MigrationStatus
from schema.compute.move import Move
from schema.compute.server import Server
from schema.compute.server_command import EvacuateServer, FailMove, FinishMove, ObserveServer, PlaceMove
from schema.compute.server_group import PlaceGroupMember
from schema.compute.server_parts import Fault
from schema.compute.task import PowerState, Task
from schema.event import Command
from schema.placement.consumer import Allocate, EndAllocations
from schema.placement.provider import TakeOver

MOVING = frozenset({Task.REBUILDING, Task.REBUILD_SPAWNING})
"""The tasks of a server on its way; one that is being deleted meanwhile goes nowhere."""
MIGRATION_CONSUMER = "MIGRATION"


def beginning(server: Server, action: EvacuateServer, begin: BeginMigration) -> tuple[Wish, ...]:
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
    tried = frozenset({move.source_host, *move.tried})
    return replace(request, host=move.host, forced=move.forced, tried=tried)


def placing_move(server: Server, answer: Placement | NoValidHost) -> tuple[Wish, ...]:
    """The scheduler's answer for a server on its way."""
    move = _move(server)
    if isinstance(answer, NoValidHost):
        fault = Fault(message=_with_last(server, answer.reason), details=told(answer.decision.remedy))
        return failing_move(server, FailMove(migration_id=move.migration_id, host="", fault=fault))
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
        _advanced(move, MigrationStatus.PRE_MIGRATING, answer.host),
    )


def failing_move(server: Server, failed: FailMove) -> tuple[Wish, ...]:
    """It failed at that host, or there is none: the next one is tried, or it is given back to where it came from."""
    move = _move(server)
    again = bool(failed.host) and attempts_left(server) > 1
    target = released(server.id, (server.provider_id,)) if failed.host else ()
    if again:
        return (Wish(SERVERS, server.id, failed), *target, *_group(server, ""))
    return (
        Wish(SERVERS, server.id, failed),
        *target,
        *_handed(server, move, move.migration_id, server.id, "INSTANCE"),
        *_group(server, move.source_host, back=True),
        _advanced(move, MigrationStatus.ERROR),
    )


def failed_at(server: Server, what: str) -> FailMove:
    """It failed at the host it is going to."""
    return FailMove(migration_id=_move(server).migration_id, host=server.host or "", fault=Fault(message=what))


def arriving(server: Server) -> tuple[Wish, ...]:
    """It is there."""
    move = _move(server)
    finished = FinishMove(migration_id=move.migration_id, host=server.host or "", running=move.running)
    return (
        Wish(SERVERS, server.id, finished),
        *released(move.migration_id, (move.source_provider,)),
        _advanced(move, MigrationStatus.DONE),
    )


def abandoned(server: Server) -> tuple[Wish, ...]:
    """What goes with the end of a server that is on its way."""
    if server.move is None:
        return ()
    released_there = released(server.move.migration_id, (server.move.source_provider,))
    return (*released_there, _advanced(server.move, MigrationStatus.ERROR))


def heard(server: Server, observed: Observed, unwired: list[str]) -> tuple[Wish, ...]:
    """What the word of the host it is going to comes to. `unwired`: ports of it that are not in place yet."""
    if server.task is not Task.REBUILD_SPAWNING:
        return ()
    if observed.fault is not None:
        return failing_move(server, failed_at(server, observed.fault))
    if not _move(server).running:
        return arriving(server) if observed.power == "stopped" else ()
    if observed.power != "running":
        return ()
    if not unwired:
        return arriving(server)
    seen = ObserveServer(host=server.host or "", generation=observed.generation, power_state=PowerState.RUNNING)
    return (Wish(SERVERS, server.id, seen),) if decide(server, seen) else ()


def _with_last(server: Server, reason: str) -> str:
    tried = _move(server).tried
    return f"{reason} Tried was {', '.join(tried)}: {server.fault.message}" if tried and server.fault else reason


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


def _advanced(move: Move, status: MigrationStatus, dest_host: str = "") -> Wish:
    return Wish(MIGRATIONS, move.migration_id, AdvanceMigration(status=status, dest_host=dest_host))


def _group(server: Server, host: str, *, back: bool = False) -> tuple[Wish, ...]:
    command: Command = PlaceGroupMember(server_id=server.id, host=host, back=back)
    return (Wish(SERVER_GROUPS, server.order.group_id, command),) if server.order.group_id else ()


def _move(server: Server) -> Move:
    if server.move is None:
        raise ValueError(f"server {server.id} is on its way nowhere")
    return server.move
