"""Flavors: list, show, create, describe, delete."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from api.compute.page import Paging, links, listing, page, regex
from api.compute.words import PRINTABLE, Name
from api.wire import Call, Delete, Get, Post, Put
from bus import clock
from bus.execute import AlreadyTaken, Wish
from handlers.compute.flavor import FLAVORS, flavor_seen_by
from schema.compute.flavor import FLAVOR, CreateFlavor, DeleteFlavor, DescribeFlavor, Flavor
from schema.refusal import Conflict, Invalid

SHOW = "os_compute_api:flavors"
INDEX_EXTRA_SPECS = "os_compute_api:os-flavor-extra-specs:index"

MAX_INT = 0x7FFFFFFF
Count = Annotated[int, Meta(ge=1, le=MAX_INT)]
Size = Annotated[int, Meta(ge=0, le=MAX_INT)]

Text = Annotated[str, Meta(max_length=65535, pattern=PRINTABLE)]

_FLAVOR_ID = re.compile(r"(?! )[a-zA-Z0-9. _-]{1,255}(?<! )")


class Dimensions(Struct, forbid_unknown_fields=True):
    """What a flavor is made of, in every version."""

    name: Name
    vcpus: Count
    ram: Count
    disk: Size
    id: str | int | float | None = None
    ephemeral: Size = field(default=0, name="OS-FLV-EXT-DATA:ephemeral")
    swap: Size = 0
    is_public: bool = field(default=True, name="os-flavor-access:is_public")


class NewFlavor(Dimensions, forbid_unknown_fields=True):
    rxtx_factor: Annotated[float, Meta(gt=0, le=3.40282e38)] = 1.0


class DescribedNewFlavor(NewFlavor, forbid_unknown_fields=True):
    description: Text | None = None


class FactorlessNewFlavor(Dimensions, forbid_unknown_fields=True):
    """Since 2.102."""

    description: Text | None = None


class CreateBody(Struct, forbid_unknown_fields=True):
    flavor: NewFlavor


class DescribedCreateBody(Struct, forbid_unknown_fields=True):
    flavor: DescribedNewFlavor


class FactorlessCreateBody(Struct, forbid_unknown_fields=True):
    flavor: FactorlessNewFlavor


class FlavorChange(Struct, forbid_unknown_fields=True):
    description: Text | None


class UpdateBody(Struct, forbid_unknown_fields=True):
    flavor: FlavorChange


SORT_KEYS: dict[str, str] = {
    "created_at": "created_at",
    "description": "description",
    "disabled": "id",
    "ephemeral_gb": "ephemeral_gb",
    "flavorid": "id",
    "id": "created_at",
    "is_public": "is_public",
    "memory_mb": "ram_mb",
    "name": "name",
    "root_gb": "disk_gb",
    "rxtx_factor": "rxtx_factor",
    "swap": "swap_mb",
    "updated_at": "updated_at",
    "vcpu_weight": "id",
    "vcpus": "vcpus",
}
"""What a list can be sorted by, and the field that holds it."""

FACTORLESS_SINCE = (2, 102)
"""From here on nobody hears of `rxtx_factor`, nor of flavors that are disabled, which none is."""


class FlavorQuery(Paging, frozen=True):
    is_public: str | None = None
    min_ram: int = field(default=0, name="minRam")
    min_disk: int = field(default=0, name="minDisk")
    sort_key: str = "flavorid"
    sort_dir: Literal["asc", "desc"] = "asc"


class NamedFlavorQuery(FlavorQuery, frozen=True):
    """Since 2.102. `name` is a regular expression."""

    name: str | None = None


async def index(call: Call) -> dict[str, Any]:
    return _listed(call, _brief)


async def detail(call: Call) -> dict[str, Any]:
    return _listed(call, view)


async def show(call: Call) -> dict[str, Any]:
    return {"flavor": view(call, await visible(call))}


async def create(call: Call) -> dict[str, Any]:
    wanted: Dimensions = call.body.flavor
    id = _id_of(wanted)
    description = wanted.description if isinstance(wanted, (DescribedNewFlavor, FactorlessNewFlavor)) else None
    if not call.by.idempotency and call.cloud.mirror(FLAVOR).get(id) is not None:
        raise Conflict(f"Flavor with ID {id} already exists.")
    command = CreateFlavor(
        name=wanted.name,
        vcpus=wanted.vcpus,
        ram_mb=wanted.ram,
        disk_gb=wanted.disk,
        ephemeral_gb=wanted.ephemeral,
        swap_mb=wanted.swap,
        rxtx_factor=wanted.rxtx_factor if isinstance(wanted, NewFlavor) else 1.0,
        is_public=wanted.is_public,
        description=description,
    )
    try:
        [document] = await call.execute(Wish(FLAVORS, id, command))
    except AlreadyTaken:
        raise Conflict(f"Flavor with name {wanted.name} already exists.") from None
    return {"flavor": view(call, document.state)}


async def update(call: Call) -> dict[str, Any]:
    flavor = await visible(call)
    [document] = await call.execute(
        Wish(FLAVORS, flavor.id, DescribeFlavor(description=call.body.flavor.description)),
    )
    return {"flavor": view(call, document.state)}


async def delete(call: Call) -> None:
    flavor = await visible(call)
    await call.execute(Wish(FLAVORS, flavor.id, DeleteFlavor()))


async def visible(call: Call) -> Flavor:
    """The flavor in the path, as far as the caller may know of it. Raises NotFound."""
    return await flavor_seen_by(call.cloud, call.path["id"], None if call.token.is_admin else call.token.project_id)


def view(call: Call, flavor: Flavor) -> dict[str, Any]:
    """A flavor as Nova shows it in this version."""
    shown: dict[str, Any] = {
        "id": flavor.id,
        "name": flavor.name,
        "ram": flavor.ram_mb,
        "disk": flavor.disk_gb,
        "swap": flavor.swap_mb or (0 if call.version >= (2, 75) else ""),
        "OS-FLV-EXT-DATA:ephemeral": flavor.ephemeral_gb,
        "vcpus": flavor.vcpus,
        "os-flavor-access:is_public": flavor.is_public,
        "links": links(call, f"/flavors/{flavor.id}"),
    }
    if call.version < FACTORLESS_SINCE:
        shown["OS-FLV-DISABLED:disabled"] = False
        shown["rxtx_factor"] = flavor.rxtx_factor
    if call.version >= (2, 55):
        shown["description"] = flavor.description
    if call.version >= (2, 61) and call.may(INDEX_EXTRA_SPECS):
        shown["extra_specs"] = flavor.extra_specs
    return shown


def _brief(call: Call, flavor: Flavor) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": flavor.id,
        "name": flavor.name,
        "links": links(call, f"/flavors/{flavor.id}"),
    }
    if call.version >= (2, 55):
        shown["description"] = flavor.description
    return shown


def _listed(call: Call, shape: Any) -> dict[str, Any]:
    query: FlavorQuery = call.params
    keys = [key for key in SORT_KEYS if key != "rxtx_factor" or call.version < FACTORLESS_SINCE]
    if query.sort_key not in keys:
        raise Invalid(f"Invalid input for sort_key: {query.sort_key!r} is none of {', '.join(keys)}")
    key, named = SORT_KEYS[query.sort_key], _name_filter(query)
    flavors = sorted(
        (it.state for it in call.cloud.mirror(FLAVOR).values() if _wanted(call, it.state) and named(it.state.name)),
        key=lambda flavor: (
            (getattr(flavor, key) or "", flavor.id) if key == "description" else (getattr(flavor, key), flavor.id)
        ),
        reverse=query.sort_dir == "desc",
    )
    chosen, next_links = page(call, flavors, lambda flavor: flavor.id)
    answer: dict[str, Any] = {"flavors": [shape(call, flavor) for flavor in chosen]}
    if next_links:
        answer["flavors_links"] = next_links
    return answer


def _name_filter(query: FlavorQuery) -> Callable[[str], Any]:
    """Whether a name is one of those asked for. Raises Invalid."""
    if not isinstance(query, NamedFlavorQuery) or query.name is None:
        return lambda name: True
    return regex(query.name).search


def _wanted(call: Call, flavor: Flavor) -> bool:
    query: FlavorQuery = call.params
    if flavor.ram_mb < query.min_ram or flavor.disk_gb < query.min_disk:
        return False
    public = _public_filter(call)
    if public is None:
        return True
    return flavor.visible_to(call.token.project_id or "") if public else not flavor.is_public


def _public_filter(call: Call) -> bool | None:
    """True: public ones and those shared with the caller; False: the private ones; None: all. Only admins choose."""
    asked = (call.params.is_public or "true").strip().lower()
    if asked in {"none", ""}:
        chosen = None
    elif asked in {"t", "true", "yes", "1", "on", "y"}:
        chosen = True
    elif asked in {"f", "false", "no", "0", "off", "n"}:
        chosen = False
    else:
        raise Invalid(f"Invalid is_public filter [{call.params.is_public}]")
    return chosen if call.token.is_admin else True


def _id_of(wanted: Dimensions) -> str:
    if wanted.id is None or wanted.id == "auto":
        return clock.uuid4()
    id = str(wanted.id)
    if not _FLAVOR_ID.fullmatch(id):
        raise Invalid(
            "Invalid input for field flavor.id: it may have letters, digits, spaces, dots, dashes and underscores, "
            f"255 at most, and no space at its ends; it is {id[:255]!r}"
        )
    return id


_MANAGE = "os_compute_api:os-flavor-manage"

routes = [
    *listing("/flavors", index, SHOW, FlavorQuery, until="2.101"),
    *listing("/flavors", index, SHOW, NamedFlavorQuery, since="2.102"),
    *listing("/flavors/detail", detail, SHOW, FlavorQuery, until="2.101"),
    *listing("/flavors/detail", detail, SHOW, NamedFlavorQuery, since="2.102"),
    Get("/flavors/{id}", show, may=SHOW),
    Post("/flavors", create, may=f"{_MANAGE}:create", body=CreateBody, answers=200, lenient=True, until="2.54"),
    *(
        Post(
            "/flavors", create, may=f"{_MANAGE}:create", body=body, answers=200, lenient=True, since=since, until=until
        )
        for body, since, until in (
            (DescribedCreateBody, "2.55", "2.101"),
            (FactorlessCreateBody, "2.102", None),
        )
    ),
    Put("/flavors/{id}", update, may=f"{_MANAGE}:update", body=UpdateBody, since="2.55"),
    Delete("/flavors/{id}", delete, may=f"{_MANAGE}:delete", answers=202),
]
