"""The addresses of servers, by network; and administrators' words about their networking."""

from __future__ import annotations

from typing import Any

from api.compute.server import OVERRIDES_LOCK, server_in_path
from api.compute.server_view import addresses, briefly
from api.wire import Call, Get, Post
from handlers.compute.following import NicReactor
from schema.compute.server import SERVER
from schema.refusal import Conflict, NotFound


async def index(call: Call) -> dict[str, Any]:
    return {"addresses": briefly(addresses(await server_in_path(call)))}


async def show(call: Call) -> dict[str, Any]:
    server = await server_in_path(call)
    label = call.path["network"]
    shown = briefly(addresses(server)).get(label)
    if shown is None:
        raise NotFound(f"Network {label[:255]} is not found on server {server.id}.")
    return {label: shown}


async def inject(call: Call) -> None:
    """What the guest is told of its networks is made as they are: it hears of it by DHCP and the metadata service."""
    server = await server_in_path(call)
    if server.locked_by and not call.may(OVERRIDES_LOCK):
        raise Conflict(f"Server {server.id} is locked; unlock it first.", code="InstanceIsLocked")
    await NicReactor(call.cloud).catch_up({SERVER.stream(server.id)})


_ACTION = "/servers/{id}/action"

routes = [
    Get("/servers/{id}/ips", index, may="os_compute_api:ips:index"),
    Get("/servers/{id}/ips/{network}", show, may="os_compute_api:ips:show"),
    Post(
        _ACTION,
        inject,
        may="os_compute_api:os-admin-actions:inject_network_info",
        action="injectNetworkInfo",
        answers=202,
    ),
]
