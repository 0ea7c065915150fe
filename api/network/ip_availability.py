"""How many addresses the pools of a network's subnets have, and how many are taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.network.filter import Filter
from api.network.resource import Resource, empty_unless, listing, showing
from api.wire import Call, Get
from bus.log import Document
from handlers.network.network import not_found
from handlers.network.ranges import total
from schema.network.network import NETWORK, Network
from schema.network.subnet import SUBNET, Subnet


async def view(call: Call, documents: Sequence[Document]) -> list[dict[str, Any]]:
    subnets = await call.cloud.documents.get_many(SUBNET, [id for it in documents for id in it.state.subnet_ids])
    version = call.query.get("ip_version")
    views = []
    for document in documents:
        its = [subnets[id].state for id in document.state.subnet_ids if id in subnets]
        views.append(_view(document.state, [it for it in its if version in {None, str(it.ip_version)}]))
    return views


def _view(network: Network, subnets: Sequence[Subnet]) -> dict[str, Any]:
    parts = [_part(subnet) for subnet in subnets]
    return {
        "network_id": network.id,
        "network_name": network.name,
        "tenant_id": network.project_id,
        "project_id": network.project_id,
        "total_ips": sum(part["total_ips"] for part in parts),
        "used_ips": sum(part["used_ips"] for part in parts),
        "subnet_ip_availability": parts,
    }


def _part(subnet: Subnet) -> dict[str, Any]:
    return {
        "subnet_id": subnet.id,
        "subnet_name": subnet.name,
        "ip_version": subnet.ip_version,
        "cidr": subnet.cidr,
        "total_ips": total(subnet.pools),
        "used_ips": len(subnet.allocation),
    }


RESOURCE = Resource(
    name="network_ip_availability",
    plural="network_ip_availabilities",
    kind=NETWORK,
    view=view,
    missing=not_found,
    filters={
        "network_id": Filter("id"),
        "network_name": Filter("name"),
        "ip_version": Filter(condition=lambda call, values: []),
    },
)
_RULE = "get_network_ip_availability"
routes = [
    Get(
        "/network-ip-availabilities",
        empty_unless(_RULE, RESOURCE.plural, listing(RESOURCE)),
        may="get_network_ip_availabilities",
    ),
    Get("/network-ip-availabilities/{id}", showing(RESOURCE), may=_RULE),
]
