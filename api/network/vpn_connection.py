"""IPsec site connections at the door: a router's tunnel to a peer. Its key lives in the vault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api.network import vpn_policy, vpn_service
from api.network.filter import Filter
from api.network.resource import Resource, found, project_of, resource_routes, to_change, viewed
from api.network.vpn_service import plain
from api.network.words import Body, LongText, Project, Text, Uuid, cidr
from api.wire import Call
from bus import clock
from bus.documents import Where
from bus.execute import Wish
from bus.log import Document, Secret
from handlers.network.quota import giving_back, taking
from handlers.network.router import ROUTERS, not_connected
from handlers.network.vpn import (
    ENDPOINT_GROUPS,
    IKE_POLICIES,
    IPSEC_POLICIES,
    VPN_CONNECTIONS,
    VPN_SERVICES,
    connection_not_found,
)
from handlers.network.vpn_connection import Site, ike_words, ipsec_words, refuse_unfit
from schema.network.router import ROUTER, AddRouterService, RemoveRouterService, Router
from schema.network.subnet import SUBNET
from schema.network.vpn_connection import (
    VPN_CONNECTION,
    CreateVpnConnection,
    DeleteVpnConnection,
    UpdateVpnConnection,
    VpnConnection,
)
from schema.network.vpn_policy import LeaveIkePolicy, LeaveIpsecPolicy, UseIkePolicy, UseIpsecPolicy
from schema.network.vpn_service import (
    EndpointGroup,
    LeaveEndpointGroup,
    LeaveVpnService,
    UseEndpointGroup,
    UseVpnService,
    VpnService,
)
from schema.refusal import Invalid

Key = Annotated[str, Meta(min_length=1, max_length=255)]
Mtu = Annotated[int, Meta(ge=68, le=65535)]
Seconds = Annotated[int, Meta(ge=0, le=86_400)]


class Dpd(Body):
    action: Literal["hold", "clear", "restart", "restart-by-peer", "disabled"] = "hold"
    interval: Seconds = 30
    timeout: Seconds = 120


class DpdChange(Body):
    action: Literal["hold", "clear", "restart", "restart-by-peer", "disabled"] | UnsetType = UNSET
    interval: Seconds | UnsetType = UNSET
    timeout: Seconds | UnsetType = UNSET


class NewConnection(Body):
    vpnservice_id: Uuid
    ikepolicy_id: Uuid
    ipsecpolicy_id: Uuid
    peer_address: Key
    peer_id: Key
    psk: Key
    name: Text = ""
    description: LongText = ""
    tenant_id: Project | None = None
    project_id: Project | None = None
    local_id: Text | None = None
    peer_cidrs: list[str] | None = None
    local_ep_group_id: Uuid | None = None
    peer_ep_group_id: Uuid | None = None
    mtu: Mtu = 1500
    initiator: Literal["bi-directional", "response-only"] = "bi-directional"
    dpd: Dpd = msgspec.field(default_factory=Dpd)
    admin_state_up: bool = True


class CreateBody(Body):
    ipsec_site_connection: NewConnection


class ConnectionChange(Body):
    name: Text | UnsetType = UNSET
    description: LongText | UnsetType = UNSET
    peer_address: Key | UnsetType = UNSET
    peer_id: Key | UnsetType = UNSET
    psk: Key | UnsetType = UNSET
    local_id: Text | UnsetType = UNSET
    peer_cidrs: list[str] | UnsetType = UNSET
    local_ep_group_id: Uuid | None | UnsetType = UNSET
    peer_ep_group_id: Uuid | None | UnsetType = UNSET
    mtu: Mtu | UnsetType = UNSET
    initiator: Literal["bi-directional", "response-only"] | UnsetType = UNSET
    dpd: DpdChange = msgspec.field(default_factory=DpdChange)
    admin_state_up: bool | UnsetType = UNSET


class UpdateBody(Body):
    ipsec_site_connection: ConnectionChange


class Ends(msgspec.Struct, frozen=True):
    """What a connection joins, and by which groups if by any."""

    local_cidrs: tuple[str, ...]
    peer_cidrs: tuple[str, ...]
    local_group_id: str | None = None
    peer_group_id: str | None = None
    subnet_ids: tuple[str, ...] = ()
    """Of the local group: the router keeps its feet in them."""

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(id for id in (self.local_group_id, self.peer_group_id) if id)


async def view(call: Call, documents: Sequence[Document]) -> list[dict[str, Any]]:
    keys = await call.cloud.vault.open_many([it.state.secret_id for it in documents if it.state.secret_id])
    return [_view(document, keys.get(document.state.secret_id, b"").decode()) for document in documents]


def _view(document: Document, key: str) -> dict[str, Any]:
    it: VpnConnection = document.state
    return {
        **plain(document),
        "vpnservice_id": it.vpnservice_id,
        "ikepolicy_id": it.ikepolicy_id,
        "ipsecpolicy_id": it.ipsecpolicy_id,
        "local_id": it.local_id,
        "local_ep_group_id": it.local_ep_group_id,
        "peer_ep_group_id": it.peer_ep_group_id,
        "peer_address": it.peer_address,
        "peer_id": it.peer_id,
        "peer_cidrs": [] if it.peer_ep_group_id else list(it.peer_cidrs),
        "route_mode": "static",
        "auth_mode": "psk",
        "psk": key,
        "mtu": it.mtu,
        "initiator": it.initiator,
        "dpd": {"action": it.dpd_action, "interval": it.dpd_interval, "timeout": it.dpd_timeout},
        "admin_state_up": it.admin_state_up,
        "status": it.status,
    }


RESOURCE = Resource(
    name="ipsec_site_connection",
    plural="ipsec_site_connections",
    path="/vpn/ipsec-site-connections",
    kind=VPN_CONNECTION,
    view=view,
    missing=connection_not_found,
    filters={
        "vpnservice_id": Filter("parent_id"),
        "ikepolicy_id": Filter(),
        "ipsecpolicy_id": Filter(),
        "peer_address": Filter(),
        "peer_id": Filter(),
        "status": Filter(),
        "admin_state_up": Filter(type=bool),
    },
)


async def create(call: Call) -> dict[str, Any]:
    body: NewConnection = call.body.ipsec_site_connection
    project_id, id = project_of(call, body.project_id, body.tenant_id), clock.uuid4()
    service: VpnService = (await found(call, vpn_service.SERVICES, body.vpnservice_id)).state
    ike = (await found(call, vpn_policy.IKE, body.ikepolicy_id)).state
    ipsec = (await found(call, vpn_policy.IPSEC, body.ipsecpolicy_id)).state
    ends = await _ends(call, service, body.peer_cidrs, body.local_ep_group_id, body.peer_ep_group_id)
    secret = await _sealed(call, project_id, body.psk)
    command = CreateVpnConnection(
        name=body.name,
        project_id=project_id,
        parent_id=service.id,
        router_id=service.router_id,
        description=body.description,
        ikepolicy_id=ike.id,
        ipsecpolicy_id=ipsec.id,
        ike=ike_words(ike),
        ipsec=ipsec_words(ipsec),
        local_id=body.local_id or "",
        local_ep_group_id=ends.local_group_id,
        peer_ep_group_id=ends.peer_group_id,
        local_cidrs=ends.local_cidrs,
        peer_cidrs=ends.peer_cidrs,
        peer_address=body.peer_address,
        peer_id=body.peer_id,
        mtu=body.mtu,
        initiator=body.initiator,
        dpd_action=body.dpd.action,
        dpd_interval=body.dpd.interval,
        dpd_timeout=body.dpd.timeout,
        admin_state_up=body.admin_state_up,
        service_up=service.admin_state_up,
        secret_id=secret.id,
    )
    refuse_unfit(_site(command))
    counted = await taking(call.cloud, project_id, RESOURCE.name, [id])
    [document, *_] = await call.execute(
        Wish(VPN_CONNECTIONS, id, command, (secret,)),
        Wish(VPN_SERVICES, service.id, UseVpnService(user_id=id)),
        Wish(IKE_POLICIES, ike.id, UseIkePolicy(user_id=id)),
        Wish(IPSEC_POLICIES, ipsec.id, UseIpsecPolicy(user_id=id)),
        *(Wish(ENDPOINT_GROUPS, group, UseEndpointGroup(user_id=id)) for group in ends.groups),
        *_standing(service.router_id, id, ends),
        *counted,
    )
    return {RESOURCE.name: await viewed(call, RESOURCE, document)}


async def update(call: Call) -> dict[str, Any]:
    body: ConnectionChange = call.body.ipsec_site_connection
    before = await to_change(call, RESOURCE, call.path["id"])
    was: VpnConnection = before.state
    ends = await _changed_ends(call, was, body)
    secret = await _sealed(call, was.project_id, body.psk) if body.psk is not UNSET else None
    command = UpdateVpnConnection(
        name=body.name,
        description=body.description,
        local_id=body.local_id,
        local_ep_group_id=ends.local_group_id if ends else UNSET,
        peer_ep_group_id=ends.peer_group_id if ends else UNSET,
        local_cidrs=ends.local_cidrs if ends else UNSET,
        peer_cidrs=ends.peer_cidrs if ends else UNSET,
        peer_address=body.peer_address,
        peer_id=body.peer_id,
        mtu=body.mtu,
        initiator=body.initiator,
        dpd_action=body.dpd.action,
        dpd_interval=body.dpd.interval,
        dpd_timeout=body.dpd.timeout,
        admin_state_up=body.admin_state_up,
        secret_id=secret.id if secret else UNSET,
    )
    said = {name: value for name in command.__struct_fields__ if (value := getattr(command, name)) is not UNSET}
    refuse_unfit(_site(msgspec.structs.replace(was, **said)))
    groups_before = {id for id in (was.local_ep_group_id, was.peer_ep_group_id) if id}
    groups_after = set(ends.groups) if ends else groups_before
    [document, *_] = await call.execute(
        Wish(VPN_CONNECTIONS, was.id, command, (secret,) if secret else ()),
        *(Wish(ENDPOINT_GROUPS, it, UseEndpointGroup(user_id=was.id)) for it in sorted(groups_after - groups_before)),
        *(Wish(ENDPOINT_GROUPS, it, LeaveEndpointGroup(user_id=was.id)) for it in sorted(groups_before - groups_after)),
        *(_standing(was.router_id, was.id, ends) if ends else ()),
    )
    return {RESOURCE.name: await viewed(call, RESOURCE, document)}


async def delete(call: Call) -> None:
    before = await to_change(call, RESOURCE, call.path["id"])
    it: VpnConnection = before.state
    groups = [id for id in (it.local_ep_group_id, it.peer_ep_group_id) if id]
    await call.execute(
        Wish(VPN_CONNECTIONS, it.id, DeleteVpnConnection()),
        Wish(VPN_SERVICES, it.vpnservice_id, LeaveVpnService(user_id=it.id)),
        Wish(IKE_POLICIES, it.ikepolicy_id, LeaveIkePolicy(user_id=it.id)),
        Wish(IPSEC_POLICIES, it.ipsecpolicy_id, LeaveIpsecPolicy(user_id=it.id)),
        *(Wish(ENDPOINT_GROUPS, group, LeaveEndpointGroup(user_id=it.id)) for group in groups),
        Wish(ROUTERS, it.router_id, RemoveRouterService(service_id=it.id)),
        *giving_back(it.project_id, RESOURCE.name, [it.id]),
    )


def _standing(router_id: str, id: str, ends: Ends) -> list[Wish]:
    """The router keeps its feet in what an endpoint group names, as it does in a service's subnet."""
    joining = AddRouterService(service_id=id, subnet_ids=ends.subnet_ids)
    return [Wish(ROUTERS, router_id, joining)] if ends.subnet_ids else []


