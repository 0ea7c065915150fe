"""What guests may learn of themselves: on their config drive, and from the metadata service of their host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from bus.cloud import Cloud
from handlers.compute.desired import image_wanted
from handlers.compute.network_data import devices, network_data, subnets_of
from schema.compute.domain import Seed
from schema.compute.server_parts import Boot
from schema.compute.server_state import Server
from schema.network.subnet import Subnet

_decode_boot = msgspec.json.Decoder(Boot).decode


async def seeds_of(cloud: Cloud, servers: Sequence[Server]) -> dict[str, Seed]:
    """What guests may learn of themselves, by server id."""
    given = await boots(cloud, servers)
    subnets = await subnets_of(cloud, servers)
    return {server.id: seed(server, given.get(server.order.secret_id, Boot()), subnets) for server in servers}


async def boots(cloud: Cloud, servers: Sequence[Server]) -> Mapping[str, Boot]:
    """What guests are given at their first boot, by `order.secret_id`; those that were given nothing are left out."""
    secret_ids = [server.order.secret_id for server in servers if server.order.secret_id]
    opened = await cloud.vault.open_many(secret_ids) if secret_ids else {}
    return {id: _decode_boot(plain) for id, plain in opened.items()}


def seed(server: Server, boot: Boot, subnets: Mapping[str, Subnet] | None = None) -> Seed:
    """What one guest may learn of itself. `subnets`: those its addresses are of, by id."""
    fours = [address for nic in server.nics for address in nic.addresses if address.version == 4]
    return Seed(
        name=server.name,
        hostname=server.hostname,
        metadata=server.metadata,
        user_data=boot.user_data,
        public_keys=boot.public_keys,
        admin_password=boot.admin_password,
        files=boot.files,
        network_data=network_data(server.nics, subnets or {}),
        devices=devices(server.nics),
        project_id=server.project_id,
        availability_zone=server.zone,
        instance_type=server.flavor.name,
        image_id=image.id if (image := image_wanted(server)) else "",
        reservation_id=server.order.reservation_id,
        launch_index=server.order.launch_index,
        security_groups=tuple(sorted({name for nic in server.nics for name in nic.security_groups})),
        local_ipv4=fours[0].ip if fours else "",
        public_ipv4=next((outside for address in fours for outside in address.floating), ""),
    )
