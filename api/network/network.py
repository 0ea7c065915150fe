"""Networks: broadcast domains of a project, how they are carried, and whom they are shared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from api.network.filter import Filter
from api.network.network_body import CreateBody, NetworkChange, NewNetwork, SegmentBody, UpdateBody
from api.network.qos import policy_changed, policy_of_new_network
from api.network.resource import Resource, common, living, project_of, resource_routes, several, to_change, viewed
from api.network.tag import tags_of
from api.network.words import bad, dns_domain, refuse_read_only
from api.network.zone import refuse_hints, zones
from api.wire import Call
from api.wire.call import denied
from api.wire.query import boolean
from bus import clock
from bus.documents import AnyOf, Condition, Where
from bus.execute import StillHeld, Wish
from bus.log import Document
from handlers.network.addressing import Picks, with_addresses
from handlers.network.dividing import refuse_mtu
from handlers.network.ending import network_ended
from handlers.network.network import NETWORKS, not_found
from handlers.network.quota import taking
from handlers.network.refusing import invalid_input
from handlers.network.router import Outdated
from handlers.network.segment import (
    Carriers,
    Numbering,
    SegmentWanted,
    carriers,
    mtu_for,
    segment,
    with_numbers,
)
from handlers.network.sharable import forgetting, recording
from handlers.network.sharing import refuse_closing, refuse_unsharing
from schema.network.host import NETWORK_HOST
from schema.network.network import (
    NETWORK,
    CreateNetwork,
    Network,
    Segment,
    ShareNetwork,
    UnshareNetwork,
    UpdateNetwork,
)
from schema.network.rbac_policy import EXTERNAL, SHARED
from schema.network.subnet import SUBNET
from schema.network.subnet_pool import SUBNET_POOL
from schema.refusal import Conflict

Scopes = dict[tuple[str, int], str]
"""(network, IP version) → address scope."""
PROVIDER = ("network_type", "physical_network", "segmentation_id")


async def view(call: Call, documents: Sequence[Document]) -> list[dict[str, Any]]:
    operator = call.may("get_network:provider:network_type")
    served = zones(call)
    routed, scopes = await _routed(call, documents), await _scopes(call, documents)
    return [_view(call, it, operator=operator, zones=served, routed=it.id in routed, scopes=scopes) for it in documents]


async def _scopes(call: Call, documents: Sequence[Document]) -> Scopes:
    """The address scopes of those whose subnets are of pools that are in one."""
    pools = {it.id: it.state for it in call.cloud.mirror(SUBNET_POOL).values() if it.state.address_scope_id}
    if not pools or not documents:
        return {}
    where = [Where("parent_id", "in", [it.id for it in documents]), Where("subnetpool_id", "in", list(pools))]
    subnets = [it.state for it in await call.cloud.documents.find(SUBNET, where=where, limit=None)]
    return {(it.network_id, it.ip_version): pools[it.subnetpool_id].address_scope_id for it in subnets}


async def _routed(call: Call, documents: Sequence[Document]) -> set[str]:
    """Those whose segments have subnets of their own: a router is between them."""
    several = [document.id for document in documents if len(document.state.segments) > 1]
    if not several:
        return set()
    where = [Where("parent_id", "in", several), Where("segment_id", "is", True)]
    return {it.state.network_id for it in await call.cloud.documents.find(SUBNET, where=where, limit=None)}


def _view(
    call: Call, document: Document, *, operator: bool, zones: Sequence[str], routed: bool, scopes: Scopes
) -> dict[str, Any]:
    network: Network = document.state
    return {
        **common(document),
        "admin_state_up": network.admin_state_up,
        "status": "ACTIVE",
        "subnets": list(network.subnet_ids),
        "shared": bool({"*", call.token.project_id} & set(network.shared_with)),
        "router:external": bool(network.external_for),
        "is_default": network.is_default,
        "mtu": network.mtu,
        "port_security_enabled": network.port_security_enabled,
        "dns_domain": network.dns_domain,
        "qos_policy_id": network.qos_policy_id,
        "availability_zone_hints": list(network.availability_zone_hints),
        "availability_zones": list(zones) if network.subnet_ids else [],
        "ipv4_address_scope": scopes.get((network.id, 4)),
        "ipv6_address_scope": scopes.get((network.id, 6)),
        "l2_adjacency": not routed,
        "vlan_transparent": False,
        **(_provider(network.segments) if operator else {}),
    }


def _provider(segments: Sequence[Segment]) -> dict[str, Any]:
    """How it is carried: by itself, or a list where there are several ways."""
    shown = [{f"provider:{name}": getattr(it, name) for name in PROVIDER} for it in segments]
    if len(shown) > 1:
        return {"segments": shown}
    return shown[0] if shown else dict.fromkeys(f"provider:{name}" for name in PROVIDER)


def sharing(call: Call) -> list[list[Where]]:
    """What others let the caller use, or go out through."""
    mine = call.token.project_id or ""
    return [[Where(field, "has", it)] for field in ("shared_with", "external_for") for it in ("*", mine)]


def _shared(call: Call, values: Sequence[str]) -> list[Condition]:
    mine = call.token.project_id or ""
    if boolean(values[-1]):
        return [AnyOf([[Where("shared_with", "has", "*")], [Where("shared_with", "has", mine)]])]
    return [Where("shared_with", "has not", "*"), Where("shared_with", "has not", mine)]


def _external(call: Call, values: Sequence[str]) -> list[Condition]:
    return [Where("external_for", "is", boolean(values[-1]) or False)]


def _carried(name: str) -> Filter:
    """By what their segments are: a default is not written, so they are looked at in memory."""

    def condition(call: Call, values: Sequence[str]) -> list[Condition]:
        documents = call.cloud.mirror(NETWORK).values()
        found = [it.id for it in documents if any(str(getattr(part, name)) in values for part in it.state.segments)]
        return [Where("id", "in", found)]

    return Filter(condition=condition)


def always(value: str) -> Filter:
    """By what is the same of all of them."""
    return Filter(condition=lambda call, values: [] if value in values else [Where("id", "=", "")])


RESOURCE = Resource(
    name="network",
    plural="networks",
    kind=NETWORK,
    view=view,
    missing=not_found,
    filters={
        "admin_state_up": Filter(type=bool),
        "status": always("ACTIVE"),
        "shared": Filter(condition=_shared),
        "router:external": Filter(condition=_external),
        "is_default": Filter(type=bool),
        "mtu": Filter(type=int),
        "port_security_enabled": Filter(type=bool),
        "dns_domain": Filter(),
        "qos_policy_id": Filter(),
        "availability_zone_hints": Filter(within=True),
        "subnets": Filter("subnet_ids", within=True),
        **{f"provider:{name}": _carried(name) for name in PROVIDER},
    },
    retagging=lambda id, tags: Wish(NETWORKS, id, UpdateNetwork(tags=tags)),
    shared=sharing,
)


async def create(call: Call) -> dict[str, Any]:
    bodies, many = several(call, "network", "networks")
    of = can_carry(call)
    wanted = [_command(call, body, of) for body in bodies]
    ids = [clock.uuid4() for _ in wanted]
    by_project: dict[str, list[str]] = {}
    for id, it in zip(ids, wanted, strict=True):
        by_project.setdefault(it.project_id, []).append(id)
    counted = [
        wish for project_id, its in by_project.items() for wish in await taking(call.cloud, project_id, "network", its)
    ]
    for number, it in enumerate(wanted):
        policy_id, uses = await policy_of_new_network(call, it.qos_policy_id, it.project_id)
        wanted[number] = msgspec.structs.replace(it, qos_policy_id=policy_id)
        counted += uses
    for id, it in zip(ids, wanted, strict=True):
        counted += recording("network", id, it.project_id, SHARED) if it.shared_with else []
        counted += recording("network", id, it.project_id, EXTERNAL) if it.external_for else []

    async def attempt(numbering: Numbering) -> list[Document]:
        commands = [
            msgspec.structs.replace(it, segments=await numbering.numbered(it.segments, it.project_id)) for it in wanted
        ]
        making = [Wish(NETWORKS, id, command) for id, command in zip(ids, commands, strict=True)]
        return (await call.execute(*making, *counted))[: len(making)]

    documents = await with_numbers(call.cloud, of, attempt)
    views = await view(call, documents)
    return {"networks": views} if many else {"network": views[0]}


async def update(call: Call) -> dict[str, Any]:
    body: NetworkChange = call.body.network
    before = await to_change(call, RESOURCE, call.path["id"])
    network: Network = before.state
    _refuse_operators_own(call, body, network)
    refuse_read_only(body, ("availability_zone_hints", "vlan_transparent", "tenant_id", "project_id"))
    if any(getattr(body, name) is not UNSET for name in (*PROVIDER, "segments")):
        raise invalid_input("Plugin does not support updating provider attributes")
    mtu: int | UnsetType = UNSET
    if body.mtu is not UNSET:
        mtu = mtu_for(body.mtu, network.segments)
        for subnet in (await call.cloud.documents.get_many(SUBNET, network.subnet_ids)).values():
            refuse_mtu(network, mtu, subnet.state)
    changes = UpdateNetwork(
        name=body.name,
        description=body.description,
        admin_state_up=body.admin_state_up,
        mtu=mtu,
        port_security_enabled=body.port_security_enabled,
        is_default=body.is_default,
        dns_domain=UNSET if body.dns_domain is UNSET else dns_domain(body.dns_domain),
        qos_policy_id=body.qos_policy_id,
    )
    sharing = [*await _shares(call, network, body), *await _opens(call, network, body)]
    policy = await policy_changed(call, network.qos_policy_id, body.qos_policy_id)

    async def attempt(numbering: Numbering) -> Document:
        return (await call.execute(Wish(NETWORKS, network.id, changes), *sharing, *policy))[0]

    document = await with_numbers(call.cloud, can_carry(call), attempt)
    return {"network": await viewed(call, RESOURCE, document)}


async def delete(call: Call) -> None:
    before = await to_change(call, RESOURCE, call.path["id"])

    async def attempt(picks: Picks) -> None:
        network = await _now(call, before.id)
        try:
            await call.execute(*await network_ended(call.cloud, network))
        except StillHeld as held:
            raise Outdated(held.message, code="NetworkInUse") from None  # somebody's port was quicker: name it
        except Conflict as refused:
            if refused.code != "SubnetInUse":
                raise
            raise Outdated(refused.message, code="NetworkInUse") from None

    await with_addresses(call.cloud, attempt)


def can_carry(call: Call) -> Carriers:
    hosts = (document.state for document in call.cloud.mirror(NETWORK_HOST).values())
    return carriers(call.cloud.settings.network, hosts)


async def _now(call: Call, id: str) -> Network:
    """A network as it is now."""
    return await living(call, NETWORK, id, not_found)


def _command(call: Call, body: NewNetwork, of: Carriers) -> CreateNetwork:
    """What is asked for, without the numbers that are picked. Raises Forbidden, Invalid, Conflict."""
    for name, rule in _OPERATORS.items():
        if getattr(body, name) not in {None, False} and not call.may(f"create_network:{rule}"):
            raise denied(f"create_network:{rule}")
    if body.segments is not None and not call.may("create_network:segments"):
        raise denied("create_network:segments")
    if body.vlan_transparent:
        raise Conflict("Backend does not support VLAN Transparency.", code="VlanTransparencyDriverError")
    project_id = project_of(call, body.project_id, body.tenant_id)
    refuse_hints(call, body.availability_zone_hints)
    segments = tuple(segment(it, of) for it in _segments(body))
    return CreateNetwork(
        name=body.name,
        project_id=project_id,
        description=body.description,
        admin_state_up=body.admin_state_up,
        mtu=mtu_for(body.mtu, segments),
        port_security_enabled=body.port_security_enabled,
        is_default=body.is_default,
        dns_domain=dns_domain(body.dns_domain),
        availability_zone_hints=body.availability_zone_hints,
        qos_policy_id=body.qos_policy_id,
        segments=segments,
        shared_with=("*",) if body.shared else (),
        external_for=("*",) if body.external else (),
        tags=tags_of(body.tags),
    )


def _segments(body: NewNetwork) -> list[SegmentWanted]:
    if body.segments is None:
        return [_said(body)]
    if _said(body) != SegmentWanted():
        raise bad("segments", "Segments and provider values cannot both be set")
    if not body.segments:
        raise bad("segments", "there is none")
    return [_said(it) for it in body.segments]


def _said(body: SegmentBody) -> SegmentWanted:
    return SegmentWanted(
        network_type=body.network_type,
        physical_network=body.physical_network,
        segmentation_id=body.segmentation_id,
    )


_OPERATORS = {
    "shared": "shared",
    "external": "router:external",
    "is_default": "is_default",
    **{name: f"provider:{name}" for name in PROVIDER},
}
"""Field of a body → what its policy rule ends with."""


def _refuse_operators_own(call: Call, body: NetworkChange, network: Network) -> None:
    """Raises Forbidden for what only administrators say."""
    for name, rule in {**_OPERATORS, "segments": "segments"}.items():
        allowed = f"update_network:{rule}"
        if getattr(body, name) is not UNSET and not call.may(allowed, project_id=network.project_id):
            raise denied(allowed)


async def _shares(call: Call, network: Network, body: NetworkChange) -> list[Wish]:
    if body.shared is UNSET or body.shared is ("*" in network.shared_with):
        return []
    if body.shared:
        opened = Wish(NETWORKS, network.id, ShareNetwork(project_id="*"))
        return [opened, *recording("network", network.id, network.project_id, SHARED)]
    await refuse_unsharing(call.cloud, network, "*")
    closed = Wish(NETWORKS, network.id, UnshareNetwork(project_id="*"))
    return [closed, *await forgetting(call.cloud, network.id, SHARED, "*")]


async def _opens(call: Call, network: Network, body: NetworkChange) -> list[Wish]:
    if body.external is UNSET or body.external is bool(network.external_for):
        return []
    if body.external:
        opened = Wish(NETWORKS, network.id, ShareNetwork(project_id="*", external=True))
        return [opened, *recording("network", network.id, network.project_id, EXTERNAL)]
    await refuse_closing(call.cloud, network)
    closed = [Wish(NETWORKS, network.id, UnshareNetwork(project_id=it, external=True)) for it in network.external_for]
    return [*closed, *await forgetting(call.cloud, network.id, EXTERNAL)]


routes = resource_routes(
    RESOURCE, create=create, create_body=CreateBody, update=update, update_body=UpdateBody, delete=delete
)
