"""Availability zones of networks and routers, as the network hosts make them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from api.wire import Call, Get
from bus.log import Document
from schema.network.host import NETWORK_HOST
from schema.refusal import NotFound

ZONE = "nova"
"""The one there is."""
RESOURCES = ("network", "router")


def zones(call: Call) -> list[str]:
    """Where there are hosts alive."""
    return [ZONE] if any(it.state.alive for it in _hosts(call)) else []


def refuse_hints(call: Call, hints: Iterable[str]) -> None:
    """Raises NotFound for a zone there is not."""
    for hint in hints:
        if hint != ZONE:
            raise NotFound(f"AvailabilityZone {hint} could not be found.", code="AvailabilityZoneNotFound")


async def index(call: Call) -> dict[str, Any]:
    hosts = list(_hosts(call))
    state = "available" if any(it.state.alive and it.state.enabled for it in hosts) else "unavailable"
    found = [{"name": ZONE, "resource": resource, "state": state} for resource in RESOURCES] if hosts else []
    for name in ("name", "resource", "state"):
        wanted = call.query.getall(name, [])
        found = [it for it in found if not wanted or it[name] in wanted]
    return {"availability_zones": found}


def _hosts(call: Call) -> Iterable[Document]:
    return call.cloud.mirror(NETWORK_HOST).values()


routes = [Get("/availability_zones", index, may="get_availability_zone")]
