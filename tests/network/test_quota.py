"""Quotas of networking: what counts, up to where, and that of many at once exactly as many succeed as may."""

import asyncio
import uuid

import pytest

from bus.cloud import open_cloud
from bus.execute import Wish
from handlers.network.quota import (
    NETWORK_QUOTAS,
    NETWORK_USAGES,
    counting,
    giving_back,
    in_force,
    limits_of,
    taking,
)
from schema.network.quota import (
    NETWORK_USAGE,
    UNLIMITED,
    ClearNetworkQuotaLimits,
    GiveBackNetworkQuota,
    NetworkQuotaGivenBack,
    NetworkQuotaLimitsCleared,
    NetworkQuotaLimitsSet,
    NetworkQuotaTaken,
    NetworkUsage,
    SetNetworkQuotaLimits,
    TakeNetworkQuota,
    evolve_usage,
)
from schema.refusal import Conflict
from tests.story import BEGINNING, Story

quotas = Story(NETWORK_QUOTAS, "p")
usages = Story(NETWORK_USAGES, "p:port")
two = NetworkQuotaTaken(ids=("a", "b"))


def test_limits_are_set_one_by_one_and_cleared_together():
    after = (
        quotas.given().when(SetNetworkQuotaLimits(limits={"port": 5})).then(NetworkQuotaLimitsSet(limits={"port": 5}))
    )
    after = after.when(SetNetworkQuotaLimits(limits={"port": 5, "router": 1})).then(
        NetworkQuotaLimitsSet(limits={"router": 1})
    )
    assert after.state.limits == {"port": 5, "router": 1}
    after.when(ClearNetworkQuotaLimits()).then(NetworkQuotaLimitsCleared())


def test_things_count_up_to_the_limit():
    after = usages.given().when(TakeNetworkQuota(ids=("a", "b"), limit=3)).then(two)
    assert (after.state.project_id, after.state.name, after.state.used) == ("p", "port", 2)
    after.when(TakeNetworkQuota(ids=("c", "d"), limit=3)).refused("Quota exceeded for resources: ['port'].", Conflict)
    after.when(TakeNetworkQuota(ids=("b", "c"), limit=3)).then(NetworkQuotaTaken(ids=("c",)))
    after.when(TakeNetworkQuota(ids=("c", "d"), limit=UNLIMITED)).then(NetworkQuotaTaken(ids=("c", "d")))


def test_what_is_given_back_may_be_taken_again():
    after = usages.given(two).when(GiveBackNetworkQuota(ids=("a", "x"))).then(NetworkQuotaGivenBack(ids=("a",)))
    assert after.state.used == 1
    after.when(TakeNetworkQuota(ids=("c",), limit=2)).then(NetworkQuotaTaken(ids=("c",)))


def test_a_limit_below_what_is_there_takes_nothing_away():
    usages.given(two).when(TakeNetworkQuota(ids=("a",), limit=1)).then()
    usages.given(two).when(TakeNetworkQuota(ids=("c",), limit=1)).refused("Quota exceeded")
    usages.given(two).when(GiveBackNetworkQuota(ids=("a",))).then(NetworkQuotaGivenBack(ids=("a",)))


def test_ten_thousand_things_are_told_apart():
    ids = tuple(str(uuid.uuid4()) for _ in range(10_000))
    usage = evolve_usage(NetworkUsage(id="p:port"), NetworkQuotaTaken(ids=ids), BEGINNING)
    assert usage.used == 10_000
    assert all(usage.has(id) for id in ids[::100])
    assert not any(usage.has(str(uuid.uuid4())) for _ in range(100))
    usage = evolve_usage(usage, NetworkQuotaGivenBack(ids=ids[1:]), BEGINNING)
    assert usage.used == 1
    assert usage.has(ids[0])


@pytest.fixture
async def cloud(settings, fresh_database):
    cloud = await open_cloud(settings, fresh_database)
    yield cloud
    await cloud.close()


async def test_of_many_at_once_as_many_succeed_as_may(cloud, settings, fresh_database):
    other = await open_cloud(settings, fresh_database)
    try:
        await cloud.executor.execute(Wish(NETWORK_QUOTAS, "p", SetNetworkQuotaLimits(limits={"port": 12})))

        async def one(cloud, number):
            await cloud.executor.execute(*await taking(cloud, "p", "port", [str(number)]))

        made = await asyncio.gather(*(one((cloud, other)[n % 2], n) for n in range(40)), return_exceptions=True)
        assert sum(it is None for it in made) == 12
        assert {it.code for it in made if it is not None} == {"OverQuota"}
        assert (await cloud.documents.get(NETWORK_USAGE, "p:port")).state.used == 12
    finally:
        await other.close()


async def test_the_limit_in_force_is_the_projects_own_or_the_default(cloud):
    assert in_force(cloud, await limits_of(cloud, "p"))["port"] == 500
    await cloud.executor.execute(Wish(NETWORK_QUOTAS, "p", SetNetworkQuotaLimits(limits={"port": 7})))
    assert in_force(cloud, await limits_of(cloud, "p"))["port"] == 7
    [wish] = await taking(cloud, "p", "port", ["a"])
    assert wish.command == TakeNetworkQuota(ids=("a",), limit=7)


async def test_what_is_nobodys_counts_nowhere(cloud):
    assert await taking(cloud, "", "port", ["a"]) == []
    assert counting("", "port", ["a"]) == []
    assert giving_back("", "port", ["a"]) == []
