"""A port: a place in a network with a MAC, addresses and rules; a guest's card, a router's foot, a service's.

(absent) ──PortCreated──▶ DOWN ──PortBound──▶ DOWN ──PortWired(up)──▶ ACTIVE ──PortWired(down), PortUnbound──▶ DOWN
                                     any ──PortDeleted──▶ gone
"""

from __future__ import annotations

from typing import Any

from msgspec import field

from schema.compute.domain import Word
from schema.event import State
from schema.network.wiring import AddressPair, DhcpOption


class FixedIp(Word):
    subnet_id: str
    ip_address: str


class Binding(Word):
    """Where a port is plugged. A second, inactive one prepares a live migration."""

    host: str
    vnic_type: str = "normal"
    profile: dict[str, Any] = field(default_factory=dict)
    vif_type: str = "unbound"
    vif_details: dict[str, Any] = field(default_factory=dict)
    status: str = "ACTIVE"


class Port(State):
    name: str = ""
    project_id: str = ""
    parent_id: str | None = None
    """Its network."""
    description: str = ""
    mac_address: str = ""
    fixed_ips: tuple[FixedIp, ...] = ()
    admin_state_up: bool = True
    status: str = "DOWN"
    device_id: str = ""
    device_owner: str = ""
    security_group_ids: tuple[str, ...] = ()
    port_security_enabled: bool = True
    allowed_address_pairs: tuple[AddressPair, ...] = ()
    extra_dhcp_opts: tuple[DhcpOption, ...] = ()
    dns_name: str = ""
    dns_domain: str = ""
    qos_policy_id: str | None = None
    propagate_uplink_status: bool = True
    binding: Binding = field(default_factory=lambda: Binding(host=""))
    inactive_bindings: tuple[Binding, ...] = ()
    trunk_id: str = ""
    """It is the parent of that trunk."""
    subport_of: str = ""
    """It is a subport: the trunk's parent port."""
    segmentation_id: int = 0
    """As a subport: its tag."""
    made_by: str = ""
    """The server (or other thing) that made it and takes it along when it goes; empty: a person's."""
    wired: bool = False
    """Its host has it in place. Of one that is on no host: it answers (DHCP ports, for instance)."""
    fault: str | None = None
    """Why its host could not wire it."""
    tags: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def network_id(self) -> str:
        return self.parent_id or ""

    @property
    def host(self) -> str:
        return self.binding.host
