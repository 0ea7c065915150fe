"""Resource classes: the standard ones and an operator's own (CUSTOM_*)."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from api.placement.refusal import SHOWN_CHARACTERS
from api.placement.words import all_providers, answered, base, known_class, parameters
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

_NAME = "^CUSTOM_[A-Z0-9_]+$"

CustomName = Annotated[str, Meta(min_length=1, max_length=255, pattern=_NAME)]


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
        raise Conflict(f"Conflicting resource class already exists: {name}")
    await call.execute(Wish(RESOURCE_CLASSES, name, CreateResourceClass()))
    return Reply(None, headers={"Location": call.url(f"/resource_classes/{name}")})


async def rename(call: Call) -> Reply:
    old, new = call.path["name"], call.body.name
    _must_exist(call, old)
    if old in STANDARD_CLASSES:
        raise Invalid(f"Cannot update standard resource class {old}")
    if old != new:
        _must_be_free(call, old)
        if known_class(call, new):
            raise Conflict(f"Resource class already exists: {new}")
        await call.execute(
            Wish(RESOURCE_CLASSES, new, CreateResourceClass()), Wish(RESOURCE_CLASSES, old, DeleteResourceClass())
        )
    return answered(call, _view(call, new))


async def ensure(call: Call) -> Reply:
    name = call.path["name"]
    _check_name(name)
    there = known_class(call, name)
    await call.execute(Wish(RESOURCE_CLASSES, name, CreateResourceClass()))
    location = {"Location": call.url(f"/resource_classes/{name}")}
    return Reply(None, status=204 if there else 201, headers=location)


async def delete(call: Call) -> None:
    name = call.path["name"]
    _must_exist(call, name)
    if name in STANDARD_CLASSES:
        raise Invalid(f"Error in delete resource class: Cannot delete standard resource class {name}.")
    _must_be_free(call, name)
    await call.execute(Wish(RESOURCE_CLASSES, name, DeleteResourceClass()))


def _must_exist(call: Call, name: str) -> None:
    if not known_class(call, name):
        raise NotFound(f"No such resource class {name}.")


def _must_be_free(call: Call, name: str) -> None:
    users = sum(1 for it in all_providers(call).values() if name in it.inventories)
    if users:
        raise Conflict(
            f"Error in delete resource class: Cannot delete resource class {name}. Class is in use in inventory of "
            f"{users} providers."
        )


def _check_name(name: str) -> None:
    """As the body of a POST would be checked. Raises Invalid."""
    shown = repr(name[:SHOWN_CHARACTERS])
    if len(name) > 255:
        said, rule = f"{shown} is too long", "maxLength"
    elif not CUSTOM_NAME.fullmatch(name):
        said, rule = f"{shown} does not match '{_NAME}'", "pattern"
    else:
        return
    raise Invalid(f"JSON does not validate: {said}  Failed validating '{rule}' in schema")


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
