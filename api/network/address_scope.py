"""Address scopes at the door: subnet pools whose ranges must not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import UNSET, UnsetType

from api.network.filter import Filter
from api.network.resource import Resource, project_of, resource_routes, to_change, viewed
from api.network.security_group import shared, sharing
from api.network.words import Body, Project, Text
from api.wire import Call
from bus import clock
from bus.execute import Wish
from bus.log import Document
from handlers.network.address_scope import ADDRESS_SCOPES, not_found
from handlers.network.sharable import forgetting, recording
from schema.network.address_scope import (
    ADDRESS_SCOPE,
    AddressScope,
    CreateAddressScope,
    DeleteAddressScope,
    ShareAddressScope,
    UpdateAddressScope,
)
from schema.network.rbac_policy import EVERYBODY
from schema.refusal import Invalid


class NewScope(Body):
    ip_version: Literal[4, 6]
    name: Text = ""
    shared: bool = False
    tenant_id: Project | None = None
    project_id: Project | None = None


class CreateBody(Body):
    address_scope: NewScope


class ScopeChange(Body):
    name: Text | UnsetType = UNSET
    shared: bool | UnsetType = UNSET


class UpdateBody(Body):
    address_scope: ScopeChange


async def view(call: Call, documents: Sequence[Document]) -> list[dict[str, Any]]:
    return [_view(document, call.token.project_id) for document in documents]


def _view(document: Document, viewer: str | None) -> dict[str, Any]:
    scope: AddressScope = document.state
    return {
        "id": scope.id,
        "name": scope.name,
        "tenant_id": scope.project_id,
        "project_id": scope.project_id,
        "ip_version": scope.ip_version,
        "shared": not {EVERYBODY, viewer}.isdisjoint(scope.shared_with),
    }


RESOURCE = Resource(
    name="address_scope",
    plural="address_scopes",
    kind=ADDRESS_SCOPE,
    view=view,
    missing=not_found,
    filters={"ip_version": Filter(type=int), "shared": Filter(condition=shared)},
    shared=sharing,
)


async def create(call: Call) -> dict[str, Any]:
    body: NewScope = call.body.address_scope
    if body.shared:
        call.must("create_address_scope:shared")
    id, project_id = clock.uuid4(), project_of(call, body.project_id, body.tenant_id)
    command = CreateAddressScope(
        name=body.name,
        project_id=project_id,
        ip_version=body.ip_version,
        shared_with=(EVERYBODY,) if body.shared else (),
    )
    opened = recording(RESOURCE.name, id, project_id) if body.shared else []
    [document, *_] = await call.execute(Wish(ADDRESS_SCOPES, id, command), *opened)
    return {RESOURCE.name: await viewed(call, RESOURCE, document)}


async def update(call: Call) -> dict[str, Any]:
    body: ScopeChange = call.body.address_scope
    before = await to_change(call, RESOURCE, call.path["id"])
    open_now = EVERYBODY in before.state.shared_with
    wishes = [Wish(ADDRESS_SCOPES, before.id, UpdateAddressScope(name=body.name))]
    if body.shared is not UNSET:
        call.must("update_address_scope:shared")
    if body.shared is not UNSET and body.shared is not open_now:
        if open_now:
            raise Invalid(
                f"Unable to update address scope {before.id} : Shared address scope can't be unshared",
                code="AddressScopeUpdateError",
            )
        wishes.append(Wish(ADDRESS_SCOPES, before.id, ShareAddressScope(project_id=EVERYBODY)))
        wishes += recording(RESOURCE.name, before.id, before.state.project_id)
    documents = await call.execute(*wishes)
    last = next(it for it in reversed(documents) if it.id == before.id)
    return {RESOURCE.name: await viewed(call, RESOURCE, last)}


async def delete(call: Call) -> None:
    before = await to_change(call, RESOURCE, call.path["id"])
    await call.execute(Wish(ADDRESS_SCOPES, before.id, DeleteAddressScope()), *await forgetting(call.cloud, before.id))


routes = resource_routes(
    RESOURCE, create=create, create_body=CreateBody, update=update, update_body=UpdateBody, delete=delete
)
