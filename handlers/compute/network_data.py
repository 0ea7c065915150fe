"""What a guest is told of its networks: OpenStack's network_data.json, from its cards and their subnets.

Format: https://docs.openstack.org/nova/latest/user/metadata.html#openstack-format-metadata
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bus.cloud import Cloud
from schema.compute.nic import NicAddress, ServerNic
from schema.compute.server_state import Server
from schema.network.subnet import SUBNET, Subnet
from schema.network.wiring import tap_name


async def subnets_of(cloud: Cloud, servers: Iterable[Server]) -> dict[str, Subnet]:
    """The subnets that the cards of these servers have addresses of. One query at most."""
    ids = {address.subnet_id for server in servers for nic in server.nics for address in nic.addresses}
    documents = await cloud.executor.load([SUBNET.stream(id) for id in sorted(ids)]) if ids else {}
    return {document.id: document.state for document in documents.values() if document.state.living}


def network_data(nics: Sequence[ServerNic], subnets: Mapping[str, Subnet]) -> dict[str, Any]:
    """Links, networks and services. A subnet that is not known (any more) leaves its address out."""
    links: list[dict[str, Any]] = []
    networks: list[dict[str, Any]] = []
    nameservers: dict[str, None] = {}
    for nic in nics:
        link = tap_name(nic.port_id)
        links.append(
            {
                "id": link,
                "vif_id": nic.port_id,
                "type": "tap",
                "mtu": nic.mtu,
                "ethernet_mac_address": nic.mac_address,
            }
        )
        for address in nic.addresses:
            subnet = subnets.get(address.subnet_id)
            if subnet is None:
                continue
            networks.append(
                {
                    "id": f"network{len(networks)}",
                    "network_id": nic.network_id,
                    "link": link,
                    **_settings(address, subnet),
                }
            )
            nameservers |= dict.fromkeys(subnet.dns_nameservers)
    services = [{"type": "dns", "address": address} for address in nameservers]
    return {"links": links, "networks": networks, "services": services}


def devices(nics: Sequence[ServerNic]) -> list[dict[str, Any]]:
    """The cards that somebody gave a tag to, as meta_data.json has them."""
    return [
        {"type": "nic", "bus": "none", "address": "none", "mac": nic.mac_address, "tags": [nic.tag]}
        for nic in nics
        if nic.tag
    ]


def _settings(address: NicAddress, subnet: Subnet) -> dict[str, Any]:
    """How the guest comes to this address: it asks for it where somebody answers, else it is told."""
    version = address.version
    if version == 4 and subnet.enable_dhcp:
        return {"type": "ipv4_dhcp"}
    mode = f"_{subnet.ipv6_address_mode}" if version == 6 and subnet.ipv6_address_mode else ""
    network = ipaddress.ip_network(subnet.cidr)
    routes = [_route(route.destination, route.nexthop) for route in subnet.host_routes]
    if subnet.gateway_ip:
        routes.insert(0, _route("::/0" if version == 6 else "0.0.0.0/0", subnet.gateway_ip))
    return {
        "type": f"ipv{version}{mode}",
        "ip_address": address.ip,
        "netmask": str(network.netmask),
        "routes": routes,
        "services": [{"type": "dns", "address": it} for it in subnet.dns_nameservers],
    }


def _route(destination: str, gateway: str) -> dict[str, str]:
    network = ipaddress.ip_network(destination, strict=False)
    return {"network": str(network.network_address), "netmask": str(network.netmask), "gateway": gateway}
