"""Server groups: create, list, show, delete."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from api.compute.page import listing
from api.compute.words import Name
from api.wire import Call, Delete, Get, Post
from bus import clock
from bus.documents import Where
from bus.execute import Wish
from handlers.compute.quota import defaults, limits_in_force, quota_of
from handlers.compute.server_group import SERVER_GROUPS
from schema.compute.quota import UNLIMITED
from schema.compute.server_group import SERVER_GROUP, CreateServerGroup, DeleteServerGroup, GroupPolicy, ServerGroup
from schema.refusal import Forbidden, Invalid, NotFound, OverQuota

RULE = "os_compute_api:os-server-groups"
PATH = "/os-server-groups"
SOFT_SINCE = (2, 15)
ONE_POLICY_SINCE = (2, 64)


class NewGroup(Struct, forbid_unknown_fields=True):
    name: Name
    policies: Annotated[list[GroupPolicy], Meta(min_length=1, max_length=1)]


class Rules(Struct, frozen=True, forbid_unknown_fields=True):
    max_server_per_host: Annotated[int, Meta(ge=1)] | UnsetType = UNSET


class NewGroup64(Struct, forbid_unknown_fields=True):
    name: Name
    policy: GroupPolicy
    rules: Rules = Rules()


class Body(Struct, forbid_unknown_fields=True):
    server_group: NewGroup


class Body64(Struct, forbid_unknown_fields=True):
    server_group: NewGroup64


class GroupsQuery(Struct, frozen=True):
    limit: Annotated[int, Meta(ge=0)] | None = None
    offset: Annotated[int, Meta(ge=0)] = 0
    all_projects: str | None = None


async def index(call: Call) -> dict[str, Any]:
    query: GroupsQuery = call.params
    where = []
    if query.all_projects is None or not call.token.is_admin:
        where.append(Where("project_id", "=", call.token.project_id or ""))
    groups = [document.state for document in await call.cloud.documents.find(SERVER_GROUP, where=where, limit=None)]
    most = call.cloud.settings.page_limit
    page = groups[query.offset :][: min(query.limit or most, most)]
    return {"server_groups": [_view(call, group) for group in page]}


async def show(call: Call) -> dict[str, Any]:
    return {"server_group": _view(call, await _in_path(call))}


async def create(call: Call) -> dict[str, Any]:
    wanted: NewGroup | NewGroup64 = call.body.server_group
    policy = wanted.policy if isinstance(wanted, NewGroup64) else wanted.policies[0]
    if policy.startswith("soft-") and call.version < SOFT_SINCE:
        raise Invalid(f"Invalid input for field server_group.policies: {policy} needs microversion 2.15")
    most = wanted.rules.max_server_per_host if isinstance(wanted, NewGroup64) else UNSET
    if most is not UNSET and policy is not GroupPolicy.ANTI_AFFINITY:
        raise Invalid("Only anti-affinity policy supports rules.")
    project_id = call.token.project_id
    if not project_id:
        raise Forbidden("A server group belongs to a project; use a token that is scoped to one.")
    await _check_quota(call, project_id)
    command = CreateServerGroup(
        name=wanted.name,
        project_id=project_id,
        user_id=call.token.user_id,
        policy=policy,
        max_per_host=most or 1,
        ruled=most is not UNSET,
    )
    [document] = await call.execute(Wish(SERVER_GROUPS, clock.uuid4(), command))
    return {"server_group": _view(call, document.state)}


async def delete(call: Call) -> None:
    group = await _in_path(call)
    await call.execute(Wish(SERVER_GROUPS, group.id, DeleteServerGroup()))


async def group_limits(call: Call) -> dict[str, int]:
    """The caller's limits on server groups and on their members."""
    quota = await quota_of(call.cloud, call.token.project_id or "")
    return limits_in_force(quota, defaults(call.cloud))


async def _check_quota(call: Call, project_id: str) -> None:
    limit = (await group_limits(call))["server_groups"]
    there = await call.cloud.documents.count(SERVER_GROUP, where=[Where("project_id", "=", project_id)])
    if limit != UNLIMITED and there >= limit:
        raise OverQuota(f"Quota exceeded, too many server groups: {there} of {limit} are there already.")


async def _in_path(call: Call) -> ServerGroup:
    id = call.path["id"]
    missing = NotFound(f"Instance group {id} could not be found.", code="InstanceGroupNotFound")
    try:
        group: ServerGroup = (await call.cloud.documents.get(SERVER_GROUP, id)).state
    except NotFound:
        raise missing from None
    if group.project_id != call.token.project_id and not call.token.is_admin:
        raise missing
    return group


def _view(call: Call, group: ServerGroup) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": group.id, "name": group.name, "members": list(group.members)}
    if call.version >= ONE_POLICY_SINCE:
        shown["policy"] = group.policy
        ruled = group.ruled or group.max_per_host > 1
        shown["rules"] = {"max_server_per_host": group.max_per_host} if ruled else {}
    else:
        shown["policies"] = [group.policy]
        shown["metadata"] = {}
    if call.version >= (2, 13):
        shown["project_id"] = group.project_id
        shown["user_id"] = group.user_id
    return shown


routes = [
    *listing(PATH, index, f"{RULE}:index", GroupsQuery),
    Post(PATH, create, may=f"{RULE}:create", body=Body, answers=200, until="2.63"),
    Post(PATH, create, may=f"{RULE}:create", body=Body64, answers=200, lenient=True, since="2.64"),
    Get(f"{PATH}/{{id}}", show, may=f"{RULE}:show"),
    Delete(f"{PATH}/{{id}}", delete, may=f"{RULE}:delete"),
]
