"""Networking as one service: its routes, its policy."""

from __future__ import annotations

from api.network import floating_ip, port, port_binding, port_forwarding, qos, quota, router
from api.network.policy import POLICY
from api.network.words import body_refusal
from api.wire import Service
from api.wire.errors import NEUTRON
from api.wire.versions import network as version_documents
from schema.network.quota import NETWORK_QUOTA

SERVICE = Service(
    name="neutron",
    type="network",
    prefix="/networking/v2.0",
    catalog="/networking",
    errors=NEUTRON,
    policy=POLICY,
    body_refusal=body_refusal,
    roots=version_documents(),
    mirrors=(NETWORK_QUOTA,),
    routes=[
        *port.routes,
        *port_binding.routes,
        *router.routes,
        *floating_ip.routes,
        *port_forwarding.routes,
        *quota.routes,
        *qos.routes,
    ],
)
