"""Where a floating IP leads: through which router to which inner port, and what must go when that port goes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from bus.cloud import Cloud
from bus.documents import Where
from bus.execute import AlreadyTaken, Wish
from handlers.network.floating_ip import FLOATING_IPS, doubled
from handlers.network.port import PORTS
from handlers.network.router import ROUTERS, no_way
from schema.network.floating_ip import (
    AddPortForwarding,
    AssociateFloatingIp,
    ChangePortForwarding,
    DisassociateFloatingIp,
    FloatingIp,
    PortForwarding,
    RemovePortForwarding,
    leads_to,
)
from schema.network.port_command import UnbindPort, UpdatePort
from schema.network.port_state import FixedIp, Port
from schema.network.router import ROUTER, LeaveFloatingIp, Router, ServeFloatingIp
from schema.refusal import Conflict, Invalid, Refused

MANY = 100_000
"""Floating IPs that may lead to ports that end at once."""


def inner_address(port: Port, wanted: str | None) -> FixedIp:
    """The address of a port that an outside one is to lead to: the wanted one, or its only IPv4 address."""
    if wanted:
        found = next((fixed for fixed in port.fixed_ips if fixed.ip_address == wanted), None)
        if found is None:
            raise bad(f"Port {port.id} does not have fixed ip {wanted}")
        return found
    those = [fixed for fixed in port.fixed_ips if ":" not in fixed.ip_address]
    if not those:
        raise bad(f"Cannot add floating IP to port {port.id} that has no fixed IPv4 addresses")
    if len(those) > 1:
        raise bad(
            f"Port {port.id} has multiple fixed IPv4 addresses.  Must provide a specific IPv4 address when assigning "
            "a floating IP"
        )
    return those[0]


def bad(text: str) -> Invalid:
    """As Neutron words it."""
    return Invalid(f"Bad floatingip request: {text}.", code="BadRequest")


async def router_between(cloud: Cloud, network_id: str, fixed: FixedIp, port_id: str) -> Router:
    """The router that has a foot in the subnet and its gateway in the outside network. Raises NotFound."""
    where = [
        Where("gateway.network_id", "=", network_id),
        Where("interfaces", "contains", [{"subnet_ids": [fixed.subnet_id]}]),
    ]
    found = await cloud.documents.find(ROUTER, where=where, limit=1)
    if not found:
        raise no_way(network_id, fixed.subnet_id, port_id)
    router: Router = found[0].state
    return router


def associating(floating: FloatingIp, port: Port, fixed: FixedIp, router: Router) -> list[Wish]:
    """A floating IP to a port. If it was given to another, or led through another router, that ends with it."""
    wishes = []
    if floating.router_id and floating.router_id != router.id:
        wishes.append(Wish(ROUTERS, floating.router_id, LeaveFloatingIp(floating_ip_id=floating.id)))
    serve = ServeFloatingIp(floating_ip_id=floating.id, network_id=floating.network_id, subnet_ids=(fixed.subnet_id,))
    associate = AssociateFloatingIp(
        port_id=port.id, fixed_ip_address=fixed.ip_address, router_id=router.id, expected=floating.changes
    )
    return [
        Wish(FLOATING_IPS, floating.id, associate),
        *wishes,
        Wish(ROUTERS, router.id, serve),
        still_there(port.id),
    ]


def still_there(port_id: str) -> Wish:
    """Changes nothing; refused when the port is gone by then."""
    return Wish(PORTS, port_id, UpdatePort())


def disassociating(floating: FloatingIp) -> list[Wish]:
    """A floating IP from its port, off its router."""
    wishes = [Wish(FLOATING_IPS, floating.id, DisassociateFloatingIp(expected=floating.changes))]
    return [*wishes, *leaving(floating)]


def leaving(floating: FloatingIp) -> list[Wish]:
    """It leads nowhere any more: off its router, and off that one's host."""
    if not floating.router_id:
        return []
    return [
        Wish(ROUTERS, floating.router_id, LeaveFloatingIp(floating_ip_id=floating.id)),
        Wish(PORTS, floating.outer_port_id, UnbindPort()),
    ]


def forwarding(floating: FloatingIp, wanted: PortForwarding, router: Router) -> list[Wish]:
    """One more forwarding, or one of its own as it is to be."""
    known = floating.forwarding(wanted.id) is not None
    command = ChangePortForwarding if known else AddPortForwarding
    after = [it for it in floating.forwardings if it.id != wanted.id] + [wanted]
    return [
        Wish(FLOATING_IPS, floating.id, command(forwarding=wanted, router_id=router.id, expected=floating.changes)),
        _served(floating, after, router.id),
        still_there(wanted.internal_port_id),
    ]


def forwarding_no_more(floating: FloatingIp, ids: Sequence[str]) -> list[Wish]:
    """Without these forwardings."""
    wishes = [
        Wish(FLOATING_IPS, floating.id, RemovePortForwarding(forwarding_id=id, expected=floating.changes + number))
        for number, id in enumerate(ids)
    ]
    left = [it for it in floating.forwardings if it.id not in ids]
    return [*wishes, _served(floating, left, floating.router_id or "")] if left else [*wishes, *leaving(floating)]


