"""What a VPN joins: services (a router that has one), and endpoint groups (subnets or CIDRs at one end).

(absent) ──…Created──▶ there ──…Deleted──▶ gone                    while a connection uses it, it stays
"""

from __future__ import annotations

from datetime import datetime

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from schema.changes import applied
from schema.event import Command, Event, Kind, Said, State


class VpnService(State):
    name: str = ""
    project_id: str = ""
    parent_id: str | None = None
    """Its router."""
    description: str = ""
    subnet_id: str | None = None
    admin_state_up: bool = True
    users: tuple[str, ...] = ()
    """Connections that use it."""

    @property
    def router_id(self) -> str:
        return self.parent_id or ""


class _NewVpnService(Said):
    name: str = ""
    project_id: str = ""
    parent_id: str | None = None
    description: str = ""
    subnet_id: str | None = None
    admin_state_up: bool = True


class VpnServiceCreated(Event, _NewVpnService):
    """It is there."""


class VpnServiceUpdated(Event):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    admin_state_up: bool | UnsetType = UNSET


class VpnServiceUsed(Event):
    user_id: str


class VpnServiceLeft(Event):
    user_id: str


class VpnServiceDeleted(Event):
    pass


class CreateVpnService(Command, _NewVpnService):
    """Make it."""


class UpdateVpnService(Command):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    admin_state_up: bool | UnsetType = UNSET


class UseVpnService(Command):
    user_id: str


class LeaveVpnService(Command):
    user_id: str


class DeleteVpnService(Command):
    pass


VpnServiceEvent = VpnServiceCreated | VpnServiceUpdated | VpnServiceUsed | VpnServiceLeft | VpnServiceDeleted


def evolve_service(service: VpnService, event: VpnServiceEvent, at: datetime) -> VpnService:
    match event:
        case VpnServiceCreated() | VpnServiceUpdated():
            return applied(service, event)
        case VpnServiceUsed():
            return replace(service, users=(*service.users, event.user_id))
        case VpnServiceLeft():
            return replace(service, users=tuple(it for it in service.users if it != event.user_id))
        case VpnServiceDeleted():
            return replace(service, deleted_at=at)


class EndpointGroup(State):
    name: str = ""
    project_id: str = ""
    description: str = ""
    group_type: str = "cidr"
    """`subnet` (ids, of one router) or `cidr`."""
    endpoints: tuple[str, ...] = ()
    users: tuple[str, ...] = ()


class _NewEndpointGroup(Said):
    name: str = ""
    project_id: str = ""
    description: str = ""
    group_type: str = "cidr"
    endpoints: tuple[str, ...] = ()


class EndpointGroupCreated(Event, _NewEndpointGroup):
    """It is there."""


class EndpointGroupUpdated(Event):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET


class EndpointGroupUsed(Event):
    user_id: str


class EndpointGroupLeft(Event):
    user_id: str


class EndpointGroupDeleted(Event):
    pass


class CreateEndpointGroup(Command, _NewEndpointGroup):
    """Make it."""


class UpdateEndpointGroup(Command):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET


class UseEndpointGroup(Command):
    user_id: str


class LeaveEndpointGroup(Command):
    user_id: str


class DeleteEndpointGroup(Command):
    pass


EndpointGroupEvent = (
    EndpointGroupCreated | EndpointGroupUpdated | EndpointGroupUsed | EndpointGroupLeft | EndpointGroupDeleted
)


def evolve_group(group: EndpointGroup, event: EndpointGroupEvent, at: datetime) -> EndpointGroup:
    match event:
        case EndpointGroupCreated() | EndpointGroupUpdated():
            return applied(group, event)
        case EndpointGroupUsed():
            return replace(group, users=(*group.users, event.user_id))
        case EndpointGroupLeft():
            return replace(group, users=tuple(it for it in group.users if it != event.user_id))
        case EndpointGroupDeleted():
            return replace(group, deleted_at=at)


VPN_SERVICE = Kind("vpn-service", VpnService, VpnServiceEvent, evolve_service)
ENDPOINT_GROUP = Kind("endpoint-group", EndpointGroup, EndpointGroupEvent, evolve_group)
