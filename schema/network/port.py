"""A port: a place in a network with a MAC, addresses and rules; a guest's card, a router's foot, a service's.

(absent) ──PortCreated──▶ DOWN ──PortBound──▶ DOWN ──PortWired(up)──▶ ACTIVE ──PortWired(down), PortUnbound──▶ DOWN
                                     any ──PortDeleted──▶ gone

A live migration: PortBindingAdded (INACTIVE; the target host prepares) ──PortBindingActivated──▶ ACTIVE, the former
one INACTIVE ──PortBindingRemoved──▶ gone
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from msgspec import UNSET, UnsetType, field
from msgspec.structs import replace

from schema.changes import applied
from schema.compute.domain import Word
from schema.event import Command, Event, Key, Kind, Said, State
from schema.network.qos_policy import using
from schema.network.security_group import members_of
from schema.network.wiring import AddressPair, BandwidthLimit, DhcpOption

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


class _NewPort(Said):
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


class PortCreated(Event, _NewPort):
    """It is there; its addresses are allocated on their subnets' streams in the same append."""


class _PortChanges(Said):
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


class PortUpdated(Event, _PortChanges):
    """The fields that changed."""


class PortAddressAdded(Event):
    """It came by an address of a subnet made or changed after it; allocated there in the same append."""

    fixed_ip: FixedIp


class PortAddressRemoved(Event):
    """An address of it went with its subnet, or because nothing is served there any more."""

    fixed_ip: FixedIp


class PortAttached(Event):
    """A device took it that had not made it."""

    device_id: str
    device_owner: str


class PortDetached(Event):
    """Its device let it go; it is on no host any more."""


class PortBound(Event):
    """It belongs on that host now; whether it is in place there, the host reports."""

    host: str
    vif_type: str
    vif_details: dict[str, Any] = field(default_factory=dict)


class PortUnbound(Event):
    pass


class PortBindingChanged(Event):
    """The fields of its binding to that host that changed; of the active one, also while it is on no host."""

    host: str = ""
    vnic_type: str | UnsetType = UNSET
    profile: dict[str, Any] | UnsetType = UNSET


class PortBindingAdded(Event):
    """That host prepares for it."""

    binding: Binding


class PortBindingActivated(Event):
    """It is on that host from now on; its former binding is an inactive one."""

    host: str


class PortBindingRemoved(Event):
    """An inactive one is no more."""

    host: str


class PortWired(Event):
    """What its host says of it: in place, or why not."""

    up: bool
    fault: str | None = None


class PortBindingWired(Event):
    """What a host says to which it may come: in place, or not (any more)."""

    host: str
    up: bool


class PortTrunked(Event):
    """It is the parent of a trunk from now on."""

    trunk_id: str


class PortJoinedTrunk(Event):
    """It reaches its guest tagged, by the card of the trunk's parent, and is where that is."""

    trunk_id: str
    subport_of: str
    segmentation_id: int


class PortLeftTrunk(Event):
    """It is no trunk's parent or subport any more."""


class PortDeleted(Event):
    pass


class CreatePort(Command, _NewPort):
    """Make it."""


class UpdatePort(Command, _PortChanges):
    """Change it."""


class AddPortAddress(Command):
    """One address more, whatever else is changed meanwhile. Outdated when the port went."""

    fixed_ip: FixedIp


class RemovePortAddress(Command):
    """One address less.

    `remains`: whether the port has others; when it is said that it has none, it goes with this one. Outdated when it is
    otherwise. Unset: the port stays, whatever is left of it.
    """

    fixed_ip: FixedIp
    remains: bool | UnsetType = UNSET


class ReaddressPort(Command):
    """Other addresses. Outdated when what it has by now is not `before`: their allocation goes by that."""

    fixed_ips: tuple[FixedIp, ...]
    before: tuple[FixedIp, ...]


class AddAddressPairs(Command):
    """These too, whatever others are there."""

    pairs: tuple[AddressPair, ...]


class RemoveAddressPairs(Command):
    pairs: tuple[AddressPair, ...]


class AttachPort(Command):
    """Refused when another device has it."""

    device_id: str
    device_owner: str


class DetachPort(Command):
    """Nothing happens unless that device has it."""

    device_id: str


class BindPort(Command):
    host: str
    vif_type: str = "bridge"
    vif_details: dict[str, Any] = field(default_factory=dict)


class UnbindPort(Command):
    """From that host; of a port that is on another by now, nothing comes of it. Empty: from whichever."""

    host: str = ""


class ChangePortBinding(Command):
    """Its binding to that host; empty: the active one."""

    host: str = ""
    vnic_type: str | UnsetType = UNSET
    profile: dict[str, Any] | UnsetType = UNSET


class AddPortBinding(Command):
    """Refused when it has one to that host."""

    host: str
    vnic_type: str = "normal"
    profile: dict[str, Any] = field(default_factory=dict)
    vif_type: str = "bridge"
    vif_details: dict[str, Any] = field(default_factory=dict)


class ActivatePortBinding(Command):
    host: str


class RemovePortBinding(Command):
    """An inactive one."""

    host: str


class ReportPortWired(Command):
    """From a host it is bound to, if inactively; of any other, or of an older generation, it says nothing."""

    host: str
    generation: int
    up: bool
    fault: str | None = None


class TrunkPort(Command):
    """Have it be a trunk's parent. Refused where it is in a trunk, on a host, or some thing's own."""

    trunk_id: str


