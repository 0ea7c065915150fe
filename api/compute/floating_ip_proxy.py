"""Floating IPs as compute once gave them: until 2.35, by asking the network service."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from api.compute import elsewhere
from api.compute.elsewhere import BEFORE_PROXIES_WENT
from api.wire import Call, Delete, Get, Post
from schema.refusal import Conflict, NotFound

RULE = "os_compute_api:os-floating-ips"
POOLS = "os_compute_api:os-floating-ip-pools"
PATH = "/os-floating-ips"


class NewFloatingIp(Struct):
    pool: str | None = None
    """The name or the id of an external network."""


async def index(call: Call) -> dict[str, Any]:
    mine = {"project_id": call.token.project_id or ""}
    found = (await elsewhere.network(call, "GET", "/floatingips", query=mine))["floatingips"]
    names = await _pools(call)
    return {"floating_ips": [_view(it, names) for it in found]}


async def show(call: Call) -> dict[str, Any]:
    return {"floating_ip": _view(await _by_id(call), await _pools(call))}


async def create(call: Call) -> dict[str, Any]:
    body = {"floatingip": {"floating_network_id": await _pool(call), "project_id": call.token.project_id}}
    try:
        made = (await elsewhere.network(call, "POST", "/floatingips", body))["floatingip"]
    except Conflict as error:
        if error.code != "IpAddressGenerationFailure":
            raise
        raise NotFound(f"No more floating IPs in pool {call.body.pool if call.body else ''}.") from None
    return {"floating_ip": _view(made, await _pools(call))}


async def delete(call: Call) -> None:
    found = await _by_id(call)
    await elsewhere.network(call, "DELETE", f"/floatingips/{found['id']}")


async def pools(call: Call) -> dict[str, Any]:
    return {"floating_ip_pools": [{"name": name} for name in (await _pools(call)).values()]}


async def _by_id(call: Call) -> dict[str, Any]:
    id = call.path["id"]
    try:
        found: dict[str, Any] = (await elsewhere.network(call, "GET", f"/floatingips/{id}"))["floatingip"]
    except NotFound:
        raise NotFound(f"Floating IP not found for ID {id[:64]}") from None
    return found


async def _pools(call: Call) -> dict[str, str]:
    """External network → its name, or its id where it has none. Floating IPs come from these."""
    found = (await elsewhere.network(call, "GET", "/networks", query={"router:external": "true"}))["networks"]
    return {it["id"]: it["name"] or it["id"] for it in found}


async def _pool(call: Call) -> str:
    """The network that was asked for; without a wish the default one, or the only one there is. Raises NotFound."""
    wanted = call.body.pool if call.body is not None else None
    found = (await elsewhere.network(call, "GET", "/networks", query={"router:external": "true"}))["networks"]
    if wanted:
        fit = [it for it in found if wanted in {it["id"], it["name"]}]
    else:
        fit = [it for it in found if it["is_default"]] or (found if len(found) == 1 else [])
    if not fit:
        named = f"Floating IP pool {wanted[:255]} not found." if wanted else "Floating IP pool not found."
        raise NotFound(named, code="FloatingIpPoolNotFound")
    return str(fit[0]["id"])


def _view(floating: dict[str, Any], pools: dict[str, str]) -> dict[str, Any]:
    details = floating["port_details"] or {}
    return {
        "id": floating["id"],
        "ip": floating["floating_ip_address"],
        "pool": pools.get(floating["floating_network_id"], floating["floating_network_id"]),
        "fixed_ip": floating["fixed_ip_address"],
        "instance_id": details.get("device_id") or None,
    }


routes = [
    Get(PATH, index, may=f"{RULE}:list", until=BEFORE_PROXIES_WENT),
    Post(
        PATH,
        create,
        may=f"{RULE}:create",
        body=NewFloatingIp | None,
        optional_body=True,
        answers=200,
        until=BEFORE_PROXIES_WENT,
    ),
    Get(f"{PATH}/{{id}}", show, may=f"{RULE}:show", until=BEFORE_PROXIES_WENT),
    Delete(f"{PATH}/{{id}}", delete, may=f"{RULE}:delete", answers=202, until=BEFORE_PROXIES_WENT),
    Get("/os-floating-ip-pools", pools, may=POOLS, until=BEFORE_PROXIES_WENT),
]
