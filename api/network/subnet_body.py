"""What somebody may say of a subnet, and how what they say is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from api.network.words import Body, LongText, Project, Text, Uuid, address, bad, cidr
from schema.network.subnet import Pool
from schema.network.wiring import HostRoute
from schema.refusal import Invalid

Mode = Literal["dhcpv6-stateful", "dhcpv6-stateless", "slaac"]
PrefixLength = Annotated[int, Meta(ge=0, le=128)]
OWNER = re.compile(r"[\w-]+:.*")
"""The owner of a port, or what it begins with: `compute:`, `network:dhcp`."""


class PoolBody(Body):
    start: str
    end: str


class RouteBody(Body):
    destination: str
    nexthop: str


class NewSubnet(Body):
    network_id: Uuid
    ip_version: Literal[4, 6]
    name: Text = ""
    description: LongText = ""
    cidr: str | None = None
    prefixlen: PrefixLength | None = None
    subnetpool_id: str | None = None
    use_default_subnetpool: bool = False
    gateway_ip: str | None | UnsetType = UNSET
    allocation_pools: list[PoolBody] | None = None
    enable_dhcp: bool = True
    dns_nameservers: list[str] | None = None
    dns_publish_fixed_ip: bool = False
    host_routes: list[RouteBody] | None = None
    ipv6_ra_mode: Mode | None = None
    ipv6_address_mode: Mode | None = None
    segment_id: Uuid | None = None
    service_types: list[Text] | None = None
    tags: tuple[str, ...] = ()
    tenant_id: Project | None = None
    project_id: Project | None = None


class CreateBody(Body):
    subnet: NewSubnet | None = None
    subnets: list[NewSubnet] | None = None


class SubnetChange(Body):
    name: Text | UnsetType = UNSET
    description: LongText | UnsetType = UNSET
    gateway_ip: str | None | UnsetType = UNSET
    allocation_pools: list[PoolBody] | None | UnsetType = UNSET
    enable_dhcp: bool | UnsetType = UNSET
    dns_nameservers: list[str] | None | UnsetType = UNSET
    dns_publish_fixed_ip: bool | UnsetType = UNSET
    host_routes: list[RouteBody] | None | UnsetType = UNSET
    segment_id: Uuid | None | UnsetType = UNSET
    service_types: list[Text] | None | UnsetType = UNSET
    network_id: Any = UNSET
    ip_version: Any = UNSET
    cidr: Any = UNSET
    prefixlen: Any = UNSET
    subnetpool_id: Any = UNSET
    use_default_subnetpool: Any = UNSET
    ipv6_ra_mode: Any = UNSET
    ipv6_address_mode: Any = UNSET
    tenant_id: Any = UNSET
    project_id: Any = UNSET


class UpdateBody(Body):
    subnet: SubnetChange


def allocation_pools(bodies: Iterable[PoolBody]) -> tuple[Pool, ...]:
    return tuple(
        Pool(start=address("allocation_pools", it.start), end=address("allocation_pools", it.end)) for it in bodies
    )


def dns_servers(texts: Sequence[str]) -> tuple[str, ...]:
    found = tuple(address("dns_nameservers", text) for text in texts)
    for nth, server in enumerate(found):
        if server in found[:nth]:
            raise bad("dns_nameservers", f"Duplicate nameserver '{server}'")
    return found


def host_routes(bodies: Iterable[RouteBody]) -> tuple[HostRoute, ...]:
    found: list[HostRoute] = []
    for it in bodies:
        route = HostRoute(destination=cidr("host_routes", it.destination), nexthop=address("host_routes", it.nexthop))
        if route in found:
            raise bad("host_routes", f"Duplicate hostroute '{route.destination}' by '{route.nexthop}'")
        found.append(route)
    return tuple(found)


def service_types(types: Sequence[str]) -> tuple[str, ...]:
    for nth, it in enumerate(types):
        if not OWNER.fullmatch(it):
            raise Invalid(
                f"Subnet service type {it[:64]} does not correspond to a valid device owner.",
                code="InvalidSubnetServiceType",
            )
        if it in types[:nth]:
            raise bad("service_types", f"'{it[:64]}' is there twice")
    return tuple(types)
