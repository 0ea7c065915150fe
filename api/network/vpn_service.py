"""VPN services (a router that has one) and endpoint groups (what is at one end) at the door."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import UNSET, UnsetType

from api.network import router, subnet
from api.network.filter import Filter
from api.network.resource import Resource, common, found, project_of, resource_routes, to_change, viewed
from api.network.words import Body, LongText, Project, Text, Uuid, bad, cidr
from api.wire import Call
from bus import clock
from bus.documents import Where
from bus.execute import Wish
from bus.log import Document
from handlers.network.quota import giving_back, taking
from handlers.network.router import ROUTERS
from handlers.network.vpn import (
    ENDPOINT_GROUPS,
    VPN_CONNECTIONS,
    VPN_SERVICES,
    endpoint_group_not_found,
    service_not_found,
)
from schema.network.router import ROUTER, AddRouterService, RemoveRouterService, Router
from schema.network.vpn_connection import PENDING, VPN_CONNECTION, UpdateVpnConnection
from schema.network.vpn_service import (
    ENDPOINT_GROUP,
    VPN_SERVICE,
    CreateEndpointGroup,
    CreateVpnService,
    DeleteEndpointGroup,
    DeleteVpnService,
    EndpointGroup,
    UpdateEndpointGroup,
    UpdateVpnService,
    VpnService,
)
from schema.refusal import Invalid


class NewService(Body):
    router_id: Uuid
    subnet_id: Uuid | None = None
    name: Text = ""
    description: LongText = ""
    admin_state_up: bool = True
    tenant_id: Project | None = None
    project_id: Project | None = None
    flavor_id: Uuid | None = None


class CreateServiceBody(Body):
    vpnservice: NewService


class ServiceChange(Body):
    name: Text | UnsetType = UNSET
    description: LongText | UnsetType = UNSET
    admin_state_up: bool | UnsetType = UNSET


class UpdateServiceBody(Body):
    vpnservice: ServiceChange


class NewGroup(Body):
    type: Literal["subnet", "cidr", "vlan", "network", "router"]
    endpoints: list[Text]
    name: Text = ""
    description: LongText = ""
    tenant_id: Project | None = None
    project_id: Project | None = None


class CreateGroupBody(Body):
    endpoint_group: NewGroup


class GroupChange(Body):
    name: Text | UnsetType = UNSET
    description: LongText | UnsetType = UNSET


class UpdateGroupBody(Body):
    endpoint_group: GroupChange


def plain(document: Document) -> dict[str, Any]:
    """The common fields as far as VPN's things have them."""
    shown = common(document)
    for name in ("tags", "created_at", "updated_at", "revision_number"):
        del shown[name]
    return shown


# Services


async def view_services(call: Call, documents: Sequence[Document]) -> list[dict[str, Any]]:
    routers = await call.cloud.documents.get_many(ROUTER, [it.state.router_id for it in documents])
    used = [id for it in documents for id in it.state.users]
    connections = await call.cloud.documents.get_many(VPN_CONNECTION, used) if used else {}
    statuses = {id: it.state.status for id, it in connections.items()}
    return [_view_service(it, routers.get(it.state.router_id), statuses) for it in documents]


def _view_service(document: Document, at: Document | None, statuses: dict[str, str]) -> dict[str, Any]:
    service: VpnService = document.state
    outside = [it.ip_address for it in at.state.gateway.fixed_ips] if at and at.state.gateway else []
    return {
        **plain(document),
        "router_id": service.router_id,
        "subnet_id": service.subnet_id,
        "admin_state_up": service.admin_state_up,
        "status": _status(service, [statuses[id] for id in service.users if id in statuses]),
        "external_v4_ip": next((ip for ip in outside if ":" not in ip), None),
        "external_v6_ip": next((ip for ip in outside if ":" in ip), None),
        "flavor_id": None,
    }


def _status(service: VpnService, connections: Sequence[str]) -> str:
    """As its connections are doing: it is nothing by itself."""
    if not connections or all(it == PENDING for it in connections):
        return PENDING
    return "ACTIVE" if service.admin_state_up and "ACTIVE" in connections else "DOWN"


SERVICES = Resource(
    name="vpnservice",
    plural="vpnservices",
    path="/vpn/vpnservices",
    kind=VPN_SERVICE,
    view=view_services,
    missing=service_not_found,
    filters={
        "router_id": Filter("parent_id"),
        "subnet_id": Filter(),
        "admin_state_up": Filter(type=bool),
    },
)


