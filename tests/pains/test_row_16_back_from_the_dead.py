"""Row 16: a host that was evacuated comes back, and its guests run there once more."""

from schema.compute.host import Host
from schema.compute.task import VmState
from schema.network.wiring import link_name
from tests.pains.conftest import broken_off
from tests.saga.plays import ID, create, evacuate
from tests.saga.stage import Stage


async def cut_off(stage: Stage) -> None:
    """Its host is alive, and nobody hears of it."""
    name = stage.server(ID).host or ""
    stage.network.away |= {name, link_name(name)}
    await stage.until(lambda: not stage.states(Host)[name].alive)


def back(stage: Stage) -> None:
    stage.network.away.clear()


def test_whenever_the_source_is_back_nothing_ever_runs_twice():
    """LP1713783, LP1764883, LP1922053. The stage looks at every act of every host (`World.done`)."""
    for number, outcome in broken_off(create, do=evacuate, by=back, mishap=cut_off):
        assert not outcome.broken, (number, outcome.broken)
        assert outcome.server.vm_state is VmState.ACTIVE, number
