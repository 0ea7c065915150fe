"""The password a guest has posted for its owner: encrypted by the guest for its keypair, kept here in the vault."""

from __future__ import annotations

from typing import Any

from api.compute.server import server_in_path
from api.wire import Call, Delete, Get
from bus.execute import Wish
from handlers.compute.server import SERVERS
from schema.compute.server_command import ClearGuestPassword

PATH = "/servers/{id}/os-server-password"
RULE = "os_compute_api:os-server-password"


async def show(call: Call) -> dict[str, Any]:
    server = await server_in_path(call)
    opened = await call.cloud.vault.open_many([server.password_id]) if server.password_id else {}
    return {"password": opened.get(server.password_id, b"").decode()}


async def clear(call: Call) -> None:
    """Forgotten here; the guest knows it still, and may post another."""
    server = await server_in_path(call)
    await call.execute(Wish(SERVERS, server.id, ClearGuestPassword()))


routes = [
    Get(PATH, show, may=f"{RULE}:show"),
    Delete(PATH, clear, may=f"{RULE}:clear"),
]
