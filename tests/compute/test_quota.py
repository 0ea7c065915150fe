"""The promises of compute quotas."""

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bus.execute import Executor, Wish
from bus.memory_log import MemoryLog
from handlers.compute.quota import QUOTA_CLASSES, QUOTAS, counting, hold_of, limits_in_force, room
from handlers.compute.server import SERVERS
from schema.compute.migration import MigrationType
from schema.compute.move import Move
from schema.compute.quota import (
    DEFAULTS,
    HELD,
    QUOTA,
    UNLIMITED,
    ChangeQuotaHold,
    ClearQuotaLimits,
    Hold,
    QuotaClassLimitsSet,
    QuotaHoldChanged,
    QuotaLimitsCleared,
    QuotaLimitsSet,
    QuotaReleased,
    QuotaReserved,
    SetQuotaClassLimits,
    SetQuotaLimits,
)
from schema.compute.server import SERVER
from schema.compute.server_command import CreateServer, DeleteServer, EndServer
from schema.compute.server_parts import Order, ServerFlavor
from schema.compute.task import Task
from schema.refusal import Invalid, OverQuota
from tests.story import BEGINNING, Story

quota = Story(QUOTAS, "project-1")
three = QuotaLimitsSet(limits={"instances": 3, "cores": 4})


def held(server, cores=1, ram_mb=512, user="ada"):
    """It holds that much, and held nothing before."""
    return QuotaHoldChanged(server_id=server, user_id=user, instances=1, cores=cores, ram_mb=ram_mb)


def hold(server, cores=1, ram_mb=512, user="ada", defaults=DEFAULTS):
    return ChangeQuotaHold(server_id=server, before=None, after=Hold(cores, ram_mb, user), defaults=defaults)


def resize(server, was, now, user="ada", defaults=DEFAULTS):
    return ChangeQuotaHold(server_id=server, before=Hold(*was, user), after=Hold(*now, user), defaults=defaults)


def release(server, cores=1, ram_mb=512, user="ada"):
    return ChangeQuotaHold(server_id=server, before=Hold(cores, ram_mb, user), after=None)


def changed(given, command, **fields):
    """What is so after a hold changed by this much."""
    events = QUOTAS.decide(given.state, command)
    assert events == [QuotaHoldChanged(server_id=command.server_id, **({"user_id": "ada"} | fields))]
    return given.after(*events)


def test_a_server_holds_quota():
    state = changed(quota.given(), hold("a", 2, 1024), instances=1, cores=2, ram_mb=1024).state
    assert state.usage == {"instances": 1, "cores": 2, "ram": 1024}


def test_a_resize_holds_the_difference():
    given = quota.given(three, held("a", 2, 1024), held("b", 1))
    state = changed(given, resize("a", (2, 1024), (3, 2048)), cores=1, ram_mb=1024).state
    assert state.usage == {"instances": 2, "cores": 4, "ram": 2560}
    more = resize("a", (2, 1024), (4, 1024))
    given.when(more).refused("cores: Requested 2, but already used 3 of 4", OverQuota)


def test_the_refusal_has_the_numbers_a_person_needs():
    given = quota.given(three, held("a"), held("b"), held("c", 2))
    given.when(hold("d", 2)).refused(
        "Quota exceeded for instances, cores: Requested 1, 2, but already used 3, 4 of 3, 4 instances, cores", OverQuota
    )


def test_defaults_count_where_the_project_has_no_limit():
    command = hold("a", defaults=DEFAULTS | {"ram": 100})
    quota.given(three).when(command).refused("ram: Requested 512, but already used 0 of 100", OverQuota)


def test_unlimited_is_unlimited():
    given = quota.given(QuotaLimitsSet(limits={"instances": -1, "cores": -1, "ram": -1}))
    changed(given, hold("a", 10_000, 10_000_000), instances=1, cores=10_000, ram_mb=10_000_000)


def test_shrinking_is_never_refused():
    given = quota.given(held("a", 4, 1024), QuotaLimitsSet(limits={"cores": 1}))
    changed(given, resize("a", (4, 1024), (2, 512)), cores=-2, ram_mb=-512)


def test_what_nobody_asks_for_is_counted_past_every_limit():
    given = quota.given(QuotaLimitsSet(limits={"cores": 1}), held("a"))
    changed(given, hold("b", 7, defaults=None), instances=1, cores=7, ram_mb=512)


