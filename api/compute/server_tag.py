"""Tags of servers, since 2.26."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from api.compute.server import by, server_in_path
from api.compute.server_create import TAGS
from api.compute.words import Tag
from api.wire import Call, Delete, Get, Put, Reply
from bus.execute import Wish
from handlers.compute.server import SERVERS
from schema.compute.server_command import AddServerTag, RemoveServerTag, ReplaceServerTags
from schema.refusal import Invalid, NotFound

RULE = "os_compute_api:os-server-tags"
PATH = "/servers/{id}/tags"
LENGTH = 60


class Tags(Struct, forbid_unknown_fields=True):
    tags: Annotated[list[Tag], Meta(max_length=TAGS)]


async def index(call: Call) -> dict[str, Any]:
    return {"tags": (await server_in_path(call)).tags}


async def replace(call: Call) -> dict[str, Any]:
    server = await server_in_path(call)
    tags = tuple(dict.fromkeys(call.body.tags))
    [document] = await call.execute(Wish(SERVERS, server.id, ReplaceServerTags(tags=tags, **by(call))))
    return {"tags": document.state.tags}


async def clear(call: Call) -> None:
    server = await server_in_path(call)
    await call.execute(Wish(SERVERS, server.id, ReplaceServerTags(tags=(), **by(call))))


async def check(call: Call) -> None:
    server, tag = await server_in_path(call), call.path["tag"]
    if tag not in server.tags:
        raise _no_tag(tag, server.id)


async def add(call: Call) -> Reply:
    server, tag = await server_in_path(call), call.path["tag"]
    if not 0 < len(tag) <= LENGTH or "," in tag or "/" in tag:
        raise Invalid(f"Invalid tag {tag[:255]!r}: it may have {LENGTH} characters at most, and no comma or slash.")
    await call.execute(Wish(SERVERS, server.id, AddServerTag(tag=tag, limit=TAGS, **by(call))))
    if tag in server.tags:
        return Reply(status=204)
    return Reply(status=201, headers={"Location": call.url(f"/servers/{server.id}/tags/{tag}")})


async def remove(call: Call) -> None:
    server, tag = await server_in_path(call), call.path["tag"]
    if tag not in server.tags:
        raise _no_tag(tag, server.id)
    await call.execute(Wish(SERVERS, server.id, RemoveServerTag(tag=tag, **by(call))))


def _no_tag(tag: str, server_id: str) -> NotFound:
    return NotFound(f"Tag {tag[:255]!r} does not exist on server {server_id}")


routes = [
    Get(PATH, index, may=f"{RULE}:index", since="2.26"),
    Put(PATH, replace, may=f"{RULE}:update_all", body=Tags, since="2.26"),
    Delete(PATH, clear, may=f"{RULE}:delete_all", since="2.26"),
    Get(f"{PATH}/{{tag}}", check, may=f"{RULE}:show", answers=204, since="2.26"),
    Put(f"{PATH}/{{tag}}", add, may=f"{RULE}:update", answers=201, since="2.26"),
    Delete(f"{PATH}/{{tag}}", remove, may=f"{RULE}:delete", since="2.26"),
]