async def _sealed(call: Call, project_id: str, key: str) -> Secret:
    return await call.cloud.vault.seal(clock.uuid4(), f"project/{project_id}", key.encode())


async def _changed_ends(call: Call, was: VpnConnection, body: ConnectionChange) -> Ends | None:
    """None: they stay."""
    if body.peer_cidrs is UNSET and body.local_ep_group_id is UNSET and body.peer_ep_group_id is UNSET:
        return None
    service: VpnService = (await found(call, vpn_service.SERVICES, was.vpnservice_id)).state
    local = was.local_ep_group_id if body.local_ep_group_id is UNSET else body.local_ep_group_id
    peer = was.peer_ep_group_id if body.peer_ep_group_id is UNSET else body.peer_ep_group_id
    kept = None if peer else list(was.peer_cidrs)
    return await _ends(call, service, kept if body.peer_cidrs is UNSET else body.peer_cidrs, local, peer)


async def _ends(
    call: Call, service: VpnService, peer_cidrs: list[str] | None, local_id: str | None, peer_id: str | None
) -> Ends:
    """What the connection joins. By the service's subnet and CIDRs, or by two endpoint groups. Raises Invalid."""
    if service.subnet_id:
        if local_id or peer_id:
            which = "local and peer" if local_id and peer_id else "local" if local_id else "peer"
            raise Invalid(
                f"Endpoint groups ({which}) cannot be specified, when the VPN service has a subnet",
                code="EndpointGroupsNotAllowed",
            )
        if not peer_cidrs:
            raise Invalid("Missing peer CIDRs for IPsec site-to-site connection", code="MissingPeerCidrs")
        [subnet] = (await call.cloud.documents.get_many(SUBNET, [service.subnet_id])).values()
        return Ends((subnet.state.cidr,), tuple(cidr("peer_cidrs", it) for it in dict.fromkeys(peer_cidrs)))
    if peer_cidrs:
        raise Invalid("Peer CIDRs cannot be specified, when using endpoint groups", code="PeerCidrsInvalid")
    missing = [name for name, id in (("local", local_id), ("peer", peer_id)) if not id]
    if missing or not local_id or not peer_id:
        plural = "s" if len(missing) > 1 else ""
        raise Invalid(
            f"Missing endpoint group{plural} {' and '.join(missing)} for IPsec site-to-site connection",
            code="MissingRequiredEndpointGroup",
        )
    local, peer = await _group(call, local_id, "local", "subnet"), await _group(call, peer_id, "peer", "cidr")
    return Ends(await _cidrs(call, service, local), peer.endpoints, local.id, peer.id, local.endpoints)


