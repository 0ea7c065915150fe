"""Row 1: a server stuck in BUILD, DELETING or powering-off, until somebody resets its state by hand."""

import pytest

from schema.compute.host import Host
from schema.compute.server_command import DeleteServer
from schema.compute.task import WAYS, Task, VmState
from tests.pains.conftest import broken_off
from tests.saga.playing import settled, staged
from tests.saga.plays import ID, PLAYS, STOP, act, create, evacuate
from tests.saga.stage import Stage

DELETE = act(DeleteServer())


def test_every_way_has_its_time():
    """So nothing is on its way for ever, whoever dies."""
    assert set(WAYS) == set(Task)
    assert all(0 < way.seconds <= 86_400 for way in WAYS.values())


@pytest.mark.parametrize("name", ["create", "rebuild", "rescue"])
def test_who_is_deleted_at_any_step_is_gone(name):
    """LP1914777: a delete that came while the server was being built left it in BUILD or DELETING."""
    play = PLAYS[name]

    def delete(stage: Stage) -> None:
        stage.also(DELETE)

    for number, outcome in broken_off(*play.before, do=play.do, by=delete):
        assert not outcome.broken, (number, outcome.broken)
        assert outcome.server.vm_state is VmState.DELETED, number


def test_one_that_was_being_stopped_when_its_host_died_can_be_evacuated():
    """LP1978983: its task stayed powering-off for ever, and kept it from being evacuated."""

    async def story(stage: Stage) -> list[str]:
        await stage.ready()
        await stage.insist(create)
        source = stage.machine((await stage.rests(ID)).host)
        stage.bury(source.owner)  # before it hears of it
        await stage.insist(STOP)
        source.wiring.kill()
        source.gone = True
        await stage.until(lambda: not stage.states(Host)[source.name].alive)
        stopping = await stage.rests(ID)
        assert (stopping.host, stopping.task) == (source.name, None)
        assert stopping.fault
        await stage.insist(evacuate)
        there = await stage.rests(ID)
        assert (there.vm_state, there.host == source.name) == (VmState.ACTIVE, False)
        return await settled(stage)

    assert staged(story).broken == []
