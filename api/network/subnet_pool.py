"""Subnet pools at the door: prefixes from which subnets take their ranges."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from api.network import network
from api.network.filter import Filter
from api.network.resource import Resource, common, found, project_of, resource_routes, to_change, viewed
from api.network.security_group import shared, sharing
from api.network.tag import tags_of
from api.network.words import Body, LongText, Project, Text, Uuid, cidr
from api.wire import Call, Put
from bus import clock
from bus.documents import Where
from bus.execute import AlreadyTaken, Wish
from bus.log import Document
from handlers.network.address_scope import ADDRESS_SCOPES, usable
from handlers.network.address_scope import not_found as scope_not_found
from handlers.network.quota import giving_back, taking
from handlers.network.sharable import forgetting, recording
from handlers.network.subnet import SUBNETS
from handlers.network.subnet_pool import LONGEST, SHORTEST, SUBNET_POOLS, compacted, not_found, without
from schema.network.address_scope import ADDRESS_SCOPE, AddAddressScopePool, RemoveAddressScopePool
from schema.network.rbac_policy import EVERYBODY
from schema.network.subnet import SUBNET, UpdateSubnet
from schema.network.subnet_pool import (
    DEFAULT_SCOPE,
    SUBNET_POOL,
    AllotRange,
    CreateSubnetPool,
    DeleteSubnetPool,
    ReturnRange,
    SubnetPool,
    UpdateSubnetPool,
)
from schema.refusal import Conflict, Invalid, Refused

Length = Annotated[int, Meta(ge=0)]


class NewPool(Body):
    prefixes: list[str]
    name: Text = ""
    description: LongText = ""
    min_prefixlen: Length | None = None
    max_prefixlen: Length | None = None
    default_prefixlen: Length | None = None
    default_quota: Length | None = None
    address_scope_id: Uuid | None = None
    is_default: bool = False
    shared: bool = False
    tags: tuple[str, ...] = ()
    tenant_id: Project | None = None
    project_id: Project | None = None


class CreateBody(Body):
    subnetpool: NewPool


class PoolChange(Body):
    name: Text | UnsetType = UNSET
    description: LongText | UnsetType = UNSET
    prefixes: list[str] | UnsetType = UNSET
    min_prefixlen: Length | UnsetType = UNSET
    max_prefixlen: Length | UnsetType = UNSET
    default_prefixlen: Length | UnsetType = UNSET
    default_quota: Length | None | UnsetType = UNSET
    address_scope_id: Uuid | None | UnsetType = UNSET
    is_default: bool | UnsetType = UNSET


class UpdateBody(Body):
    subnetpool: PoolChange


class PrefixesBody(Body):
    prefixes: list[str]


class OnboardBody(Body):
    network_id: Uuid


async def view(call: Call, documents: Sequence[Document]) -> list[dict[str, Any]]:
    return [_view(document, call.token.project_id) for document in documents]


def _view(document: Document, viewer: str | None) -> dict[str, Any]:
    pool: SubnetPool = document.state
    return {
        **common(document),
        "ip_version": pool.ip_version,
        "prefixes": list(pool.prefixes),
        "min_prefixlen": str(pool.min_prefixlen),
        "max_prefixlen": str(pool.max_prefixlen),
        "default_prefixlen": str(pool.default_prefixlen),
        "default_quota": pool.default_quota,
        "address_scope_id": pool.address_scope_id,
        "is_default": pool.is_default,
        "shared": not {EVERYBODY, viewer}.isdisjoint(pool.shared_with),
    }


RESOURCE = Resource(
    name="subnetpool",
    plural="subnetpools",
    kind=SUBNET_POOL,
    view=view,
    missing=not_found,
    filters={
        "ip_version": Filter(type=int),
        "min_prefixlen": Filter(type=int),
        "max_prefixlen": Filter(type=int),
        "default_prefixlen": Filter(type=int),
        "default_quota": Filter(type=int),
        "address_scope_id": Filter(),
        "is_default": Filter(type=bool),
        "shared": Filter(condition=shared),
    },
    retagging=lambda id, tags: Wish(SUBNET_POOLS, id, UpdateSubnetPool(tags=tags)),
    shared=sharing,
)


async def create(call: Call) -> dict[str, Any]:
    body: NewPool = call.body.subnetpool
    for name in ("shared", "is_default"):
        if getattr(body, name):
            call.must(f"create_subnetpool:{name}")
    id, project_id = clock.uuid4(), project_of(call, body.project_id, body.tenant_id)
    prefixes = _prefixes(body.prefixes)
    version = ipaddress.ip_network(prefixes[0]).version if prefixes else 4
    shortest = SHORTEST[version] if body.min_prefixlen is None else body.min_prefixlen
    command = CreateSubnetPool(
        name=body.name,
        project_id=project_id,
        description=body.description,
        ip_version=version,
        prefixes=prefixes,
        min_prefixlen=shortest,
        max_prefixlen=LONGEST[version] if body.max_prefixlen is None else body.max_prefixlen,
        default_prefixlen=shortest if body.default_prefixlen is None else body.default_prefixlen,
        default_quota=body.default_quota,
        address_scope_id=body.address_scope_id,
        is_default=body.is_default,
        shared_with=(EVERYBODY,) if body.shared else (),
        tags=tags_of(body.tags),
    )
    joining = await _joining(call, id, project_id, body.address_scope_id, prefixes, shared=body.shared)
    opened = recording(RESOURCE.name, id, project_id) if body.shared else []
    counted = await taking(call.cloud, project_id, RESOURCE.name, [id])
    return await _answer(call, id, Wish(SUBNET_POOLS, id, command), *joining, *opened, *counted)


async def update(call: Call) -> dict[str, Any]:
    body: PoolChange = call.body.subnetpool
    before = await to_change(call, RESOURCE, call.path["id"])
    pool: SubnetPool = before.state
    if body.is_default is not UNSET and body.is_default is not pool.is_default:
        call.must("update_subnetpool:is_default")
    prefixes = pool.prefixes if body.prefixes is UNSET else compacted(_prefixes(body.prefixes))
    if body.prefixes is not UNSET and compacted([*pool.prefixes, *prefixes]) != prefixes:
        raise Invalid(
            "Illegal update to prefixes: Existing prefixes must be a subset of the new prefixes.",
            code="IllegalSubnetPoolPrefixUpdate",
        )
    fields = {name: it for name in body.__struct_fields__ if (it := getattr(body, name)) is not UNSET}
    if body.prefixes is not UNSET:
        fields["prefixes"] = prefixes
    scope_id = pool.address_scope_id if body.address_scope_id is UNSET else body.address_scope_id
    await _refuse_under_others(call, pool)
    wishes = [Wish(SUBNET_POOLS, pool.id, UpdateSubnetPool(**fields))]
    return await _answer(call, pool.id, *wishes, *await _rescoped(call, pool, scope_id, prefixes))


async def delete(call: Call) -> None:
    before = await to_change(call, RESOURCE, call.path["id"])
    pool: SubnetPool = before.state
    await call.execute(
        Wish(SUBNET_POOLS, pool.id, DeleteSubnetPool()),
        *_leaving(pool),
        *await forgetting(call.cloud, pool.id),
        *giving_back(pool.project_id, RESOURCE.name, [pool.id]),
    )


async def add_prefixes(call: Call) -> dict[str, Any]:
    pool: SubnetPool = (await to_change(call, RESOURCE, call.path["id"])).state
    return await _with_prefixes(call, pool, compacted([*pool.prefixes, *_prefixes(call.body.prefixes)]))


async def remove_prefixes(call: Call) -> dict[str, Any]:
    pool: SubnetPool = (await to_change(call, RESOURCE, call.path["id"])).state
    return await _with_prefixes(call, pool, without(pool.prefixes, _prefixes(call.body.prefixes)))


async def onboard(call: Call) -> dict[str, Any]:
    """The subnets that a network has become the pool's, and their ranges its prefixes."""
    pool: SubnetPool = (await to_change(call, RESOURCE, call.path["id"])).state
    network_id = (await found(call, network.RESOURCE, call.body.network_id)).id
    where = [Where("parent_id", "=", network_id), Where("ip_version", "=", pool.ip_version)]
    subnets = [it.state for it in await call.cloud.documents.find(SUBNET, where=where, limit=None)]
    if not subnets:
        raise Invalid(
            f"Subnetpool {pool.id} cannot onboard subnets of network {network_id}: it has no subnets of "
            f"IPv{pool.ip_version}.",
            code="IllegalSubnetPoolPrefixUpdate",
        )
    wishes = []
    for subnet in subnets:
        if subnet.subnetpool_id and subnet.subnetpool_id != pool.id:
            wishes.append(Wish(SUBNET_POOLS, subnet.subnetpool_id, ReturnRange(subnet_id=subnet.id)))
        allot = AllotRange(subnet_id=subnet.id, cidr=subnet.cidr, project_id=subnet.project_id, onboarded=True)
        wishes += [
            Wish(SUBNET_POOLS, pool.id, allot),
            Wish(SUBNETS, subnet.id, UpdateSubnet(subnetpool_id=pool.id)),
        ]
    prefixes = compacted([*pool.prefixes, *(it.cidr for it in subnets)])
    await call.execute(*wishes, *await _rescoped(call, pool, pool.address_scope_id, prefixes))
    return {"subnets": [{"id": it.id, "cidr": it.cidr} for it in subnets]}


