"""Quota sets and quota class sets: what projects may hold, and what they do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from api.compute.page import LENIENT_UNTIL, STRICT_SINCE, NoQuery, listing, strict
from api.compute.project import must_be_project
from api.wire import Call, Delete, Put, Route
from bus.documents import Where
from bus.execute import Wish
from handlers.compute.quota import QUOTA_CLASSES, QUOTAS, defaults, limits_in_force, quota_of
from schema.compute.quota import (
    DEFAULTS,
    HELD,
    QUOTA_CLASS,
    UNLIMITED,
    ClearQuotaLimits,
    SetQuotaClassLimits,
    SetQuotaLimits,
)
from schema.compute.server_group import SERVER_GROUP

RULE = "os_compute_api:os-quota-sets"
CLASS_RULE = "os_compute_api:os-quota-class-sets"

Limit = Annotated[int, Meta(ge=-1, le=0x7FFFFFFF)] | UnsetType

_NETWORK = ("fixed_ips", "floating_ips", "security_groups", "security_group_rules")
"""Networking's own by now: unlimited here, and gone since 2.36 (classes: 2.50)."""
_KEPT = {*DEFAULTS, *_NETWORK}
_INJECTED = ("injected_files", "injected_file_content_bytes", "injected_file_path_bytes")
"""Gone since 2.57."""
_GROUPS = ("server_groups", "server_group_members")
"""In classes since 2.50."""


class Limits57(Struct, forbid_unknown_fields=True, kw_only=True):
    instances: Limit = UNSET
    cores: Limit = UNSET
    ram: Limit = UNSET
    key_pairs: Limit = UNSET
    metadata_items: Limit = UNSET
    server_groups: Limit = UNSET
    server_group_members: Limit = UNSET


class Limits36(Limits57, forbid_unknown_fields=True, kw_only=True):
    injected_files: Limit = UNSET
    injected_file_content_bytes: Limit = UNSET
    injected_file_path_bytes: Limit = UNSET


class Limits(Limits36, forbid_unknown_fields=True, kw_only=True):
    fixed_ips: Limit = UNSET
    floating_ips: Limit = UNSET
    security_groups: Limit = UNSET
    security_group_rules: Limit = UNSET


class Set57(Limits57, forbid_unknown_fields=True, kw_only=True):
    force: bool = False


class Set36(Limits36, forbid_unknown_fields=True, kw_only=True):
    force: bool = False


class Set(Limits, forbid_unknown_fields=True, kw_only=True):
    force: bool = False


class UserQuery(Struct, frozen=True):
    """`user_id`: of somebody's limits and usage within the project."""

    user_id: Annotated[str, Meta(max_length=255)] | None = None


async def show(call: Call) -> dict[str, Any]:
    project_id = await _project(call, "show")
    quota = await quota_of(call.cloud, project_id)
    limits = limits_in_force(quota, defaults(call.cloud), call.params.user_id or "")
    return {"quota_set": {"id": project_id, **_shown(call, limits)}}


async def detail(call: Call) -> dict[str, Any]:
    project_id = await _project(call, "detail")
    quota = await quota_of(call.cloud, project_id)
    user_id = call.params.user_id or ""
    used = quota.usage_of(user_id) if user_id else quota.usage
    used = used | {"server_groups": await _server_groups(call, project_id, user_id)}
    limits = _shown(call, limits_in_force(quota, defaults(call.cloud), user_id))
    usage = {name: {"limit": limit, "in_use": used.get(name, 0), "reserved": 0} for name, limit in limits.items()}
    return {"quota_set": {"id": project_id, **usage}}


async def show_defaults(call: Call) -> dict[str, Any]:
    project_id = call.path["id"]
    await must_be_project(call, project_id)
    return {"quota_set": {"id": project_id, **_shown(call, defaults(call.cloud))}}


async def update(call: Call) -> dict[str, Any]:
    project_id = await _project(call, "update")
    limits = _given(call.body.quota_set)
    user_id = call.params.user_id or ""
    command = SetQuotaLimits(
        limits=limits, force=call.body.quota_set.force, user_id=user_id, defaults=defaults(call.cloud)
    )
    [document] = await call.execute(Wish(QUOTAS, project_id, command))
    return {"quota_set": _shown(call, limits_in_force(document.state, defaults(call.cloud), user_id))}


