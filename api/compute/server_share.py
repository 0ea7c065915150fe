"""The file shares of servers (2.97): none has any, and none can be attached, until there are shared file systems."""

from __future__ import annotations

from typing import Annotated, Any, NoReturn

from msgspec import UNSET, Meta, Struct, UnsetType

from api.compute.page import listing
from api.compute.server import server_in_path
from api.compute.words import Uuid
from api.wire import Call, Delete, Post
from schema.refusal import NotFound


class NewShare(Struct, forbid_unknown_fields=True):
    share_id: Uuid
    tag: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[a-zA-Z0-9-]*$")] | UnsetType = UNSET


class ShareBody(Struct, forbid_unknown_fields=True):
    share: NewShare


async def index(call: Call) -> dict[str, Any]:
    await server_in_path(call)
    return {"shares": []}


async def attach(call: Call) -> NoReturn:
    await server_in_path(call)
    raise NotFound(f"Share {call.body.share.share_id} could not be found: this cloud has no shared file systems.")


async def one(call: Call) -> NoReturn:
    server = await server_in_path(call)
    raise NotFound(f"Share {call.path['share'][:255]} is not attached to instance {server.id}.")


_RULE = "os_compute_api:os-server-shares"
_PATH = "/servers/{id}/shares"
_ONE = f"{_PATH}/{{share}}"

routes = [
    *listing(_PATH, index, f"{_RULE}:index", since="2.97"),
    Post(_PATH, attach, may=f"{_RULE}:create", body=ShareBody, answers=201, since="2.97"),
    *listing(_ONE, one, f"{_RULE}:show", since="2.97"),
    Delete(_ONE, one, may=f"{_RULE}:delete", answers=200, since="2.97"),
]