class JoinTrunk(Command):
    """Have it be a subport. Refused where it is in a trunk, or a device has it."""

    trunk_id: str
    subport_of: str
    segmentation_id: int


class LeaveTrunk(Command):
    """Nothing happens unless it is in that trunk. The parent's leave is the trunk's end: refused while on a host."""

    trunk_id: str


class DeletePort(Command):
    """Outdated when it has other addresses than these, which come back in the same append."""

    fixed_ips: tuple[FixedIp, ...] | UnsetType = UNSET


PortEvent = (
    PortCreated
    | PortUpdated
    | PortAddressAdded
    | PortAddressRemoved
    | PortAttached
    | PortDetached
    | PortBound
    | PortUnbound
    | PortBindingChanged
    | PortBindingAdded
    | PortBindingActivated
    | PortBindingRemoved
    | PortWired
    | PortBindingWired
    | PortTrunked
    | PortJoinedTrunk
    | PortLeftTrunk
    | PortDeleted
)


def evolve(port: Port, event: PortEvent, at: datetime) -> Port:
    match event:
        case PortCreated() | PortUpdated():
            after = applied(port, event)
            return replace(after, status=_status(after), generation=port.generation + 1)
        case PortAddressAdded():
            fixed_ips = (*port.fixed_ips, event.fixed_ip)
            return replace(port, fixed_ips=fixed_ips, generation=port.generation + 1)
        case PortAddressRemoved():
            fixed_ips = tuple(fixed for fixed in port.fixed_ips if fixed != event.fixed_ip)
            return replace(port, fixed_ips=fixed_ips, generation=port.generation + 1)
        case PortAttached():
            return replace(
                port, device_id=event.device_id, device_owner=event.device_owner, generation=port.generation + 1
            )
        case PortDetached():
            return _nowhere(replace(port, device_id="", device_owner="", card_limits=()))
        case PortBound():
            bound = replace(port.binding, host=event.host, vif_type=event.vif_type, vif_details=event.vif_details)
            return replace(_nowhere(port), binding=bound, inactive_bindings=_others(port, event.host))
        case PortUnbound():
            return _nowhere(port)
        case PortBindingChanged():
            return _with_binding(port, event)
        case PortBindingAdded():
            inactive = replace(event.binding, status="INACTIVE")
            return replace(port, inactive_bindings=(*_others(port, inactive.host), inactive))
        case PortBindingActivated():
            return _activated(port, event.host)
        case PortBindingRemoved():
            return replace(port, inactive_bindings=_others(port, event.host))
        case PortWired():
            after = replace(port, wired=event.up, fault=event.fault)
            return replace(after, status=_status(after))
        case PortBindingWired():
            bindings = (replace(it, wired=event.up) if it.host == event.host else it for it in port.inactive_bindings)
            return replace(port, inactive_bindings=tuple(bindings))
        case PortTrunked():
            return replace(port, trunk_id=event.trunk_id, generation=port.generation + 1)
        case PortJoinedTrunk():
            return _nowhere(replace(applied(port, event), device_id=event.trunk_id, device_owner=SUBPORT))
        case PortLeftTrunk() if port.subport_of:
            left = replace(port, trunk_id="", subport_of="", segmentation_id=0)
            return _nowhere(replace(left, device_id="", device_owner=""))
        case PortLeftTrunk():
            return replace(port, trunk_id="", generation=port.generation + 1)
        case PortDeleted():
            return replace(port, deleted_at=at)


def _status(port: Port) -> str:
    return "ACTIVE" if port.wired and port.admin_state_up else "DOWN"


def _nowhere(port: Port) -> Port:
    """As yet on no host, or on none any more."""
    free = replace(port.binding, host="", vif_type="unbound", vif_details={})
    return replace(port, binding=free, wired=False, fault=None, status="DOWN", generation=port.generation + 1)


def _others(port: Port, host: str) -> tuple[Binding, ...]:
    """The inactive bindings to other hosts."""
    return tuple(it for it in port.inactive_bindings if it.host != host)


def _with_binding(port: Port, event: PortBindingChanged) -> Port:
    changes = {name: value for name in ("vnic_type", "profile") if (value := getattr(event, name)) is not UNSET}
    if event.host in {"", port.host}:
        return replace(port, binding=replace(port.binding, **changes))
    inactive = tuple(replace(it, **changes) if it.host == event.host else it for it in port.inactive_bindings)
    return replace(port, inactive_bindings=inactive)


def _activated(port: Port, host: str) -> Port:
    chosen = next((it for it in port.inactive_bindings if it.host == host), Binding(host=host))
    former = (replace(port.binding, status="INACTIVE", wired=port.wired),) if port.host and port.host != host else ()
    return replace(
        _nowhere(port),
        binding=replace(chosen, status="ACTIVE", wired=False),
        inactive_bindings=(*_others(port, host), *former),
    )


DHCP = "network:dhcp"
"""Owner of the port at which DHCP, DNS and metadata are answered in a network."""


def _unique(port: Port) -> Iterable[Key]:
    yield macs_of(port.network_id), port.mac_address
    if port.device_owner == DHCP and port.made_by == port.network_id:
        yield "dhcp", port.network_id
    for id in port.security_group_ids:
        yield members_of(id), port.id
    yield from using(port.qos_policy_id, f"port {port.id}")


def macs_of(network_id: str) -> str:
    """Where the MACs of a network's ports are reserved: as long as there is one, there is a port."""
    return f"mac {network_id}"


PORT = Kind("port", Port, PortEvent, evolve, unique=_unique)
