"""The range of a subnet whose maker names none: from a subnet pool."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import msgspec

from bus.cloud import Cloud
from bus.documents import Where
from bus.execute import Wish
from handlers.network.subnet_pool import SUBNET_POOLS, free_range, no_room, not_found, refuse_length, usable
from schema.network.subnet import SUBNET, Subnet
from schema.network.subnet_pool import SUBNET_POOL, AllotRange, ReturnRange, SubnetPool
from schema.refusal import Invalid


class PoolWanted(msgspec.Struct, frozen=True, kw_only=True):
    """A range of a pool, as somebody asks for it: of this one or the default one, this range or any so large."""

    subnet_id: str
    project_id: str
    network_id: str
    ip_version: int
    subnetpool_id: str | None = None
    """None: the default one."""
    prefixlen: int | None = None
    cidr: str | None = None
    operator: bool = False
    """An administrator asks, who may take from any."""


class Allotted(msgspec.Struct, frozen=True):
    """A range, and the wishes that take it from its pool in the append that makes the subnet."""

    cidr: str
    subnetpool_id: str
    wishes: Sequence[Wish] = ()


class NoDefaultPool(Invalid):
    """No subnet pool of that version is the default one."""

    def __init__(self, ip_version: int) -> None:
        super().__init__(f"Bad subnets request: No default subnetpool found for IPv{ip_version}.", code="BadRequest")


async def allotted(cloud: Cloud, wanted: PoolWanted) -> Allotted:
    """A range for a subnet that is yet to be. Raises NotFound, Invalid, Conflict."""
    pool = await _pool(cloud, wanted)
    if pool.ip_version != wanted.ip_version:
        raise Invalid(
            f"Bad subnets request: an IPv{wanted.ip_version} subnet cannot be of an IPv{pool.ip_version} subnet pool.",
            code="BadRequest",
        )
    await _refuse_other_pool(cloud, wanted, pool)
    cidr = wanted.cidr
    if cidr is not None:
        refuse_length(pool, ipaddress.ip_network(cidr).prefixlen)
    else:
        prefixlen = pool.default_prefixlen if wanted.prefixlen is None else wanted.prefixlen
        refuse_length(pool, prefixlen)
        cidr = free_range(pool, prefixlen)
        if cidr is None:
            raise no_room(prefixlen)
    command = AllotRange(
        subnet_id=wanted.subnet_id, cidr=cidr, project_id=wanted.project_id, chosen=wanted.cidr is None
    )
    return Allotted(cidr, pool.id, (Wish(SUBNET_POOLS, pool.id, command),))


def given_back(subnet: Subnet) -> Sequence[Wish]:
    """The wishes for the append that ends a subnet: its range returns to its pool, if it is of one."""
    if not subnet.subnetpool_id:
        return ()
    return (Wish(SUBNET_POOLS, subnet.subnetpool_id, ReturnRange(subnet_id=subnet.id)),)


async def _pool(cloud: Cloud, wanted: PoolWanted) -> SubnetPool:
    """The one that is asked for, as it is now."""
    id = wanted.subnetpool_id
    if id is None:
        where = [Where("is_default", "=", True), Where("ip_version", "=", wanted.ip_version)]
        found = await cloud.documents.find(SUBNET_POOL, where=where, limit=1)
        if not found:
            raise NoDefaultPool(wanted.ip_version)
        id = found[0].id
    document = (await cloud.executor.load([SUBNET_POOL.stream(id)])).get(SUBNET_POOL.stream(id))
    if document is None or not document.state.living:
        raise not_found(id)
    pool: SubnetPool = document.state
    if not (wanted.operator or usable(pool, wanted.project_id)):
        raise not_found(id)
    return pool


async def _refuse_other_pool(cloud: Cloud, wanted: PoolWanted, pool: SubnetPool) -> None:
    """Raises Invalid when the network has subnets of that family that are not of this pool."""
    where = [Where("parent_id", "=", wanted.network_id), Where("ip_version", "=", wanted.ip_version)]
    others = await cloud.documents.find(SUBNET, where=where, limit=None)
    if any(it.state.subnetpool_id != pool.id for it in others):
        raise Invalid(
            "Subnets hosted on the same network must be allocated from the same subnet pool.",
            code="NetworkSubnetPoolAffinityError",
        )