async def freeing(cloud: Cloud, port_ids: Collection[str]) -> list[Wish]:
    """What must go with these ports, in the same append: their floating IPs are free, what is forwarded to them stops.

    The end of a port is refused (StillHeld) while something leads to it: an association that was quicker is noticed.
    """
    return [wish for it in await leading_to(cloud, port_ids) for wish in _freed(it, port_ids)]


async def freeing_each(cloud: Cloud, port_ids: Collection[str]) -> dict[str, list[Wish]]:
    """The same for ports that go in appends of their own: by port, in one query, and only those that are led to."""
    freed: dict[str, list[Wish]] = {}
    for floating in await leading_to(cloud, port_ids):
        led_to = {floating.port_id or "", *(it.internal_port_id for it in floating.forwardings)}
        for id in set(port_ids) & led_to:
            freed.setdefault(id, []).extend(_freed(floating, (id,)))
    return freed


def _freed(floating: FloatingIp, port_ids: Collection[str]) -> list[Wish]:
    """What leads to these ports leads there no more."""
    wishes = disassociating(floating) if floating.port_id in port_ids else []
    forwarded = [it.id for it in floating.forwardings if it.internal_port_id in port_ids]
    return [*wishes, *forwarding_no_more(floating, forwarded)] if forwarded else wishes


async def freeing_addresses(cloud: Cloud, port_id: str, ips: Sequence[str]) -> list[Wish]:
    """The same for addresses that a port gives up."""
    if not ips:
        return []
    wishes: list[Wish] = []
    for floating in await leading_to(cloud, [port_id]):
        if floating.port_id == port_id and floating.fixed_ip_address in ips:
            wishes += disassociating(floating)
        inner = [it for it in floating.forwardings if it.internal_port_id == port_id]
        if forwarded := [it.id for it in inner if it.internal_ip_address in ips]:
            wishes += forwarding_no_more(floating, forwarded)
    return wishes


async def refuse_taken(cloud: Cloud, floating: FloatingIp, port: Port, fixed: FixedIp) -> None:
    """Raises Conflict when the port's address has a floating IP of that network, or is forwarded to."""
    for other in await leading_to(cloud, [port.id]):
        if other.id == floating.id:
            continue
        same = (other.port_id, other.fixed_ip_address) == (port.id, fixed.ip_address)
        if same and other.network_id == floating.network_id:
            raise already_associated(floating, port.id, fixed.ip_address)
        if any(
            (it.internal_port_id, it.internal_ip_address) == (port.id, fixed.ip_address) for it in other.forwardings
        ):
            raise Conflict(
                f"Cannot associate floating IP {floating.floating_ip_address} ({floating.id}) with port {port.id} "
                f"using fixed IP {fixed.ip_address}, as that port already has a Port Forwarding resource.",
                code="PortHasPortForwarding",
            )


async def refuse_given(cloud: Cloud, floating: FloatingIp, port: Port, ip: str) -> None:
    """Raises Conflict when the address that is to be forwarded to has a floating IP of its own."""
    for other in await leading_to(cloud, [port.id]):
        if (other.port_id, other.fixed_ip_address) == (port.id, ip):
            raise Conflict(
                f"Cannot create port forwarding to floating IP {floating.floating_ip_address} ({floating.id}) with "
                f"port {port.id} using fixed IP {ip}, as that port already has a binding floating IP.",
                code="PortHasBindingFloatingIP",
            )


def already_associated(floating: FloatingIp, port_id: str, ip: str) -> Conflict:
    return Conflict(
        f"Cannot associate floating IP {floating.floating_ip_address} ({floating.id}) with port {port_id} using fixed "
        f"IP {ip}, as that fixed IP already has a floating IP on external network {floating.network_id}.",
        code="FloatingIPPortAlreadyAssociated",
    )


def reworded(taken: AlreadyTaken, floating: FloatingIp) -> Refused:
    """What another stream holds of this one's, in Neutron's words."""
    if taken.scope.startswith("floating "):
        port_id, _, ip = taken.key.partition(" ")
        return already_associated(floating, port_id, ip)
    if taken.scope == "forwarded":
        return doubled(f"{{'internal_socket': '{taken.key}'}}")
    return taken


async def leading_to(cloud: Cloud, port_ids: Collection[str]) -> list[FloatingIp]:
    """The floating IPs that lead to these ports, by themselves or by a forwarding."""
    scopes = [leads_to(id) for id in port_ids]
    held = await cloud.log.holding(scopes, limit=MANY) if scopes else []
    documents = await cloud.log.load(list(dict.fromkeys(it.stream for it in held))) if held else {}
    return [document.state for document in documents.values()]


def _served(floating: FloatingIp, forwardings: Sequence[PortForwarding], router_id: str) -> Wish:
    subnets = tuple(sorted({it.subnet_id for it in forwardings}))
    serve = ServeFloatingIp(floating_ip_id=floating.id, network_id=floating.network_id, subnet_ids=subnets)
    return Wish(ROUTERS, router_id, serve)
