"""The promises of compute quotas."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.execute import Executor, Wish
from bus.memory_log import MemoryLog
from handlers.compute.quota import QUOTA_CLASSES, QUOTAS, limits_in_force, room
from schema.compute.quota import (
    DEFAULTS,
    HELD,
    QUOTA,
    UNLIMITED,
    ClearQuotaLimits,
    QuotaClassLimitsSet,
    QuotaLimitsCleared,
    QuotaLimitsSet,
    QuotaReleased,
    QuotaReserved,
    ReleaseQuota,
    ReserveQuota,
    SetQuotaClassLimits,
    SetQuotaLimits,
)
from schema.refusal import Invalid, OverQuota
from tests.story import Story

quota = Story(QUOTAS, "project-1")
three = QuotaLimitsSet(limits={"instances": 3, "cores": 4})


def reserved(server, cores=1, ram_mb=512):
    return QuotaReserved(server_id=server, cores=cores, ram_mb=ram_mb)


def reserve(server, cores=1, ram_mb=512):
    return ReserveQuota(server_id=server, cores=cores, ram_mb=ram_mb)


def test_a_server_holds_quota():
    state = quota.given().when(reserve("a", 2, 1024)).then(reserved("a", 2, 1024)).state
    assert state.usage == {"instances": 1, "cores": 2, "ram": 1024}


def test_a_resize_holds_the_difference():
    given = quota.given(three, reserved("a", 2, 1024), reserved("b", 1))
    state = given.when(reserve("a", 3, 2048)).then(reserved("a", 3, 2048)).state
    assert state.usage == {"instances": 2, "cores": 4, "ram": 2560}
    given.when(reserve("a", 4, 1024)).refused("cores: Requested 2, but already used 3 of 4", OverQuota)


def test_the_refusal_has_the_numbers_a_person_needs():
    given = quota.given(three, reserved("a"), reserved("b"), reserved("c", 2))
    given.when(reserve("d", 2)).refused(
        "Quota exceeded for instances, cores: Requested 1, 2, but already used 3, 4 of 3, 4 instances, cores", OverQuota
    )


def test_defaults_count_where_the_project_has_no_limit():
    command = ReserveQuota(server_id="a", cores=1, ram_mb=512, defaults=DEFAULTS | {"ram": 100})
    quota.given(three).when(command).refused("ram: Requested 512, but already used 0 of 100", OverQuota)


def test_unlimited_is_unlimited():
    given = quota.given(QuotaLimitsSet(limits={"instances": -1, "cores": -1, "ram": -1}))
    given.when(reserve("a", 10_000, 10_000_000)).then(reserved("a", 10_000, 10_000_000))


def test_shrinking_is_never_refused():
    given = quota.given(reserved("a", 4, 1024), QuotaLimitsSet(limits={"cores": 1}))
    given.when(reserve("a", 2, 512)).then(reserved("a", 2, 512))


def test_a_server_releases_what_it_held():
    given = quota.given(reserved("a"), reserved("b", 3, 2048))
    state = given.when(ReleaseQuota(server_id="b")).then(QuotaReleased(server_id="b")).state
    assert state.usage == {"instances": 1, "cores": 1, "ram": 512}


def test_a_release_of_nothing_is_nothing():
    quota.given(three).when(ReleaseQuota(server_id="a")).then()


def test_limits_are_set_and_cleared():
    given = quota.given().when(SetQuotaLimits(limits={"cores": 7})).then(QuotaLimitsSet(limits={"cores": 7}))
    assert limits_in_force(given.state, DEFAULTS)["cores"] == 7
    assert limits_in_force(given.state, DEFAULTS)["instances"] == 10
    given.when(ClearQuotaLimits()).then(QuotaLimitsCleared())


def test_a_limit_below_the_usage_wants_force():
    given = quota.given(reserved("a", 4))
    given.when(SetQuotaLimits(limits={"cores": 3})).refused("already used and reserved 4", Invalid)
    forced = SetQuotaLimits(limits={"cores": 3}, force=True)
    given.when(forced).then(QuotaLimitsSet(limits={"cores": 3}))


def test_class_limits_are_set():
    story = Story(QUOTA_CLASSES, "default")
    story.given().when(SetQuotaClassLimits(limits={"cores": 9})).then(QuotaClassLimitsSet(limits={"cores": 9}))


@pytest.mark.parametrize(
    "limits,usage,fits",
    [
        ({"instances": 10, "cores": 20, "ram": -1}, {"instances": 8, "cores": 0, "ram": 0}, 2),
        ({"instances": 10, "cores": 20, "ram": -1}, {"instances": 0, "cores": 17, "ram": 0}, 1),
        ({"instances": -1, "cores": -1, "ram": 1000}, {"instances": 0, "cores": 0, "ram": 2000}, 0),
        ({"instances": -1, "cores": -1, "ram": -1}, {"instances": 0, "cores": 0, "ram": 0}, 5),
    ],
)
def test_room_is_what_still_fits(limits, usage, fits):
    assert room(limits, usage, cores=2, ram_mb=512, wanted=5) == fits


@pytest.mark.law
async def test_of_a_thousand_reserves_at_once_exactly_as_many_succeed_as_the_limit_allows():
    log = MemoryLog()
    executors = [Executor(log) for _ in range(4)]
    await executors[0].execute(Wish(QUOTAS, "p", SetQuotaLimits(limits={"instances": 137, "cores": -1, "ram": -1})))
    outcomes = await asyncio.gather(
        *(executors[n % 4].execute(Wish(QUOTAS, "p", reserve(f"server-{n}"))) for n in range(1000)),
        return_exceptions=True,
    )
    granted = [outcome for outcome in outcomes if isinstance(outcome, list)]
    assert len(granted) == 137
    assert all(isinstance(outcome, OverQuota) for outcome in outcomes if not isinstance(outcome, list))
    state = (await log.load([QUOTA.stream("p")]))[QUOTA.stream("p")].state
    assert state.usage == {"instances": 137, "cores": 137, "ram": 137 * 512}
    for executor in executors:
        await executor.close()


@given(
    st.lists(
        st.one_of(
            st.builds(reserve, st.sampled_from("abcd"), st.integers(0, 8), st.integers(0, 4096)),
            st.builds(ReleaseQuota, server_id=st.sampled_from("abcd")),
            st.builds(SetQuotaLimits, limits=st.dictionaries(st.sampled_from(HELD), st.integers(-1, 20))),
        ),
        max_size=40,
    )
)
def test_usage_is_always_the_sum_of_what_servers_hold_and_never_grows_past_a_limit(commands):
    story = quota.given()
    for command in commands:
        before = story.state
        try:
            story = story.after(*QUOTAS.decide(before, command))
        except (OverQuota, Invalid):
            continue
        after = story.state
        assert after.cores == sum(hold.cores for hold in after.held.values())
        assert after.ram_mb == sum(hold.ram_mb for hold in after.held.values())
        limits = limits_in_force(after, DEFAULTS)
        for name in HELD:
            grew = after.usage[name] > before.usage[name]
            assert not grew or limits[name] == UNLIMITED or after.usage[name] <= limits[name]


def test_somebodys_limits_stand_within_the_projects():
    def ordered(server, user, cores=1):
        return ReserveQuota(server_id=server, cores=cores, ram_mb=512, user_id=user)

    ada = SetQuotaLimits(limits={"instances": 2, "cores": 3}, user_id="ada")
    given = quota.given(three).when(ada).then(QuotaLimitsSet(limits={"instances": 2, "cores": 3}, user_id="ada"))
    assert limits_in_force(given.state, DEFAULTS, "ada")["instances"] == 2
    assert limits_in_force(given.state, DEFAULTS, "bob")["instances"] == 3
    for server in ("a", "b"):
        held = QuotaReserved(server_id=server, cores=1, ram_mb=512, user_id="ada")
        given = given.when(ordered(server, "ada")).then(held)
    given.when(ordered("c", "ada")).refused("instances: Requested 1, but already used 2 of 2", OverQuota)
    grown = given.when(reserve("a", 2, 512)).then(QuotaReserved(server_id="a", cores=2, ram_mb=512, user_id="ada"))
    grown.when(reserve("b", 2, 512)).refused("cores: Requested 1, but already used 3 of 3", OverQuota)
    bobs = given.when(ordered("c", "bob")).then(QuotaReserved(server_id="c", cores=1, ram_mb=512, user_id="bob"))
    assert bobs.state.usage_of("ada") == {"instances": 2, "cores": 2, "ram": 1024}
    bobs.when(ordered("d", "bob")).refused("instances: Requested 1, but already used 3 of 3", OverQuota)


def test_what_users_are_given_is_the_projects():
    given = quota.given(three, QuotaLimitsSet(limits={"instances": 2}, user_id="ada"))

    def limit(instances, user_id="", **more):
        return SetQuotaLimits(limits={"instances": instances}, user_id=user_id, **more)

    given.when(limit(2, "bob")).refused("must be less than or equal to 1", Invalid)
    given.when(limit(-1, "bob")).refused("must be less than or equal to 1", Invalid)
    given.when(limit(2, "bob", force=True)).then(QuotaLimitsSet(limits={"instances": 2}, user_id="bob"))
    given.when(limit(1)).refused("must be greater than or equal to already used and reserved 2", Invalid)
    given.when(limit(3, "ada")).then(QuotaLimitsSet(limits={"instances": 3}, user_id="ada"))
    alone = given.when(ClearQuotaLimits(user_id="ada")).then(QuotaLimitsCleared(user_id="ada"))
    assert alone.state.limits == {"instances": 3, "cores": 4}
    alone.when(ClearQuotaLimits(user_id="ada")).then()
    state = given.when(ClearQuotaLimits()).then(QuotaLimitsCleared()).state
    assert (state.limits, state.user_limits) == ({}, {})
