"""Row 10: a server could not be made, and its port, its address and its quota are gone with it."""

from schema.compute.quota import Quota
from schema.compute.server_command import DeleteServer
from schema.compute.task import VmState
from schema.network.port_state import Port
from schema.network.quota import NetworkUsage
from schema.network.subnet import Subnet
from schema.placement.consumer import Consumer
from tests.saga.playing import settled, staged
from tests.saga.plays import ID, act, create
from tests.saga.stage import HOSTS, Stage


def held(stage: Stage) -> dict[str, object]:
    """All that somebody could miss."""
    return {
        "ports": {id for id, it in stage.states(Port).items() if it.living},
        "addresses": {id: len(it.allocation) for id, it in stage.states(Subnet).items()},
        "counted": {id: it.used for id, it in stage.states(NetworkUsage).items() if it.name == "port" and it.used},
        "claims": {id for id, it in stage.states(Consumer).items() if it.living},
        "secrets": set(stage.log.secrets),
    }


def test_after_a_failed_create_everything_is_as_it_was():
    async def story(stage: Stage) -> list[str]:
        await stage.ready()
        before = held(stage)
        for n in range(HOSTS):
            stage.cannot(f"host-{n}", "Define")
        await stage.insist(create)
        server = await stage.rests(ID)
        assert server.vm_state is VmState.ERROR
        assert server.fault
        assert held(stage) == before
        await stage.insist(act(DeleteServer()))
        await stage.rests(ID)
        assert held(stage) == before
        assert not any(any(quota.usage.values()) for quota in stage.states(Quota).values())
        return await settled(stage)

    assert staged(story).broken == []
