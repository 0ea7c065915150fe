"""The network side of servers. It is empty until networking comes, and answers what an unattached server answers."""

from __future__ import annotations

from typing import Any

from api.compute.server import server_in_path
from api.wire import Call, Get
from schema.refusal import NotFound


async def addresses(call: Call) -> dict[str, Any]:
    await server_in_path(call)
    return {"addresses": {}}


async def network_addresses(call: Call) -> dict[str, Any]:
    server = await server_in_path(call)
    raise NotFound(f"Network {call.path['network'][:255]} is not found on server {server.id}.")


async def interfaces(call: Call) -> dict[str, Any]:
    await server_in_path(call)
    return {"interfaceAttachments": []}


async def security_groups(call: Call) -> dict[str, Any]:
    await server_in_path(call)
    return {"security_groups": []}


routes = [
    Get("/servers/{id}/ips", addresses, may="os_compute_api:ips:index"),
    Get("/servers/{id}/ips/{network}", network_addresses, may="os_compute_api:ips:show"),
    Get("/servers/{id}/os-interface", interfaces, may="os_compute_api:os-attach-interfaces:list"),
    Get("/servers/{id}/os-security-groups", security_groups, may="os_compute_api:os-security-groups:list"),
]
