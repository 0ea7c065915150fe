"""How a router comes by its feet: ports and addresses of its gateway and interfaces, as wishes of one append."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, UnsetType

from bus import clock
from bus.cloud import Cloud
from bus.execute import Wish
from bus.log import Document
from handlers.network.addressing import Chosen, Picks, Wanted, mac_address, making, readdressing, unmaking
from handlers.network.port import PORTS
from handlers.network.port import not_found as port_not_found
from handlers.network.router import ROUTERS, bad_router
from handlers.network.subnet import not_found as subnet_not_found
from schema.network.network import NETWORK, Network
from schema.network.port import PORT
from schema.network.port_command import AttachPort, CreatePort
from schema.network.port_state import FixedIp, Port
from schema.network.router import (
    AddRouterInterface,
    ExternalGateway,
    RemoveRouterInterface,
    Router,
    RouterInterface,
)
from schema.network.subnet import SUBNET, Subnet
from schema.refusal import Conflict, Invalid, NotFound

GATEWAY = "network:router_gateway"
INTERFACE = "network:router_interface"


class GatewayWanted(msgspec.Struct, frozen=True):
    """A way out as somebody asks for it. What is not said stays as it was, or is as it usually is."""

    network_id: str
    enable_snat: bool | UnsetType = UNSET
    fixed_ips: Sequence[Wanted] | UnsetType = UNSET
    qos_policy_id: str | None | UnsetType = UNSET


async def gateway(
    cloud: Cloud, picks: Picks, router_id: str, before: ExternalGateway | None, wanted: GatewayWanted | None
) -> tuple[ExternalGateway | None, list[Wish]]:
    """The gateway a router is to have, and what that needs of ports and addresses."""
    same = before is not None and wanted is not None and before.network_id == wanted.network_id
    wishes: list[Wish] = []
    if before is not None and not same:
        wishes += unmaking(await _port(cloud, before.port_id))
    if wanted is None:
        return None, wishes
    if same:
        assert before is not None
        return await _changed(cloud, picks, before, wanted, wishes)
    network = await _outside(cloud, wanted.network_id)
    mac = mac_address()
    chosen = await picks.choose(network.id, wanted.fixed_ips or None, GATEWAY, mac)
    port_id = clock.uuid4()
    port = CreatePort(
        parent_id=network.id,
        mac_address=mac,
        fixed_ips=chosen.fixed_ips,
        device_id=router_id,
        device_owner=GATEWAY,
        port_security_enabled=False,
        made_by=router_id,
    )
    after = ExternalGateway(
        network_id=network.id,
        port_id=port_id,
        fixed_ips=chosen.fixed_ips,
        cidrs=chosen.cidrs,
        enable_snat=True if wanted.enable_snat is UNSET else wanted.enable_snat,
        qos_policy_id=None if wanted.qos_policy_id is UNSET else wanted.qos_policy_id,
    )
    return after, [*wishes, *making(port, port_id)]


async def _changed(
    cloud: Cloud, picks: Picks, before: ExternalGateway, wanted: GatewayWanted, wishes: list[Wish]
) -> tuple[ExternalGateway, list[Wish]]:
    after = before
    if wanted.fixed_ips is not UNSET and wanted.fixed_ips:
        kept = [_as_it_is(one, before) for one in wanted.fixed_ips]
        fresh = [one for one, fixed in zip(wanted.fixed_ips, kept, strict=True) if fixed is None]
        chosen = await picks.choose(before.network_id, fresh, GATEWAY) if fresh else Chosen((), ())
        cidrs = {fixed.subnet_id: cidr for fixed, cidr in zip(before.fixed_ips, before.cidrs, strict=False)}
        cidrs |= {fixed.subnet_id: cidr for fixed, cidr in zip(chosen.fixed_ips, chosen.cidrs, strict=True)}
        fixed_ips = (*dict.fromkeys(fixed for fixed in kept if fixed is not None), *chosen.fixed_ips)
        wishes += readdressing(await _port(cloud, before.port_id), fixed_ips)
        after = msgspec.structs.replace(
            after, fixed_ips=fixed_ips, cidrs=tuple(cidrs.get(fixed.subnet_id, "") for fixed in fixed_ips)
        )
    if wanted.enable_snat is not UNSET:
        after = msgspec.structs.replace(after, enable_snat=wanted.enable_snat)
    if wanted.qos_policy_id is not UNSET:
        after = msgspec.structs.replace(after, qos_policy_id=wanted.qos_policy_id)
    return after, wishes


def _as_it_is(wanted: Wanted, before: ExternalGateway) -> FixedIp | None:
    """The address the gateway has already that is meant."""
    for fixed in before.fixed_ips:
        if wanted.subnet_id in {"", fixed.subnet_id} and wanted.ip in {"", fixed.ip_address}:
            return fixed
    return None


class Joined(msgspec.Struct, frozen=True):
    """What joining a router to a network, or parting them, comes to."""

    port_id: str
    network_id: str
    subnet_ids: tuple[str, ...]
    wishes: list[Wish]


async def join_subnet(cloud: Cloud, picks: Picks, router: Router, subnet: Subnet) -> Joined:
    """A foot in a subnet, at its gateway's address. Several IPv6 subnets of a network share one foot."""
    if subnet.gateway_ip is None:
        raise bad_router("Subnet for router interface must have a gateway IP")
    if subnet.ip_version == 6 and subnet.ipv6_address_mode and not subnet.ipv6_ra_mode:
        raise bad_router(
            f"IPv6 subnet {subnet.id} configured to receive RAs from an external router cannot be added to a router"
        )
    if router.in_subnet(subnet.id):
        raise bad_router(f"Router already has a port on subnet {subnet.id}")
    chosen = await picks.choose(subnet.network_id, [Wanted(subnet_id=subnet.id, ip=subnet.gateway_ip)], INTERFACE)
    foot = _shared_foot(router, subnet)
    if foot is not None:
        port = await _port(cloud, foot.port_id)
        wider = RouterInterface(
            port_id=foot.port_id,
            network_id=foot.network_id,
            subnet_ids=(*foot.subnet_ids, subnet.id),
            cidrs=(*foot.cidrs, subnet.cidr),
            ips=(*foot.ips, chosen.fixed_ips[0].ip_address),
        )
        wishes = [
            Wish(ROUTERS, router.id, AddRouterInterface(interface=wider, expected=router.changes)),
            *readdressing(port, (*port.fixed_ips, *chosen.fixed_ips)),
        ]
        return Joined(foot.port_id, foot.network_id, (subnet.id,), wishes)
    port_id = clock.uuid4()
    command = CreatePort(
        project_id=router.project_id,
        parent_id=subnet.network_id,
        mac_address=mac_address(),
        fixed_ips=chosen.fixed_ips,
        device_id=router.id,
        device_owner=INTERFACE,
        port_security_enabled=False,
        made_by=router.id,
    )
    interface = _interface(port_id, subnet.network_id, chosen)
    wishes = [
        Wish(ROUTERS, router.id, AddRouterInterface(interface=interface, expected=router.changes)),
        *making(command, port_id),
    ]
    return Joined(port_id, subnet.network_id, (subnet.id,), wishes)


