"""The addresses of servers, by network."""

from __future__ import annotations

from typing import Any

from api.compute.server import server_in_path
from api.compute.server_view import addresses
from api.wire import Call, Get
from schema.refusal import NotFound


async def index(call: Call) -> dict[str, Any]:
    shown = addresses(await server_in_path(call))
    return {"addresses": {label: [_brief(it) for it in its] for label, its in shown.items()}}


async def show(call: Call) -> dict[str, Any]:
    server = await server_in_path(call)
    label = call.path["network"]
    shown = addresses(server).get(label)
    if shown is None:
        raise NotFound(f"Network {label[:255]} is not found on server {server.id}.")
    return {label: [_brief(it) for it in shown]}


def _brief(address: dict[str, Any]) -> dict[str, Any]:
    return {"version": address["version"], "addr": address["addr"]}


routes = [
    Get("/servers/{id}/ips", index, may="os_compute_api:ips:index"),
    Get("/servers/{id}/ips/{network}", show, may="os_compute_api:ips:show"),
]
