"""Networks as compute once showed them: until 2.35, by asking the network service. They can only be looked at."""

from __future__ import annotations

from typing import Any

from api.compute import elsewhere
from api.compute.elsewhere import BEFORE_PROXIES_WENT
from api.wire import Call, Get
from schema.refusal import NotFound

_NOBODYS = (
    "cidr",
    "netmask",
    "gateway",
    "broadcast",
    "dns1",
    "dns2",
    "cidr_v6",
    "gateway_v6",
    "netmask_v6",
)
_NOBODYS_OF_ADMINISTRATORS = (
    "created_at",
    "updated_at",
    "deleted_at",
    "deleted",
    "injected",
    "bridge",
    "vlan",
    "vpn_public_address",
    "vpn_public_port",
    "vpn_private_address",
    "dhcp_start",
    "host",
    "bridge_interface",
    "multi_host",
    "priority",
    "rxtx_base",
    "mtu",
    "dhcp_server",
    "enable_dhcp",
    "share_address",
)
"""What a network of nova-network had. Those of the network service have it in their subnets, or not at all."""


async def index(call: Call) -> dict[str, Any]:
    return {"networks": [_view(call, it) for it in await _seen(call)]}


async def show(call: Call) -> dict[str, Any]:
    return {"network": _view(call, await _by_id(call))}


async def index_of_tenant(call: Call) -> dict[str, Any]:
    return {"networks": [_short(it) for it in await _seen(call)]}


async def show_of_tenant(call: Call) -> dict[str, Any]:
    return {"network": _short(await _by_id(call))}


async def _seen(call: Call) -> list[dict[str, Any]]:
    """Those that a server of the caller's project may be in."""
    found: list[dict[str, Any]] = (await elsewhere.network(call, "GET", "/networks"))["networks"]
    if call.token.is_admin:
        return found
    return [it for it in found if it["project_id"] == call.token.project_id or it["shared"]]


async def _by_id(call: Call) -> dict[str, Any]:
    try:
        found: dict[str, Any] = (await elsewhere.network(call, "GET", f"/networks/{call.path['id']}"))["network"]
    except NotFound:
        raise NotFound("Network not found") from None
    return found


def _view(call: Call, network: dict[str, Any]) -> dict[str, Any]:
    fields = (*_NOBODYS, *_NOBODYS_OF_ADMINISTRATORS) if call.token.is_admin else _NOBODYS
    shown: dict[str, Any] = {"id": network["id"], "label": network["name"], **dict.fromkeys(fields)}
    return shown | {"project_id": network["project_id"]} if call.token.is_admin else shown


def _short(network: dict[str, Any]) -> dict[str, Any]:
    """The word None is what was always written here."""
    return {"id": network["id"], "cidr": "None", "label": network["name"]}


routes = [
    Get("/os-networks", index, may="os_compute_api:os-networks:list", until=BEFORE_PROXIES_WENT),
    Get("/os-networks/{id}", show, may="os_compute_api:os-networks:show", until=BEFORE_PROXIES_WENT),
    Get(
        "/os-tenant-networks", index_of_tenant, may="os_compute_api:os-tenant-networks:list", until=BEFORE_PROXIES_WENT
    ),
    Get(
        "/os-tenant-networks/{id}",
        show_of_tenant,
        may="os_compute_api:os-tenant-networks:show",
        until=BEFORE_PROXIES_WENT,
    ),
]
