"""The rules of routers: what they join, what leads through them, and what may therefore not be taken away."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import UNSET

from bus.execute import Aggregate
from schema.changes import differing
from schema.event import Command
from schema.network.router import (
    ROUTER,
    AddRouterInterface,
    AddRouterService,
    AddRoutes,
    CreateRouter,
    DeleteRouter,
    ExternalGateway,
    FloatingIpLeft,
    FloatingIpServed,
    LeaveFloatingIp,
    RemoveRouterInterface,
    RemoveRouterService,
    RemoveRoutes,
    ReportRouterWired,
    Router,
    RouterCreated,
    RouterDeleted,
    RouterEvent,
    RouterGatewaySet,
    RouterInterface,
    RouterInterfaceAdded,
    RouterInterfaceRemoved,
    RouterScheduled,
    RouterServiceAdded,
    RouterServiceRemoved,
    RouterUpdated,
    RouterWired,
    ScheduleRouter,
    ServeFloatingIp,
    SetRouterGateway,
    UpdateRouter,
)
from schema.network.wiring import HostRoute
from schema.refusal import Conflict, Invalid, NotFound, Refused

ABSENT, THERE, GONE = "absent", "there", "gone"
ROUTES = 30
"""Extra routes of one router, at most, as Neutron has it."""
INTERFACES = 250

ALLOWED: dict[type[Command], set[str]] = {
    CreateRouter: {ABSENT},
    UpdateRouter: {THERE},
    AddRoutes: {THERE},
    RemoveRoutes: {THERE},
    SetRouterGateway: {THERE},
    AddRouterInterface: {THERE},
    RemoveRouterInterface: {THERE},
    ScheduleRouter: {THERE},
    ReportRouterWired: {THERE},
    ServeFloatingIp: {THERE},
    LeaveFloatingIp: {THERE},
    AddRouterService: {THERE},
    RemoveRouterService: {THERE},
    DeleteRouter: {THERE},
}


def decide(router: Router, command: Command) -> Sequence[RouterEvent]:
    if _already_so(router, command):
        return []
    if _status(router) not in ALLOWED[type(command)]:
        raise _wrong_status(router, command)
    refuse_outdated("Router", router, command)
    match command:
        case CreateRouter():
            return [RouterCreated(**_fields(command))]
        case UpdateRouter():
            changes = differing(router, command)
            if "routes" in changes:
                _refuse_unreachable(router, changes["routes"])
            return [RouterUpdated(**changes)]
        case AddRoutes():
            routes = (*router.routes, *(it for it in command.routes if it not in router.routes))
            _refuse_unreachable(router, routes)
            return [RouterUpdated(routes=tuple(dict.fromkeys(routes)))]
        case RemoveRoutes():
            return [RouterUpdated(routes=tuple(it for it in router.routes if it not in command.routes))]
        case SetRouterGateway():
            _refuse_gateway_in_use(router, command.gateway)
            return [RouterGatewaySet(gateway=command.gateway)]
        case AddRouterInterface():
            _refuse_overlap(router, command.interface)
            return [RouterInterfaceAdded(interface=command.interface)]
        case RemoveRouterInterface():
            return [_remove_interface(router, command)]
        case ScheduleRouter():
            if command.lives_on is not UNSET and command.lives_on != router.host:
                raise Conflict(f"Router {router.id} lives on {router.host or 'no host'} by now.")
            return [RouterScheduled(host=command.host, avoids=command.avoids)]
        case ReportRouterWired():
            return [RouterWired(up=command.up, fault=command.fault)]
        case ServeFloatingIp():
            _refuse_no_way(router, command)
            return [FloatingIpServed(floating_ip_id=command.floating_ip_id, subnet_ids=command.subnet_ids)]
        case LeaveFloatingIp():
            return [FloatingIpLeft(floating_ip_id=command.floating_ip_id)]
        case AddRouterService():
            for subnet_id in command.subnet_ids:
                if router.in_subnet(subnet_id) is None:
                    raise not_connected(subnet_id, router.id)
            return [RouterServiceAdded(service_id=command.service_id, subnet_ids=command.subnet_ids)]
        case RemoveRouterService():
            return [RouterServiceRemoved(service_id=command.service_id)]
        case DeleteRouter():
            if router.interfaces:
                raise Conflict(f"Router {router.id} still has ports", code="RouterInUse")
            if router.services:
                raise in_use_by_vpn(router.id, next(iter(router.services)))
            return [RouterDeleted()]
    raise TypeError(f"routers know no {type(command).__name__}")


class Outdated(Conflict):
    """What the wish rests on has changed since it was read: read it again, and wish anew."""


def refuse_outdated(what: str, state: Any, command: Command) -> None:
    """Raises Outdated when the command expects another number of `changes` than there were."""
    expected = getattr(command, "expected", UNSET)
    if expected is not UNSET and expected != state.changes:
        raise Outdated(f"{what} {state.id} was changed by somebody else meanwhile; try again.", code="Conflict")


def not_found(id: str) -> NotFound:
    return NotFound(f"Router {id} could not be found", code="RouterNotFound")


def bad_router(text: str) -> Invalid:
    return Invalid(f"Bad router request: {text}.", code="BadRequest")


def in_use_by_vpn(router_id: str, service_id: str) -> Conflict:
    return Conflict(f"Router {router_id} is used by VPNService {service_id}", code="RouterInUseByVPNService")


def not_connected(subnet_id: str, router_id: str) -> Invalid:
    """As VPNaaS words it."""
    return Invalid(f"Subnet {subnet_id} is not connected to Router {router_id}", code="SubnetIsNotConnectedToRouter")


def connected(router: Router, addresses: Iterable[str]) -> bool:
    """Whether the router reaches all these addresses without a further hop."""
    networks = [ipaddress.ip_network(cidr) for cidr in _cidrs(router) if _is_network(cidr)]
    return all(any(_within(address, network) for network in networks) for address in addresses)


def _already_so(router: Router, command: Command) -> bool:
    match command:
        case CreateRouter():
            return router.living and all(getattr(router, name) == it for name, it in _fields(command).items())
        case DeleteRouter():
            return router.deleted_at is not None
        case RemoveRouterInterface() | LeaveFloatingIp() | RemoveRouterService() if not router.living:
            return router.deleted_at is not None
    if not router.living:
        return False
    match command:
        case UpdateRouter():
            return not differing(router, command)
        case AddRoutes():
            return set(command.routes) <= set(router.routes)
        case RemoveRoutes():
            return not set(command.routes) & set(router.routes)
        case SetRouterGateway():
            return router.gateway == command.gateway
        case AddRouterInterface():
            return command.interface in router.interfaces
        case RemoveRouterInterface():
            foot = router.interface(command.port_id)
            return foot is None or bool(command.subnet_ids and not set(command.subnet_ids) & set(foot.subnet_ids))
        case ScheduleRouter():
            return (router.host, router.avoids) == (command.host, command.avoids)
        case ReportRouterWired():
            # A host that it does not live on has nothing to say about it.
            return router.host != command.host or (router.wired, router.fault) == (command.up, command.fault)
        case ServeFloatingIp():
            return router.floating.get(command.floating_ip_id) == command.subnet_ids
        case LeaveFloatingIp():
            return command.floating_ip_id not in router.floating
        case AddRouterService():
            return router.services.get(command.service_id) == command.subnet_ids
        case RemoveRouterService():
            return command.service_id not in router.services
    return False


def _fields(command: Command) -> dict[str, Any]:
    return {name: getattr(command, name) for name in command.__struct_fields__}


def _refuse_unreachable(router: Router, routes: Sequence[HostRoute]) -> None:
    if len(routes) > ROUTES:
        raise Invalid(
            f"Unable to complete operation for {router.id}. The number of routes exceeds the maximum {ROUTES}.",
            code="RoutesExhausted",
        )
    own = {ip for foot in router.interfaces for ip in foot.ips}
    own |= {fixed.ip_address for fixed in router.gateway.fixed_ips} if router.gateway else set()
    for route in routes:
        if not connected(router, [route.nexthop]):
            raise invalid_routes(f"the nexthop {route.nexthop} is not connected with router")
        if route.nexthop in own:
            raise invalid_routes(f"the nexthop {route.nexthop} is used by router")


def invalid_routes(text: str) -> Invalid:
    return Invalid(f"Invalid format for routes: {text}", code="InvalidRoutes")


def _refuse_gateway_in_use(router: Router, gateway: ExternalGateway | None) -> None:
    before = router.gateway
    if before and router.floating and (gateway is None or gateway.network_id != before.network_id):
        raise Conflict(
            f"Gateway cannot be updated for router {router.id}, since a gateway to external network "
            f"{before.network_id} is required by one or more floating IPs.",
            code="RouterExternalGatewayInUseByFloatingIp",
        )
    if gateway is not None:
        inner = [
            (cidr, id) for foot in router.interfaces for cidr, id in zip(foot.cidrs, foot.subnet_ids, strict=False)
        ]
        for cidr, fixed in zip(gateway.cidrs, gateway.fixed_ips, strict=False):
            for other, id in inner:
                if _overlap(cidr, other):
                    raise _overlapping(cidr, fixed.subnet_id, other, id)


def _refuse_overlap(router: Router, interface: RouterInterface) -> None:
    if router.interface(interface.port_id) is None and len(router.interfaces) >= INTERFACES:
        raise bad_router(f"router {router.id} would have more than {INTERFACES} interfaces, the most it may have")
    others: list[tuple[str, str]] = []
    for foot in router.interfaces:
        if foot.port_id != interface.port_id:
            others += zip(foot.cidrs, foot.subnet_ids, strict=False)
    if router.gateway:
        others += [
            (cidr, it.subnet_id) for cidr, it in zip(router.gateway.cidrs, router.gateway.fixed_ips, strict=False)
        ]
    for cidr, subnet_id in zip(interface.cidrs, interface.subnet_ids, strict=False):
        for other, id in others:
            if id == subnet_id:
                raise bad_router(f"Router already has a port on subnet {subnet_id}")
            if _overlap(cidr, other):
                raise _overlapping(cidr, subnet_id, other, id)


def _overlapping(cidr: str, subnet_id: str, other: str, other_id: str) -> Invalid:
    return bad_router(f"Cidr {cidr} of subnet {subnet_id} overlaps with cidr {other} of subnet {other_id}")


def _remove_interface(router: Router, command: RemoveRouterInterface) -> RouterEvent:
    foot = router.interface(command.port_id)
    assert foot is not None, "what is not there is already so"
    going = set(command.subnet_ids or foot.subnet_ids)
    for subnet_id in foot.subnet_ids:
        if subnet_id in going and any(subnet_id in subnets for subnets in router.floating.values()):
            raise Conflict(
                f"Router interface for subnet {subnet_id} on router {router.id} cannot be deleted, as it is required "
                "by one or more floating IPs.",
                code="RouterInterfaceInUseByFloatingIP",
            )
        if subnet_id in going and any(subnet_id in subnets for subnets in router.services.values()):
            raise Conflict(
                f"Subnet {subnet_id} is used by VPNService of router {router.id}", code="SubnetInUseByVPNService"
            )
    for cidr, subnet_id in zip(foot.cidrs, foot.subnet_ids, strict=False):
        if subnet_id in going and any(_within(route.nexthop, cidr) for route in router.routes):
            raise Conflict(
                f"Router interface for subnet {subnet_id} on router {router.id} cannot be deleted, as it is required "
                "by one or more routes.",
                code="RouterInterfaceInUseByRoute",
            )
    left = [(id, cidr) for id, cidr in _pairs(foot) if id not in going]
    if not left:
        return RouterInterfaceRemoved(port_id=foot.port_id)
    cidrs = tuple(cidr for _, cidr in left)
    return RouterInterfaceAdded(
        interface=RouterInterface(
            port_id=foot.port_id,
            network_id=foot.network_id,
            subnet_ids=tuple(id for id, _ in left),
            cidrs=cidrs,
            ips=tuple(ip for ip in foot.ips if any(_within(ip, cidr) for cidr in cidrs)),
        )
    )


def _pairs(foot: RouterInterface) -> list[tuple[str, str]]:
    cidrs = (*foot.cidrs, *[""] * len(foot.subnet_ids))
    return list(zip(foot.subnet_ids, cidrs, strict=False))


def _refuse_no_way(router: Router, command: ServeFloatingIp) -> None:
    if router.gateway is None or router.gateway.network_id != command.network_id:
        raise no_way(command.network_id, ", ".join(command.subnet_ids), router.id)
    for subnet_id in command.subnet_ids:
        if router.in_subnet(subnet_id) is None:
            raise no_way(command.network_id, subnet_id, router.id)


def no_way(network_id: str, subnet_id: str, port: str) -> NotFound:
    """As Neutron words it; `port`: what should have been led to."""
    return NotFound(
        f"External network {network_id} is not reachable from subnet {subnet_id}.  Therefore, cannot associate "
        f"Port {port} with a Floating IP.",
        code="ExternalGatewayForFloatingIPNotFound",
    )


def _cidrs(router: Router) -> Iterable[str]:
    for foot in router.interfaces:
        yield from foot.cidrs
    if router.gateway:
        yield from router.gateway.cidrs


def _is_network(cidr: str) -> bool:
    try:
        ipaddress.ip_network(cidr)
    except ValueError:
        return False
    return True


def _within(address: str, network: str | ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(address) in (ipaddress.ip_network(network) if isinstance(network, str) else network)
    except ValueError:
        return False


def _overlap(one: str, other: str) -> bool:
    if not (_is_network(one) and _is_network(other)):
        return False
    first, second = ipaddress.ip_network(one), ipaddress.ip_network(other)
    return first.version == second.version and first.overlaps(second)


def _wrong_status(router: Router, command: Command) -> Refused:
    if isinstance(command, CreateRouter):
        return Conflict(f"The id {router.id} is or was another router's; ids are not used again.")
    return not_found(router.id)


def _status(router: Router) -> str:
    if router.living:
        return THERE
    return GONE if router.deleted_at else ABSENT


ROUTERS = Aggregate(ROUTER, decide, ALLOWED)
