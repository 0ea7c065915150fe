"""Row 5: the database says one thing, the hypervisor another, and nobody mends it."""

import pytest
from msgspec.structs import replace

from agents.hypervisor.simulated import SimulatedDriver
from schema.compute.task import PowerState, VmState
from tests.saga.playing import settled, staged
from tests.saga.plays import ID, PLAYS, create
from tests.saga.stage import Stage

SECONDS = 1.0
"""A change is told at once."""


async def hosted(stage: Stage) -> SimulatedDriver:
    await stage.ready()
    await stage.insist(create)
    driver = stage.machine((await stage.rests(ID)).host).driver
    assert driver is not None
    return driver


@pytest.mark.parametrize("what", ["lose_power", "crash", "vanish"])
def test_what_is_done_behind_our_back_is_seen_at_once(what):
    async def story(stage: Stage) -> list[str]:
        driver = await hosted(stage)
        stage.disturbed.add(ID)
        getattr(driver, what)(ID)
        await stage.until(lambda: stage.server(ID).vm_state is VmState.STOPPED, SECONDS)
        assert stage.server(ID).power_state is not PowerState.RUNNING
        return await settled(stage)

    assert staged(story).broken == []


def test_a_guest_that_nobody_ordered_goes_by_itself():
    """LP1764883: a guest left behind went on running."""

    async def story(stage: Stage) -> list[str]:
        driver = await hosted(stage)
        mine = driver.domains[ID]
        driver.domains["stranger"] = replace(mine, seen=replace(mine.seen, server_id="stranger"))
        return await settled(stage)

    assert staged(story).broken == []


def test_a_guest_in_the_middle_of_something_is_not_healed():
    """What a host does because it was told to is no drift: a resize powers off, and nobody starts it again."""

    async def story(stage: Stage) -> list[str]:
        driver = await hosted(stage)
        starts: list[str] = []
        failing = driver.failure
        driver.failure = lambda step: (starts.append(type(step).__name__), failing(step))[1]
        await stage.insist(PLAYS["resize"].do)
        await stage.rests(ID)
        assert "Start" not in starts
        return await settled(stage)

    assert staged(story).broken == []
