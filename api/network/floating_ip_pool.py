"""Floating IP pools: the subnets outside that the caller's floating IPs may come from."""

from __future__ import annotations

from typing import Any

from api.network import network
from api.network.parts import listed
from api.network.resource import visible
from api.wire import Call, Get
from bus.documents import Where
from schema.network.network import NETWORK
from schema.network.subnet import SUBNET, Subnet

_FIELDS = ("subnet_id", "subnet_name", "network_id", "cidr", "project_id", "tenant_id")


async def index(call: Call) -> dict[str, Any]:
    where = [Where("external_for", "is", True), *visible(call, network.RESOURCE)]
    outside = await call.cloud.documents.find(NETWORK, where=where, limit=None)
    subnets = await call.cloud.documents.get_many(SUBNET, [id for it in outside for id in it.state.subnet_ids])
    pools = [_view(it.state) for it in subnets.values() if it.state.ip_version == 4]
    return listed(call, "floatingip_pools", pools, _FIELDS, key="subnet_id")


def _view(subnet: Subnet) -> dict[str, Any]:
    return {
        "subnet_id": subnet.id,
        "subnet_name": subnet.name,
        "network_id": subnet.network_id,
        "cidr": subnet.cidr,
        "project_id": subnet.project_id,
        "tenant_id": subnet.project_id,
    }


routes = [Get("/floatingip_pools", index, may="get_floatingip_pool")]
