"""Claims: never more than there is, both sides together, and a repeated claim is the same claim."""

import pytest

from bus.execute import Executor, Wish
from bus.memory_log import MemoryLog
from handlers.placement.claims import claim, release, released
from handlers.placement.provider import PROVIDERS, ConcurrentUpdate, NoRoom, offering
from schema.placement.provider import DeleteProvider, Inventory

HOST = {"VCPU": Inventory(total=2, allocation_ratio=2.0), "MEMORY_MB": Inventory(total=1000, reserved=100)}
SMALL = {"VCPU": 1, "MEMORY_MB": 300}


@pytest.fixture
async def executor():
    executor = Executor(MemoryLog())
    await executor.execute(*offering("p1", "host-1", HOST), *offering("p2", "host-2", HOST))
    yield executor
    await executor.close()


async def now(executor, stream):
    return (await executor.log.load([stream])).get(stream)


async def test_a_claim_shows_on_both_sides(executor):
    await executor.execute(*claim("c1", {"p1": SMALL}, "project", "user"))
    provider, consumer = await now(executor, "provider/p1"), await now(executor, "consumer/c1")
    assert (provider.state.used, provider.state.claims) == (SMALL, {"c1": SMALL})
    assert (consumer.state.allocations, consumer.state.project_id) == ({"p1": SMALL}, "project")
    assert consumer.state.generation == 1


async def test_the_same_claim_again_writes_nothing(executor):
    await executor.execute(*claim("c1", {"p1": SMALL}, "project", "user"))
    head = await executor.log.head()
    await executor.execute(*claim("c1", {"p1": SMALL}, "project", "user"))
    assert await executor.log.head() == head


async def test_what_does_not_fit_leaves_no_trace(executor):
    head = await executor.log.head()
    with pytest.raises(NoRoom, match="901 of MEMORY_MB asked, 900 left"):
        await executor.execute(*claim("c1", {"p1": {"VCPU": 1}, "p2": {"MEMORY_MB": 901}}, "project", "user"))
    assert await executor.log.head() == head


async def test_a_claim_moves_from_one_provider_to_another(executor):
    await executor.execute(*claim("c1", {"p1": SMALL}, "project", "user"))
    held = await now(executor, "consumer/c1")
    await executor.execute(*claim("c1", {"p2": SMALL}, "project", "user", held=held))
    assert (await now(executor, "provider/p1")).state.claims == {}
    assert (await now(executor, "provider/p2")).state.claims == {"c1": SMALL}
    with pytest.raises(ConcurrentUpdate):
        await executor.execute(*claim("c1", {"p1": SMALL}, "project", "user", held=held))
    with pytest.raises(ConcurrentUpdate):
        await executor.execute(*released("c1", ("p1",)))


async def test_what_was_released_can_be_claimed_again(executor):
    await executor.execute(*claim("c1", {"p1": SMALL}, "project", "user"))
    await executor.execute(*release(await now(executor, "consumer/c1")))
    assert (await now(executor, "provider/p1")).state.used == {}
    assert not (await now(executor, "consumer/c1")).state.living
    await executor.execute(*claim("c1", {"p1": SMALL}, "project", "user"))
    await executor.execute(*released("c1", ("p1",)))
    await executor.execute(*released("c1", ("p1",)))
    assert (await now(executor, "provider/p1")).state.claims == {}


async def test_a_provider_that_went_gives_nothing(executor):
    await executor.execute(Wish(PROVIDERS, "p1", DeleteProvider()))
    with pytest.raises(NoRoom, match="does not exist"):
        await executor.execute(*claim("c1", {"p1": SMALL}, "project", "user"))


async def test_a_used_provider_stays(executor):
    await executor.execute(*claim("c1", {"p1": SMALL}, "project", "user"))
    with pytest.raises(Exception, match="has allocations"):
        await executor.execute(Wish(PROVIDERS, "p1", DeleteProvider()))
