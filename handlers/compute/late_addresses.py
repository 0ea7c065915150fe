"""Addresses that servers' ports get with their host: picked as a server is placed, decided in the append that does."""

from __future__ import annotations

from collections.abc import Sequence

from bus.cloud import Cloud
from handlers.compute.ports import Addresses, Known, device_of
from handlers.network.addressing import Picks
from handlers.network.deferring import addresses_at, waiting
from schema.compute.server_command import PlaceServer
from schema.compute.server_state import Server
from schema.event import Command
from schema.network.port_state import FixedIp
from schema.refusal import Refused


async def late_addresses(
    cloud: Cloud, picks: Picks, wanted: Sequence[tuple[Server, Command]], known: Known
) -> tuple[Addresses, dict[str, Refused]]:
    """By port; and by server why it cannot be placed there, for its ports would have no addresses."""
    addresses: dict[str, tuple[FixedIp, ...]] = {}
    refused: dict[str, Refused] = {}
    for server, command in wanted:
        if not isinstance(command, PlaceServer):
            continue
        for nic in server.nics:
            document = known.ports.get(nic.port_id)
            port = document.state if document is not None else None
            if port is None or not waiting(port) or not port.living or device_of(port) != server.id:
                continue
            try:
                chosen = await addresses_at(
                    cloud,
                    picks,
                    port.network_id,
                    command.host,
                    owner=port.device_owner,
                    mac_address=port.mac_address,
                )
            except Refused as why:
                refused[server.id] = why
                break
            addresses[port.id] = chosen.fixed_ips
    return addresses, refused
