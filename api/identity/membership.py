"""Who is in which group: `/v3/groups/{group_id}/users`, `/v3/users/{user_id}/groups`."""

from __future__ import annotations

from typing import Any

from api.identity import group, user
from api.identity.words import found, listed, whole
from api.wire import Call, Delete, Get, Put
from bus.documents import Where
from bus.execute import Wish
from bus.log import Document
from handlers.identity.resource import not_found
from handlers.identity.revocation import revoke
from handlers.identity.user import USERS
from schema.identity.group import GROUP
from schema.identity.user import USER, JoinGroup, LeaveGroup


async def users(call: Call) -> dict[str, Any]:
    document = await group.in_path(call, "identity:list_users_in_group")
    member = Where("groups", "has", document.id)
    fields = {"name": "name", "enabled": "enabled"}
    return await listed(call, USER, "users", user.view, where=[member], fields=fields)


async def groups(call: Call) -> dict[str, Any]:
    document = await user.in_path(call, "identity:list_groups_for_user")
    named = call.query.get("name")
    documents = await call.cloud.documents.get_many(GROUP, document.state.groups)
    living = [it for it in documents.values() if it.state.living and named in {None, it.state.name}]
    living.sort(key=lambda it: (it.state.created_at, it.id))
    return whole(call, "groups", [group.view(call, it) for it in living])


async def check(call: Call) -> None:
    house, member = await _both(call, "identity:check_user_in_group")
    if house.id not in member.state.groups:
        raise not_found("user in group", f"{member.id} in {house.id}")


async def add(call: Call) -> None:
    house, member = await _both(call, "identity:add_user_to_group")
    await call.execute(Wish(USERS, member.id, JoinGroup(group_id=house.id)))


async def remove(call: Call) -> None:
    house, member = await _both(call, "identity:remove_user_from_group")
    if house.id not in member.state.groups:
        raise not_found("user in group", f"{member.id} in {house.id}")
    await call.execute(
        Wish(USERS, member.id, LeaveGroup(group_id=house.id)), *revoke(f"membership/{house.id}/{member.id}")
    )


async def _both(call: Call, rule: str) -> tuple[Document, Document]:
    return await group.in_path(call, rule), await found(call, USER, call.path["user_id"])


_MEMBER = "/groups/{group_id}/users/{user_id}"

routes = [
    Get("/users/{user_id}/groups", groups, may="identity:list_groups_for_user"),
    Get("/groups/{group_id}/users", users, may="identity:list_users_in_group"),
    Get(_MEMBER, check, may="identity:check_user_in_group", answers=204),
    Put(_MEMBER, add, may="identity:add_user_to_group", answers=204),
    Delete(_MEMBER, remove, may="identity:remove_user_from_group"),
]
