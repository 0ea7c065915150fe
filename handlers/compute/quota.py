"""The rules of compute quotas: a linearizable check, since limit, usage and decision stand on one stream."""

from __future__ import annotations

from collections.abc import Mapping

from bus.cloud import Cloud
from bus.execute import Aggregate
from schema.compute.quota import (
    DEFAULTS,
    HELD,
    QUOTA,
    QUOTA_CLASS,
    UNLIMITED,
    ClearQuotaLimits,
    Quota,
    QuotaClass,
    QuotaClassLimitsSet,
    QuotaEvent,
    QuotaLimitsCleared,
    QuotaLimitsSet,
    QuotaReleased,
    QuotaReserved,
    ReleaseQuota,
    ReserveQuota,
    SetQuotaClassLimits,
    SetQuotaLimits,
)
from schema.event import Command
from schema.refusal import Invalid, OverQuota

ANY = "any"
"""A quota has no statuses: a project nobody spoke of has the defaults and holds nothing."""

ALLOWED: dict[type[Command], set[str]] = {
    SetQuotaLimits: {ANY},
    ClearQuotaLimits: {ANY},
    ReserveQuota: {ANY},
    ReleaseQuota: {ANY},
}
CLASS_ALLOWED: dict[type[Command], set[str]] = {SetQuotaClassLimits: {ANY}}


def decide(quota: Quota, command: Command) -> list[QuotaEvent]:
    match command:
        case SetQuotaLimits():
            own = quota.user_limits.get(command.user_id, {}) if command.user_id else quota.limits
            changed = {name: limit for name, limit in command.limits.items() if own.get(name) != limit}
            if changed and not command.force:
                _refuse_out_of_bounds(changed, *_bounds(quota, command.user_id, command.defaults))
            return [QuotaLimitsSet(limits=changed, user_id=command.user_id)] if changed else []
        case ClearQuotaLimits():
            there = command.user_id in quota.user_limits if command.user_id else quota.limits or quota.user_limits
            return [QuotaLimitsCleared(user_id=command.user_id)] if there else []
        case ReserveQuota():
            return _reserve(quota, command)
        case ReleaseQuota():
            return [QuotaReleased(server_id=command.server_id)] if command.server_id in quota.held else []
    raise TypeError(f"quotas know no {type(command).__name__}")


def decide_class(quota_class: QuotaClass, command: SetQuotaClassLimits) -> list[QuotaClassLimitsSet]:
    changed = {name: limit for name, limit in command.limits.items() if quota_class.limits.get(name) != limit}
    return [QuotaClassLimitsSet(limits=changed)] if changed else []


def room(limits: Mapping[str, int], usage: Mapping[str, int], cores: int, ram_mb: int, wanted: int) -> int:
    """How many of the wanted servers of this size the quota has room for."""
    each = {"instances": 1, "cores": cores, "ram": ram_mb}
    fits = wanted
    for name in HELD:
        if limits[name] != UNLIMITED and each[name]:
            fits = min(fits, max(0, (limits[name] - usage[name]) // each[name]))
    return fits


def refuse_over(limits: Mapping[str, int], usage: Mapping[str, int], more: Mapping[str, int]) -> None:
    """Raise OverQuota, with every number a person needs, if `more` does not fit beside `usage`."""
    over = [
        name
        for name, amount in more.items()
        if amount > 0 and limits[name] != UNLIMITED and usage[name] + amount > limits[name]
    ]
    if over:
        raise OverQuota(
            f"Quota exceeded for {', '.join(over)}: Requested {_row(more, over)}, but already used "
            f"{_row(usage, over)} of {_row(limits, over)} {', '.join(over)}",
            code="QuotaExceeded",
        )


def limits_in_force(quota: Quota, defaults: Mapping[str, int], user_id: str = "") -> dict[str, int]:
    """A project's limits: its own where it has some, else the defaults. `user_id`: with what was set for them."""
    return {**DEFAULTS, **defaults, **quota.limits, **quota.user_limits.get(user_id, {})}


def defaults(cloud: Cloud) -> dict[str, int]:
    """The limits of a project that has none of its own: the built-in ones under those of the class `default`."""
    document = cloud.mirror(QUOTA_CLASS).get("default")
    return {**DEFAULTS, **document.state.limits} if document else DEFAULTS


async def quota_of(cloud: Cloud, project_id: str) -> Quota:
    """A project's quota as it stands now; an unborn one if nothing ever touched it."""
    stream = QUOTA.stream(project_id)
    found = (await cloud.executor.load([stream])).get(stream)
    state: Quota = found.state if found else QUOTA.unborn(project_id)
    return state


def _reserve(quota: Quota, command: ReserveQuota) -> list[QuotaEvent]:
    held = quota.held.get(command.server_id)
    if held is not None and (held.cores, held.ram_mb) == (command.cores, command.ram_mb):
        return []
    more = {
        "instances": 0 if held else 1,
        "cores": command.cores - (held.cores if held else 0),
        "ram": command.ram_mb - (held.ram_mb if held else 0),
    }
    refuse_over(limits_in_force(quota, command.defaults), quota.usage, more)
    user_id = command.user_id or (held.user_id if held else "")
    if user_id in quota.user_limits:
        refuse_over(limits_in_force(quota, command.defaults, user_id), quota.usage_of(user_id), more)
    return [QuotaReserved(server_id=command.server_id, cores=command.cores, ram_mb=command.ram_mb, user_id=user_id)]


def _bounds(quota: Quota, user_id: str, defaults: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """The least and the most that limits may be. What is missing in the second is unbounded.

    All that users are given within a project is no more than the project has.
    """
    given: dict[str, int] = {}
    for id, limits in quota.user_limits.items():
        for name, limit in limits.items():
            if id != user_id:
                given[name] = given.get(name, 0) + max(limit, 0)
    if not user_id:
        return {name: max(given.get(name, 0), quota.usage.get(name, 0)) for name in DEFAULTS}, {}
    whole = limits_in_force(quota, defaults)
    most = {name: max(0, limit - given.get(name, 0)) for name, limit in whole.items() if limit != UNLIMITED}
    return quota.usage_of(user_id), most


def _refuse_out_of_bounds(limits: Mapping[str, int], least: Mapping[str, int], most: Mapping[str, int]) -> None:
    for name, limit in limits.items():
        if limit != UNLIMITED and limit < least.get(name, 0):
            raise Invalid(
                f"Quota limit {limit} for {name} must be greater than or equal to already used and reserved "
                f"{least[name]}; set force to go below."
            )
        if name in most and (limit == UNLIMITED or limit > most[name]):
            raise Invalid(
                f"Quota limit {limit} for {name} must be less than or equal to {most[name]}; set force to go beyond."
            )


def _row(numbers: Mapping[str, int], names: list[str]) -> str:
    return ", ".join(str(numbers[name]) for name in names)


QUOTAS = Aggregate(QUOTA, decide, ALLOWED)
QUOTA_CLASSES = Aggregate(QUOTA_CLASS, decide_class, CLASS_ALLOWED)
