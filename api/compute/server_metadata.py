"""Metadata of servers: all of it, or one item."""

from __future__ import annotations

from msgspec import Struct

from api.compute.server import by, server_in_path
from api.compute.words import Metadata
from api.wire import Call, Delete, Get, Post, Put
from bus.execute import Wish
from handlers.compute.quota import defaults, limits_in_force, quota_of
from handlers.compute.server import SERVERS
from schema.compute.quota import UNLIMITED
from schema.compute.server_command import ReplaceServerMetadata, SetServerMetadata
from schema.refusal import Invalid, NotFound, OverQuota

RULE = "os_compute_api:server-metadata"
PATH = "/servers/{id}/metadata"


class Items(Struct, forbid_unknown_fields=True):
    metadata: Metadata


class Item(Struct, forbid_unknown_fields=True):
    meta: Metadata


Shown = dict[str, dict[str, str]]


async def index(call: Call) -> Shown:
    return {"metadata": (await server_in_path(call)).metadata}


async def show(call: Call) -> Shown:
    server, key = await server_in_path(call), call.path["key"]
    if key not in server.metadata:
        raise _no_item(key)
    return {"meta": {key: server.metadata[key]}}


async def replace(call: Call) -> Shown:
    wanted: Metadata = call.body.metadata
    if len(wanted) > (limit := await _limit(call)):
        raise OverQuota(f"Maximum number of metadata items exceeds {limit}")
    return await _set(call, ReplaceServerMetadata(metadata=wanted, **by(call)))


async def update(call: Call) -> Shown:
    return await _set(call, SetServerMetadata(metadata=dict(call.body.metadata), limit=await _limit(call), **by(call)))


async def put(call: Call) -> Shown:
    key, item = call.path["key"], call.body.meta
    if list(item) != [key]:
        raise Invalid("Request body and URI mismatch: the body must hold the one item that the URL names.")
    await _set(call, SetServerMetadata(metadata=dict(item), limit=await _limit(call), **by(call)))
    return {"meta": item}


async def delete(call: Call) -> None:
    server, key = await server_in_path(call), call.path["key"]
    if key not in server.metadata:
        raise _no_item(key)
    await call.execute(Wish(SERVERS, server.id, SetServerMetadata(metadata={key: None}, **by(call))))


async def _set(call: Call, command: SetServerMetadata | ReplaceServerMetadata) -> Shown:
    server = await server_in_path(call)
    [document] = await call.execute(Wish(SERVERS, server.id, command))
    return {"metadata": document.state.metadata}


async def _limit(call: Call) -> int:
    quota = await quota_of(call.cloud, call.token.project_id or "")
    limit = limits_in_force(quota, defaults(call.cloud))["metadata_items"]
    return limit if limit != UNLIMITED else 1_000_000


def _no_item(key: str) -> NotFound:
    return NotFound(f"Metadata item was not found: {key[:255]}")


routes = [
    Get(PATH, index, may=f"{RULE}:index"),
    Post(PATH, update, may=f"{RULE}:create", body=Items, answers=200),
    Put(PATH, replace, may=f"{RULE}:update_all", body=Items),
    Get(f"{PATH}/{{key}}", show, may=f"{RULE}:show"),
    Put(f"{PATH}/{{key}}", put, may=f"{RULE}:update", body=Item),
    Delete(f"{PATH}/{{key}}", delete, may=f"{RULE}:delete"),
]
