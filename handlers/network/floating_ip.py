"""The rules of floating IPs: an address leads to one port, or is forwarded by ports, never both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bus.execute import Aggregate
from handlers.network.router import refuse_outdated
from schema.changes import differing
from schema.event import Command
from schema.network.floating_ip import (
    FLOATING_IP,
    AddPortForwarding,
    AssociateFloatingIp,
    ChangePortForwarding,
    CreateFloatingIp,
    DeleteFloatingIp,
    DisassociateFloatingIp,
    FloatingIp,
    FloatingIpAssociated,
    FloatingIpCreated,
    FloatingIpDeleted,
    FloatingIpDisassociated,
    FloatingIpEvent,
    FloatingIpUpdated,
    PortForwarding,
    PortForwardingAdded,
    PortForwardingChanged,
    PortForwardingRemoved,
    RemovePortForwarding,
    UpdateFloatingIp,
)
from schema.refusal import Conflict, Invalid, NotFound, Refused

ABSENT, THERE, GONE = "absent", "there", "gone"
FORWARDINGS = 500
"""Port forwardings of one floating IP, at most."""

ALLOWED: dict[type[Command], set[str]] = {
    CreateFloatingIp: {ABSENT},
    UpdateFloatingIp: {THERE},
    AssociateFloatingIp: {THERE},
    DisassociateFloatingIp: {THERE},
    AddPortForwarding: {THERE},
    ChangePortForwarding: {THERE},
    RemovePortForwarding: {THERE},
    DeleteFloatingIp: {THERE},
}


def decide(floating: FloatingIp, command: Command) -> Sequence[FloatingIpEvent]:
    if _already_so(floating, command):
        return []
    if _status(floating) not in ALLOWED[type(command)]:
        raise _wrong_status(floating, command)
    refuse_outdated("Floating IP", floating, command)
    match command:
        case CreateFloatingIp():
            return [FloatingIpCreated(**_fields(command))]
        case UpdateFloatingIp():
            return [FloatingIpUpdated(**differing(floating, command))]
        case AssociateFloatingIp():
            if floating.forwardings:
                raise in_use(floating.id)
            return [
                FloatingIpAssociated(
                    port_id=command.port_id,
                    fixed_ip_address=command.fixed_ip_address,
                    router_id=command.router_id,
                )
            ]
        case DisassociateFloatingIp():
            return [FloatingIpDisassociated()]
        case AddPortForwarding():
            _refuse_forwarding(floating, command.forwarding, command.router_id)
            return [PortForwardingAdded(forwarding=command.forwarding, router_id=command.router_id)]
        case ChangePortForwarding():
            if floating.forwarding(command.forwarding.id) is None:
                raise forwarding_not_found(command.forwarding.id)
            _refuse_forwarding(floating, command.forwarding, command.router_id)
            return [PortForwardingChanged(forwarding=command.forwarding, router_id=command.router_id)]
        case RemovePortForwarding():
            return [PortForwardingRemoved(forwarding_id=command.forwarding_id)]
        case DeleteFloatingIp():
            if floating.forwardings:
                raise in_use(floating.id)
            return [FloatingIpDeleted()]
    raise TypeError(f"floating IPs know no {type(command).__name__}")


def not_found(id: str) -> NotFound:
    return NotFound(f"Floating IP {id} could not be found", code="FloatingIPNotFound")


def in_use(id: str) -> Conflict:
    return Conflict(f"Floating IP {id} in use by Port Forwarding resources.", code="FipInUseByPortForwarding")


def forwarding_not_found(id: str) -> NotFound:
    return NotFound(f"Port Forwarding {id} could not be found.", code="PortForwardingNotFound")


def doubled(what: str) -> Invalid:
    """As Neutron words it."""
    return Invalid(
        "Bad port_forwarding request: A duplicate port forwarding entry with same attributes already exists, "
        f"conflicting values are {what}.",
        code="BadRequest",
    )


def _already_so(floating: FloatingIp, command: Command) -> bool:
    match command:
        case CreateFloatingIp():
            return floating.living and all(getattr(floating, name) == it for name, it in _fields(command).items())
        case DeleteFloatingIp():
            return floating.deleted_at is not None
    if not floating.living:
        return floating.deleted_at is not None and isinstance(command, DisassociateFloatingIp | RemovePortForwarding)
    match command:
        case UpdateFloatingIp():
            return not differing(floating, command)
        case AssociateFloatingIp():
            there = (floating.port_id, floating.fixed_ip_address, floating.router_id)
            return there == (command.port_id, command.fixed_ip_address, command.router_id)
        case DisassociateFloatingIp():
            return not floating.port_id or bool(command.port_id and command.port_id != floating.port_id)
        case AddPortForwarding() | ChangePortForwarding():
            return command.forwarding in floating.forwardings and floating.router_id == command.router_id
        case RemovePortForwarding():
            return floating.forwarding(command.forwarding_id) is None
    return False


def _fields(command: Command) -> dict[str, Any]:
    return {name: getattr(command, name) for name in command.__struct_fields__}


def _refuse_forwarding(floating: FloatingIp, wanted: PortForwarding, router_id: str) -> None:
    if floating.port_id:
        raise Conflict(
            f"Floating IP {floating.id} cannot have port forwardings: port {floating.port_id} has the whole of it.",
            code="FloatingIPPortAlreadyAssociated",
        )
    others = [it for it in floating.forwardings if it.id != wanted.id]
    if len(others) >= FORWARDINGS:
        raise Conflict(f"Floating IP {floating.id} has {FORWARDINGS} port forwardings, the most it may have.")
    if others and floating.router_id != router_id:
        raise Conflict(
            f"Floating IP {floating.id} is forwarded by router {floating.router_id}; it cannot be by {router_id} too.",
            code="PortHasPortForwarding",
        )
    for it in others:
        if it.protocol == wanted.protocol and _meet(
            (it.external_port, it.external_port_end), (wanted.external_port, wanted.external_port_end)
        ):
            raise doubled(f"{{'floatingip_id': '{floating.id}', 'external_port': {wanted.external_port}}}")
        inner = (it.internal_port_id, it.internal_ip_address, it.protocol)
        if inner == (wanted.internal_port_id, wanted.internal_ip_address, wanted.protocol) and _meet(
            (it.internal_port, it.internal_port_end), (wanted.internal_port, wanted.internal_port_end)
        ):
            raise doubled(f"{{'internal_port_id': '{it.internal_port_id}', 'internal_port': {wanted.internal_port}}}")


def _meet(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def _wrong_status(floating: FloatingIp, command: Command) -> Refused:
    if isinstance(command, CreateFloatingIp):
        return Conflict(f"The id {floating.id} is or was another floating IP's; ids are not used again.")
    return not_found(floating.id)


def _status(floating: FloatingIp) -> str:
    if floating.living:
        return THERE
    return GONE if floating.deleted_at else ABSENT


FLOATING_IPS = Aggregate(FLOATING_IP, decide, ALLOWED)
