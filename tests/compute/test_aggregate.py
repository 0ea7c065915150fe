"""The promises of host aggregates."""

import pytest

from bus.execute import Executor, Wish
from bus.memory_log import MemoryLog
from handlers.compute.aggregate import HOST_AGGREGATES, adding, removing, with_metadata
from handlers.compute.host import HOSTS
from schema.compute.aggregate import (
    AddAggregateHost,
    AggregateCreated,
    AggregateDeleted,
    AggregateHostAdded,
    AggregateHostRemoved,
    AggregateMetadataSet,
    AggregateRenamed,
    CreateAggregate,
    DeleteAggregate,
    RemoveAggregateHost,
    RenameAggregate,
    SetAggregateMetadata,
)
from schema.compute.domain import HostFacts
from schema.compute.host import HOST, RegisterHost
from schema.refusal import Conflict, Invalid, NotFound
from tests.story import Story

aggregate = Story(HOST_AGGREGATES, "1")
created = AggregateCreated(uuid="u", name="fast", zone="north")


def test_an_aggregate_is_created_with_its_zone():
    state = aggregate.given().when(CreateAggregate(uuid="u", name="fast", zone="north")).then(created).state
    assert state.metadata == {"availability_zone": "north"}


def test_it_is_renamed():
    aggregate.given(created).when(RenameAggregate(name="slow")).then(AggregateRenamed(name="slow"))


def test_only_metadata_that_changes_is_recorded():
    given = aggregate.given(created, AggregateMetadataSet(metadata={"ssd": "true"}))
    change = SetAggregateMetadata(metadata={"ssd": "true", "gpu": "no", "availability_zone": None})
    state = given.when(change).then(AggregateMetadataSet(metadata={"gpu": "no", "availability_zone": None})).state
    assert state.metadata == {"ssd": "true", "gpu": "no"}


def test_hosts_come_and_go():
    added = aggregate.given(created).when(AddAggregateHost(host="h1", zone="north")).then(AggregateHostAdded(host="h1"))
    added.when(RemoveAggregateHost(host="h1")).then(AggregateHostRemoved(host="h1"))


def test_a_zone_that_changed_meanwhile_is_noticed():
    aggregate.given(created).when(AddAggregateHost(host="h1", zone="south")).refused("changed meanwhile", Conflict)
    given = aggregate.given(created, AggregateHostAdded(host="h1"))
    given.when(SetAggregateMetadata(metadata={"availability_zone": "south"})).refused("changed meanwhile", Conflict)


def test_an_aggregate_with_hosts_cannot_be_deleted():
    given = aggregate.given(created, AggregateHostAdded(host="h1"))
    given.when(DeleteAggregate()).refused("still has the hosts h1", Invalid)
    given.after(AggregateHostRemoved(host="h1")).when(DeleteAggregate()).then(AggregateDeleted())


def test_what_is_not_there_cannot_be_changed():
    aggregate.given().when(RenameAggregate(name="x")).refused("1 could not be found", NotFound)


async def test_a_host_and_its_aggregate_change_together_or_not_at_all():
    executor = Executor(MemoryLog())
    await executor.execute(
        Wish(HOST_AGGREGATES, "1", CreateAggregate(uuid="u1", name="fast", zone="north")),
        Wish(HOST_AGGREGATES, "2", CreateAggregate(uuid="u2", name="slow", zone="south")),
        Wish(HOSTS, "h1", RegisterHost(provider_id="p", service_id="s", facts=HostFacts())),
    )

    async def now(*streams):
        found = await executor.log.load(streams)
        return [found[stream].state for stream in streams]

    first, second = await now("aggregate/1", "aggregate/2")
    await executor.execute(*adding(first, "h1"))
    with pytest.raises(Conflict, match="in the availability zone north already"):
        await executor.execute(*adding(second, "h1"))
    first, second, host = await now("aggregate/1", "aggregate/2", HOST.stream("h1"))
    assert (first.hosts, second.hosts, host.zone) == (("h1",), (), "north")

    await executor.execute(*with_metadata(first, {"availability_zone": "east"}))
    first, host = await now("aggregate/1", HOST.stream("h1"))
    assert (first.zone, host.zone) == ("east", "east")

    await executor.execute(*removing(first, "h1"))
    first, host = await now("aggregate/1", HOST.stream("h1"))
    assert (first.hosts, host.zone) == ((), "nova")
    await executor.close()
