"""Deletion that can be taken back: restore, and deletion at once."""

from __future__ import annotations

from api.compute.server import by, server_in_path
from api.compute.server_action import PATH
from api.wire import Call, Post
from bus.execute import Wish
from handlers.compute.quota import QUOTAS, defaults
from handlers.compute.server import SERVERS
from schema.compute.quota import ReserveQuota
from schema.compute.server_command import DeleteServer, RestoreServer

RULE = "os_compute_api:os-deferred-delete"


async def restore(call: Call) -> None:
    server = await server_in_path(call)
    held = ReserveQuota(
        server_id=server.id,
        cores=server.flavor.vcpus,
        ram_mb=server.flavor.ram_mb,
        defaults=defaults(call.cloud),
        user_id=server.order.user_id,
    )
    await call.execute(Wish(SERVERS, server.id, RestoreServer(**by(call))), Wish(QUOTAS, server.project_id, held))


async def force_delete(call: Call) -> None:
    server = await server_in_path(call)
    await call.execute(Wish(SERVERS, server.id, DeleteServer(**by(call))))


routes = [
    Post(PATH, restore, may=f"{RULE}:restore", action="restore", answers=202),
    Post(PATH, force_delete, may=f"{RULE}:force", action="forceDelete", answers=202),
]
