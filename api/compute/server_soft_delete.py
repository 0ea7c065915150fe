"""Deletion that can be taken back: restore, and deletion at once."""

from __future__ import annotations

from api.compute.server import by, server_in_path
from api.compute.server_action import PATH
from api.wire import Call, Post
from bus.execute import Wish
from handlers.compute.quota import counting, defaults
from handlers.compute.server import SERVERS
from schema.compute.server_command import DeleteServer, RestoreServer

RULE = "os_compute_api:os-deferred-delete"


async def restore(call: Call) -> None:
    server = await server_in_path(call)
    held = counting(server.id, server.project_id, defaults(call.cloud))
    await call.execute(Wish(SERVERS, server.id, RestoreServer(**by(call))), held)


async def force_delete(call: Call) -> None:
    server = await server_in_path(call)
    counted = counting(server.id, server.project_id)
    await call.execute(Wish(SERVERS, server.id, DeleteServer(**by(call))), counted)


routes = [
    Post(PATH, restore, may=f"{RULE}:restore", action="restore", answers=202),
    Post(PATH, force_delete, may=f"{RULE}:force", action="forceDelete", answers=202),
]