def test_a_server_releases_what_it_held():
    given = quota.given(held("a"), held("b", 3, 2048))
    state = changed(given, release("b", 3, 2048), instances=-1, cores=-3, ram_mb=-2048).state
    assert state.usage == {"instances": 1, "cores": 1, "ram": 512}


def test_a_document_says_nothing_of_single_servers():
    state = quota.given(*(held(f"server-{n}") for n in range(1000))).state
    assert state.usage == {"instances": 1000, "cores": 1000, "ram": 512_000}
    assert len(msgspec.json.encode(state)) < 250
    assert quota.given(held("a"), *QUOTAS.decide(state, release("a"))).state.used_by == {}


def test_old_logs_count_on():
    def reserved(server, cores, user):
        return QuotaReserved(server_id=server, cores=cores, ram_mb=512, user_id=user)

    old = [reserved("a", 1, "ada"), reserved("b", 3, "bob"), reserved("a", 2, "ada"), reserved("c", 9, "bob")]
    given = quota.given(*old, QuotaReleased(server_id="c"), QuotaReleased(server_id="nobody"))
    assert given.state.usage == {"instances": 2, "cores": 5, "ram": 1024}
    assert given.state.usage_of("bob") == {"instances": 1, "cores": 3, "ram": 512}
    document = b'{"held":{"a":[2,512,"ada"],"b":[3,512,"bob"]},"cores":5,"ram_mb":1024}'
    assert QUOTA.decoder.decode(document).usage == given.state.usage
    given.when(hold("d", 16)).refused("cores: Requested 16, but already used 5 of 20", OverQuota)
    after = changed(given, release("b", 3, 512, "bob"), user_id="bob", instances=-1, cores=-3, ram_mb=-512)
    assert (after.state.usage, after.state.held) == ({"instances": 1, "cores": 2, "ram": 512}, {})
    assert after.state.usage_of("ada") == after.state.usage
    assert after.state.usage_of("bob") == {"instances": 0, "cores": 0, "ram": 0}


SMALL = ServerFlavor(id="1", name="small", vcpus=1, ram_mb=512, disk_gb=1)
LARGE = ServerFlavor(id="2", name="large", vcpus=4, ram_mb=256, disk_gb=1)


def test_what_a_server_holds_is_what_its_state_says():
    moving = Move(migration_id="m", type=MigrationType.RESIZE, source_host="h1", source_provider="p1", new_flavor=LARGE)
    there = SERVER.unborn("a")
    assert hold_of(there) is None
    there = replace(there, created_at=BEGINNING, flavor=SMALL, order=Order(user_id="ada"))
    assert hold_of(there) == Hold(1, 512, "ada")
    assert hold_of(replace(there, move=moving)) == Hold(4, 512, "ada"), "it may be either"
    assert hold_of(replace(there, flavor=LARGE, move=replace(moving, old_flavor=SMALL))) == Hold(4, 512, "ada")
    softly = replace(there, soft_deleted_at=BEGINNING, task=Task.SOFT_DELETING)
    assert hold_of(softly) is None
    assert hold_of(replace(softly, task=Task.RESTORING)) == Hold(1, 512, "ada")
    assert hold_of(replace(softly, task=Task.DELETING)) is None
    assert hold_of(replace(there, deleted_at=BEGINNING)) is None


def test_limits_are_set_and_cleared():
    given = quota.given().when(SetQuotaLimits(limits={"cores": 7})).then(QuotaLimitsSet(limits={"cores": 7}))
    assert limits_in_force(given.state, DEFAULTS)["cores"] == 7
    assert limits_in_force(given.state, DEFAULTS)["instances"] == 10
    given.when(ClearQuotaLimits()).then(QuotaLimitsCleared())


def test_a_limit_below_the_usage_wants_force():
    given = quota.given(held("a", 4))
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


def order(server, user="ada", defaults=DEFAULTS):
    """What a create wishes."""
    command = CreateServer(name="web", project_id="p", order=Order(user_id=user), flavor=SMALL)
    return Wish(SERVERS, server, command), counting(server, "p", defaults)


def end(server):
    return Wish(SERVERS, server, EndServer()), counting(server, "p")