async def join_port(cloud: Cloud, router: Router, port: Port) -> Joined:
    """A port of somebody's making becomes a foot, with the addresses it has."""
    if port.device_id:
        raise Conflict(
            f"Unable to complete operation on port {port.id} for network {port.network_id}. Port already has an "
            f"attached device {port.device_id}.",
            code="PortInUse",
        )
    if not port.fixed_ips:
        raise bad_router("Router port must have at least one fixed IP")
    subnets = await _subnets(cloud, [fixed.subnet_id for fixed in port.fixed_ips])
    if sum(subnet.ip_version == 4 for subnet in subnets.values()) > 1:
        raise bad_router("Cannot have multiple IPv4 subnets on router port")
    chosen = Chosen(port.fixed_ips, tuple(subnets[fixed.subnet_id].cidr for fixed in port.fixed_ips))
    interface = _interface(port.id, port.network_id, chosen)
    for subnet_id in interface.subnet_ids:
        if router.in_subnet(subnet_id):
            raise bad_router(f"Router already has a port on subnet {subnet_id}")
    wishes = [
        Wish(ROUTERS, router.id, AddRouterInterface(interface=interface, expected=router.changes)),
        Wish(PORTS, port.id, AttachPort(device_id=router.id, device_owner=INTERFACE)),
    ]
    return Joined(port.id, port.network_id, interface.subnet_ids, wishes)


