"""Compute v2.1 as one service: its routes, its policy, its microversions."""

from __future__ import annotations

from api.compute import (
    aggregate,
    availability_zone,
    console,
    console_proxy,
    extension,
    flavor,
    flavor_access,
    flavor_extra_specs,
    host,
    hypervisor,
    instance_action,
    keypair,
    limits,
    migration,
    quota,
    server,
    server_action,
    server_address,
    server_create,
    server_diagnostics,
    server_errand,
    server_evacuate,
    server_external_event,
    server_group,
    server_interface,
    server_list,
    server_metadata,
    server_move,
    server_network,
    server_password,
    server_rebuild,
    server_rescue,
    server_security_group,
    server_share,
    server_tag,
    server_topology,
    server_volume,
    service_record,
    usage,
    usage_audit,
)
from api.compute.policy import POLICY
from api.wire import Service, versions
from api.wire.errors import NOVA
from api.wire.microversion import COMPUTE_HEADER, Microversions
from schema.compute.aggregate import AGGREGATE
from schema.compute.flavor import FLAVOR
from schema.compute.host import HOST
from schema.compute.quota import QUOTA_CLASS
from schema.network.host import NETWORK_HOST
from schema.network.quota import NETWORK_QUOTA
from schema.placement.provider import PROVIDER

MICROVERSIONS = Microversions(word="compute", minimum="2.1", maximum="2.104", older_header=COMPUTE_HEADER)

SERVICE = Service(
    name="nova",
    type="compute",
    prefix="/compute/v2.1",
    project_in_path=True,
    strict_queries=(2, 102),
    errors=NOVA,
    microversions=MICROVERSIONS,
    policy=POLICY,
    mirrors=(FLAVOR, HOST, AGGREGATE, QUOTA_CLASS, PROVIDER, NETWORK_HOST, NETWORK_QUOTA),
    roots=[*versions.compute(MICROVERSIONS), *console_proxy.roots],
    extra_headers=lambda request_id: {"X-Compute-Request-Id": request_id},
    routes=[
        *server_list.routes,
        *server_create.routes,
        *server.routes,
        *server_action.routes,
        *server_evacuate.routes,
        *server_move.routes,
        *server_rebuild.routes,
        *server_rescue.routes,
        *migration.routes,
        *server_errand.routes,
        *console.routes,
        *server_password.routes,
        *server_diagnostics.routes,
        *server_topology.routes,
        *server_metadata.routes,
        *server_tag.routes,
        *server_network.routes,
        *server_interface.routes,
        *server_security_group.routes,
        *server_address.routes,
        *server_external_event.routes,
        *server_volume.routes,
        *server_share.routes,
        *server_group.routes,
        *instance_action.routes,
        *flavor.routes,
        *flavor_access.routes,
        *flavor_extra_specs.routes,
        *keypair.routes,
        *hypervisor.routes,
        *service_record.routes,
        *host.routes,
        *availability_zone.routes,
        *aggregate.routes,
        *quota.routes,
        *limits.routes,
        *usage.routes,
        *usage_audit.routes,
        *extension.routes,
    ],
)
