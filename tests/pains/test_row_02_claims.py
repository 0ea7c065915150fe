"""Row 2: allocations that outlive what they were for, found by an audit or not at all."""

import pytest

from handlers.compute.drift import drifts
from schema.compute.host import Host
from schema.compute.server_command import DeleteServer
from schema.compute.server_state import Server
from schema.compute.task import VmState
from schema.network.port_state import Port
from schema.placement.consumer import Consumer
from schema.placement.provider import Provider
from tests.pains.conftest import broken_off
from tests.saga.playing import settled, staged
from tests.saga.plays import ID, PLAYS, act
from tests.saga.stage import Stage

DELETE = act(DeleteServer())


@pytest.mark.parametrize("name", ["evacuate", "resize", "confirm", "revert", "migrate live"])
def test_whoever_is_deleted_on_the_way_holds_nothing_anywhere(name):
    """LP1848343, LP1825537: deleted while it was moved, a server left its claims on one host or on the other."""
    play = PLAYS[name]
    for number, outcome in broken_off(
        *play.before, do=play.do, by=lambda stage: stage.also(DELETE), mishap=play.mishap
    ):
        assert not outcome.broken, (number, outcome.broken)
        # What was too late to be deleted then may rest: it holds what it takes, which the laws have looked at.
        assert outcome.server.vm_state in {VmState.DELETED, play.leads}, number


@pytest.mark.parametrize("name", ["delete", "resize", "revert", "migrate live"])
def test_an_audit_finds_nothing(name):
    """What `nova-manage placement audit` is there for."""
    play = PLAYS[name]

    async def story(stage: Stage) -> list[str]:
        await stage.ready()
        for do in (*play.before, play.do):
            await stage.insist(do)
            await stage.rests(ID)
        broken = await settled(stage)
        states = {kind: stage.states(kind) for kind in (Server, Host, Provider, Port)}
        found = drifts(states[Server], states[Host].values(), states[Provider], states[Port])
        held = {id for id, it in stage.states(Consumer).items() if it.living}
        living = {id for id, it in states[Server].items() if it.living}
        moving = {it.move.migration_id for it in states[Server].values() if it.living and it.move}
        return [*broken, *map(str, found), *map(str, held - living - moving)]

    assert staged(story).broken == []
