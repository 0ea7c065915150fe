"""Who provides which service of networks: one provider each, for clients that ask before they name one."""

from __future__ import annotations

from typing import Any

from api.network.parts import listed
from api.wire import Call, Get

PROVIDERS = (
    {"service_type": "L3_ROUTER_NAT", "name": "cumulog", "default": True},
    {"service_type": "VPN", "name": "strongswan", "default": True},
)
_FIELDS = ("service_type", "name", "default")


async def index(call: Call) -> dict[str, Any]:
    return listed(call, "service_providers", PROVIDERS, _FIELDS, key="name")


routes = [Get("/service-providers", index, may="get_service_provider")]
