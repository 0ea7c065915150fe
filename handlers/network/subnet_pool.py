"""The rules of subnet pools: which prefixes go together, and that no range is given twice."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from bus.execute import Aggregate
from handlers.network.address_scope import network, overlapping, version
from handlers.network.router import Outdated
from schema.changes import differing, given
from schema.event import Command
from schema.network.subnet_pool import (
    SUBNET_POOL,
    AllotRange,
    CreateSubnetPool,
    DeleteSubnetPool,
    RangeAllotted,
    RangeReturned,
    ReturnRange,
    ShareSubnetPool,
    SubnetPool,
    SubnetPoolCreated,
    SubnetPoolDeleted,
    SubnetPoolEvent,
    SubnetPoolShared,
    SubnetPoolUnshared,
    SubnetPoolUpdated,
    UnshareSubnetPool,
    UpdateSubnetPool,
)
from schema.refusal import Conflict, Invalid, NotFound

ABSENT, THERE, GONE = "absent", "there", "gone"
LONGEST = {4: 32, 6: 128}
SHORTEST = {4: 8, 6: 64}
"""What `min_prefixlen` is where nobody says."""
QUOTA_LENGTH = {4: 32, 6: 64}
"""Of what a quota counts."""

ALLOWED: dict[type[Command], set[str]] = {
    CreateSubnetPool: {ABSENT},
    UpdateSubnetPool: {THERE},
    AllotRange: {THERE},
    ReturnRange: {THERE, GONE},
    ShareSubnetPool: {THERE},
    UnshareSubnetPool: {THERE},
    DeleteSubnetPool: {THERE},
}


def decide(pool: SubnetPool, command: Command) -> list[SubnetPoolEvent]:
    if _already_so(pool, command):
        return []
    status = _status(pool)
    if status not in ALLOWED[type(command)]:
        if isinstance(command, CreateSubnetPool):
            raise Conflict(f"Subnet pool {pool.id} is {status} already.", code="Conflict")
        raise not_found(pool.id)
    match command:
        case CreateSubnetPool():
            _refuse_bounds(SubnetPool(id=pool.id, **given(command)))
            return [SubnetPoolCreated(**given(command))]
        case UpdateSubnetPool():
            changes = differing(pool, command)
            _refuse_bounds(msgspec.structs.replace(pool, **changes))
            _refuse_uncovered(pool, changes.get("prefixes", pool.prefixes))
            return [SubnetPoolUpdated(**changes)]
        case AllotRange():
            return _allot(pool, command)
        case ReturnRange():
            return [RangeReturned(subnet_id=command.subnet_id)]
        case ShareSubnetPool():
            return [SubnetPoolShared(project_id=command.project_id)]
        case UnshareSubnetPool():
            return [SubnetPoolUnshared(project_id=command.project_id)]
        case DeleteSubnetPool():
            if pool.ranges:
                raise Invalid(
                    "Unable to delete subnet pool: Subnet pool has existing allocations.", code="SubnetPoolDeleteError"
                )
            return [SubnetPoolDeleted()]
    raise TypeError(f"subnet pools know no {type(command).__name__}")


def not_found(id: str) -> NotFound:
    return NotFound(f"Subnet pool {id} could not be found.", code="SubnetPoolNotFound")


def usable(pool: SubnetPool, project_id: str) -> bool:
    """Whether that project's subnets may be of it."""
    return pool.project_id == project_id or not {"*", project_id}.isdisjoint(pool.shared_with)


