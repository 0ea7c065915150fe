"""Whom a network cannot be kept from any more: projects with ports in it, routers that lead out through it."""

from __future__ import annotations

from bus.cloud import Cloud
from bus.documents import Where
from schema.network.network import Network
from schema.network.port import PORT
from schema.network.subnet import SUBNET
from schema.refusal import Conflict

GATEWAY_OWNERS = ("network:router_gateway", "network:floatingip")


async def refuse_unsharing(cloud: Cloud, network: Network, project_id: str) -> None:
    """Raises Conflict when somebody would be left in a network not shared with them; `*`: with everybody."""
    left = {network.project_id, "", *network.shared_with} - {"*", project_id}
    if project_id != "*" and ("*" in network.shared_with or project_id == network.project_id):
        return
    whose = Where("project_id", "not in", sorted(left)) if project_id == "*" else Where("project_id", "=", project_id)
    where = [Where("parent_id", "=", network.id), whose]
    if await cloud.documents.find(PORT, where=where, limit=1) or await cloud.documents.find(
        SUBNET, where=where, limit=1
    ):
        raise Conflict(
            f"Unable to reconfigure sharing settings for network {network.id}. Multiple tenants are using it.",
            code="InvalidSharedSetting",
        )


async def refuse_closing(cloud: Cloud, network: Network) -> None:
    """Raises Conflict when routers or floating IPs have addresses in it: it stays a way out."""
    where = [Where("parent_id", "=", network.id), Where("device_owner", "in", GATEWAY_OWNERS)]
    if await cloud.documents.find(PORT, where=where, limit=1):
        raise Conflict(
            f"External network {network.id} cannot be updated to be made non-external, since it has existing gateway "
            "ports.",
            code="ExternalNetworkInUse",
        )
