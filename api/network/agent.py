"""Agents as Neutron shows them: several views of one network host, whose one agent does the work of all of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from api.network import network, router
from api.network.resource import empty_unless, found
from api.network.words import Body, LongText, Uuid
from api.network.zone import ZONE
from api.wire import Call, Delete, Get, Post, Put, Reply
from api.wire.query import boolean
from bus.documents import Where
from bus.execute import Wish
from handlers.network.host import NETWORK_HOSTS
from handlers.network.routing import place_by_hand, take_away_by_hand
from projections.network.host import hosts_of
from schema.network.host import NETWORK_HOST, ChangeNetworkHost, NetworkHost, RemoveNetworkHost
from schema.network.network import NETWORK
from schema.network.router import ROUTER
from schema.refusal import Conflict, Invalid, NotFound

_NAMESPACE = uuid.UUID("5a1c5dd4-17a7-4f0b-8a0c-3b3ad1b8e9c5")


class Face(msgspec.Struct, frozen=True):
    """One of Neutron's agents, as which a network host shows itself."""

    type: str
    binary: str
    topic: str


L3 = Face("L3 agent", "neutron-l3-agent", "l3_agent")
DHCP = Face("DHCP agent", "neutron-dhcp-agent", "dhcp_agent")
METADATA = Face("Metadata agent", "neutron-metadata-agent", "N/A")
SWITCHES = {
    "ovs": Face("Open vSwitch agent", "neutron-openvswitch-agent", "N/A"),
    "linuxbridge": Face("Linux bridge agent", "neutron-linuxbridge-agent", "N/A"),
}


class Agent(msgspec.Struct, frozen=True):
    """A face of a host."""

    id: str
    face: Face
    host: NetworkHost


class AgentChange(Body):
    admin_state_up: bool | UnsetType = UNSET
    description: LongText | None | UnsetType = UNSET


class UpdateBody(Body):
    agent: AgentChange


class RouterBody(Body):
    router_id: Uuid


class NetworkBody(Body):
    network_id: Uuid


def agents(call: Call) -> list[Agent]:
    """All of them, by host."""
    hosts = sorted((it.state for it in call.cloud.mirror(NETWORK_HOST).values()), key=lambda host: host.id)
    return [_agent(host, face) for host in hosts for face in _faces(host)]


async def index(call: Call) -> dict[str, Any]:
    views = [_view(it) for it in agents(call)]
    for name in dict.fromkeys(call.query):
        if name in _PAGING:
            continue
        if name not in _FILTERS:
            raise Invalid(f"{[name]} is invalid attribute for filtering", code="HTTPBadRequest")
        wanted = [_typed(name, value) for value in call.query.getall(name)]
        views = [view for view in views if _folded(view[name]) in wanted]
    for key, direction in reversed([*zip(call.query.getall("sort_key", []), _directions(call), strict=False)]):
        if key not in _FILTERS:
            raise Invalid(f"{[key]} is invalid attribute for sort_keys", code="HTTPBadRequest")
        views.sort(key=lambda view: str(view[key]), reverse=direction == "desc")
    return {"agents": [_fields(call, view) for view in _paged(call, views)]}


async def show(call: Call) -> dict[str, Any]:
    return {"agent": _fields(call, _view(_one(call, call.path["id"])))}


async def update(call: Call) -> dict[str, Any]:
    agent = _one(call, call.path["id"])
    change: AgentChange = call.body.agent
    description = UNSET if change.description is UNSET else change.description or ""
    command = ChangeNetworkHost(enabled=change.admin_state_up, description=description)
    [document] = await call.execute(Wish(NETWORK_HOSTS, agent.host.id, command))
    return {"agent": _view(_agent(document.state, agent.face))}


async def delete(call: Call) -> None:
    """The host is forgotten, with all its faces; one that lives registers anew with its next heartbeat."""
    agent = _one(call, call.path["id"])
    await call.execute(Wish(NETWORK_HOSTS, agent.host.id, RemoveNetworkHost()))


# Routers on L3 agents