def compacted(prefixes: Iterable[str]) -> tuple[str, ...]:
    """Joined where they touch, in order. Raises Invalid for two families."""
    networks = [network(it) for it in prefixes]
    four = ipaddress.collapse_addresses(it for it in networks if isinstance(it, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(it for it in networks if isinstance(it, ipaddress.IPv6Network))
    found = [[str(it) for it in four], [str(it) for it in six]]
    if all(found):
        raise Invalid("Cannot mix IPv4 and IPv6 prefixes in a subnet pool.", code="PrefixVersionMismatch")
    return tuple(found[0] or found[1])


def without(prefixes: Iterable[str], gone: Iterable[str]) -> tuple[str, ...]:
    """What is left of prefixes. Those that reach into what goes are cut."""
    left = [network(it) for it in prefixes]
    for one in gone:
        cut = network(one)
        kept: list[Any] = []
        for it in left:
            if it.version != cut.version or not it.overlaps(cut):
                kept.append(it)
            elif cut.prefixlen > it.prefixlen:
                kept += it.address_exclude(cut)
        left = kept
    return compacted(str(it) for it in left)


def free_range(pool: SubnetPool, prefixlen: int) -> str | None:
    """The first range of that size that nobody has; None: there is none."""
    taken = sorted(network(it.cidr) for it in pool.ranges.values())
    size = 1 << LONGEST[pool.ip_version] - prefixlen
    for prefix in pool.prefixes:
        whole = network(prefix)
        if whole.prefixlen > prefixlen:
            continue
        start = int(whole.network_address)
        for other in taken:
            if not whole.overlaps(other):
                continue
            if start + size <= int(other.network_address):
                break
            after = int(other.broadcast_address) + 1
            start = max(start, -(-after // size) * size)
        if start + size - 1 <= int(whole.broadcast_address):
            return str(type(whole)((start, prefixlen)))
    return None


def no_room(prefixlen: int) -> Conflict:
    return Conflict(
        f"Failed to allocate subnet: Insufficient prefix space to allocate subnet size /{prefixlen}.",
        code="SubnetAllocationError",
    )


def refuse_length(pool: SubnetPool, prefixlen: int) -> None:
    """Raises Invalid for one that the pool does not give."""
    if prefixlen < pool.min_prefixlen:
        raise Invalid(
            f"Unable to allocate subnet with prefix length {prefixlen}, minimum allowed prefix is "
            f"{pool.min_prefixlen}.",
            code="MinPrefixSubnetAllocationError",
        )
    if prefixlen > pool.max_prefixlen:
        raise Invalid(
            f"Unable to allocate subnet with prefix length {prefixlen}, maximum allowed prefix is "
            f"{pool.max_prefixlen}.",
            code="MaxPrefixSubnetAllocationError",
        )


def _allot(pool: SubnetPool, command: AllotRange) -> list[SubnetPoolEvent]:
    taken = [it.cidr for it in pool.ranges.values()]
    if version(command.cidr) == pool.ip_version and overlapping([command.cidr], taken):
        if command.chosen:
            raise Outdated(f"{command.cidr} of subnet pool {pool.id} was taken meanwhile; try again.", code="Conflict")
        raise Conflict(
            "Failed to allocate subnet: Cannot allocate requested subnet from the available set of prefixes.",
            code="SubnetAllocationError",
        )
    allotted = RangeAllotted(subnet_id=command.subnet_id, cidr=command.cidr, project_id=command.project_id)
    if command.onboarded:
        prefixes = compacted([*pool.prefixes, command.cidr])
        return [*([SubnetPoolUpdated(prefixes=prefixes)] if prefixes != pool.prefixes else []), allotted]
    if not _within(command.cidr, pool.prefixes):
        raise Conflict(
            "Failed to allocate subnet: Cannot allocate requested subnet from the available set of prefixes.",
            code="SubnetAllocationError",
        )
    _refuse_over_quota(pool, command)
    return [allotted]


def _refuse_over_quota(pool: SubnetPool, command: AllotRange) -> None:
    if pool.default_quota is None:
        return
    own = [it.cidr for it in pool.ranges.values() if it.project_id == command.project_id]
    if sum(_weight(it) for it in (*own, command.cidr)) > pool.default_quota:
        raise Conflict("Per-tenant subnet pool prefix quota exceeded.", code="SubnetPoolQuotaExceeded")


def _weight(cidr: str) -> int:
    it = network(cidr)
    weight: int = 1 << max(QUOTA_LENGTH[it.version] - it.prefixlen, 0)
    return weight


def _within(cidr: str, prefixes: Sequence[str]) -> bool:
    it = network(cidr)
    return any(it.version == other.version and it.subnet_of(other) for other in map(network, prefixes))


def _refuse_bounds(pool: SubnetPool) -> None:
    if not pool.prefixes:
        raise Invalid("Empty subnet pool prefix list.", code="EmptySubnetPoolPrefixList")
    if {version(it) for it in pool.prefixes} != {pool.ip_version}:
        raise Invalid("Cannot mix IPv4 and IPv6 prefixes in a subnet pool.", code="PrefixVersionMismatch")
    longest = LONGEST[pool.ip_version]
    if not 0 <= pool.min_prefixlen <= longest or not 0 <= pool.max_prefixlen <= longest:
        which = "min_prefixlen" if not 0 <= pool.min_prefixlen <= longest else "max_prefixlen"
        raise Invalid(
            f"Unbounded prefix length: {getattr(pool, which)} is an invalid value for {which}.",
            code="UnsupportedMinSubnetPoolPrefix",
        )
    bounds = (
        ("min_prefixlen", "max_prefixlen", pool.min_prefixlen <= pool.max_prefixlen),
        ("default_prefixlen", "min_prefixlen", pool.default_prefixlen >= pool.min_prefixlen),
        ("default_prefixlen", "max_prefixlen", pool.default_prefixlen <= pool.max_prefixlen),
    )
    for name, base, good in bounds:
        if not good:
            raise Invalid(
                f"Illegal prefix bounds: {name}={getattr(pool, name)}, {base}={getattr(pool, base)}.",
                code="IllegalSubnetPoolPrefixBounds",
            )


def _refuse_uncovered(pool: SubnetPool, prefixes: Sequence[str]) -> None:
    for it in pool.ranges.values():
        if not _within(it.cidr, prefixes):
            raise Conflict(
                f"Illegal update to prefixes: {it.cidr} is allocated to a subnet.",
                code="IllegalSubnetPoolPrefixUpdate",
            )


def _already_so(pool: SubnetPool, command: Command) -> bool:
    match command:
        case CreateSubnetPool():
            return pool.living and not {k: v for k, v in given(command).items() if getattr(pool, k) != v}
        case DeleteSubnetPool():
            return pool.deleted_at is not None
        case ReturnRange():
            return pool.created_at is not None and command.subnet_id not in pool.ranges
    if not pool.living:
        return False
    match command:
        case UpdateSubnetPool():
            return not differing(pool, command)
        case AllotRange():
            held = pool.ranges.get(command.subnet_id)
            return held is not None and held.cidr == command.cidr
        case ShareSubnetPool() | UnshareSubnetPool():
            return (command.project_id in pool.shared_with) is isinstance(command, ShareSubnetPool)
    return False


def _status(pool: SubnetPool) -> str:
    if pool.deleted_at is not None:
        return GONE
    return THERE if pool.living else ABSENT


SUBNET_POOLS = Aggregate(SUBNET_POOL, decide, ALLOWED)
