"""The rules of ports: what may take one, where it is plugged, and what comes of what its host says."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import UNSET

from bus.execute import Aggregate, Wish
from bus.log import Document
from handlers.network.router import Outdated
from schema.changes import differing, given
from schema.event import Command
from schema.network.port import (
    PORT,
    AddPortAddress,
    AttachPort,
    BindPort,
    CreatePort,
    DeletePort,
    DetachPort,
    JoinTrunk,
    LeaveTrunk,
    Port,
    PortAddressAdded,
    PortAddressRemoved,
    PortAttached,
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
    RemovePortAddress,
    ReportPortWired,
    TrunkPort,
    UnbindPort,
    UpdatePort,
)
from schema.refusal import Conflict, NotFound

ABSENT, THERE, GONE = "absent", "there", "gone"

ALLOWED: dict[type[Command], set[str]] = {
    CreatePort: {ABSENT},
    UpdatePort: {THERE},
    AddPortAddress: {THERE, GONE},
    RemovePortAddress: {THERE, GONE},
    AttachPort: {THERE},
    DetachPort: {THERE, GONE},
    BindPort: {THERE},
    UnbindPort: {THERE, GONE},
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
        case ReportPortWired():
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
    if port.subport_of:
        raise in_use_as_subport(port)
    if port.trunk_id or port.host or port.made_by or port.device_owner.startswith("network:"):
        raise Conflict(
            f"Port {port.id} is currently in use and is not eligible for use as a parent port.", code="ParentPortInUse"
        )


def refuse_as_subport(port: Port) -> None:
    """Raises Conflict when no trunk can have it as a subport."""
    if port.subport_of:
        raise in_use_as_subport(port)
    if port.trunk_id:
        raise in_use_as_parent(port)
    if port.device_id or port.made_by:
        raise Conflict(
            f"Unable to complete operation on port {port.id} for network {port.network_id}. Port already has an "
            f"attached device {port.device_id or port.made_by}.",
            code="PortInUse",
        )


def in_use_as_parent(port: Port) -> Conflict:
    return Conflict(
        f"Port {port.id} is currently a parent port for trunk {port.trunk_id}.", code="PortInUseAsTrunkParent"
    )


def in_use_as_subport(port: Port) -> Conflict:
    return Conflict(f"Port {port.id} is currently a subport for trunk {port.trunk_id}.", code="PortInUseAsSubPort")


def binding(ports: Iterable[Document], host: str, vif_type: str = "bridge") -> tuple[Wish, ...]:
    """Ports onto a host."""
    return tuple(Wish(PORTS, port.id, BindPort(host=host, vif_type=vif_type)) for port in ports)


def unbinding(ports: Iterable[Document]) -> tuple[Wish, ...]:
    """Ports off whatever host they are on."""
    return tuple(Wish(PORTS, port.id, UnbindPort()) for port in ports)


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
            outdated = not port.living or port.host != command.host or command.generation < port.generation
            same = (port.wired, port.fault) == (command.up, command.fault)
            return port.created_at is not None and (outdated or same)
    if not port.living:
        return False
    match command:
        case UpdatePort():
            return not differing(port, command)
        case TrunkPort():
            return port.trunk_id == command.trunk_id and not port.subport_of
        case JoinTrunk():
            there = (port.trunk_id, port.subport_of, port.segmentation_id)
            return there == (command.trunk_id, command.subport_of, command.segmentation_id)
        case AddPortAddress():
            return command.fixed_ip in port.fixed_ips
        case AttachPort():
            return (port.device_id, port.device_owner) == (command.device_id, command.device_owner)
        case BindPort():
            return port.host == command.host and port.binding.vif_type == command.vif_type
    return False


def _status(port: Port) -> str:
    if port.deleted_at is not None:
        return GONE
    return THERE if port.living else ABSENT


PORTS = Aggregate(PORT, decide, ALLOWED)
