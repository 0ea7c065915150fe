"""A router: joins a project's networks with each other and with the outside. It lives on one network host at a time.

(absent) ──RouterCreated──▶ there ──RouterScheduled(host)──▶ there ──RouterWired(up)──▶ ACTIVE ──RouterDeleted──▶ gone

Which floating IPs go through it is on its stream too, so that none comes while the foot it needs is taken away.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec import UNSET, UnsetType, field
from msgspec.structs import replace

from schema.changes import applied
from schema.compute.domain import Word
from schema.event import Command, Event, Key, Kind, Said, State
from schema.network.port_state import FixedIp
from schema.network.qos_policy import using
from schema.network.wiring import HostRoute


class ExternalGateway(Word):
    network_id: str
    port_id: str
    fixed_ips: tuple[FixedIp, ...] = ()
    enable_snat: bool = True
    qos_policy_id: str | None = None
    cidrs: tuple[str, ...] = ()
    """Of the subnets it has an address in."""


class RouterInterface(Word):
    """A foot in an inner network. The port itself (`network:router_interface`) holds MAC and addresses."""

    port_id: str
    network_id: str
    subnet_ids: tuple[str, ...]
    cidrs: tuple[str, ...] = ()
    """Of those subnets, in their order; a subnet never changes its own."""
    ips: tuple[str, ...] = ()


class Router(State):
    name: str = ""
    project_id: str = ""
    description: str = ""
    admin_state_up: bool = True
    status: str = "ACTIVE"
    gateway: ExternalGateway | None = None
    interfaces: tuple[RouterInterface, ...] = ()
    routes: tuple[HostRoute, ...] = ()
    distributed: bool = False
    ha: bool = False
    flavor_id: str | None = None
    availability_zone_hints: tuple[str, ...] = ()
    host: str = ""
    """The network host it lives on; empty: none yet, or none is alive."""
    avoids: str = ""
    """A host an operator took it away from: it does not go back there by itself."""
    wired: bool = False
    fault: str | None = None
    tags: tuple[str, ...] = ()
    floating: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Floating IP → the subnets of the inner ports it leads to through this router."""
    services: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """VPN service → the subnets behind this router that it joins with others."""
    changes: int = 0
    """How many there were: who wishes on the ground of what it read says so as `expected`."""

    def interface(self, port_id: str) -> RouterInterface | None:
        return next((it for it in self.interfaces if it.port_id == port_id), None)

    def in_subnet(self, subnet_id: str) -> RouterInterface | None:
        """The foot it has in a subnet, if it has one."""
        return next((it for it in self.interfaces if subnet_id in it.subnet_ids), None)


class _NewRouter(Said):
    name: str = ""
    project_id: str = ""
    description: str = ""
    admin_state_up: bool = True
    gateway: ExternalGateway | None = None
    distributed: bool = False
    ha: bool = False
    flavor_id: str | None = None
    availability_zone_hints: tuple[str, ...] = ()


class RouterCreated(Event, _NewRouter):
    """It is there."""


class _RouterChanges(Said):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    admin_state_up: bool | UnsetType = UNSET
    routes: tuple[HostRoute, ...] | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET


class RouterUpdated(Event, _RouterChanges):
    """It is changed."""


class RouterGatewaySet(Event):
    """None: it has no way out any more."""

    gateway: ExternalGateway | None


class RouterInterfaceAdded(Event):
    """A foot; one that is there already has these subnets now."""

    interface: RouterInterface


class RouterInterfaceRemoved(Event):
    port_id: str


class RouterScheduled(Event):
    """It lives there from now on; nowhere when the host is empty."""

    host: str
    avoids: str = ""


class RouterWired(Event):
    """Its host has it in place, or says why not."""

    up: bool
    fault: str | None = None


class FloatingIpServed(Event):
    """A floating IP leads through it to these subnets."""

    floating_ip_id: str
    subnet_ids: tuple[str, ...]


class FloatingIpLeft(Event):
    floating_ip_id: str


class RouterServiceAdded(Event):
    """A VPN service uses it; one that does already joins these subnets now."""

    service_id: str
    subnet_ids: tuple[str, ...] = ()


