"""Host aggregates: groups of hosts, their metadata, and the availability zones they make."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from api.compute.hypervisor import provider_of
from api.compute.times import written
from api.compute.words import HostName, Key, Name, Uuid, Value, ZoneName
from api.wire import Call, Delete, Get, Post, Put
from bus import clock
from bus.execute import AlreadyTaken, Wish
from bus.log import Document
from handlers.compute.aggregate import HOST_AGGREGATES, adding, removing, with_metadata
from handlers.compute.image_cache import ask_to_cache
from schema.compute.aggregate import AGGREGATE, ZONE, Aggregate, CreateAggregate, DeleteAggregate, RenameAggregate
from schema.compute.host import HOST
from schema.image.image import ACTIVE, IMAGE, Image
from schema.refusal import Conflict, Invalid, NotFound

RULE = "os_compute_api:os-aggregates"
ATTEMPTS = 20
"""Numbers tried for a new aggregate while others take them."""
IMAGES = 100
"""That may be asked for at once."""


class NewAggregate(Struct, forbid_unknown_fields=True):
    name: Name
    availability_zone: ZoneName | None = None


class CreateBody(Struct, forbid_unknown_fields=True):
    aggregate: NewAggregate


class AggregateChange(Struct, forbid_unknown_fields=True):
    name: Name | UnsetType = UNSET
    availability_zone: ZoneName | None | UnsetType = UNSET


class UpdateBody(Struct, forbid_unknown_fields=True):
    aggregate: AggregateChange


class HostBody(Struct, forbid_unknown_fields=True):
    host: HostName


class MetadataBody(Struct, forbid_unknown_fields=True):
    metadata: dict[Key, Value | None]


class CachedImage(Struct, forbid_unknown_fields=True):
    id: Uuid


class CacheBody(Struct, forbid_unknown_fields=True):
    cache: Annotated[list[CachedImage], Meta(min_length=1, max_length=IMAGES)]


async def index(call: Call) -> dict[str, Any]:
    documents = sorted(call.cloud.mirror(AGGREGATE).values(), key=lambda document: int(document.id))
    return {"aggregates": [_view(call, document) for document in documents]}


async def show(call: Call) -> dict[str, Any]:
    return {"aggregate": _view(call, await _by_id(call))}


async def create(call: Call) -> dict[str, Any]:
    wanted: NewAggregate = call.body.aggregate
    command = CreateAggregate(uuid=clock.uuid4(), name=wanted.name, zone=wanted.availability_zone or "")
    number = await call.cloud.documents.count(AGGREGATE, gone=None)
    for _ in range(ATTEMPTS):
        number += 1
        try:
            [document] = await call.execute(Wish(HOST_AGGREGATES, str(number), command))
        except AlreadyTaken:
            raise Conflict(f"Aggregate {wanted.name} already exists.") from None
        except Conflict:
            continue
        shown = _view(call, document)
        return {"aggregate": {name: value for name, value in shown.items() if name not in {"hosts", "metadata"}}}
    raise Conflict("Others are making aggregates at the same time; try again.")


async def update(call: Call) -> dict[str, Any]:
    change: AggregateChange = call.body.aggregate
    if change.name is UNSET and change.availability_zone is UNSET:
        raise Invalid("Invalid input for field aggregate: it needs a name or an availability_zone")
    document = await _by_id(call)
    wishes: list[Wish] = []
    if change.name is not UNSET:
        wishes.append(Wish(HOST_AGGREGATES, document.id, RenameAggregate(name=change.name)))
    if change.availability_zone is not UNSET:
        wishes += _rezoned(call, document.state, {ZONE: change.availability_zone})
    try:
        documents = await call.execute(*wishes)
    except AlreadyTaken:
        raise Conflict(f"Aggregate {change.name} already exists.") from None
    return {"aggregate": _view(call, [it for it in documents if it.stream == document.stream][-1])}


async def delete(call: Call) -> None:
    document = await _by_id(call)
    await call.execute(Wish(HOST_AGGREGATES, document.id, DeleteAggregate()))


async def add_host(call: Call) -> dict[str, Any]:
    document, host = await _by_id(call), call.body.host
    aggregate: Aggregate = document.state
    found = call.cloud.mirror(HOST).get(host)
    if found is None:
        raise NotFound(f"Compute host {host} could not be found.")
    if host in aggregate.hosts and not call.by.idempotency:
        raise Conflict(f"Aggregate {aggregate.id} already has host {host}.")
    if aggregate.zone and aggregate.zone != found.state.zone:
        _must_be_empty(call, host)
    [document, *_] = await call.execute(*adding(aggregate, host))
    return {"aggregate": _view(call, document)}


async def remove_host(call: Call) -> dict[str, Any]:
    document, host = await _by_id(call), call.body.host
    aggregate: Aggregate = document.state
    if host not in aggregate.hosts and not call.by.idempotency:
        raise NotFound(f"Aggregate {aggregate.id} has no host {host}.")
    if aggregate.zone:
        _must_be_empty(call, host)
    [document, *_] = await call.execute(*removing(aggregate, host))
    return {"aggregate": _view(call, document)}


async def set_metadata(call: Call) -> dict[str, Any]:
    document = await _by_id(call)
    [document, *_] = await call.execute(*_rezoned(call, document.state, call.body.metadata))
    return {"aggregate": _view(call, document)}


async def cache_images(call: Call) -> None:
    """Its hosts begin to fetch these images; those that are down do not."""
    aggregate: Aggregate = (await _by_id(call)).state
    ids = [image.id for image in call.body.cache]
    if len(set(ids)) < len(ids):
        raise Invalid("Invalid input for field cache: it names an image twice")
    found = await call.cloud.documents.get_many(IMAGE, ids)
    for id in ids:
        image: Image | None = found[id].state if id in found else None
        if image is None or image.status != ACTIVE:
            raise Invalid(f"Image {id} could not be found.", code="ImageNotFound")
    hosts = [name for name in aggregate.hosts if (it := call.cloud.mirror(HOST).get(name)) and it.state.alive]
    await ask_to_cache(call.cloud, hosts, [found[id].state for id in ids])


def _rezoned(call: Call, aggregate: Aggregate, metadata: dict[str, str | None]) -> tuple[Wish, ...]:
    """New metadata; servers are in the zone they were put in, so a zone with servers does not change its name."""
    if (metadata.get(ZONE, aggregate.zone) or "") != aggregate.zone:
        for host in aggregate.hosts:
            _must_be_empty(call, host)
    return with_metadata(aggregate, metadata)


def _must_be_empty(call: Call, host: str) -> None:
    document = call.cloud.mirror(HOST).get(host)
    if document is not None and provider_of(call, document.state).claims:
        raise Conflict(f"The availability zone of host {host} cannot change: there are servers on it.")


async def _by_id(call: Call) -> Document:
    id = call.path["id"]
    if not (id.isascii() and id.removeprefix("-").isdigit()) or len(id) > 18:
        raise Invalid(f"Invalid input for field id: {id[:64]!r} is not a whole number")
    document = call.cloud.mirror(AGGREGATE).get(id)
    if document is None:
        stream = AGGREGATE.stream(id)
        document = (await call.cloud.executor.load([stream])).get(stream)
    if document is None or not document.state.living:
        raise NotFound(f"Aggregate {id} could not be found.")
    return document


def _view(call: Call, document: Document) -> dict[str, Any]:
    aggregate: Aggregate = document.state
    shown: dict[str, Any] = {
        "id": int(aggregate.id),
        "name": aggregate.name,
        "availability_zone": aggregate.zone or None,
        "hosts": list(aggregate.hosts),
        "metadata": aggregate.metadata,
        "created_at": written(aggregate.created_at),
        "updated_at": written(aggregate.updated_at) if document.version > 1 else None,
        "deleted_at": None,
        "deleted": False,
    }
    if call.version >= (2, 41):
        shown["uuid"] = aggregate.uuid
    return shown


def _action(word: str, handler: Any, body: Any) -> Any:
    return Post("/os-aggregates/{id}/action", handler, action=word, body=body, may=f"{RULE}:{word}", answers=200)


routes = [
    Get("/os-aggregates", index, may=f"{RULE}:index"),
    Post("/os-aggregates", create, may=f"{RULE}:create", body=CreateBody, answers=200),
    Get("/os-aggregates/{id}", show, may=f"{RULE}:show"),
    Put("/os-aggregates/{id}", update, may=f"{RULE}:update", body=UpdateBody),
    Delete("/os-aggregates/{id}", delete, may=f"{RULE}:delete", answers=200),
    Post(
        "/os-aggregates/{id}/images",
        cache_images,
        may="compute:aggregates:images",
        body=CacheBody,
        answers=202,
        since="2.81",
    ),
    _action("add_host", add_host, HostBody),
    _action("remove_host", remove_host, HostBody),
    _action("set_metadata", set_metadata, MetadataBody),
]
