"""A subnet: a range of addresses in a network, and who has which of them. IPAM is decided here, on its stream.

(absent) ──SubnetCreated──▶ there ──AddressAllocated, AddressReleased──▶ there ──SubnetDeleted──▶ gone
"""

from __future__ import annotations

from msgspec import field

from schema.compute.domain import Word
from schema.event import State
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
    addresses: dict[str, str] = field(default_factory=dict)
    """Address → the port that has it."""

    @property
    def network_id(self) -> str:
        return self.parent_id or ""