async def part(cloud: Cloud, router: Router, port_id: str | None, subnet_id: str | None) -> Joined:
    """A foot less: the port goes with it; of one in several subnets, only the address in that subnet."""
    foot = router.interface(port_id) if port_id else router.in_subnet(subnet_id or "")
    if foot is None and port_id:
        raise NotFound(
            f"Router {router.id} does not have an interface with id {port_id}", code="RouterInterfaceNotFound"
        )
    if foot is None:
        raise NotFound(
            f"Router {router.id} has no interface on subnet {subnet_id}", code="RouterInterfaceNotFoundForSubnet"
        )
    if port_id and subnet_id and subnet_id not in foot.subnet_ids:
        raise Invalid(
            f"Subnet on port {port_id} does not match the requested subnet {subnet_id}.", code="SubnetMismatchForPort"
        )
    port = await _port(cloud, foot.port_id)
    going = (subnet_id,) if subnet_id and not port_id else foot.subnet_ids
    left = [fixed for fixed in port.fixed_ips if fixed.subnet_id not in going]
    parting = RemoveRouterInterface(port_id=foot.port_id, subnet_ids=going, expected=router.changes)
    ending = readdressing(port, left) if left else unmaking(port)
    return Joined(foot.port_id, foot.network_id, going, [Wish(ROUTERS, router.id, parting), *ending])


async def moving_foot(cloud: Cloud, router: Router, port: Port, fixed_ips: Sequence[FixedIp]) -> list[Wish]:
    """What a router must know when one of its interfaces is given other addresses."""
    subnets = await _subnets(cloud, [fixed.subnet_id for fixed in fixed_ips])
    chosen = Chosen(tuple(fixed_ips), tuple(subnets[fixed.subnet_id].cidr for fixed in fixed_ips))
    interface = _interface(port.id, port.network_id, chosen)
    return [Wish(ROUTERS, router.id, AddRouterInterface(interface=interface, expected=router.changes))]


def _interface(port_id: str, network_id: str, chosen: Chosen) -> RouterInterface:
    cidrs = {fixed.subnet_id: cidr for fixed, cidr in zip(chosen.fixed_ips, chosen.cidrs, strict=True)}
    return RouterInterface(
        port_id=port_id,
        network_id=network_id,
        subnet_ids=tuple(cidrs),
        cidrs=tuple(cidrs.values()),
        ips=tuple(fixed.ip_address for fixed in chosen.fixed_ips),
    )


def _shared_foot(router: Router, subnet: Subnet) -> RouterInterface | None:
    """The foot that a further IPv6 subnet of its network is joined with."""
    if subnet.ip_version != 6:
        return None
    feet = (foot for foot in router.interfaces if foot.network_id == subnet.network_id)
    return next((foot for foot in feet if all(":" in ip for ip in foot.ips)), None)


async def _outside(cloud: Cloud, network_id: str) -> Network:
    stream = NETWORK.stream(network_id)
    found = (await cloud.executor.load([stream])).get(stream)
    if found is None or not found.state.living:
        raise NotFound(f"Network {network_id} could not be found.", code="NetworkNotFound")
    if not found.state.external_for:
        raise bad_router(f"Network {network_id} is not an external network")
    network: Network = found.state
    return network


async def _port(cloud: Cloud, id: str) -> Port:
    stream = PORT.stream(id)
    found = (await cloud.executor.load([stream])).get(stream)
    if found is None or not found.state.living:
        raise port_not_found(id)
    port: Port = found.state
    return port


async def _subnets(cloud: Cloud, ids: Sequence[str]) -> dict[str, Subnet]:
    found: dict[str, Document] = await cloud.executor.load([SUBNET.stream(id) for id in dict.fromkeys(ids)])
    subnets = {document.id: document.state for document in found.values() if document.state.living}
    for id in ids:
        if id not in subnets:
            raise subnet_not_found(id)
    return subnets