async def routers_of(call: Call) -> dict[str, Any]:
    agent = _faced(call, L3)
    documents = await call.cloud.documents.find(ROUTER, where=[Where("host", "=", agent.host.id)], limit=None)
    return {"routers": await router.RESOURCE.view(call, documents)}


async def agents_of_router(call: Call) -> dict[str, Any]:
    host = (await found(call, router.RESOURCE, call.path["id"])).state.host
    return {"agents": [_view(it) for it in agents(call) if it.face == L3 and it.host.id == host]}


async def add_router(call: Call) -> Reply:
    agent = _faced(call, L3)
    document = await found(call, router.RESOURCE, call.body.router_id)
    id, host = document.id, document.state.host
    if host == agent.host.id:
        raise Conflict(
            f"The router {id} has been already hosted by the L3 Agent {agent.id}.", code="RouterHostedByL3Agent"
        )
    if host:
        raise Conflict(
            f"The router {id} is hosted by the L3 agent on {host}; take it from there first.",
            code="RouterHostedByL3Agent",
        )
    await place_by_hand(call.cloud, id, agent.host.id, call.by)
    return Reply(b"null", status=201)


async def remove_router(call: Call) -> None:
    agent = _faced(call, L3)
    await take_away_by_hand(call.cloud, call.path["router_id"], agent.host.id, call.by)


# Networks on DHCP agents: each host that has ports of a network answers for it


async def networks_of(call: Call) -> dict[str, Any]:
    agent = _faced(call, DHCP)
    ids = [id for id, hosts in (await hosts_of(call.cloud.pool)).items() if agent.host.id in hosts]
    documents = await call.cloud.documents.get_many(NETWORK, ids) if ids else {}
    return {"networks": await network.RESOURCE.view(call, list(documents.values()))}


async def agents_of_network(call: Call) -> dict[str, Any]:
    id = (await found(call, network.RESOURCE, call.path["id"])).id
    hosts = (await hosts_of(call.cloud.pool, id)).get(id, set())
    return {"agents": [_view(it) for it in agents(call) if it.face == DHCP and it.host.id in hosts]}


async def add_network(call: Call) -> Reply:
    agent = _faced(call, DHCP)
    id = (await found(call, network.RESOURCE, call.body.network_id)).id
    if agent.host.id in (await hosts_of(call.cloud.pool, id)).get(id, set()):
        raise Conflict(
            f"The network {id} has been already hosted by the DHCP Agent {agent.id}.",
            code="NetworkHostedByDHCPAgent",
        )
    raise Conflict(
        f"The DHCP agent on {agent.host.id} answers for network {id} as soon as a port of it is there; it has "
        "nothing to answer before.",
        code="InvalidDHCPAgent",
    )


async def remove_network(call: Call) -> None:
    agent, id = _faced(call, DHCP), call.path["network_id"]
    if agent.host.id not in (await hosts_of(call.cloud.pool, id)).get(id, set()):
        raise Conflict(
            f"The network {id} is not hosted by the DHCP agent {agent.id}.", code="NetworkNotHostedByDhcpAgent"
        )
    raise Conflict(
        f"Ports of network {id} on {agent.host.id} are answered there, and nowhere else: move them, or switch DHCP off "
        "in its subnets.",
        code="InvalidDHCPAgent",
    )


def _faces(host: NetworkHost) -> Iterable[Face]:
    yield SWITCHES.get(host.facts.driver, SWITCHES["linuxbridge"])
    if host.facts.routes:
        yield L3
    yield DHCP
    yield METADATA


def _agent(host: NetworkHost, face: Face) -> Agent:
    return Agent(str(uuid.uuid5(_NAMESPACE, f"{host.agent_id}/{face.binary}")), face, host)


def _one(call: Call, id: str) -> Agent:
    for agent in agents(call):
        if agent.id == id:
            return agent
    raise NotFound(f"Agent {id} could not be found.", code="AgentNotFound")


def _faced(call: Call, face: Face) -> Agent:
    """The agent of the path, which must be of that type."""
    agent = _one(call, call.path["id"])
    if agent.face != face:
        code = "InvalidL3Agent" if face == L3 else "InvalidDHCPAgent"
        raise Conflict(f"Agent {agent.id} is not a {face.type} or has been disabled.", code=code)
    return agent


