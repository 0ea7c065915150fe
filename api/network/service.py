"""Networking as one service: its routes, its policy."""

from __future__ import annotations

from msgspec.structs import replace

from api.network import (
    address_group,
    address_scope,
    agent,
    default_security_group_rule,
    extension,
    floating_ip,
    floating_ip_pool,
    ip_availability,
    network,
    port,
    port_binding,
    port_forwarding,
    qos,
    quota,
    rbac_policy,
    router,
    security_group,
    security_group_rule,
    segment,
    segment_range,
    service_provider,
    subnet,
    subnet_pool,
    topology,
    trunk,
    vpn_connection,
    vpn_policy,
    vpn_service,
    zone,
)
from api.network.policy import POLICY
from api.network.words import body_refusal
from api.wire import Service
from api.wire.errors import NEUTRON
from api.wire.route import Route
from api.wire.versions import network as version_documents
from schema.network.host import NETWORK_HOST
from schema.network.network import NETWORK
from schema.network.quota import NETWORK_QUOTA
from schema.network.subnet_pool import SUBNET_POOL

ROUTES = [
    *network.routes,
    *subnet.routes,
    *subnet_pool.routes,
    *address_scope.routes,
    *agent.routes,
    *zone.routes,
    *port.routes,
    *port_binding.routes,
    *extension.routes,
    *service_provider.routes,
    *ip_availability.routes,
    *topology.routes,
    *segment.routes,
    *segment_range.routes,
    *router.routes,
    *floating_ip.routes,
    *floating_ip_pool.routes,
    *port_forwarding.routes,
    *quota.routes,
    *security_group.routes,
    *security_group_rule.routes,
    *default_security_group_rule.routes,
    *address_group.routes,
    *rbac_policy.routes,
    *qos.routes,
    *trunk.routes,
    *vpn_policy.routes,
    *vpn_service.routes,
    *vpn_connection.routes,
]


def _hyphened(route: Route) -> Route | None:
    """The same by a name with hyphens, if its own has underscores: Neutron's clients write one or the other."""
    empty, name, *rest = route.path.split("/")
    return replace(route, path="/".join((empty, name.replace("_", "-"), *rest))) if "_" in name else None


SERVICE = Service(
    name="neutron",
    type="network",
    prefix="/networking/v2.0",
    catalog="/networking",
    errors=NEUTRON,
    policy=POLICY,
    body_refusal=body_refusal,
    body_first=True,
    roots=version_documents(),
    mirrors=(NETWORK, NETWORK_HOST, NETWORK_QUOTA, SUBNET_POOL),
    routes=[*ROUTES, *(twin for it in ROUTES if (twin := _hyphened(it)) is not None)],
)
