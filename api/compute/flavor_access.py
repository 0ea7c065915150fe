"""Who may use a flavor that is not public: list, add, remove projects."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from api.compute.flavor import visible
from api.compute.project import must_be_project
from api.wire import Call, Get, Post
from bus.execute import Wish
from handlers.compute.flavor import FLAVORS
from schema.compute.flavor import Flavor, GrantFlavorAccess, RevokeFlavorAccess
from schema.refusal import Conflict, NotFound

ACCESS = "os_compute_api:os-flavor-access"


class Tenant(Struct, forbid_unknown_fields=True):
    tenant: Annotated[str, Meta(min_length=1, max_length=255)]


async def index(call: Call) -> dict[str, Any]:
    flavor = await visible(call)
    if flavor.is_public:
        raise NotFound("Access list not available for public flavors.")
    return _view(flavor)


async def add(call: Call) -> dict[str, Any]:
    flavor = await visible(call)
    project_id = call.body.tenant
    await must_be_project(call, project_id)
    if flavor.is_public and call.version >= (2, 7):
        raise Conflict("Can not add access to a public flavor.")
    if project_id in flavor.access and not call.by.idempotency:
        raise Conflict(f"Flavor access already exists for flavor {flavor.id} and project {project_id} combination.")
    [document] = await call.execute(Wish(FLAVORS, flavor.id, GrantFlavorAccess(project_id=project_id)))
    return _view(document.state)


async def remove(call: Call) -> dict[str, Any]:
    flavor = await visible(call)
    project_id = call.body.tenant
    await must_be_project(call, project_id)
    if project_id not in flavor.access and not call.by.idempotency:
        raise NotFound(f"Flavor access not found for {flavor.id} / {project_id} combination.")
    [document] = await call.execute(Wish(FLAVORS, flavor.id, RevokeFlavorAccess(project_id=project_id)))
    return _view(document.state)


def _view(flavor: Flavor) -> dict[str, Any]:
    return {"flavor_access": [{"flavor_id": flavor.id, "tenant_id": project_id} for project_id in flavor.access]}


routes = [
    Get("/flavors/{id}/os-flavor-access", index, may=ACCESS),
    Post(
        "/flavors/{id}/action",
        add,
        action="addTenantAccess",
        body=Tenant,
        may=f"{ACCESS}:add_tenant_access",
        answers=200,
    ),
    Post(
        "/flavors/{id}/action",
        remove,
        action="removeTenantAccess",
        body=Tenant,
        may=f"{ACCESS}:remove_tenant_access",
        answers=200,
    ),
]
