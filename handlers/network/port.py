"""The rules of ports: what may take one, where it is plugged, and what comes of what its host says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from bus.execute import Aggregate
from handlers.network.router import Outdated
from schema.changes import differing, given
from schema.event import Command
from schema.network.port import PORT
from schema.network.port_command import (
    ActivatePortBinding,
    AddAddressPairs,
    AddPortAddress,
    AddPortBinding,
    AttachPort,
    BindPort,
    ChangePortBinding,
    CreatePort,
    DeletePort,
    DetachPort,
    JoinTrunk,
    LeaveTrunk,
    ReaddressPort,
    RemoveAddressPairs,
    RemovePortAddress,
    RemovePortBinding,
    ReportPortWired,
    TrunkPort,
    UnbindPort,
    UpdatePort,
)
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
from schema.network.port_state import Binding, FixedIp, Port
from schema.network.wiring import AddressPair
from schema.refusal import Conflict, Invalid, NotFound

ABSENT, THERE, GONE = "absent", "there", "gone"
PAIRS = 10
"""Allowed address pairs of one port, at most, as Neutron has it."""

ALLOWED: dict[type[Command], set[str]] = {
    CreatePort: {ABSENT},
    UpdatePort: {THERE},
    AddPortAddress: {THERE, GONE},
    RemovePortAddress: {THERE, GONE},
    ReaddressPort: {THERE},
    AddAddressPairs: {THERE},
    RemoveAddressPairs: {THERE},
    AttachPort: {THERE},
    DetachPort: {THERE, GONE},
    BindPort: {THERE},
    UnbindPort: {THERE, GONE},
    ChangePortBinding: {THERE},
    AddPortBinding: {THERE},
    ActivatePortBinding: {THERE},
    RemovePortBinding: {THERE, GONE},
    ReportPortWired: {THERE, GONE},
    TrunkPort: {THERE},
    JoinTrunk: {THERE},
    LeaveTrunk: {THERE, GONE},
    DeletePort: {THERE},
}


def decide(port: Port, command: Command) -> list[PortEvent]:
    if _already_so(port, command):
        return []
    status = _status(port)
    if status not in ALLOWED[type(command)]:
        if isinstance(command, CreatePort):
            raise Conflict(f"Port {port.id} is {status} already.", code="Conflict")
        raise not_found(port.id)
    match command:
        case CreatePort():
            return [PortCreated(**given(command))]
        case UpdatePort():
            return [PortUpdated(**differing(port, command))]
        case AddPortAddress():
            if not port.living:
                raise Outdated(f"Port {port.id} went meanwhile; try again.", code="Conflict")
            return [PortAddressAdded(fixed_ip=command.fixed_ip)]
        case RemovePortAddress():
            return _remove_address(port, command)
        case AddAddressPairs() | RemoveAddressPairs():
            return [PortUpdated(allowed_address_pairs=_pairs_after(port, command))]
        case ReaddressPort():
            _refuse_readdressed(port, command.before)
            return [PortUpdated(fixed_ips=command.fixed_ips)]
        case AttachPort():
            if port.subport_of:
                raise in_use_as_subport(port)
            if port.device_id:
                raise Conflict(f"Port {port.id} is in use by {port.device_id}.", code="PortInUse")
            return [PortAttached(device_id=command.device_id, device_owner=command.device_owner)]
        case DetachPort():
            return [PortDetached()]
        case BindPort():
            return [PortBound(host=command.host, vif_type=command.vif_type, vif_details=command.vif_details)]
        case UnbindPort():
            return [PortUnbound()]
        case ChangePortBinding():
            return [PortBindingChanged(host=command.host, **_changes(_bound(port, command.host), command))]
        case AddPortBinding():
            if port.bound_to(command.host):
                raise Conflict(
                    f"Binding for port {port.id} on host {command.host} already exists.",
                    code="PortBindingAlreadyExists",
                )
            return [PortBindingAdded(binding=Binding(**given(command), status="INACTIVE"))]
        case ActivatePortBinding():
            if port.bound_to(command.host) is None:
                raise binding_not_found(port.id, command.host)
            return [PortBindingActivated(host=command.host)]
        case RemovePortBinding():
            return [PortBindingRemoved(host=command.host)]
        case ReportPortWired():
            if command.host != port.host:
                return [PortBindingWired(host=command.host, up=command.up)]
            return [PortWired(up=command.up, fault=command.fault)]
        case TrunkPort():
            refuse_as_parent(port)
            return [PortTrunked(trunk_id=command.trunk_id)]
        case JoinTrunk():
            refuse_as_subport(port)
            return [PortJoinedTrunk(**given(command))]
        case LeaveTrunk():
            if not port.subport_of and port.host:
                raise Conflict(f"Trunk {port.trunk_id} is currently in use.", code="TrunkInUse")
            return [PortLeftTrunk()]
        case DeletePort():
            if port.trunk_id:
                raise in_use_as_subport(port) if port.subport_of else in_use_as_parent(port)
            if command.fixed_ips is not UNSET:
                _refuse_readdressed(port, command.fixed_ips)
            return [PortDeleted()]
    raise TypeError(f"ports know no {type(command).__name__}")


def _remove_address(port: Port, command: RemovePortAddress) -> list[PortEvent]:
    gone = PortAddressRemoved(fixed_ip=command.fixed_ip)
    if command.remains is UNSET:
        return [gone]
    if command.remains is (port.fixed_ips == (command.fixed_ip,)):
        raise Outdated(f"Port {port.id} has other addresses by now; try again.", code="Conflict")
    return [gone] if command.remains else [gone, PortDeleted()]


def not_found(id: str) -> NotFound:
    return NotFound(f"Port {id} could not be found.", code="PortNotFound")


def refuse_as_parent(port: Port) -> None:
    """Raises Conflict when no trunk can have it as its parent: its guest has it, or will take it along when it goes."""
    _refuse_subport(port)
    if port.trunk_id or port.host or port.made_by or port.device_owner.startswith("network:"):
        raise parent_in_use(port)


def refuse_as_subport(port: Port) -> None:
    """Raises Conflict when no trunk can have it as a subport."""
    _refuse_subport(port)
    if port.trunk_id:
        raise parent_in_use(port)
    if port.device_id or port.made_by:
        raise Conflict(
            f"Unable to complete operation on port {port.id} for network {port.network_id}. Port already has an "
            f"attached device {port.device_id or port.made_by}.",
            code="PortInUse",
        )


def parent_in_use(port: Port) -> Conflict:
    return Conflict(
        f"Port {port.id} is currently in use and is not eligible for use as a parent port.", code="ParentPortInUse"
    )


def _refuse_subport(port: Port) -> None:
    if port.subport_of:
        raise Conflict(f"Port {port.id} is in use by another trunk.", code="TrunkPortInUse")


def in_use_as_parent(port: Port) -> Conflict:
    return Conflict(
        f"Port {port.id} is currently a parent port for trunk {port.trunk_id}.", code="PortInUseAsTrunkParent"
    )


def in_use_as_subport(port: Port) -> Conflict:
    return Conflict(f"Port {port.id} is currently a subport for trunk {port.trunk_id}.", code="PortInUseAsSubPort")


def refuse_many_pairs(pairs: Sequence[AddressPair]) -> None:
    if len(pairs) > PAIRS:
        raise Invalid(
            f"The number of allowed address pair exceeds the maximum {PAIRS}.", code="AllowedAddressPairExhausted"
        )


def binding_not_found(id: str, host: str) -> NotFound:
    return NotFound(f"Binding for port {id} for host {host} could not be found.", code="PortBindingNotFound")


def _already_so(port: Port, command: Command) -> bool:
    match command:
        case CreatePort():
            return port.living and not {k: v for k, v in given(command).items() if getattr(port, k) != v}
        case DeletePort():
            return port.deleted_at is not None
        case RemovePortAddress():
            return port.created_at is not None and (not port.living or command.fixed_ip not in port.fixed_ips)
        case DetachPort():
            free = not port.living or not port.device_id or port.device_id != command.device_id
            return port.created_at is not None and free
        case UnbindPort():
            elsewhere = not port.host or command.host not in {"", port.host}
            return port.created_at is not None and (not port.living or elsewhere)
        case LeaveTrunk():
            return port.created_at is not None and (not port.living or port.trunk_id != command.trunk_id)
        case ReportPortWired():
            outdated = not port.living or command.generation < port.generation
            return port.created_at is not None and (outdated or _known_of(port, command))
        case RemovePortBinding():
            return port.created_at is not None and all(it.host != command.host for it in port.inactive_bindings)
    if not port.living:
        return False
    match command:
        case ChangePortBinding():
            return not _changes(_bound(port, command.host), command)
        case AddPortBinding():
            known = next((it for it in port.inactive_bindings if it.host == command.host), None)
            asked = Binding(**given(command), status="INACTIVE")
            return known is not None and replace(known, wired=False) == asked
        case ActivatePortBinding():
            return bool(port.host) and port.host == command.host
        case UpdatePort():
            return not differing(port, command)
        case TrunkPort():
            return port.trunk_id == command.trunk_id and not port.subport_of
        case JoinTrunk():
            there = (port.trunk_id, port.subport_of, port.segmentation_id)
            return there == (command.trunk_id, command.subport_of, command.segmentation_id)
        case AddPortAddress():
            return command.fixed_ip in port.fixed_ips
        case AddAddressPairs():
            return set(command.pairs) <= set(port.allowed_address_pairs)
        case RemoveAddressPairs():
            return set(command.pairs).isdisjoint(port.allowed_address_pairs)
        case ReaddressPort():
            return port.fixed_ips == command.fixed_ips
        case AttachPort():
            return (port.device_id, port.device_owner) == (command.device_id, command.device_owner)
        case BindPort():
            return port.host == command.host and port.binding.vif_type == command.vif_type
    return False


def _known_of(port: Port, command: ReportPortWired) -> bool:
    """Whether that is known already, or not that host's to say."""
    if command.host == port.host:
        return (port.wired, port.fault) == (command.up, command.fault)
    return all(it.host != command.host or it.wired == command.up for it in port.inactive_bindings)