class RouterServiceRemoved(Event):
    service_id: str


class RouterDeleted(Event):
    pass


RouterEvent = (
    RouterCreated
    | RouterUpdated
    | RouterGatewaySet
    | RouterInterfaceAdded
    | RouterInterfaceRemoved
    | RouterScheduled
    | RouterWired
    | FloatingIpServed
    | FloatingIpLeft
    | RouterServiceAdded
    | RouterServiceRemoved
    | RouterDeleted
)


class CreateRouter(Command, _NewRouter):
    """Make it."""


class UpdateRouter(Command, _RouterChanges):
    """Change it."""


class AddRoutes(Command):
    """Those it has already stay."""

    routes: tuple[HostRoute, ...]


class RemoveRoutes(Command):
    """Those it has not are no mistake."""

    routes: tuple[HostRoute, ...]


class SetRouterGateway(Command):
    """`expected`, here and below: the `changes` of the router that the wish rests on."""

    gateway: ExternalGateway | None
    expected: int | UnsetType = UNSET


class AddRouterInterface(Command):
    """A foot in a network; with a port that is one already: the subnets it is to have from now on."""

    interface: RouterInterface
    expected: int | UnsetType = UNSET


class RemoveRouterInterface(Command):
    """`subnet_ids`: only from these, if the foot has more; empty: the whole foot."""

    port_id: str
    subnet_ids: tuple[str, ...] = ()
    expected: int | UnsetType = UNSET


class ScheduleRouter(Command):
    """`lives_on`: where it is thought to live now; if it lives elsewhere by now, somebody was quicker."""

    host: str
    avoids: str = ""
    lives_on: str | UnsetType = UNSET


class ReportRouterWired(Command):
    """From the host that has it. What a host says that it does not live on is void."""

    host: str
    up: bool
    fault: str | None = None


class ServeFloatingIp(Command):
    """Refused where it does not lead from that outside network to these subnets."""

    floating_ip_id: str
    network_id: str
    subnet_ids: tuple[str, ...]


class LeaveFloatingIp(Command):
    floating_ip_id: str


class AddRouterService(Command):
    """Refused where it has no foot in one of these subnets."""

    service_id: str
    subnet_ids: tuple[str, ...] = ()


class RemoveRouterService(Command):
    service_id: str


class DeleteRouter(Command):
    expected: int | UnsetType = UNSET


def evolve(router: Router, event: RouterEvent, at: datetime) -> Router:
    return replace(_evolved(router, event, at), changes=router.changes + 1)


def _evolved(router: Router, event: RouterEvent, at: datetime) -> Router:
    match event:
        case RouterCreated() | RouterUpdated():
            return applied(router, event)
        case RouterGatewaySet():
            return replace(router, gateway=event.gateway)
        case RouterInterfaceAdded():
            return replace(router, interfaces=(*_without(router, event.interface.port_id), event.interface))
        case RouterInterfaceRemoved():
            return replace(router, interfaces=_without(router, event.port_id))
        case RouterScheduled():
            return replace(router, host=event.host, avoids=event.avoids, wired=False, fault=None)
        case RouterWired():
            return replace(router, wired=event.up, fault=event.fault)
        case FloatingIpServed():
            return replace(router, floating={**router.floating, event.floating_ip_id: event.subnet_ids})
        case FloatingIpLeft():
            floating = {id: it for id, it in router.floating.items() if id != event.floating_ip_id}
            return replace(router, floating=floating)
        case RouterServiceAdded():
            return replace(router, services={**router.services, event.service_id: event.subnet_ids})
        case RouterServiceRemoved():
            services = {id: it for id, it in router.services.items() if id != event.service_id}
            return replace(router, services=services)
        case RouterDeleted():
            return replace(router, deleted_at=at)


def _without(router: Router, port_id: str) -> tuple[RouterInterface, ...]:
    return tuple(it for it in router.interfaces if it.port_id != port_id)


def _unique(router: Router) -> Iterable[Key]:
    """Its way out may have a QoS policy, which stays for as long."""
    if router.gateway:
        yield from using(router.gateway.qos_policy_id, f"router {router.id}")


ROUTER = Kind("router", Router, RouterEvent, evolve, unique=_unique)
