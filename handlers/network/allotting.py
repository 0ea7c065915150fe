"""The range of a subnet whose maker names none: from a subnet pool."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bus.cloud import Cloud
from bus.execute import Wish
from schema.network.subnet import Subnet
from schema.refusal import Invalid, NotFound


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
    if wanted.subnetpool_id is None:
        raise NoDefaultPool(wanted.ip_version)
    raise pool_not_found(wanted.subnetpool_id)


def given_back(subnet: Subnet) -> Sequence[Wish]:
    """The wishes for the append that ends a subnet: its range returns to its pool, if it is of one."""
    return ()


def pool_not_found(id: str) -> NotFound:
    return NotFound(f"Subnet pool {id} could not be found.", code="SubnetPoolNotFound")
