"""The promises of server groups."""

import asyncio

from handlers.compute.server_group import SERVER_GROUPS, BreaksPolicy
from schema.compute.server_group import (
    DeleteServerGroup,
    GroupMemberPlaced,
    GroupPolicy,
    JoinServerGroup,
    LeaveServerGroup,
    PlaceGroupMember,
    ServerGroupCreated,
    ServerGroupDeleted,
    ServerJoinedGroup,
    ServerLeftGroup,
)
from schema.refusal import Invalid, OverQuota
from tests.compute.steering import PROJECT, steered
from tests.story import Story

group = Story(SERVER_GROUPS, "g1")


def created(policy=GroupPolicy.ANTI_AFFINITY, **fields):
    return ServerGroupCreated(name="g", project_id="p", user_id="u", policy=policy, **fields)


def joined(*ids):
    return [ServerJoinedGroup(server_id=id) for id in ids]


def test_servers_join_and_leave():
    given = group.given(created()).when(JoinServerGroup(server_id="a")).then(*joined("a"))
    given.when(LeaveServerGroup(server_id="a")).then(ServerLeftGroup(server_id="a"))
    given.when(JoinServerGroup(server_id="b", limit=1)).refused("too many", OverQuota)
    group.given().when(JoinServerGroup(server_id="a")).refused("could not be found", Invalid)


def test_anti_affinity_lets_no_two_share_a_host():
    given = group.given(created(), *joined("a", "b"), GroupMemberPlaced(server_id="a", host="h1"))
    given.when(PlaceGroupMember(server_id="b", host="h1")).refused("as many as it may", BreaksPolicy)
    given.when(PlaceGroupMember(server_id="b", host="h2")).then(GroupMemberPlaced(server_id="b", host="h2"))
    more = group.given(created(max_per_host=2), *joined("a", "b"), GroupMemberPlaced(server_id="a", host="h1"))
    more.when(PlaceGroupMember(server_id="b", host="h1")).then(GroupMemberPlaced(server_id="b", host="h1"))


def test_affinity_keeps_all_together():
    together = created(GroupPolicy.AFFINITY)
    given = group.given(together, *joined("a", "b"), GroupMemberPlaced(server_id="a", host="h1"))
    given.when(PlaceGroupMember(server_id="b", host="h2")).refused("is on host h1", BreaksPolicy)
    given.when(PlaceGroupMember(server_id="a", host="")).then(GroupMemberPlaced(server_id="a", host=""))


def test_soft_policies_forbid_nothing():
    for policy in (GroupPolicy.SOFT_AFFINITY, GroupPolicy.SOFT_ANTI_AFFINITY):
        given = group.given(created(policy), *joined("a", "b"), GroupMemberPlaced(server_id="a", host="h1"))
        for host in ("h1", "h2"):
            given.when(PlaceGroupMember(server_id="b", host=host)).then(GroupMemberPlaced(server_id="b", host=host))


def test_a_group_that_is_gone_binds_nobody():
    gone = group.given(created(), *joined("a")).when(DeleteServerGroup()).then(ServerGroupDeleted())
    gone.when(PlaceGroupMember(server_id="a", host="h1")).then()
    gone.when(LeaveServerGroup(server_id="a")).then()


async def test_of_many_at_once_as_many_are_placed_as_there_are_hosts(settings, fresh_database):
    async with steered(settings, fresh_database) as cloud:
        for name in ("h1", "h2", "h3"):
            await cloud.host(name)
        await cloud.group("g", GroupPolicy.ANTI_AFFINITY)
        ids = await asyncio.gather(*(cloud.create(group_id="g") for _ in range(6)))
        states = [await cloud.sees(id, lambda state: state.task is None) for id in ids]
        placed = [state.host for state in states if state.vm_state == "active"]
        assert sorted(placed) == ["h1", "h2", "h3"]
        assert all("No valid host" in state.fault.message for state in states if state.vm_state == "error")
        assert all(state.project_id == PROJECT for state in states)


async def test_a_group_stays_together(settings, fresh_database):
    async with steered(settings, fresh_database) as cloud:
        for name in ("h1", "h2", "h3"):
            await cloud.host(name)
        await cloud.group("g", GroupPolicy.AFFINITY)
        ids = await asyncio.gather(*(cloud.create(group_id="g") for _ in range(5)))
        assert len({(await cloud.reaches(id, "active")).host for id in ids}) == 1
