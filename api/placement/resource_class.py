"""Resource classes: the standard ones and an operator's own (CUSTOM_*)."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from api.placement.words import DUPLICATE_NAME, all_providers, answered, base, known_class, parameters
from api.wire import Call, Delete, Get, Post, Put, Reply
from bus.execute import Wish
from handlers.placement.resource_class import RESOURCE_CLASSES
from schema.placement.resource_class import (
    CUSTOM_NAME,
    RESOURCE_CLASS,
    STANDARD_CLASSES,
    CreateResourceClass,
    DeleteResourceClass,
)
from schema.refusal import Conflict, Invalid, NotFound

CustomName = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^CUSTOM_[A-Z0-9_]+$")]


class NewResourceClass(Struct, forbid_unknown_fields=True):
    name: CustomName


async def index(call: Call) -> Reply:
    parameters(call, {})
    own = [document.id for document in call.cloud.mirror(RESOURCE_CLASS).values()]
    return answered(call, {"resource_classes": [_view(call, name) for name in (*STANDARD_CLASSES, *own)]})


async def show(call: Call) -> Reply:
    _must_exist(call, call.path["name"])
    return answered(call, _view(call, call.path["name"]))


async def create(call: Call) -> Reply:
    name = call.body.name
    if known_class(call, name) and not call.by.idempotency:
        raise Conflict(f"Conflicting resource class already exists: {name}", code=DUPLICATE_NAME)
    await call.execute(Wish(RESOURCE_CLASSES, name, CreateResourceClass()))
    return Reply(None, headers={"Location": call.url(f"/resource_classes/{name}")})


async def rename(call: Call) -> Reply:
    old, new = call.path["name"], call.body.name
    _must_exist(call, old)
    if old != new:
        _must_be_own_and_free(call, old)
        if known_class(call, new):
            raise Conflict(f"Resource class already exists: {new}", code=DUPLICATE_NAME)
        await call.execute(
            Wish(RESOURCE_CLASSES, new, CreateResourceClass()), Wish(RESOURCE_CLASSES, old, DeleteResourceClass())
        )
    return answered(call, _view(call, new))


async def ensure(call: Call) -> Reply:
    name = call.path["name"]
    if not CUSTOM_NAME.fullmatch(name):
        raise Invalid(f"{name[:64]!r} does not match CUSTOM_ followed by A-Z, 0-9 and _, 255 characters at most.")
    there = known_class(call, name)
    await call.execute(Wish(RESOURCE_CLASSES, name, CreateResourceClass()))
    location = {"Location": call.url(f"/resource_classes/{name}")}
    return Reply(None, status=204 if there else 201, headers=location)


async def delete(call: Call) -> None:
    name = call.path["name"]
    _must_exist(call, name)
    _must_be_own_and_free(call, name)
    await call.execute(Wish(RESOURCE_CLASSES, name, DeleteResourceClass()))


def _must_exist(call: Call, name: str) -> None:
    if not known_class(call, name):
        raise NotFound(f"No such resource class {name}.")


def _must_be_own_and_free(call: Call, name: str) -> None:
    if name in STANDARD_CLASSES:
        raise Invalid(f"Cannot delete standard resource class {name}, nor rename it.")
    users = [it.id for it in all_providers(call).values() if name in it.inventories]
    if users:
        raise Conflict(
            f"Error in delete resource class or rename: {name} is in use in the inventory of {len(users)} providers."
        )


def _view(call: Call, name: str) -> dict[str, Any]:
    return {"name": name, "links": [{"rel": "self", "href": f"{base(call)}/resource_classes/{name}"}]}


_ONE = "/resource_classes/{name}"
_MAY = "placement:resource_classes"

routes = [
    Get("/resource_classes", index, may=f"{_MAY}:list", since="1.2"),
    Post("/resource_classes", create, may=f"{_MAY}:create", body=NewResourceClass, since="1.2"),
    Get(_ONE, show, may=f"{_MAY}:show", since="1.2"),
    Put(_ONE, rename, may=f"{_MAY}:update", body=NewResourceClass, since="1.2", until="1.6"),
    Put(_ONE, ensure, may=f"{_MAY}:update", answers=201, since="1.7"),
    Delete(_ONE, delete, may=f"{_MAY}:delete", since="1.2"),
]