def _view(agent: Agent) -> dict[str, Any]:
    host = agent.host
    return {
        "id": agent.id,
        "agent_type": agent.face.type,
        "binary": agent.face.binary,
        "topic": agent.face.topic,
        "host": host.id,
        "alive": host.alive,
        "admin_state_up": host.enabled,
        "availability_zone": ZONE if agent.face in {L3, DHCP} else None,
        "description": host.description or None,
        "created_at": _at(host.created_at),
        "started_at": _at(host.created_at),
        "heartbeat_timestamp": _at(host.updated_at),
        "configurations": _configurations(agent),
        "resource_versions": {},
        "resources_synced": None,
    }


def _configurations(agent: Agent) -> dict[str, Any]:
    facts = agent.host.facts
    if agent.face in {L3, DHCP, METADATA}:
        return {"log_agent_heartbeats": False}
    return {
        "tunneling_ip": facts.endpoint_ip,
        "tunnel_types": ["vxlan"] if facts.endpoint_ip else [],
        "physical_networks": list(facts.physical_networks),
        "capabilities": list(facts.capabilities),
    }


def _at(moment: Any) -> str | None:
    return moment.strftime("%Y-%m-%d %H:%M:%S") if moment else None


_PAGING = frozenset({"limit", "marker", "page_reverse", "sort_key", "sort_dir", "fields"})
_FILTERS = frozenset(
    {
        "id",
        "agent_type",
        "binary",
        "topic",
        "host",
        "alive",
        "admin_state_up",
        "availability_zone",
        "description",
    }
)


def _typed(name: str, text: str) -> Any:
    if name not in {"alive", "admin_state_up"}:
        return _folded(text)
    value = boolean(text)
    if value is None:
        raise Invalid(f"Invalid input for {name}. Reason: {text[:64]!r} is not boolean.", code="HTTPBadRequest")
    return value


def _folded(value: Any) -> Any:
    """Clients write `DHCP Agent` and mean `DHCP agent`."""
    return value.casefold() if isinstance(value, str) else value


def _directions(call: Call) -> list[str]:
    return [*call.query.getall("sort_dir", []), *["asc"] * len(call.query.getall("sort_key", []))]


def _paged(call: Call, views: list[dict[str, Any]]) -> list[dict[str, Any]]:
    marker, limit = call.query.get("marker"), call.query.get("limit", "")
    ids = [view["id"] for view in views]
    start = ids.index(marker) + 1 if marker in ids else 0
    return views[start : start + int(limit)] if limit.isdigit() and int(limit) else views[start:]


def _fields(call: Call, view: dict[str, Any]) -> dict[str, Any]:
    wanted = set(call.query.getall("fields", [])) - {""}
    return {name: value for name, value in view.items() if name in wanted} if wanted else view


routes = [
    Get("/agents", empty_unless("get_agent", "agents", index), may="get_agents"),
    Get("/agents/{id}", show, may="get_agent"),
    Put("/agents/{id}", update, may="update_agent", body=UpdateBody, lenient=True),
    Delete("/agents/{id}", delete, may="delete_agent"),
    Get("/agents/{id}/l3-routers", routers_of, may="get_l3-routers"),
    Post("/agents/{id}/l3-routers", add_router, may="create_l3-router", body=RouterBody),
    Delete("/agents/{id}/l3-routers/{router_id}", remove_router, may="delete_l3-router"),
    Get("/routers/{id}/l3-agents", agents_of_router, may="get_l3-agents"),
    Get("/agents/{id}/dhcp-networks", networks_of, may="get_dhcp-networks"),
    Post("/agents/{id}/dhcp-networks", add_network, may="create_dhcp-network", body=NetworkBody),
    Delete("/agents/{id}/dhcp-networks/{network_id}", remove_network, may="delete_dhcp-network"),
    Get("/networks/{id}/dhcp-agents", agents_of_network, may="get_dhcp-agents"),
]