@pytest.mark.law
async def test_of_a_thousand_servers_at_once_exactly_as_many_succeed_as_the_limit_allows():
    log = MemoryLog()
    executors = [Executor(log) for _ in range(4)]
    await executors[0].execute(Wish(QUOTAS, "p", SetQuotaLimits(limits={"instances": 137, "cores": -1, "ram": -1})))
    outcomes = await asyncio.gather(
        *(executors[n % 4].execute(*order(f"server-{n}")) for n in range(1000)), return_exceptions=True
    )
    granted = [outcome for outcome in outcomes if isinstance(outcome, list)]
    assert len(granted) == 137
    assert all(isinstance(outcome, OverQuota) for outcome in outcomes if not isinstance(outcome, list))
    state = (await log.load([QUOTA.stream("p")]))[QUOTA.stream("p")].state
    assert state.usage == {"instances": 137, "cores": 137, "ram": 137 * 512}
    for executor in executors:
        await executor.close()


@pytest.mark.law
async def test_whatever_is_done_twice_is_counted_once():
    log = MemoryLog()
    executors = [Executor(log) for _ in range(2)]
    ids = [f"server-{n}" for n in range(8)]
    await asyncio.gather(*(executors[n % 2].execute(*order(ids[n])) for n in range(8)))
    ended = [Wish(SERVERS, id, DeleteServer()) for id in ids[:5]]
    await executors[0].execute(*ended)
    await asyncio.gather(*(executors[n % 2].execute(*end(ids[n % 5])) for n in range(40)))
    state = (await log.load([QUOTA.stream("p")]))[QUOTA.stream("p")].state
    assert state.usage == state.usage_of("ada") == {"instances": 3, "cores": 3, "ram": 1536}
    for executor in executors:
        await executor.close()


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from("abcd"), st.none() | st.tuples(st.integers(0, 8), st.integers(0, 4096))),
            st.builds(SetQuotaLimits, limits=st.dictionaries(st.sampled_from(HELD), st.integers(-1, 20))),
        ),
        max_size=40,
    )
)
def test_usage_is_always_the_sum_of_what_servers_hold_and_never_grows_past_a_limit(steps):
    story, holds = quota.given(), {}
    for step in steps:
        before, after = story.state, dict(holds)
        if isinstance(step, SetQuotaLimits):
            command = step
        else:
            server, size = step
            now = Hold(*size, user_id=server) if size else None
            command = ChangeQuotaHold(server_id=server, before=holds.get(server), after=now, defaults=DEFAULTS)
            after = {id: hold for id, hold in (holds | {server: now}).items() if hold}
        try:
            story = story.after(*QUOTAS.decide(before, command))
        except (OverQuota, Invalid):
            continue
        holds, state = after, story.state
        sums = [len(holds), sum(hold.cores for hold in holds.values()), sum(hold.ram_mb for hold in holds.values())]
        assert list(state.usage.values()) == sums
        assert all(state.usage_of(id)["cores"] == hold.cores for id, hold in holds.items())
        limits = limits_in_force(state, DEFAULTS)
        for name in HELD:
            grew = state.usage[name] > before.usage[name]
            assert not grew or limits[name] == UNLIMITED or state.usage[name] <= limits[name]


def test_somebodys_limits_stand_within_the_projects():
    ada = SetQuotaLimits(limits={"instances": 2, "cores": 3}, user_id="ada")
    given = quota.given(three).when(ada).then(QuotaLimitsSet(limits={"instances": 2, "cores": 3}, user_id="ada"))
    assert limits_in_force(given.state, DEFAULTS, "ada")["instances"] == 2
    assert limits_in_force(given.state, DEFAULTS, "bob")["instances"] == 3
    given = given.after(held("a"), held("b"))
    given.when(hold("c")).refused("instances: Requested 1, but already used 2 of 2", OverQuota)
    grown = changed(given, resize("a", (1, 512), (2, 512)), cores=1)
    more = resize("b", (1, 512), (2, 512))
    grown.when(more).refused("cores: Requested 1, but already used 3 of 3", OverQuota)
    bobs = changed(given, hold("c", user="bob"), user_id="bob", instances=1, cores=1, ram_mb=512)
    assert bobs.state.usage_of("ada") == {"instances": 2, "cores": 2, "ram": 1024}
    bobs.when(hold("d", user="bob")).refused("instances: Requested 1, but already used 3 of 3", OverQuota)


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
