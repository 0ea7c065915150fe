"""Inventories of a provider: what it has of each resource class, all at once or one by one."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from api.placement.words import (
    Amount,
    ClassName,
    Generation,
    answered,
    known_class,
    must_exist,
    must_know_classes,
    parameters,
    provider_at,
    provider_to_change,
)
from api.wire import Call, Delete, Get, Post, Put, Reply
from api.wire.dispatch import WrongMethod
from bus.execute import Wish
from bus.log import Document
from handlers.placement.provider import PROVIDERS, ConcurrentUpdate, InUse
from schema.placement.provider import MOST, Inventory, Provider, RemoveInventory, SetInventories, SetInventory
from schema.refusal import Conflict, Invalid, NotFound

Reserved = Annotated[int, Meta(ge=0, le=MOST)]
Ratio = Annotated[float, Meta(ge=0, le=3.40282e38)]


class InventoryBody(Struct, forbid_unknown_fields=True, kw_only=True):
    total: Amount
    reserved: Reserved = 0
    min_unit: Amount = 1
    max_unit: Amount = MOST
    step_size: Amount = 1
    allocation_ratio: Ratio = 1.0


class OneInventory(InventoryBody, forbid_unknown_fields=True, kw_only=True):
    resource_provider_generation: Generation


class NewInventory(InventoryBody, forbid_unknown_fields=True, kw_only=True):
    resource_class: ClassName
    resource_provider_generation: Generation | None = None


class AllInventories(Struct, forbid_unknown_fields=True):
    resource_provider_generation: Generation
    inventories: dict[ClassName, InventoryBody]


async def index(call: Call) -> Reply:
    parameters(call, {})
    return _all(call, await provider_at(call))


async def replace(call: Call) -> Reply:
    await provider_to_change(call, call.body.resource_provider_generation)
    must_know_classes(call, call.body.inventories)
    inventories = {name: inventory(call, call.path["uuid"], name, body) for name, body in call.body.inventories.items()}
    command = SetInventories(inventories=inventories, generation=call.body.resource_provider_generation)
    [document] = await call.execute(Wish(PROVIDERS, call.path["uuid"], command))
    return _all(call, document)


async def clear(call: Call) -> None:
    generation = (await provider_at(call)).state.generation
    command = SetInventories(inventories={}, generation=generation)
    await call.execute(Wish(PROVIDERS, call.path["uuid"], command))


async def no_clear(call: Call) -> None:
    raise WrongMethod("GET, HEAD, POST, PUT")


async def create(call: Call) -> Reply:
    there: Provider = (await provider_at(call)).state
    name = call.body.resource_class
    must_know_classes(call, [name])
    if name in there.inventories and not call.by.idempotency:
        raise Conflict(f"Update conflict: there is an inventory of {name} on resource provider {there.id} already.")
    command = SetInventory(
        resource_class=name,
        inventory=inventory(call, there.id, name, call.body, "create"),
        fresh=True,
        generation=call.body.resource_provider_generation,
    )
    [document] = await call.execute(Wish(PROVIDERS, call.path["uuid"], command))
    location = {"Location": call.url(f"/resource_providers/{document.id}/inventories/{name}")}
    return _one(call, document, name, status=201, headers=location)


async def show(call: Call) -> Reply:
    document, name = await provider_at(call), call.path["resource_class"]
    if name not in document.state.inventories:
        raise NotFound(f"No inventory of class {name} for {document.id}")
    return _one(call, document, name)


async def update(call: Call) -> Reply:
    await provider_to_change(call, call.body.resource_provider_generation)
    name = call.path["resource_class"]
    if not known_class(call, name):
        raise Invalid(
            f"No inventory record with resource class for resource provider {call.path['uuid']}: "
            f"No such resource class {name}."
        )
    command = SetInventory(
        resource_class=name,
        inventory=inventory(call, call.path["uuid"], name, call.body),
        fresh=False,
        generation=call.body.resource_provider_generation,
    )
    [document] = await call.execute(Wish(PROVIDERS, call.path["uuid"], command))
    return _one(call, document, name)


async def delete(call: Call) -> None:
    await provider_at(call)
    name = call.path["resource_class"]
    try:
        await call.execute(Wish(PROVIDERS, call.path["uuid"], RemoveInventory(resource_class=name)))
    except InUse as refused:
        raise ConcurrentUpdate(f"Unable to delete inventory of class {name}: {refused.message}") from None


def inventory(call: Call, provider_id: str, name: str, body: InventoryBody, doing: str = "update") -> Inventory:
    """A body as it is kept. Raises Invalid where nothing would be left of it (since 1.26: less than nothing)."""
    inventory = Inventory(
        total=body.total,
        reserved=body.reserved,
        min_unit=body.min_unit,
        max_unit=body.max_unit,
        step_size=body.step_size,
        allocation_ratio=float(body.allocation_ratio),
    )
    most = "greater than" if call.version >= (1, 26) else "greater than or equal to"
    if inventory.capacity < 0 or (inventory.capacity == 0 and call.version < (1, 26)):
        raise Invalid(
            f"Unable to {doing} inventory for resource provider {provider_id}: Invalid inventory for '{name}' on "
            f"resource provider '{provider_id}'. The reserved value is {most} total."
        )
    return inventory


def view(inventory: Inventory) -> dict[str, Any]:
    return {
        "total": inventory.total,
        "reserved": inventory.reserved,
        "min_unit": inventory.min_unit,
        "max_unit": inventory.max_unit,
        "step_size": inventory.step_size,
        "allocation_ratio": inventory.allocation_ratio,
    }


def _all(call: Call, document: Document) -> Reply:
    provider: Provider = document.state
    body = {
        "resource_provider_generation": provider.generation,
        "inventories": {name: view(it) for name, it in provider.inventories.items()},
    }
    return answered(call, body, [provider.updated_at])


def _one(call: Call, document: Document, name: str, **fields: Any) -> Reply:
    provider: Provider = document.state
    body = {"resource_provider_generation": provider.generation, **view(provider.inventories[name])}
    return answered(call, body, [provider.updated_at], **fields)


_ALL = "/resource_providers/{uuid}/inventories"
_ONE = "/resource_providers/{uuid}/inventories/{resource_class}"
_MAY = "placement:resource_providers:inventories"

routes = [
    Get(_ALL, index, may=f"{_MAY}:list"),
    Put(_ALL, replace, may=f"{_MAY}:update", first=must_exist, body=AllInventories),
    Post(_ALL, create, may=f"{_MAY}:create", first=must_exist, body=NewInventory),
    Delete(_ALL, clear, may=f"{_MAY}:delete", since="1.5"),
    Delete(_ALL, no_clear, may=f"{_MAY}:delete", until="1.4"),
    Get(_ONE, show, may=f"{_MAY}:show"),
    Put(_ONE, update, may=f"{_MAY}:update", first=must_exist, body=OneInventory),
    Delete(_ONE, delete, may=f"{_MAY}:delete"),
]
