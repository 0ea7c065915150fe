"""An IPsec site connection: a router's tunnel to a peer, and how it is doing.

(absent) ──VpnConnectionCreated──▶ PENDING_CREATE ──VpnConnectionSeen──▶ ACTIVE, DOWN or ERROR ──▶ gone

What it takes from its policies and its service, which stay as they are while it uses them, is kept with it: a host can
be told of it from this and its router alone. The key is in the vault.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import UNSET, UnsetType, field
from msgspec.structs import replace

from schema.changes import applied
from schema.event import Command, Event, Kind, Said, State
from schema.network.wiring import IkePolicyWords, IpsecPolicyWords

PENDING = "PENDING_CREATE"


class VpnConnection(State):
    name: str = ""
    project_id: str = ""
    parent_id: str | None = None
    """Its VPN service."""
    router_id: str = ""
    """The service's."""
    description: str = ""
    ikepolicy_id: str = ""
    ipsecpolicy_id: str = ""
    ike: IkePolicyWords = field(default_factory=IkePolicyWords)
    ipsec: IpsecPolicyWords = field(default_factory=IpsecPolicyWords)
    local_id: str = ""
    """Empty: the router's outside address."""
    local_ep_group_id: str | None = None
    peer_ep_group_id: str | None = None
    local_cidrs: tuple[str, ...] = ()
    """What the service's subnet or the local endpoint group come to."""
    peer_address: str = ""
    peer_id: str = ""
    peer_cidrs: tuple[str, ...] = ()
    """As said in `peer_cidrs`, or in the peer's endpoint group."""
    mtu: int = 1500
    initiator: str = "bi-directional"
    dpd_action: str = "hold"
    dpd_interval: int = 30
    dpd_timeout: int = 120
    admin_state_up: bool = True
    service_up: bool = True
    """Whether its service is administratively up."""
    secret_id: str = ""
    """Where the vault keeps the pre-shared key."""
    status: str = PENDING

    @property
    def vpnservice_id(self) -> str:
        return self.parent_id or ""


class _NewVpnConnection(Said):
    name: str = ""
    project_id: str = ""
    parent_id: str | None = None
    router_id: str = ""
    description: str = ""
    ikepolicy_id: str = ""
    ipsecpolicy_id: str = ""
    ike: IkePolicyWords = field(default_factory=IkePolicyWords)
    ipsec: IpsecPolicyWords = field(default_factory=IpsecPolicyWords)
    local_id: str = ""
    local_ep_group_id: str | None = None
    peer_ep_group_id: str | None = None
    local_cidrs: tuple[str, ...] = ()
    peer_address: str = ""
    peer_id: str = ""
    peer_cidrs: tuple[str, ...] = ()
    mtu: int = 1500
    initiator: str = "bi-directional"
    dpd_action: str = "hold"
    dpd_interval: int = 30
    dpd_timeout: int = 120
    admin_state_up: bool = True
    service_up: bool = True
    secret_id: str = ""


class VpnConnectionCreated(Event, _NewVpnConnection):
    """It is there."""


class _VpnConnectionChanges(Said):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    local_id: str | UnsetType = UNSET
    local_ep_group_id: str | None | UnsetType = UNSET
    peer_ep_group_id: str | None | UnsetType = UNSET
    local_cidrs: tuple[str, ...] | UnsetType = UNSET
    peer_address: str | UnsetType = UNSET
    peer_id: str | UnsetType = UNSET
    peer_cidrs: tuple[str, ...] | UnsetType = UNSET
    mtu: int | UnsetType = UNSET
    initiator: str | UnsetType = UNSET
    dpd_action: str | UnsetType = UNSET
    dpd_interval: int | UnsetType = UNSET
    dpd_timeout: int | UnsetType = UNSET
    admin_state_up: bool | UnsetType = UNSET
    service_up: bool | UnsetType = UNSET
    secret_id: str | UnsetType = UNSET


class VpnConnectionUpdated(Event, _VpnConnectionChanges):
    """It is changed."""


class VpnConnectionSeen(Event):
    """Its router's host says how it is doing."""

    status: str


class VpnConnectionDeleted(Event):
    pass


VpnConnectionEvent = VpnConnectionCreated | VpnConnectionUpdated | VpnConnectionSeen | VpnConnectionDeleted


class CreateVpnConnection(Command, _NewVpnConnection):
    """Make it."""


class UpdateVpnConnection(Command, _VpnConnectionChanges):
    """Change it."""


class ReportVpnConnection(Command):
    """From the host of that router; void if the connection is not of that router."""

    router_id: str
    status: str


class DeleteVpnConnection(Command):
    pass


def evolve(connection: VpnConnection, event: VpnConnectionEvent, at: datetime) -> VpnConnection:
    match event:
        case VpnConnectionCreated() | VpnConnectionUpdated():
            return applied(connection, event)
        case VpnConnectionSeen():
            return replace(connection, status=event.status)
        case VpnConnectionDeleted():
            return replace(connection, deleted_at=at)


VPN_CONNECTION = Kind("vpn-connection", VpnConnection, VpnConnectionEvent, evolve, secrets=lambda it: [it.secret_id])
