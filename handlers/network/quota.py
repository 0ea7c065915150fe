"""The rules of networking's quotas: what is made is counted in the very append that makes it, up to the limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from bus.cloud import Cloud
from bus.config import NetworkQuota as Defaults
from bus.execute import Aggregate, Wish
from schema.event import Command
from schema.network.quota import (
    NETWORK_QUOTA,
    NETWORK_USAGE,
    UNLIMITED,
    ClearNetworkQuotaLimits,
    GiveBackNetworkQuota,
    NetworkQuota,
    NetworkQuotaEvent,
    NetworkQuotaGivenBack,
    NetworkQuotaLimitsCleared,
    NetworkQuotaLimitsSet,
    NetworkQuotaTaken,
    NetworkUsage,
    NetworkUsageEvent,
    SetNetworkQuotaLimits,
    TakeNetworkQuota,
    usage_id,
)
from schema.refusal import Conflict

RESOURCES: tuple[str, ...] = Defaults.__struct_fields__
"""What there are limits of, by Neutron's names."""

ANY = "any"
"""Quotas have no statuses: a project nobody spoke of has the defaults, and nothing."""

ALLOWED: dict[type[Command], set[str]] = {SetNetworkQuotaLimits: {ANY}, ClearNetworkQuotaLimits: {ANY}}
USAGE_ALLOWED: dict[type[Command], set[str]] = {TakeNetworkQuota: {ANY}, GiveBackNetworkQuota: {ANY}}


def decide(quota: NetworkQuota, command: Command) -> list[NetworkQuotaEvent]:
    match command:
        case SetNetworkQuotaLimits():
            changed = {name: limit for name, limit in command.limits.items() if quota.limits.get(name) != limit}
            return [NetworkQuotaLimitsSet(limits=changed)] if changed else []
        case ClearNetworkQuotaLimits():
            return [NetworkQuotaLimitsCleared()] if quota.limits else []
    raise TypeError(f"quotas of networking know no {type(command).__name__}")


def decide_usage(usage: NetworkUsage, command: Command) -> list[NetworkUsageEvent]:
    match command:
        case TakeNetworkQuota():
            fresh = tuple(id for id in dict.fromkeys(command.ids) if not usage.has(id))
            if fresh and command.limit != UNLIMITED and usage.used + len(fresh) > command.limit:
                raise over_quota(usage.id.rpartition(":")[2])
            return [NetworkQuotaTaken(ids=fresh)] if fresh else []
        case GiveBackNetworkQuota():
            there = tuple(id for id in dict.fromkeys(command.ids) if usage.has(id))
            return [NetworkQuotaGivenBack(ids=there)] if there else []
    raise TypeError(f"usages of networking know no {type(command).__name__}")


def over_quota(resource: str) -> Conflict:
    """As Neutron words it; it does not say the limit."""
    return Conflict(f"Quota exceeded for resources: ['{resource}'].", code="OverQuota")


async def taking(cloud: Cloud, project_id: str, resource: str, ids: Sequence[str]) -> list[Wish]:
    """The wish that counts these things, for the append that makes them: 409 when they are too many.

    What belongs to no project (`''`) counts nowhere.
    """
    if not project_id or not ids:
        return []
    limit = in_force(cloud, await limits_of(cloud, project_id))[resource]
    return [Wish(NETWORK_USAGES, usage_id(project_id, resource), TakeNetworkQuota(ids=tuple(ids), limit=limit))]


def counting(project_id: str, resource: str, ids: Sequence[str]) -> list[Wish]:
    """The same for what Neutron makes by itself (a default group, a router's port): counted, and never refused."""
    if not project_id or not ids:
        return []
    take = TakeNetworkQuota(ids=tuple(ids), limit=UNLIMITED)
    return [Wish(NETWORK_USAGES, usage_id(project_id, resource), take)]


def giving_back(project_id: str, resource: str, ids: Sequence[str]) -> list[Wish]:
    """The wish for the append that ends these things."""
    if not project_id or not ids:
        return []
    return [Wish(NETWORK_USAGES, usage_id(project_id, resource), GiveBackNetworkQuota(ids=tuple(ids)))]


def defaults(cloud: Cloud) -> dict[str, int]:
    """The limits of a project that has none of its own."""
    return msgspec.structs.asdict(cloud.settings.network_quota)


def in_force(cloud: Cloud, limits: Mapping[str, int]) -> dict[str, int]:
    """A project's limits: its own where it has some, else the defaults."""
    return {**defaults(cloud), **limits}


async def limits_of(cloud: Cloud, project_id: str) -> Mapping[str, int]:
    """The limits that were set for a project.

    Few projects have any, and every port that is made asks: the process's mirror answers where it has one.
    """
    mirror = cloud.mirrors.by_kind.get(NETWORK_QUOTA.name)
    if mirror is not None and mirror.position >= 0:
        document = mirror.get(project_id)
    else:
        stream = NETWORK_QUOTA.stream(project_id)
        document = (await cloud.executor.load([stream])).get(stream)
    limits: Mapping[str, int] = document.state.limits if document else {}
    return limits


NETWORK_QUOTAS = Aggregate(NETWORK_QUOTA, decide, ALLOWED)
NETWORK_USAGES = Aggregate(NETWORK_USAGE, decide_usage, USAGE_ALLOWED)
