"""Row 7: a live migration that failed leaves a server in ERROR, on both hosts, or without its network."""

import pytest

from schema.compute.task import VmState
from schema.network.port_state import Port
from tests.saga.playing import Outcome, perform, settled, staged
from tests.saga.plays import ID, PLAYS
from tests.saga.stage import HOSTS, Ill, Stage

LIVE = PLAYS["migrate live"]
ACTS = [number for number, it in enumerate(perform(LIVE).happened) if it.what == "act"]


@pytest.mark.parametrize("number", ACTS)
def test_whichever_step_fails_the_server_runs_on_one_host_with_its_ports(number):
    """LP2044235, LP1944619: what failed at the source, or after the switch, was an ERROR that nobody could undo."""
    outcome: Outcome = perform(LIVE, (Ill(number, "fail for good"),))
    assert outcome.broken == []  # one guest, one host, its claims and its ports there: the laws of the saga
    assert outcome.server.vm_state is VmState.ACTIVE


def test_where_no_host_can_take_it_it_stays_where_it_is_and_says_why():
    async def story(stage: Stage) -> list[str]:
        await stage.ready()
        for do in LIVE.before:
            await stage.insist(do)
        before = await stage.rests(ID)
        for n in range(HOSTS):
            stage.cannot(f"host-{n}", "Prepare")
        await stage.insist(LIVE.do)
        after = await stage.rests(ID)
        assert (after.vm_state, after.host, after.move) == (VmState.ACTIVE, before.host, None)
        assert "Prepare never works" in after.fault.message
        assert {port.host for port in stage.states(Port).values() if port.device_id == ID} == {before.host}
        return await settled(stage)

    assert staged(story).broken == []
