"""Extra specs of a flavor: list, show, set, remove; keys of well-known namespaces are checked since 2.86."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from api.compute.flavor import INDEX_EXTRA_SPECS, visible
from api.wire import Call, Delete, Get, Post, Put
from bus.execute import Wish
from handlers.compute import extra_specs
from handlers.compute.flavor import FLAVORS
from schema.compute.flavor import RemoveFlavorExtraSpec, SetFlavorExtraSpecs
from schema.refusal import Invalid, NotFound


class ExtraSpecsBody(Struct, forbid_unknown_fields=True):
    extra_specs: dict[str, str | int | float]


async def index(call: Call) -> dict[str, Any]:
    return {"extra_specs": (await visible(call)).extra_specs}


async def show(call: Call) -> dict[str, Any]:
    flavor, key = await visible(call), call.path["key"]
    if key not in flavor.extra_specs:
        raise _missing(flavor.id, key)
    return {key: flavor.extra_specs[key]}


async def create(call: Call) -> dict[str, Any]:
    flavor = await visible(call)
    wanted = _checked(call, call.body.extra_specs)
    await call.execute(Wish(FLAVORS, flavor.id, SetFlavorExtraSpecs(extra_specs=wanted)))
    return {"extra_specs": wanted}


async def update(call: Call) -> dict[str, Any]:
    flavor, key = await visible(call), call.path["key"]
    if list(call.body) != [key]:
        raise Invalid(f"Request body and URI mismatch: the body must be an object whose only key is {key!r}")
    wanted = _checked(call, call.body)
    await call.execute(Wish(FLAVORS, flavor.id, SetFlavorExtraSpecs(extra_specs=wanted)))
    return wanted


async def delete(call: Call) -> None:
    flavor, key = await visible(call), call.path["key"]
    if key not in flavor.extra_specs:
        raise _missing(flavor.id, key)
    await call.execute(Wish(FLAVORS, flavor.id, RemoveFlavorExtraSpec(key=key)))


def _checked(call: Call, given: dict[str, str | int | float]) -> dict[str, str]:
    specs = {key: str(value) for key, value in given.items()}
    for key, value in specs.items():
        if not extra_specs.valid_key(key):
            raise Invalid(
                f"Key Names can only contain alphanumeric characters, periods, dashes, underscores, colons and spaces, "
                f"255 at most; {key[:255]!r} has others"
            )
        if len(value) > extra_specs.VALUE_LENGTH:
            raise Invalid(f"Invalid input for field {key}: it is longer than {extra_specs.VALUE_LENGTH} characters")
        if call.version >= (2, 86):
            extra_specs.check(key, value)
    return specs


def _missing(id: str, key: str) -> NotFound:
    return NotFound(f"Flavor {id} has no extra specs with key {key}.")


_RULE = "os_compute_api:os-flavor-extra-specs"

routes = [
    Get("/flavors/{id}/os-extra_specs", index, may=INDEX_EXTRA_SPECS),
    Post("/flavors/{id}/os-extra_specs", create, may=f"{_RULE}:create", body=ExtraSpecsBody, answers=200),
    Get("/flavors/{id}/os-extra_specs/{key}", show, may=f"{_RULE}:show"),
    Put("/flavors/{id}/os-extra_specs/{key}", update, may=f"{_RULE}:update", body=dict[str, str | int | float]),
    Delete("/flavors/{id}/os-extra_specs/{key}", delete, may=f"{_RULE}:delete", answers=200),
]
