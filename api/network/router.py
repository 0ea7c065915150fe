"""Routers: their way out, their feet in networks, their routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec import UNSET, UnsetType

from api.network.filter import Filter
from api.network.qos import policy_changed, policy_given
from api.network.resource import Resource, common, living, project_of, resource_routes, to_change, viewed
from api.network.words import Body, LongText, Project, Text, Uuid, address, bad, cidr
from api.wire import Call, Put
from api.wire.call import denied
from bus import clock
from bus.execute import Wish
from bus.log import Document
from handlers.network.addressing import Picks, Wanted, unmaking, with_addresses
from handlers.network.joining import GatewayWanted, Joined, gateway, join_port, join_subnet, part
from handlers.network.port import not_found as port_not_found
from handlers.network.quota import giving_back, taking
from handlers.network.router import ROUTERS, bad_router, not_found
from handlers.network.subnet import not_found as subnet_not_found
from schema.network.network import NETWORK
from schema.network.port import PORT
from schema.network.port_state import Port
from schema.network.router import (
    ROUTER,
    AddRoutes,
    CreateRouter,
    DeleteRouter,
    ExternalGateway,
    RemoveRoutes,
    Router,
    SetRouterGateway,
    UpdateRouter,
)
from schema.network.subnet import SUBNET, Subnet
from schema.network.wiring import HostRoute
from schema.refusal import Invalid, NotFound


class FixedIpBody(Body):
    subnet_id: Uuid | None = None
    ip_address: str | None = None


class GatewayBody(Body):
    network_id: Uuid | None = None
    enable_snat: bool | None = None
    external_fixed_ips: list[FixedIpBody] | None = None
    qos_policy_id: Uuid | None | UnsetType = UNSET


class RouteBody(Body):
    destination: str
    nexthop: str


class NewRouter(Body):
    name: Text = ""
    description: LongText = ""
    admin_state_up: bool = True
    external_gateway_info: GatewayBody | None = None
    tenant_id: Project | None = None
    project_id: Project | None = None
    distributed: bool | None = None
    ha: bool | None = None
    flavor_id: Uuid | None = None
    availability_zone_hints: tuple[Text, ...] = ()


class CreateBody(Body):
    router: NewRouter


class RouterChange(Body):
    name: Text | UnsetType = UNSET
    description: LongText | UnsetType = UNSET
    admin_state_up: bool | UnsetType = UNSET
    external_gateway_info: GatewayBody | None | UnsetType = UNSET
    routes: list[RouteBody] | None | UnsetType = UNSET
    distributed: bool | None = None
    ha: bool | None = None


class UpdateBody(Body):
    router: RouterChange


class RoutesOf(Body):
    routes: tuple[RouteBody, ...] = ()


class RoutesBody(Body):
    router: RoutesOf


class InterfaceBody(Body):
    subnet_id: Uuid | None = None
    port_id: Uuid | None = None


async def view(call: Call, documents: Sequence[Document]) -> list[dict[str, Any]]:
    operator = call.may("get_router:distributed")
    return [_view(document, operator=operator) for document in documents]


def _view(document: Document, *, operator: bool) -> dict[str, Any]:
    router: Router = document.state
    return {
        **common(document),
        "admin_state_up": router.admin_state_up,
        "status": router.status,
        "external_gateway_info": _gateway_view(router.gateway),
        "routes": [{"destination": it.destination, "nexthop": it.nexthop} for it in router.routes],
        "availability_zone_hints": list(router.availability_zone_hints),
        "availability_zones": ["nova"] if router.host else [],
        "flavor_id": router.flavor_id,
        **({"distributed": router.distributed, "ha": router.ha} if operator else {}),
    }


def _gateway_view(way: ExternalGateway | None) -> dict[str, Any] | None:
    if way is None:
        return None
    return {
        "network_id": way.network_id,
        "enable_snat": way.enable_snat,
        "external_fixed_ips": [{"subnet_id": it.subnet_id, "ip_address": it.ip_address} for it in way.fixed_ips],
        "qos_policy_id": way.qos_policy_id,
    }


RESOURCE = Resource(
    name="router",
    plural="routers",
    kind=ROUTER,
    view=view,
    missing=not_found,
    filters={
        "admin_state_up": Filter(type=bool),
        "status": Filter(),
        "flavor_id": Filter(),
        "distributed": Filter(type=bool),
        "ha": Filter(type=bool),
    },
    retagging=lambda id, tags: Wish(ROUTERS, id, UpdateRouter(tags=tags)),
)


async def create(call: Call) -> dict[str, Any]:
    body: NewRouter = call.body.router
    _refuse_flags(call, body)
    if body.flavor_id is not None:
        raise bad("flavor_id", "routers have no flavors here")
    wanted = _wanted(call, body.external_gateway_info, "create_router")
    project_id = project_of(call, body.project_id, body.tenant_id)
    await _refuse_unseen(call, wanted)
    id = clock.uuid4()

    async def attempt(picks: Picks) -> Document:
        way, wishes = await gateway(call.cloud, picks, id, None, wanted)
        command = CreateRouter(
            name=body.name,
            project_id=project_id,
            description=body.description,
            admin_state_up=body.admin_state_up,
            gateway=way,
            availability_zone_hints=body.availability_zone_hints,
        )
        wishes += policy_given(call, way.qos_policy_id if way else None)
        counted = await taking(call.cloud, project_id, "router", [id])
        return (await call.execute(Wish(ROUTERS, id, command), *wishes, *counted))[0]

    return await _answer(call, await with_addresses(call.cloud, attempt))


async def update(call: Call) -> dict[str, Any]:
    body: RouterChange = call.body.router
    before = await to_change(call, RESOURCE, call.path["id"])
    _refuse_flags(call, body)
    changes = UpdateRouter(
        name=body.name,
        description=body.description,
        admin_state_up=body.admin_state_up,
        routes=UNSET if body.routes is UNSET else _routes(body.routes or []),
    )
    if body.external_gateway_info is UNSET:
        return await _answer(call, (await call.execute(Wish(ROUTERS, before.id, changes)))[0])
    wanted = _wanted(call, body.external_gateway_info, "update_router")
    await _refuse_unseen(call, wanted)

    async def attempt(picks: Picks) -> Document:
        router = await _now(call, before.id)
        way, wishes = await gateway(call.cloud, picks, router.id, router.gateway, wanted)
        if way:
            before_it = router.gateway.qos_policy_id if router.gateway else None
            wishes += await policy_changed(call, before_it, way.qos_policy_id)
        setting = Wish(ROUTERS, router.id, SetRouterGateway(gateway=way, expected=router.changes))
        # The way out before the routes: they may lead through it.
        first = [setting, Wish(ROUTERS, router.id, changes)]
        return (await call.execute(*first, *wishes))[1]

    return await _answer(call, await with_addresses(call.cloud, attempt))


async def delete(call: Call) -> None:
    before = await to_change(call, RESOURCE, call.path["id"])

    async def attempt(picks: Picks) -> None:
        router = await _now(call, before.id)
        wishes = [Wish(ROUTERS, router.id, DeleteRouter(expected=router.changes))]
        if router.gateway:
            wishes += unmaking(await _port(call, router.gateway.port_id))
        await call.execute(*wishes, *giving_back(router.project_id, "router", [router.id]))

    await with_addresses(call.cloud, attempt)


async def add_interface(call: Call) -> dict[str, Any]:
    body: InterfaceBody = call.body
    before = await to_change(call, RESOURCE, call.path["id"])
    if body.subnet_id and body.port_id:
        raise bad_router("Cannot specify both subnet-id and port-id")
    if not body.subnet_id and not body.port_id:
        raise bad_router("Either subnet_id or port_id must be specified")

    async def joined(picks: Picks, router: Router) -> Joined:
        if body.subnet_id:
            return await join_subnet(call.cloud, picks, router, await _subnet(call, body.subnet_id))
        return await join_port(call.cloud, router, await _own_port(call, body.port_id or ""))

    return await _join(call, before, joined)


async def remove_interface(call: Call) -> dict[str, Any]:
    body: InterfaceBody = call.body
    before = await to_change(call, RESOURCE, call.path["id"])
    if not body.subnet_id and not body.port_id:
        raise bad_router("Either subnet_id or port_id must be specified")

    async def parted(picks: Picks, router: Router) -> Joined:
        return await part(call.cloud, router, body.port_id, body.subnet_id)

    return await _join(call, before, parted)


async def _join(call: Call, before: Document, change: Callable[[Picks, Router], Awaitable[Joined]]) -> dict[str, Any]:
    async def attempt(picks: Picks) -> Joined:
        joined = await change(picks, await _now(call, before.id))
        await call.execute(*joined.wishes)
        return joined

    joined = await with_addresses(call.cloud, attempt)
    return {
        "id": before.id,
        "tenant_id": before.state.project_id,
        "project_id": before.state.project_id,
        "port_id": joined.port_id,
        "network_id": joined.network_id,
        "subnet_id": joined.subnet_ids[0],
        "subnet_ids": list(joined.subnet_ids),
        "tags": list(before.state.tags),
    }


async def add_routes(call: Call) -> dict[str, Any]:
    before = await to_change(call, RESOURCE, call.path["id"])
    command = AddRoutes(routes=_routes(call.body.router.routes))
    return await _answer(call, (await call.execute(Wish(ROUTERS, before.id, command)))[0])


async def remove_routes(call: Call) -> dict[str, Any]:
    before = await to_change(call, RESOURCE, call.path["id"])
    command = RemoveRoutes(routes=_routes(call.body.router.routes))
    return await _answer(call, (await call.execute(Wish(ROUTERS, before.id, command)))[0])


def _wanted(call: Call, body: GatewayBody | None, rule: str) -> GatewayWanted | None:
    """The way out that is asked for; None: none."""
    if body is None or body == GatewayBody():
        return None
    if body.network_id is None:
        raise bad("external_gateway_info", "'network_id' is required")
    if body.enable_snat is not None and not call.may(f"{rule}:external_gateway_info:enable_snat"):
        raise denied(f"{rule}:external_gateway_info:enable_snat")
    if body.external_fixed_ips is not None and not call.may(f"{rule}:external_gateway_info:external_fixed_ips"):
        raise denied(f"{rule}:external_gateway_info:external_fixed_ips")
    return GatewayWanted(
        network_id=body.network_id,
        enable_snat=UNSET if body.enable_snat is None else body.enable_snat,
        fixed_ips=UNSET if body.external_fixed_ips is None else [_fixed(it) for it in body.external_fixed_ips],
        qos_policy_id=body.qos_policy_id,
    )


def _fixed(body: FixedIpBody) -> Wanted:
    ip = address("external_fixed_ips", body.ip_address) if body.ip_address else ""
    return Wanted(subnet_id=body.subnet_id or "", ip=ip)


def _refuse_flags(call: Call, body: NewRouter | RouterChange) -> None:
    """Routers are centralised and move when their host is lost: there is no other kind to choose."""
    for name, value in (("distributed", body.distributed), ("ha", body.ha)):
        if value is not None and not call.may(f"create_router:{name}"):
            raise denied(f"create_router:{name}")
        if value:
            raise Invalid(
                f"Bad router request: {name} routers are not offered; any router moves to another host when its own is "
                "lost.",
                code="BadRequest",
            )


async def _refuse_unseen(call: Call, wanted: GatewayWanted | None) -> None:
    """Raises NotFound when the network is not there for the caller."""
    if wanted is None or call.token.is_admin:
        return
    stream = NETWORK.stream(wanted.network_id)
    document = (await call.cloud.executor.load([stream])).get(stream)
    network = document.state if document is not None and document.state.living else None
    mine = call.token.project_id or ""
    if network is None or not (
        network.project_id == mine or {"*", mine} & {*network.external_for, *network.shared_with}
    ):
        raise NotFound(f"Network {wanted.network_id} could not be found.", code="NetworkNotFound")
    if not (network.project_id == mine or {"*", mine} & set(network.external_for)):
        raise bad_router(f"Network {wanted.network_id} is not an external network")


def _routes(bodies: Sequence[RouteBody]) -> tuple[HostRoute, ...]:
    found = []
    for it in bodies:
        route = HostRoute(destination=cidr("routes", it.destination), nexthop=address("routes", it.nexthop))
        if (":" in route.destination) is not (":" in route.nexthop):
            raise bad("routes", f"'{route.destination}' and '{route.nexthop}' are of different IP versions")
        if route in found:
            raise bad("routes", f"there is a duplicate of {route.destination} by {route.nexthop}")
        found.append(route)
    return tuple(found)


async def _now(call: Call, id: str) -> Router:
    """A router as it is now."""
    return await living(call, ROUTER, id, not_found)


async def _subnet(call: Call, id: str) -> Subnet:
    """A subnet the caller may join a router to: of their own, or of a network shared with them."""
    subnet = await living(call, SUBNET, id, subnet_not_found)
    mine = call.token.project_id or ""
    if not call.token.is_admin and subnet.project_id != mine:
        network = (await call.cloud.documents.get_many(NETWORK, [subnet.network_id])).get(subnet.network_id)
        if network is None or not {"*", mine} & {*network.state.shared_with, *network.state.external_for}:
            raise subnet_not_found(id)
    return subnet


async def _own_port(call: Call, id: str) -> Port:
    port = await _port(call, id)
    if not call.token.is_admin and port.project_id != call.token.project_id:
        raise port_not_found(id)
    return port


async def _port(call: Call, id: str) -> Port:
    return await living(call, PORT, id, port_not_found)


async def _answer(call: Call, document: Document) -> dict[str, Any]:
    return {"router": await viewed(call, RESOURCE, document)}


routes = [
    *resource_routes(
        RESOURCE, create=create, create_body=CreateBody, update=update, update_body=UpdateBody, delete=delete
    ),
    Put("/routers/{id}/add_router_interface", add_interface, may="add_router_interface", body=InterfaceBody),
    Put("/routers/{id}/remove_router_interface", remove_interface, may="remove_router_interface", body=InterfaceBody),
    Put("/routers/{id}/add_extraroutes", add_routes, may="add_extraroutes", body=RoutesBody),
    Put("/routers/{id}/remove_extraroutes", remove_routes, may="remove_extraroutes", body=RoutesBody),
]
