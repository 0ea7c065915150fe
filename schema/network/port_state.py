"""What a port is, and what is said of one when it is made or changed."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType, field

from schema.compute.domain import Word
from schema.event import Said, State
from schema.network.wiring import AddressPair, BandwidthLimit, DhcpOption

DHCP = "network:dhcp"
"""Owner of the port at which DHCP, DNS and metadata are answered in a network."""
SUBPORT = "trunk:subport"
"""Owner of a trunk's subports."""


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
    wired: bool = False
    """Of an inactive one: that host has the port in place, and it may come. Of the active one the port tells."""


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
    card_limits: tuple[BandwidthLimit, ...] = ()
    """What its server's flavor lets a card carry, unless a QoS policy limits it."""
    propagate_uplink_status: bool = True
    data_plane_status: str | None = None
    """What somebody who watches the data plane says of it: ACTIVE or DOWN."""
    ip_allocation: str = "immediate"
    """`none`: it was made without addresses on purpose; `deferred`: it has those of where it is, as it is bound."""
    binding: Binding = field(default_factory=lambda: Binding(host=""))
    inactive_bindings: tuple[Binding, ...] = ()
    trunk_id: str = ""
    """It is the parent of that trunk; with `subport_of`: a subport of it."""
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
    generation: int = 0
    """Rises with every event that changes what its host should have; what the host reports names it."""
    tags: tuple[str, ...] = ()

    @property
    def network_id(self) -> str:
        return self.parent_id or ""

    @property
    def host(self) -> str:
        return self.binding.host

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """All of them, the active one first; none while it is on no host."""
        return (self.binding, *self.inactive_bindings) if self.host else self.inactive_bindings

    def bound_to(self, host: str) -> Binding | None:
        return next((it for it in self.bindings if it.host == host), None)


class NewPort(Said):
    """What a port is made with."""

    name: str = ""
    project_id: str = ""
    parent_id: str | None = None
    description: str = ""
    mac_address: str = ""
    fixed_ips: tuple[FixedIp, ...] = ()
    admin_state_up: bool = True
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
    ip_allocation: str = "immediate"
    made_by: str = ""
    tags: tuple[str, ...] = ()


class PortChanges(Said):
    """What of it may be changed."""

    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    mac_address: str | UnsetType = UNSET
    fixed_ips: tuple[FixedIp, ...] | UnsetType = UNSET
    admin_state_up: bool | UnsetType = UNSET
    device_id: str | UnsetType = UNSET
    device_owner: str | UnsetType = UNSET
    security_group_ids: tuple[str, ...] | UnsetType = UNSET
    port_security_enabled: bool | UnsetType = UNSET
    allowed_address_pairs: tuple[AddressPair, ...] | UnsetType = UNSET
    extra_dhcp_opts: tuple[DhcpOption, ...] | UnsetType = UNSET
    dns_name: str | UnsetType = UNSET
    dns_domain: str | UnsetType = UNSET
    qos_policy_id: str | None | UnsetType = UNSET
    card_limits: tuple[BandwidthLimit, ...] | UnsetType = UNSET
    propagate_uplink_status: bool | UnsetType = UNSET
    data_plane_status: str | None | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET
