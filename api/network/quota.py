"""Quotas of networking: what a project may have, and what it has of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from api.network.words import Body
from api.wire import Call, Delete, Get, Put
from bus.config import Limit
from bus.documents import Where
from bus.execute import Wish
from handlers.network.quota import NETWORK_QUOTAS, RESOURCES, defaults, in_force
from schema.network.quota import (
    NETWORK_QUOTA,
    NETWORK_USAGE,
    UNLIMITED,
    ClearNetworkQuotaLimits,
    SetNetworkQuotaLimits,
)
from schema.refusal import Forbidden, Invalid, NotFound

QuotaChange: Any = msgspec.defstruct(
    "QuotaChange",
    [
        *((name, Limit | UnsetType, UNSET) for name in RESOURCES),
        ("force", bool, False),
        ("check_limit", bool | None, None),
    ],
    bases=(Body,),
    kw_only=True,
    module=__name__,
)
"""What there are limits of. `force`: also below what is there; `check_limit`: says what is so without it."""


class UpdateBody(Body):
    quota: QuotaChange


async def index(call: Call) -> dict[str, Any]:
    """The projects that somebody set limits for."""
    documents = await call.cloud.documents.find(NETWORK_QUOTA, limit=None)
    return {
        "quotas": [
            {**in_force(call.cloud, document.state.limits), "project_id": document.id, "tenant_id": document.id}
            for document in documents
            if document.state.limits
        ]
    }


async def show(call: Call) -> dict[str, Any]:
    call.must("get_quota", project_id=call.path["project"])
    return await _limits(call)


async def show_defaults(call: Call) -> dict[str, Any]:
    call.must("get_quota", project_id=call.path["project"])
    return {"quota": defaults(call.cloud)}


async def show_details(call: Call) -> dict[str, Any]:
    project_id = call.path["project"]
    if not call.may("get_quota", project_id=project_id):
        raise Forbidden(
            "User does not have admin privileges: Only admin is authorized to access quotas for another project.",
            code="AdminRequired",
        )
    used = await _used(call, project_id)
    limits = in_force(call.cloud, await _set(call, project_id))
    return {
        "quota": {name: {"limit": limit, "used": used.get(name, 0), "reserved": 0} for name, limit in limits.items()}
    }


async def show_project(call: Call) -> dict[str, Any]:
    return {"project": {"project_id": _own(call)}}


async def show_tenant(call: Call) -> dict[str, Any]:
    return {"tenant": {"tenant_id": _own(call)}}


async def update(call: Call) -> dict[str, Any]:
    project_id, body = call.path["project"], call.body.quota
    limits = {name: limit for name in RESOURCES if (limit := getattr(body, name)) is not UNSET}
    if limits and not body.force:
        _refuse_below(limits, await _used(call, project_id))
    await call.execute(Wish(NETWORK_QUOTAS, project_id, SetNetworkQuotaLimits(limits=limits)))
    return await _limits(call)


async def delete(call: Call) -> None:
    project_id = call.path["project"]
    if not await _set(call, project_id):
        raise NotFound(f"Quota for project {project_id} could not be found.", code="TenantQuotaNotFound")
    await call.execute(Wish(NETWORK_QUOTAS, project_id, ClearNetworkQuotaLimits()))


async def _limits(call: Call) -> dict[str, Any]:
    return {"quota": in_force(call.cloud, await _set(call, call.path["project"]))}


async def _set(call: Call, project_id: str) -> Mapping[str, int]:
    """The limits that were set for a project."""
    document = (await call.cloud.documents.get_many(NETWORK_QUOTA, [project_id])).get(project_id)
    limits: Mapping[str, int] = document.state.limits if document else {}
    return limits


async def _used(call: Call, project_id: str) -> dict[str, int]:
    documents = await call.cloud.documents.find(NETWORK_USAGE, where=[Where("project_id", "=", project_id)])
    return {document.state.name: document.state.used for document in documents}


def _refuse_below(limits: Mapping[str, int], used: Mapping[str, int]) -> None:
    for name, limit in limits.items():
        if limit != UNLIMITED and used.get(name, 0) > limit:
            raise Invalid(
                f"Quota limit {limit} for {name} must be greater than or equal to already used {used[name]}",
                code="HTTPBadRequest",
            )


def _own(call: Call) -> str:
    if not call.token.project_id:
        raise Invalid("Tenant-id was missing from quota request.", code="QuotaMissingTenant")
    return call.token.project_id


routes = [
    Get("/quotas", index, may="get_quotas"),
    Get("/quotas/project", show_project, may="get_quota"),
    Get("/quotas/tenant", show_tenant, may="get_quota"),
    Get("/quotas/{project}", show, may="get_quota"),
    Put("/quotas/{project}", update, may="update_quota", body=UpdateBody, lenient=True),
    Delete("/quotas/{project}", delete, may="delete_quota"),
    Get("/quotas/{project}/default", show_defaults, may="get_quota"),
    Get("/quotas/{project}/details", show_details, may="get_quota"),
    Get("/quotas/{project}/details.json", show_details, may="get_quota"),
]