async def _with_prefixes(call: Call, pool: SubnetPool, prefixes: tuple[str, ...]) -> dict[str, Any]:
    await call.execute(
        Wish(SUBNET_POOLS, pool.id, UpdateSubnetPool(prefixes=prefixes)),
        *await _rescoped(call, pool, pool.address_scope_id, prefixes),
    )
    return {"prefixes": list(prefixes)}


async def _answer(call: Call, id: str, *wishes: Wish) -> dict[str, Any]:
    try:
        documents = await call.execute(*wishes)
    except AlreadyTaken as taken:
        raise _reworded(taken) from None
    last = next(it for it in reversed(documents) if it.id == id)
    return {RESOURCE.name: await viewed(call, RESOURCE, last)}


def _reworded(taken: AlreadyTaken) -> Refused:
    if taken.scope != DEFAULT_SCOPE:
        return taken
    return Conflict(
        f"Invalid input for operation: Default subnetpool for this IP family has already been set. Only one default "
        f"may exist per IP family (IPv{taken.key}).",
        code="InvalidInput",
    )


async def _rescoped(call: Call, pool: SubnetPool, scope_id: str | None, prefixes: tuple[str, ...]) -> list[Wish]:
    """A pool in a scope, with these prefixes; out of the one before, if that is another."""
    left = _leaving(pool) if scope_id != pool.address_scope_id else []
    open_now = EVERYBODY in pool.shared_with
    return [*left, *await _joining(call, pool.id, pool.project_id, scope_id, prefixes, shared=open_now)]