async def delete(call: Call) -> None:
    project_id = await _project(call, "delete")
    await call.execute(Wish(QUOTAS, project_id, ClearQuotaLimits(user_id=call.params.user_id or "")))


async def show_class(call: Call) -> dict[str, Any]:
    name = call.path["id"]
    document = call.cloud.mirror(QUOTA_CLASS).get(name)
    limits = DEFAULTS | (document.state.limits if document else {})
    return {"quota_class_set": {"id": name, **_shown(call, limits, of_class=True)}}


async def update_class(call: Call) -> dict[str, Any]:
    limits = _given(call.body.quota_class_set)
    [document] = await call.execute(Wish(QUOTA_CLASSES, call.path["id"], SetQuotaClassLimits(limits=limits)))
    return {"quota_class_set": _shown(call, DEFAULTS | document.state.limits, of_class=True)}


async def _server_groups(call: Call, project_id: str, user_id: str) -> int:
    where = [Where("project_id", "=", project_id), *([Where("user_id", "=", user_id)] if user_id else [])]
    return await call.cloud.documents.count(SERVER_GROUP, where=where)


async def _project(call: Call, action: str) -> str:
    project_id = call.path["id"]
    call.must(f"{RULE}:{action}", project_id=project_id)
    await must_be_project(call, project_id)
    return project_id


def _given(wanted: Limits57) -> dict[str, int]:
    """The limits that were named. Networking's are kept and shown again, and limit nothing."""
    given: Mapping[str, Any] = msgspec.structs.asdict(wanted)
    return {name: limit for name, limit in given.items() if name in _KEPT and limit is not UNSET}


def _shown(call: Call, limits: Mapping[str, int], *, of_class: bool = False) -> dict[str, int]:
    """The limits this version knows."""
    networks_until = (2, 49) if of_class else (2, 35)
    shown = {name: limits[name] for name in (*HELD, "key_pairs", "metadata_items")}
    if not of_class or call.version >= (2, 50):
        shown |= {name: limits[name] for name in _GROUPS}
    if call.version < (2, 57):
        shown |= {name: limits[name] for name in _INJECTED}
    if call.version <= networks_until:
        shown |= {name: limits.get(name, UNLIMITED) for name in _NETWORK}
    return shown


def _puts(
    path: str, handler: Any, rule: str, key: str, *bodies: tuple[Any, str | None, str | None], query: Any = None
) -> list[Route]:
    return [
        Put(
            path,
            handler,
            may=rule,
            query=query,
            body=msgspec.defstruct(f"{body.__name__}Body", [(key, body)], forbid_unknown_fields=True),
            since=since,
            until=until,
            lenient=True,
        )
        for body, since, until in bodies
    ]


routes = [
    *listing("/os-quota-sets/{id}", show, f"{RULE}:show", UserQuery),
    *listing("/os-quota-sets/{id}/detail", detail, f"{RULE}:detail", UserQuery),
    *listing("/os-quota-sets/{id}/defaults", show_defaults, f"{RULE}:defaults", NoQuery),
    *_puts(
        "/os-quota-sets/{id}",
        update,
        f"{RULE}:update",
        "quota_set",
        (Set, None, "2.35"),
        (Set36, "2.36", "2.56"),
        (Set57, "2.57", LENIENT_UNTIL),
        query=UserQuery,
    ),
    *_puts(
        "/os-quota-sets/{id}",
        update,
        f"{RULE}:update",
        "quota_set",
        (Set57, STRICT_SINCE, None),
        query=strict(UserQuery),
    ),
    *(
        Delete("/os-quota-sets/{id}", delete, may=f"{RULE}:delete", query=query, answers=202, since=since, until=until)
        for query, since, until in ((UserQuery, None, LENIENT_UNTIL), (strict(UserQuery), STRICT_SINCE, None))
    ),
    *listing("/os-quota-class-sets/{id}", show_class, f"{CLASS_RULE}:show"),
    *_puts(
        "/os-quota-class-sets/{id}",
        update_class,
        f"{CLASS_RULE}:update",
        "quota_class_set",
        (Limits, None, "2.49"),
        (Limits36, "2.50", "2.56"),
        (Limits57, "2.57", None),
    ),
]
