"""The rules of VPN: policies, services and endpoint groups stay while a connection uses them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from bus.execute import Aggregate
from schema.changes import differing
from schema.event import Command, Event, Kind, State
from schema.network.vpn_connection import (
    VPN_CONNECTION,
    CreateVpnConnection,
    DeleteVpnConnection,
    ReportVpnConnection,
    UpdateVpnConnection,
    VpnConnection,
    VpnConnectionCreated,
    VpnConnectionDeleted,
    VpnConnectionEvent,
    VpnConnectionSeen,
    VpnConnectionUpdated,
)
from schema.network.vpn_policy import (
    IKE_POLICY,
    IPSEC_POLICY,
    CreateIkePolicy,
    CreateIpsecPolicy,
    DeleteIkePolicy,
    DeleteIpsecPolicy,
    IkePolicyCreated,
    IkePolicyDeleted,
    IkePolicyLeft,
    IkePolicyUpdated,
    IkePolicyUsed,
    IpsecPolicyCreated,
    IpsecPolicyDeleted,
    IpsecPolicyLeft,
    IpsecPolicyUpdated,
    IpsecPolicyUsed,
    LeaveIkePolicy,
    LeaveIpsecPolicy,
    UpdateIkePolicy,
    UpdateIpsecPolicy,
    UseIkePolicy,
    UseIpsecPolicy,
)
from schema.network.vpn_service import (
    ENDPOINT_GROUP,
    VPN_SERVICE,
    CreateEndpointGroup,
    CreateVpnService,
    DeleteEndpointGroup,
    DeleteVpnService,
    EndpointGroupCreated,
    EndpointGroupDeleted,
    EndpointGroupLeft,
    EndpointGroupUpdated,
    EndpointGroupUsed,
    LeaveEndpointGroup,
    LeaveVpnService,
    UpdateEndpointGroup,
    UpdateVpnService,
    UseEndpointGroup,
    UseVpnService,
    VpnServiceCreated,
    VpnServiceDeleted,
    VpnServiceLeft,
    VpnServiceUpdated,
    VpnServiceUsed,
)
from schema.refusal import Conflict, NotFound

ABSENT, THERE, GONE = "absent", "there", "gone"


class Lent(msgspec.Struct, frozen=True):
    """The rules of a thing that others use: made, changed, used and left by them, ended when nobody does."""

    kind: Kind[Any]
    not_found: Callable[[str], NotFound]
    in_use: Callable[[str], Conflict]
    create: tuple[type[Command], type[Event]]
    update: tuple[type[Command], type[Event]]
    use: tuple[type[Command], type[Event]]
    leave: tuple[type[Command], type[Event]]
    delete: tuple[type[Command], type[Event]]
    fixed_in_use: bool = False
    """Not even changed while it is used."""

    def aggregate(self) -> Aggregate:
        allowed: dict[type[Command], set[str]] = {
            self.create[0]: {ABSENT},
            **{command: {THERE} for command, _ in (self.update, self.use, self.leave, self.delete)},
        }
        return Aggregate(self.kind, self.decide, allowed)

    def decide(self, state: Any, command: Any) -> Sequence[Event]:
        if isinstance(command, self.create[0]):
            return self._create(state, command)
        if not state.living:
            if state.deleted_at and isinstance(command, self.leave[0] | self.delete[0]):
                return []
            raise self.not_found(state.id)
        if isinstance(command, self.update[0]):
            changes = differing(state, command)
            if changes and self.fixed_in_use and state.users:
                raise self.in_use(state.id)
            return [self.update[1](**changes)] if changes else []
        user_id = getattr(command, "user_id", "")
        if isinstance(command, self.use[0]):
            return [] if user_id in state.users else [self.use[1](user_id=user_id)]
        if isinstance(command, self.leave[0]):
            return [self.leave[1](user_id=user_id)] if user_id in state.users else []
        if isinstance(command, self.delete[0]):
            if state.users:
                raise self.in_use(state.id)
            return [self.delete[1]()]
        raise TypeError(f"{self.kind.name} knows no {type(command).__name__}")

    def _create(self, state: State, command: Command) -> Sequence[Event]:
        wanted = _fields(command)
        if state.living and all(getattr(state, name) == it for name, it in wanted.items()):
            return []
        if state.created_at is not None:
            raise Conflict(f"The id {state.id} is or was another {self.kind.name}'s; ids are not used again.")
        return [self.create[1](**wanted)]


def ike_policy_not_found(id: str) -> NotFound:
    return NotFound(f"IKEPolicy {id} could not be found", code="IKEPolicyNotFound")


def ipsec_policy_not_found(id: str) -> NotFound:
    return NotFound(f"IPsecPolicy {id} could not be found", code="IPsecPolicyNotFound")


def service_not_found(id: str) -> NotFound:
    return NotFound(f"VPNService {id} could not be found", code="VPNServiceNotFound")


def endpoint_group_not_found(id: str) -> NotFound:
    return NotFound(f"Endpoint group {id} could not be found", code="VPNEndpointGroupNotFound")


def connection_not_found(id: str) -> NotFound:
    return NotFound(f"ipsec_site_connection {id} not found", code="IPsecSiteConnectionNotFound")


def _used(what: str, code: str) -> Callable[[str], Conflict]:
    def in_use(id: str) -> Conflict:
        return Conflict(
            f"{what} {id} is in use by existing IPsecSiteConnection and can't be updated or deleted", code=code
        )

    return in_use


def decide(connection: VpnConnection, command: Command) -> Sequence[VpnConnectionEvent]:
    if isinstance(command, CreateVpnConnection):
        wanted = _fields(command)
        if connection.living and all(getattr(connection, name) == it for name, it in wanted.items()):
            return []
        if connection.created_at is not None:
            raise Conflict(f"The id {connection.id} is or was another connection's; ids are not used again.")
        return [VpnConnectionCreated(**wanted)]
    if isinstance(command, DeleteVpnConnection) and connection.deleted_at:
        return []
    if not connection.living:
        raise connection_not_found(connection.id)
    match command:
        case UpdateVpnConnection():
            changes = differing(connection, command)
            return [VpnConnectionUpdated(**changes)] if changes else []
        case ReportVpnConnection():
            void = command.router_id != connection.router_id or command.status == connection.status
            return [] if void else [VpnConnectionSeen(status=command.status)]
        case DeleteVpnConnection():
            return [VpnConnectionDeleted()]
    raise TypeError(f"VPN connections know no {type(command).__name__}")


def _fields(command: Command) -> dict[str, Any]:
    return {name: getattr(command, name) for name in command.__struct_fields__}


IKE_POLICIES = Lent(
    IKE_POLICY,
    ike_policy_not_found,
    _used("IKEPolicy", "IKEPolicyInUse"),
    (CreateIkePolicy, IkePolicyCreated),
    (UpdateIkePolicy, IkePolicyUpdated),
    (UseIkePolicy, IkePolicyUsed),
    (LeaveIkePolicy, IkePolicyLeft),
    (DeleteIkePolicy, IkePolicyDeleted),
    fixed_in_use=True,
).aggregate()

IPSEC_POLICIES = Lent(
    IPSEC_POLICY,
    ipsec_policy_not_found,
    _used("IPsecPolicy", "IPsecPolicyInUse"),
    (CreateIpsecPolicy, IpsecPolicyCreated),
    (UpdateIpsecPolicy, IpsecPolicyUpdated),
    (UseIpsecPolicy, IpsecPolicyUsed),
    (LeaveIpsecPolicy, IpsecPolicyLeft),
    (DeleteIpsecPolicy, IpsecPolicyDeleted),
    fixed_in_use=True,
).aggregate()

VPN_SERVICES = Lent(
    VPN_SERVICE,
    service_not_found,
    lambda id: Conflict(f"VPNService {id} is still in use", code="VPNServiceInUse"),
    (CreateVpnService, VpnServiceCreated),
    (UpdateVpnService, VpnServiceUpdated),
    (UseVpnService, VpnServiceUsed),
    (LeaveVpnService, VpnServiceLeft),
    (DeleteVpnService, VpnServiceDeleted),
).aggregate()

ENDPOINT_GROUPS = Lent(
    ENDPOINT_GROUP,
    endpoint_group_not_found,
    lambda id: Conflict(f"Endpoint group {id} is in use and cannot be deleted", code="EndpointGroupInUse"),
    (CreateEndpointGroup, EndpointGroupCreated),
    (UpdateEndpointGroup, EndpointGroupUpdated),
    (UseEndpointGroup, EndpointGroupUsed),
    (LeaveEndpointGroup, EndpointGroupLeft),
    (DeleteEndpointGroup, EndpointGroupDeleted),
).aggregate()

VPN_CONNECTIONS = Aggregate(
    VPN_CONNECTION,
    decide,
    {
        CreateVpnConnection: {ABSENT},
        UpdateVpnConnection: {THERE},
        ReportVpnConnection: {THERE},
        DeleteVpnConnection: {THERE},
    },
)
