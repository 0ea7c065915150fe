"""Services and endpoints: `/v3/services`, `/v3/endpoints`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api.identity.region import RegionId
from api.identity.words import Id, Name, Text, extra, found, listed, shown
from api.wire import Call, Delete, Get, Patch, Post
from bus import clock
from bus.documents import Where
from bus.execute import Wish
from bus.log import Document
from handlers.identity.catalog import ENDPOINTS, REGIONS, SERVICES
from handlers.identity.resource import not_found
from schema.identity.catalog import (
    ENDPOINT,
    REGION,
    SERVICE,
    CreateEndpoint,
    CreateRegion,
    CreateService,
    DeleteEndpoint,
    DeleteService,
    UpdateEndpoint,
    UpdateService,
)
from schema.refusal import Invalid

Url = Annotated[str, Meta(min_length=1, max_length=2048, pattern=r"^[a-zA-Z0-9+.-]+:.+")]
Interface = Literal["public", "internal", "admin"]


class NewService(msgspec.Struct):
    type: Name
    name: Annotated[str, Meta(max_length=255)] | None = None
    description: Text | None = None
    enabled: bool = True


class NewServiceBody(msgspec.Struct):
    service: NewService


class ServiceChanges(msgspec.Struct):
    type: Name | UnsetType = UNSET
    name: Annotated[str, Meta(max_length=255)] | UnsetType | None = UNSET
    description: Text | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET


class ServiceChangesBody(msgspec.Struct):
    service: ServiceChanges


class NewEndpoint(msgspec.Struct):
    service_id: Id
    interface: Interface
    url: Url
    region_id: RegionId | None = None
    region: RegionId | None = None
    """An older name of `region_id`."""
    enabled: bool = True


class NewEndpointBody(msgspec.Struct):
    endpoint: NewEndpoint


class EndpointChanges(msgspec.Struct):
    service_id: Id | UnsetType = UNSET
    interface: Interface | UnsetType = UNSET
    url: Url | UnsetType = UNSET
    region_id: RegionId | UnsetType | None = UNSET
    region: RegionId | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET


class EndpointChangesBody(msgspec.Struct):
    endpoint: EndpointChanges


def service_view(call: Call, document: Document) -> dict[str, Any]:
    service = document.state
    answer = shown(call, "services", document, type=service.kind, enabled=service.enabled)
    if service.name is not None:
        answer["name"] = service.name
    if service.description is not None:
        answer["description"] = service.description
    return answer


def endpoint_view(call: Call, document: Document) -> dict[str, Any]:
    endpoint = document.state
    return shown(
        call,
        "endpoints",
        document,
        service_id=endpoint.service_id,
        interface=endpoint.interface,
        url=endpoint.url,
        region_id=endpoint.region_id,
        region=endpoint.region_id,
        enabled=endpoint.enabled,
    )


async def create_service(call: Call) -> dict[str, Any]:
    new: NewService = call.body.service
    command = CreateService(
        kind=new.type,
        name=new.name,
        description=new.description,
        enabled=new.enabled,
        extra=extra(call, "service", NewService),
    )
    documents = await call.execute(Wish(SERVICES, clock.hex_id(), command))
    return {"service": service_view(call, documents[0])}


async def list_services(call: Call) -> dict[str, Any]:
    return await listed(call, SERVICE, "services", service_view, fields={"name": "name", "type": "kind"})


async def show_service(call: Call) -> dict[str, Any]:
    return {"service": service_view(call, await found(call, SERVICE, call.path["service_id"]))}


async def update_service(call: Call) -> dict[str, Any]:
    document = await found(call, SERVICE, call.path["service_id"])
    changes: ServiceChanges = call.body.service
    command = UpdateService(
        kind=changes.type,
        name=changes.name,
        description=changes.description,
        enabled=changes.enabled,
        extra=extra(call, "service", ServiceChanges) or UNSET,
    )
    documents = await call.execute(Wish(SERVICES, document.id, command))
    return {"service": service_view(call, documents[0])}


async def delete_service(call: Call) -> None:
    """The service and its endpoints."""
    document = await found(call, SERVICE, call.path["service_id"])
    endpoints = await call.cloud.documents.find(ENDPOINT, where=[Where("parent_id", "=", document.id)], limit=None)
    await call.execute(
        Wish(SERVICES, document.id, DeleteService()),
        *(Wish(ENDPOINTS, endpoint.id, DeleteEndpoint()) for endpoint in endpoints),
    )


async def create_endpoint(call: Call) -> dict[str, Any]:
    new: NewEndpoint = call.body.endpoint
    region_id = new.region_id or new.region
    wishes = await _region(call, region_id, make=new.region_id is None)
    await _service(call, new.service_id)
    command = CreateEndpoint(
        service_id=new.service_id,
        interface=new.interface,
        url=_checked(new.url),
        region_id=region_id,
        enabled=new.enabled,
        extra=extra(call, "endpoint", NewEndpoint),
    )
    documents = await call.execute(Wish(ENDPOINTS, clock.hex_id(), command), *wishes)
    return {"endpoint": endpoint_view(call, documents[0])}


async def list_endpoints(call: Call) -> dict[str, Any]:
    fields = {"interface": "interface", "service_id": "parent_id", "region_id": "region_id", "region": "region_id"}
    return await listed(call, ENDPOINT, "endpoints", endpoint_view, fields=fields)


async def show_endpoint(call: Call) -> dict[str, Any]:
    return {"endpoint": endpoint_view(call, await found(call, ENDPOINT, call.path["endpoint_id"]))}


async def update_endpoint(call: Call) -> dict[str, Any]:
    document = await found(call, ENDPOINT, call.path["endpoint_id"])
    changes: EndpointChanges = call.body.endpoint
    region_id = changes.region_id if changes.region_id is not UNSET else changes.region
    wishes = []
    if isinstance(region_id, str):
        wishes = await _region(call, region_id, make=changes.region_id is UNSET)
    if changes.service_id is not UNSET:
        await _service(call, changes.service_id)
    command = UpdateEndpoint(
        service_id=changes.service_id,
        interface=changes.interface,
        url=_checked(changes.url) if changes.url is not UNSET else UNSET,
        region_id=region_id,
        enabled=changes.enabled,
        extra=extra(call, "endpoint", EndpointChanges) or UNSET,
    )
    documents = await call.execute(Wish(ENDPOINTS, document.id, command), *wishes)
    return {"endpoint": endpoint_view(call, documents[0])}


async def delete_endpoint(call: Call) -> None:
    document = await found(call, ENDPOINT, call.path["endpoint_id"])
    await call.execute(Wish(ENDPOINTS, document.id, DeleteEndpoint()))


async def _service(call: Call, id: str) -> None:
    """An endpoint is of a service that is there; the request is at fault if it is not."""
    documents = await call.cloud.documents.get_many(SERVICE, [id])
    if id not in documents or not documents[id].state.living:
        raise Invalid(f"Could not find service: {id}.")


async def _region(call: Call, id: str | None, *, make: bool) -> list[Wish]:
    """The region must be there; under its older name it is made on the way."""
    if id is None:
        return []
    documents = await call.cloud.documents.get_many(REGION, [id])
    if id in documents and documents[id].state.living:
        return []
    if not make:
        raise Invalid(str(not_found("region", id)))
    return [Wish(REGIONS, id, CreateRegion())]


def _checked(url: str) -> str:
    """A URL may hold `$(project_id)s` and the like, but nothing a token cannot fill in."""
    rest = url
    for name in ("project_id", "tenant_id", "user_id", "region_id", "public_endpoint", "admin_endpoint"):
        rest = rest.replace(f"$({name})s", "").replace(f"%({name})s", "")
    if "$(" in rest or "%(" in rest:
        raise Invalid(f"Malformed endpoint URL ({url}), see the words it may hold: $(project_id)s, $(user_id)s.")
    return url


routes = [
    Post("/services", create_service, may="identity:create_service", body=NewServiceBody),
    Get("/services", list_services, may="identity:list_services"),
    Get("/services/{service_id}", show_service, may="identity:get_service"),
    Patch("/services/{service_id}", update_service, may="identity:update_service", body=ServiceChangesBody),
    Delete("/services/{service_id}", delete_service, may="identity:delete_service"),
    Post("/endpoints", create_endpoint, may="identity:create_endpoint", body=NewEndpointBody),
    Get("/endpoints", list_endpoints, may="identity:list_endpoints"),
    Get("/endpoints/{endpoint_id}", show_endpoint, may="identity:get_endpoint"),
    Patch("/endpoints/{endpoint_id}", update_endpoint, may="identity:update_endpoint", body=EndpointChangesBody),
    Delete("/endpoints/{endpoint_id}", delete_endpoint, may="identity:delete_endpoint"),
]