def _refuse_readdressed(port: Port, before: tuple[FixedIp, ...]) -> None:
    if port.fixed_ips != before:
        raise Outdated(f"Port {port.id} has other addresses by now; try again.", code="Conflict")


def _pairs_after(port: Port, command: AddAddressPairs | RemoveAddressPairs) -> tuple[AddressPair, ...]:
    if isinstance(command, RemoveAddressPairs):
        return tuple(it for it in port.allowed_address_pairs if it not in command.pairs)
    pairs = tuple(dict.fromkeys((*port.allowed_address_pairs, *command.pairs)))
    refuse_many_pairs(pairs)
    return pairs


def _bound(port: Port, host: str) -> Binding:
    """Its binding to that host; the active one, if none is named. Raises NotFound."""
    found = port.bound_to(host) if host else port.binding
    if found is None:
        raise binding_not_found(port.id, host)
    return found


def _changes(known: Binding, command: ChangePortBinding) -> dict[str, Any]:
    """What a command would really change of a binding."""
    return {name: value for name, value in given(command).items() if name != "host" and getattr(known, name) != value}


def _status(port: Port) -> str:
    if port.deleted_at is not None:
        return GONE
    return THERE if port.living else ABSENT


PORTS = Aggregate(PORT, decide, ALLOWED)
