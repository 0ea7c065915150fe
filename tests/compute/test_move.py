"""The promises of moves: an outcome is decided once, on the grounds that are so by then."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from handlers.compute.moving import arriving, beginning, failed_at, failing_move, heard
from handlers.compute.server import SERVERS
from schema.compute.domain import Observed
from schema.compute.migration import BeginMigration, MigrationType
from schema.compute.move import (
    Move,
    MoveDeparted,
    MoveFailed,
    MoveFinished,
    MovePlaced,
    MoveRequested,
    MoveReturnRequested,
    Phase,
)
from schema.compute.server import deadline
from schema.compute.server_command import (
    EvacuateServer,
    FailMove,
    FinishMove,
    MigrateServer,
    ObserveServer,
    PlaceMove,
    PrepareMove,
    ResetServerState,
)
from schema.compute.server_event import ActionFailed
from schema.compute.server_parts import Fault
from schema.compute.task import PowerState, Task, VmState
from schema.placement.consumer import EndAllocations
from schema.placement.provider import Release, TakeOver
from schema.refusal import Conflict
from tests.compute.test_server import running, server, stopped

MOVE = Move(
    migration_id="m-1",
    type=MigrationType.EVACUATION,
    source_host="h1",
    source_provider="p-1",
    source_power=PowerState.RUNNING,
    held={"VCPU": 1},
)
asked = MoveRequested(move=MOVE)
there = MovePlaced(host="h2", provider_id="p-2")
FAULT = Fault(message="no disk")


def after(*events):
    return server.given(*running, *events).state


def decided(state, command):
    return list(SERVERS.decide(state, command))


@pytest.mark.parametrize(
    "history,power_state,on", [(running, PowerState.RUNNING, True), (stopped, PowerState.SHUTDOWN, False)]
)
def test_it_goes_as_it_is_when_that_is_decided(history, power_state, on):
    """Not as it was read before: built meanwhile, or stopped."""
    read = replace(MOVE, type=MigrationType.MIGRATION, source_provider="p1", source_power=0, running=not on)
    now = replace(read, source_power=power_state, running=on)
    server.given(*history).when(MigrateServer(move=read)).then(MoveRequested(move=now))


def test_it_is_on_the_host_it_is_built_on_and_back_where_it_was_when_that_fails():
    before, moving = after(), after(asked, there)
    assert (moving.host, moving.built, moving.vm_state) == ("h2", False, VmState.ACTIVE)
    again = after(asked, there, MoveFailed(host="h2", message="no disk", again=True))
    assert (again.host, again.provider_id, again.move.tried) == ("h1", "p-1", ("h2",))
    back = after(asked, there, MoveFailed(host="h2", message="no disk"))
    assert (back.host, back.vm_state, back.move, back.task) == ("h1", VmState.ERROR, None, None)
    nowhere = after(asked, MoveFailed(message="no host"))
    assert (nowhere.host, nowhere.vm_state, nowhere.built) == (before.host, before.vm_state, True)


@pytest.mark.parametrize(
    "events,command",
    [
        ((), FinishMove(migration_id="m-1", host="h2", running=True)),
        ((asked,), FinishMove(migration_id="m-1", host="h2", running=True)),
        ((asked, there), FinishMove(migration_id="m-2", host="h2", running=True)),
        ((asked, there), FinishMove(migration_id="m-1", host="h3", running=True)),
        ((asked, there), FailMove(migration_id="m-1", host="", fault=FAULT)),
        ((asked, there), FailMove(migration_id="m-1", host="h3", fault=FAULT)),
        ((asked,), FailMove(migration_id="m-1", host="h2", fault=FAULT)),
        ((asked, there), PlaceMove(migration_id="m-1", host="h3", provider_id="p-3")),
        ((asked, there, MoveFinished(running=True)), FailMove(migration_id="m-1", host="h2", fault=FAULT)),
        ((asked, there), ResetServerState(vm_state=VmState.ERROR)),
    ],
)
def test_what_comes_too_late_is_refused(events, command):
    with pytest.raises(Conflict):
        decided(after(*events), command)


def test_what_was_decided_is_not_decided_again():
    assert decided(after(asked), EvacuateServer(move=MOVE)) == []
    assert decided(after(asked, there), PlaceMove(migration_id="m-1", host="h2", provider_id="p-2")) == []


def test_the_source_says_nothing_that_counts_any_more():
    state = after(asked, there)
    seen = ObserveServer(host="h1", generation=state.generation, power_state=PowerState.RUNNING)
    assert decided(state, seen) == []


def test_a_way_back_that_failed_is_not_confirmed_by_the_clock():
    resize = MoveRequested(move=replace(MOVE, type=MigrationType.RESIZE))
    arrived = MoveFinished(running=True, confirm_seconds=60)
    resting = after(resize, there, MoveDeparted(), arrived)
    assert deadline(resting) == resting.updated_at + timedelta(seconds=60)
    failed = ActionFailed(task=Task.RESIZE_REVERTING, fault=FAULT)
    still = after(resize, there, MoveDeparted(), arrived, MoveReturnRequested(), failed)
    assert (still.vm_state, still.task, still.move.phase) == (VmState.RESIZED, None, Phase.RESTING)
    assert deadline(still) is None


def commands(wishes, kind):
    return [wish.command for wish in wishes if isinstance(wish.command, kind)]


def test_every_outcome_gives_back_what_it_must():
    begin = BeginMigration(
        number=1,
        migration_type=MigrationType.EVACUATION,
        server_id="s",
        project_id="p",
        user_id="u",
        source_host="h1",
    )
    state = after()
    asking = beginning(state, EvacuateServer(move=MOVE), begin)
    assert commands(asking, TakeOver) == [TakeOver(consumer_id="m-1", of=state.id)]
    moving = after(asked, there)
    arrived = arriving(moving)
    assert commands(arrived, Release) == [Release(consumer_id="m-1")]
    assert commands(arrived, EndAllocations) == [EndAllocations(providers=("p-1",))]
    again = failing_move(moving, failed_at(moving, "no disk"))
    assert commands(again, Release) == [Release(consumer_id=state.id)]
    assert not commands(again, TakeOver)
    last = after(asked, *(there, MoveFailed(host="h2", message="no disk", again=True)) * 2, there)
    back = failing_move(last, failed_at(last, "no disk"))
    assert commands(back, TakeOver) == [TakeOver(consumer_id=state.id, of="m-1")]


@pytest.mark.parametrize(
    "seen,outcome",
    [
        ({"power": "running"}, [FailMove]),  # a build it was late with
        ({"awaiting": True}, [PrepareMove]),
        ({"sent": True}, []),  # what it left when it went from there is let go of first
    ],
)
def test_nothing_has_come_before_it_was_sent(seen, outcome):
    state = after(MoveRequested(move=replace(MOVE, type=MigrationType.LIVE)), there)
    wishes = heard(state, "h2", Observed(server_id=state.id, generation=state.generation, **seen), [])
    assert [type(it.command) for it in wishes if it.aggregate is SERVERS] == outcome
