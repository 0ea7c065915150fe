"""A port: a place in a network with a MAC, addresses and rules; a guest's card, a router's foot, a service's.

(absent) ──PortCreated──▶ DOWN ──PortBound──▶ DOWN ──PortWired(up)──▶ ACTIVE ──PortWired(down), PortUnbound──▶ DOWN
                                     any ──PortDeleted──▶ gone

A live migration: PortBindingAdded (INACTIVE; the target host prepares) ──PortBindingActivated──▶ ACTIVE, the former
one INACTIVE ──PortBindingRemoved──▶ gone
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec import UNSET
from msgspec.structs import replace

from schema.changes import applied
from schema.event import Key, Kind
from schema.network.port_event import (
    PortAddressAdded,
    PortAddressRemoved,
    PortAttached,
    PortBindingActivated,
    PortBindingAdded,
    PortBindingChanged,
    PortBindingRemoved,
    PortBindingWired,
    PortBound,
    PortCreated,
    PortDeleted,
    PortDetached,
    PortEvent,
    PortJoinedTrunk,
    PortLeftTrunk,
    PortTrunked,
    PortUnbound,
    PortUpdated,
    PortWired,
)
from schema.network.port_state import DHCP, SUBPORT, Binding, Port
from schema.network.qos_policy import using
from schema.network.security_group import members_of


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
