"""The volume side of servers. It is empty until volumes come, and answers what a server without any answers."""

from __future__ import annotations

from typing import Any

from api.compute.server import server_in_path
from api.wire import Call, Get
from schema.refusal import NotFound


async def attachments(call: Call) -> dict[str, Any]:
    await server_in_path(call)
    return {"volumeAttachments": []}


async def attachment(call: Call) -> dict[str, Any]:
    server = await server_in_path(call)
    raise NotFound(f"Instance {server.id} is not attached to volume {call.path['volume'][:255]}")


_RULE = "os_compute_api:os-volumes-attachments"

routes = [
    Get("/servers/{id}/os-volume_attachments", attachments, may=f"{_RULE}:index"),
    Get("/servers/{id}/os-volume_attachments/{volume}", attachment, may=f"{_RULE}:show"),
]
