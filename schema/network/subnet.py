"""A subnet: a range of addresses in a network, and who has which of them. IPAM is decided here, on its stream.

(absent) ──SubnetCreated──▶ there ──AddressAllocated, AddressReleased──▶ there ──SubnetDeleted──▶ gone
"""

from __future__ import annotations

from datetime import datetime

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from schema.changes import applied
from schema.compute.domain import Word
from schema.event import Command, Event, Kind, Said, State
from schema.network.allocation import Allocation
from schema.network.wiring import HostRoute


class Pool(Word):
    """First and last address a port may be given."""

    start: str
    end: str


class Subnet(State):
    name: str = ""
    project_id: str = ""
    parent_id: str | None = None
    """Its network."""
    description: str = ""
    ip_version: int = 4
    cidr: str = ""
    gateway_ip: str | None = None
    pools: tuple[Pool, ...] = ()
    enable_dhcp: bool = True
    dns_nameservers: tuple[str, ...] = ()
    dns_publish_fixed_ip: bool = False
    host_routes: tuple[HostRoute, ...] = ()
    ipv6_address_mode: str | None = None
    ipv6_ra_mode: str | None = None
    subnetpool_id: str | None = None
    segment_id: str | None = None
    service_types: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    revision: int = 0
    """Neutron's revision_number: addresses come and go without it."""
    changed_at: datetime | None = None
    """Neutron's updated_at, in the same way."""
    taken: bytes = b""
    """Who has which address; read it by `allocation`."""

    @property
    def network_id(self) -> str:
        return self.parent_id or ""

    @property
    def allocation(self) -> Allocation:
        return Allocation(self.taken, self.ip_version)


class _NewSubnet(Said):
    name: str = ""
    project_id: str = ""
    parent_id: str | None = None
    description: str = ""
    ip_version: int = 4
    cidr: str = ""
    gateway_ip: str | None = None
    pools: tuple[Pool, ...] = ()
    enable_dhcp: bool = True
    dns_nameservers: tuple[str, ...] = ()
    dns_publish_fixed_ip: bool = False
    host_routes: tuple[HostRoute, ...] = ()
    ipv6_address_mode: str | None = None
    ipv6_ra_mode: str | None = None
    subnetpool_id: str | None = None
    segment_id: str | None = None
    service_types: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


class SubnetCreated(Event, _NewSubnet):
    """It is there."""


class _SubnetChanges(Said):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    gateway_ip: str | None | UnsetType = UNSET
    pools: tuple[Pool, ...] | UnsetType = UNSET
    enable_dhcp: bool | UnsetType = UNSET
    dns_nameservers: tuple[str, ...] | UnsetType = UNSET
    dns_publish_fixed_ip: bool | UnsetType = UNSET
    host_routes: tuple[HostRoute, ...] | UnsetType = UNSET
    ipv6_address_mode: str | None | UnsetType = UNSET
    ipv6_ra_mode: str | None | UnsetType = UNSET
    subnetpool_id: str | None | UnsetType = UNSET
    segment_id: str | None | UnsetType = UNSET
    service_types: tuple[str, ...] | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET


class SubnetUpdated(Event, _SubnetChanges):
    """It is changed."""


class SubnetDeleted(Event):
    """It ended."""


class CreateSubnet(Command, _NewSubnet):
    """Make it."""


class UpdateSubnet(Command, _SubnetChanges):
    """Change it."""


class DeleteSubnet(Command):
    """End it."""


class AddressAllocated(Event):
    ip: str
    port_id: str


class AddressReleased(Event):
    ip: str


class AllocateAddress(Command):
    """Refused when another port has it."""

    ip: str
    port_id: str


class ReleaseAddress(Command):
    """Nothing happens unless that port has it."""

    ip: str
    port_id: str


SubnetEvent = SubnetCreated | SubnetUpdated | SubnetDeleted | AddressAllocated | AddressReleased


def evolve(subnet: Subnet, event: SubnetEvent, at: datetime) -> Subnet:
    match event:
        case SubnetCreated() | SubnetUpdated():
            return replace(applied(subnet, event), revision=subnet.revision + 1, changed_at=at)
        case SubnetDeleted():
            return replace(subnet, deleted_at=at)
        case AddressAllocated():
            return replace(subnet, taken=subnet.allocation.with_(event.ip, event.port_id))
        case AddressReleased():
            return replace(subnet, taken=subnet.allocation.without(event.ip))


SUBNET = Kind("subnet", Subnet, SubnetEvent, evolve)
