"""Regions: `/v3/regions`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api.identity.words import Text, extra, found, listed, shown
from api.wire import Call, Delete, Get, Patch, Post, Put
from bus import clock
from bus.documents import Where
from bus.execute import Wish
from bus.log import Document
from handlers.identity.catalog import REGIONS
from handlers.identity.resource import duplicate
from schema.identity.catalog import ENDPOINT, REGION, CreateRegion, DeleteRegion, UpdateRegion
from schema.refusal import Forbidden, Invalid

RegionId = Annotated[str, Meta(min_length=1, max_length=255)]


class NewRegion(msgspec.Struct):
    id: Annotated[str, Meta(max_length=255)] | None = None
    description: Text | None = None
    parent_region_id: RegionId | None = None


class NewRegionBody(msgspec.Struct):
    region: NewRegion


class RegionChanges(msgspec.Struct):
    description: Text | UnsetType | None = UNSET
    parent_region_id: RegionId | UnsetType | None = UNSET


class RegionChangesBody(msgspec.Struct):
    region: RegionChanges


def view(call: Call, document: Document) -> dict[str, Any]:
    region = document.state
    return shown(call, "regions", document, description=region.description, parent_region_id=region.parent_region_id)


async def create(call: Call) -> dict[str, Any]:
    return await _create(call, call.body.region.id or clock.hex_id())


async def create_at(call: Call) -> dict[str, Any]:
    """PUT: the id in the path; the body may only say the same."""
    id = call.path["region_id"]
    if call.body.region.id not in {None, id}:
        raise Invalid("Cannot specify region.id different from the one in the URL.")
    return await _create(call, id)


async def _create(call: Call, id: str) -> dict[str, Any]:
    new: NewRegion = call.body.region
    if new.parent_region_id is not None:
        await found(call, REGION, new.parent_region_id)
    known = await call.cloud.documents.get_many(REGION, [id])
    if id in known and known[id].state.living:
        raise duplicate("region", "ID", id)
    command = CreateRegion(
        description=new.description or "",
        parent_region_id=new.parent_region_id,
        extra=extra(call, "region", NewRegion),
    )
    documents = await call.execute(Wish(REGIONS, id, command))
    return {"region": view(call, documents[0])}


async def listing(call: Call) -> dict[str, Any]:
    return await listed(call, REGION, "regions", view, fields={"parent_region_id": "parent_id"})


async def show(call: Call) -> dict[str, Any]:
    return {"region": view(call, await found(call, REGION, call.path["region_id"]))}


async def update(call: Call) -> dict[str, Any]:
    document = await found(call, REGION, call.path["region_id"])
    changes: RegionChanges = call.body.region
    parent = changes.parent_region_id
    if isinstance(parent, str):
        await _check_parent(call, document.id, parent)
    command = UpdateRegion(
        description=changes.description or "" if changes.description is not UNSET else UNSET,
        parent_region_id=parent,
        extra=extra(call, "region", RegionChanges) or UNSET,
    )
    documents = await call.execute(Wish(REGIONS, document.id, command))
    return {"region": view(call, documents[0])}


async def _check_parent(call: Call, id: str, parent: str | None) -> None:
    """A region does not lie in itself, however far around."""
    while parent:
        if parent == id:
            raise Invalid(f"Region {id} cannot lie in itself.")
        parent = (await found(call, REGION, parent)).state.parent_region_id


async def delete(call: Call) -> None:
    document = await found(call, REGION, call.path["region_id"])
    find = call.cloud.documents.find
    used = await find(ENDPOINT, where=[Where("region_id", "=", document.id)], limit=1)
    children = await find(REGION, where=[Where("parent_id", "=", document.id)], limit=1)
    if used or children:
        raise Forbidden(
            f"Unable to delete region {document.id} because it or its child regions have associated endpoints."
        )
    await call.execute(Wish(REGIONS, document.id, DeleteRegion()))


routes = [
    Post("/regions", create, may="identity:create_region", body=NewRegionBody),
    Get("/regions", listing, may="identity:list_regions"),
    Get("/regions/{region_id}", show, may="identity:get_region"),
    Put("/regions/{region_id}", create_at, may="identity:create_region", body=NewRegionBody, answers=201),
    Patch("/regions/{region_id}", update, may="identity:update_region", body=RegionChangesBody),
    Delete("/regions/{region_id}", delete, may="identity:delete_region"),
]