async def create_service(call: Call) -> dict[str, Any]:
    body: NewService = call.body.vpnservice
    if body.flavor_id is not None:
        raise bad("flavor_id", "VPN services have no flavors here")
    project_id, id = project_of(call, body.project_id, body.tenant_id), clock.uuid4()
    at: Router = (await found(call, router.RESOURCE, body.router_id)).state
    if at.gateway is None:
        raise Invalid(f"Router {at.id} has no external network gateway set", code="RouterIsNotExternal")
    if body.subnet_id:
        await found(call, subnet.RESOURCE, body.subnet_id)
    command = CreateVpnService(
        name=body.name,
        project_id=project_id,
        parent_id=at.id,
        description=body.description,
        subnet_id=body.subnet_id,
        admin_state_up=body.admin_state_up,
    )
    joining = AddRouterService(service_id=id, subnet_ids=(body.subnet_id,) if body.subnet_id else ())
    counted = await taking(call.cloud, project_id, SERVICES.name, [id])
    [document, *_] = await call.execute(Wish(VPN_SERVICES, id, command), Wish(ROUTERS, at.id, joining), *counted)
    return {SERVICES.name: await viewed(call, SERVICES, document)}


async def update_service(call: Call) -> dict[str, Any]:
    body: ServiceChange = call.body.vpnservice
    before = await to_change(call, SERVICES, call.path["id"])
    command = UpdateVpnService(name=body.name, description=body.description, admin_state_up=body.admin_state_up)
    following = (
        [Wish(VPN_CONNECTIONS, id, UpdateVpnConnection(service_up=body.admin_state_up)) for id in before.state.users]
        if body.admin_state_up is not UNSET
        else []
    )
    [document, *_] = await call.execute(Wish(VPN_SERVICES, before.id, command), *following)
    return {SERVICES.name: await viewed(call, SERVICES, document)}


async def delete_service(call: Call) -> None:
    before = await to_change(call, SERVICES, call.path["id"])
    await call.execute(
        Wish(VPN_SERVICES, before.id, DeleteVpnService()),
        Wish(ROUTERS, before.state.router_id, RemoveRouterService(service_id=before.id)),
        *giving_back(before.state.project_id, SERVICES.name, [before.id]),
    )


# Endpoint groups


async def view_groups(call: Call, documents: Sequence[Document]) -> list[dict[str, Any]]:
    return [_view_group(document) for document in documents]


def _view_group(document: Document) -> dict[str, Any]:
    group: EndpointGroup = document.state
    return {**plain(document), "type": group.group_type, "endpoints": list(group.endpoints)}


GROUPS = Resource(
    name="endpoint_group",
    plural="endpoint_groups",
    path="/vpn/endpoint-groups",
    kind=ENDPOINT_GROUP,
    view=view_groups,
    missing=endpoint_group_not_found,
    filters={"type": Filter("group_type")},
)


async def create_group(call: Call) -> dict[str, Any]:
    body: NewGroup = call.body.endpoint_group
    project_id, id = project_of(call, body.project_id, body.tenant_id), clock.uuid4()
    command = CreateEndpointGroup(
        name=body.name,
        project_id=project_id,
        description=body.description,
        group_type=body.type,
        endpoints=await _endpoints(call, body),
    )
    counted = await taking(call.cloud, project_id, GROUPS.name, [id])
    [document, *_] = await call.execute(Wish(ENDPOINT_GROUPS, id, command), *counted)
    return {GROUPS.name: await viewed(call, GROUPS, document)}


async def update_group(call: Call) -> dict[str, Any]:
    body: GroupChange = call.body.endpoint_group
    before = await to_change(call, GROUPS, call.path["id"])
    command = UpdateEndpointGroup(name=body.name, description=body.description)
    [document] = await call.execute(Wish(ENDPOINT_GROUPS, before.id, command))
    return {GROUPS.name: await viewed(call, GROUPS, document)}


async def delete_group(call: Call) -> None:
    before = await to_change(call, GROUPS, call.path["id"])
    await call.execute(
        Wish(ENDPOINT_GROUPS, before.id, DeleteEndpointGroup()),
        *giving_back(before.state.project_id, GROUPS.name, [before.id]),
    )


async def _endpoints(call: Call, body: NewGroup) -> tuple[str, ...]:
    """Each of its type, and each once. Raises Invalid, NotFound."""
    if not body.endpoints:
        raise Invalid("No endpoints specified for endpoint group 'None'", code="MissingEndpointForEndpointGroup")
    endpoints = tuple(dict.fromkeys(body.endpoints))
    if body.type == "cidr":
        return tuple(cidr("endpoints", it) for it in endpoints)
    if body.type == "vlan":
        return endpoints
    kinds = {"subnet": subnet.RESOURCE, "router": router.RESOURCE}
    resource = kinds.get(body.type)
    if resource is None:
        return endpoints
    there = await call.cloud.documents.find(resource.kind, where=[Where("id", "in", list(endpoints))], limit=None)
    missing = [id for id in endpoints if id not in {it.id for it in there}]
    if missing:
        raise Invalid(f"Subnet {missing[0]} in endpoint group does not exist", code="NonExistingSubnetInEndpointGroup")
    return endpoints


routes = [
    *resource_routes(
        SERVICES,
        create=create_service,
        create_body=CreateServiceBody,
        update=update_service,
        update_body=UpdateServiceBody,
        delete=delete_service,
    ),
    *resource_routes(
        GROUPS,
        create=create_group,
        create_body=CreateGroupBody,
        update=update_group,
        update_body=UpdateGroupBody,
        delete=delete_group,
    ),
]