async def _joining(
    call: Call, pool_id: str, project_id: str, scope_id: str | None, prefixes: tuple[str, ...], *, shared: bool
) -> list[Wish]:
    if scope_id is None:
        return []
    stream = ADDRESS_SCOPE.stream(scope_id)
    document = (await call.cloud.executor.load([stream])).get(stream)
    seen = document is not None and (call.token.is_admin or usable(document.state, call.token.project_id or ""))
    if document is None or not document.state.living or not seen:
        raise scope_not_found(scope_id)
    if shared and EVERYBODY not in document.state.shared_with:
        raise Invalid(
            f"Illegal subnetpool association: subnetpool {pool_id} cannot be associated with address scope {scope_id}.",
            code="IllegalSubnetPoolAssociationToAddressScope",
        )
    return [
        Wish(ADDRESS_SCOPES, scope_id, AddAddressScopePool(pool_id=pool_id, prefixes=prefixes, project_id=project_id))
    ]


async def _refuse_under_others(call: Call, pool: SubnetPool) -> None:
    """Raises Invalid for a pool in a scope of others: only administrators change it there."""
    if pool.address_scope_id is None or call.token.is_admin:
        return
    found = await call.cloud.documents.get_many(ADDRESS_SCOPE, [pool.address_scope_id])
    if any(it.state.project_id != call.token.project_id for it in found.values()):
        raise Invalid(
            f"Illegal subnetpool update : subnetpool {pool.id} cannot be updated when associated with shared address "
            f"scope {pool.address_scope_id}.",
            code="IllegalSubnetPoolUpdate",
        )


def _leaving(pool: SubnetPool) -> list[Wish]:
    if pool.address_scope_id is None:
        return []
    return [Wish(ADDRESS_SCOPES, pool.address_scope_id, RemoveAddressScopePool(pool_id=pool.id))]


def _prefixes(texts: Sequence[str]) -> tuple[str, ...]:
    """In their usual form, joined where they touch. Raises Invalid."""
    return compacted(cidr("prefixes", it) for it in texts)


routes = [
    *resource_routes(
        RESOURCE, create=create, create_body=CreateBody, update=update, update_body=UpdateBody, delete=delete
    ),
    Put("/subnetpools/{id}/add_prefixes", add_prefixes, may="add_prefixes", body=PrefixesBody),
    Put("/subnetpools/{id}/remove_prefixes", remove_prefixes, may="remove_prefixes", body=PrefixesBody),
    Put("/subnetpools/{id}/onboard_network_subnets", onboard, may="onboard_network_subnets", body=OnboardBody),
]