async def _group(call: Call, id: str, which: str, expected: str) -> EndpointGroup:
    group: EndpointGroup = (await found(call, vpn_service.GROUPS, id)).state
    if group.group_type != expected:
        raise Invalid(
            f"Endpoint group {which} type is '{group.group_type}' and should be '{expected}'",
            code="WrongEndpointGroupType",
        )
    return group


async def _cidrs(call: Call, service: VpnService, group: EndpointGroup) -> tuple[str, ...]:
    """Of the subnets at the local end, which the router must have feet in."""
    where = [Where("id", "in", list(group.endpoints))]
    subnets = {it.id: it.state for it in await call.cloud.documents.find(SUBNET, where=where, limit=None)}
    router: Router = (await call.cloud.documents.get(ROUTER, service.router_id)).state
    for id in group.endpoints:
        if id not in subnets:
            raise Invalid(f"Subnet {id} in endpoint group does not exist", code="NonExistingSubnetInEndpointGroup")
        if router.in_subnet(id) is None:
            raise not_connected(id, router.id)
    return tuple(subnets[id].cidr for id in group.endpoints)


def _site(it: VpnConnection | CreateVpnConnection) -> Site:
    return Site(
        peer_address=it.peer_address,
        local_cidrs=it.local_cidrs,
        peer_cidrs=it.peer_cidrs,
        mtu=it.mtu,
        dpd_interval=it.dpd_interval,
        dpd_timeout=it.dpd_timeout,
    )


routes = resource_routes(
    RESOURCE, create=create, create_body=CreateBody, update=update, update_body=UpdateBody, delete=delete
)
