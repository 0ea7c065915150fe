"""A floating IP: an outside address that a project holds, given to a port of its own or forwarded by ports.

(absent) ──FloatingIpCreated──▶ DOWN ──FloatingIpAssociated──▶ ACTIVE ──FloatingIpDisassociated──▶ DOWN ──▶ gone
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from schema.changes import applied
from schema.compute.domain import Word
from schema.event import Command, Event, Key, Kind, Said, State
from schema.network.qos_policy import using


class PortForwarding(Word):
    id: str
    protocol: str
    external_port: int
    external_port_end: int
    internal_port_id: str
    internal_ip_address: str
    internal_port: int
    internal_port_end: int
    description: str = ""
    subnet_id: str = ""
    """Where the inner address is from."""


class FloatingIp(State):
    name: str = ""
    project_id: str = ""
    parent_id: str | None = None
    """The outside network."""
    description: str = ""
    floating_ip_address: str = ""
    port_id: str | None = None
    """The inner port it is given to."""
    fixed_ip_address: str | None = None
    router_id: str | None = None
    outer_port_id: str = ""
    """The `network:floatingip` port that holds the address in the outside network."""
    subnet_id: str | None = None
    forwardings: tuple[PortForwarding, ...] = ()
    qos_policy_id: str | None = None
    dns_name: str = ""
    dns_domain: str = ""
    status: str = "DOWN"
    tags: tuple[str, ...] = ()
    changes: int = 0
    """How many there were: who wishes on the ground of what it read says so as `expected`."""

    @property
    def network_id(self) -> str:
        return self.parent_id or ""

    def forwarding(self, id: str) -> PortForwarding | None:
        return next((it for it in self.forwardings if it.id == id), None)


class _NewFloatingIp(Said):
    project_id: str = ""
    parent_id: str | None = None
    floating_ip_address: str = ""
    outer_port_id: str = ""
    subnet_id: str | None = None
    description: str = ""
    qos_policy_id: str | None = None
    dns_name: str = ""
    dns_domain: str = ""


class FloatingIpCreated(Event, _NewFloatingIp):
    """It is there."""


class FloatingIpUpdated(Event):
    description: str | UnsetType = UNSET
    qos_policy_id: str | None | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET


class FloatingIpAssociated(Event):
    """It leads to that port's address from now on, through that router."""

    port_id: str
    fixed_ip_address: str
    router_id: str


class FloatingIpDisassociated(Event):
    pass


class PortForwardingAdded(Event):
    forwarding: PortForwarding
    router_id: str


class PortForwardingChanged(Event):
    forwarding: PortForwarding
    router_id: str


class PortForwardingRemoved(Event):
    forwarding_id: str


class FloatingIpDeleted(Event):
    pass


FloatingIpEvent = (
    FloatingIpCreated
    | FloatingIpUpdated
    | FloatingIpAssociated
    | FloatingIpDisassociated
    | PortForwardingAdded
    | PortForwardingChanged
    | PortForwardingRemoved
    | FloatingIpDeleted
)


class CreateFloatingIp(Command, _NewFloatingIp):
    """Make it."""


class UpdateFloatingIp(Command):
    description: str | UnsetType = UNSET
    qos_policy_id: str | None | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET


class AssociateFloatingIp(Command):
    """`expected`, here and below: the `changes` of the floating IP that the wish rests on."""

    port_id: str
    fixed_ip_address: str
    router_id: str
    expected: int | UnsetType = UNSET


class DisassociateFloatingIp(Command):
    """`port_id`: only if it is given to that port; empty: whatever it is given to."""

    port_id: str = ""
    expected: int | UnsetType = UNSET


class AddPortForwarding(Command):
    forwarding: PortForwarding
    router_id: str
    expected: int | UnsetType = UNSET


class ChangePortForwarding(Command):
    """The whole of it as it is to be."""

    forwarding: PortForwarding
    router_id: str
    expected: int | UnsetType = UNSET


class RemovePortForwarding(Command):
    forwarding_id: str
    expected: int | UnsetType = UNSET


class DeleteFloatingIp(Command):
    expected: int | UnsetType = UNSET


def evolve(floating: FloatingIp, event: FloatingIpEvent, at: datetime) -> FloatingIp:
    return replace(_evolved(floating, event, at), changes=floating.changes + 1)


def _evolved(floating: FloatingIp, event: FloatingIpEvent, at: datetime) -> FloatingIp:
    match event:
        case FloatingIpCreated() | FloatingIpUpdated():
            return applied(floating, event)
        case FloatingIpAssociated():
            return replace(applied(floating, event), status="ACTIVE")
        case FloatingIpDisassociated():
            return replace(floating, port_id=None, fixed_ip_address=None, router_id=None, status="DOWN")
        case PortForwardingAdded() | PortForwardingChanged():
            others = _without(floating, event.forwarding.id)
            return replace(
                floating, forwardings=(*others, event.forwarding), router_id=event.router_id, status="ACTIVE"
            )
        case PortForwardingRemoved():
            others = _without(floating, event.forwarding_id)
            if others or floating.port_id:
                return replace(floating, forwardings=others)
            return replace(floating, forwardings=(), router_id=None, status="DOWN")
        case FloatingIpDeleted():
            return replace(floating, deleted_at=at)


def _without(floating: FloatingIp, forwarding_id: str) -> tuple[PortForwarding, ...]:
    return tuple(it for it in floating.forwardings if it.id != forwarding_id)


def leads_to(port_id: str) -> str:
    """The scope in which every floating IP that leads to this port holds a reservation: it does not end unnoticed."""
    return f"led to {port_id}"


def _unique(floating: FloatingIp) -> Iterable[Key]:
    """An inner address has one floating IP of an outside network; an inner socket is forwarded to from one place."""
    for id in {floating.port_id, *(it.internal_port_id for it in floating.forwardings)}:
        if id:
            yield leads_to(id), floating.id
    if floating.port_id:
        yield f"floating {floating.network_id}", f"{floating.port_id} {floating.fixed_ip_address}"
    for it in floating.forwardings:
        for number in {it.internal_port, it.internal_port_end}:
            yield "forwarded", f"{it.internal_port_id} {it.internal_ip_address} {it.protocol} {number}"
    yield from using(floating.qos_policy_id, f"floatingip {floating.id}")


FLOATING_IP = Kind("floating-ip", FloatingIp, FloatingIpEvent, evolve, unique=_unique)
