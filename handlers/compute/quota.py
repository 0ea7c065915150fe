"""The rules of compute quotas: a linearizable check, since limit, usage and decision stand on one stream.

What a server holds is what its state says. Who changes a server wishes `counting` after it, and the sums follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bus.cloud import Cloud
from bus.execute import Aggregate, Became, Following, Wish
from schema.compute.quota import (
    DEFAULTS,
    HELD,
    QUOTA,
    QUOTA_CLASS,
    UNLIMITED,
    ChangeQuotaHold,
    ClearQuotaLimits,
    Hold,
    Quota,
    QuotaClass,
    QuotaClassLimitsSet,
    QuotaEvent,
    QuotaHoldChanged,
    QuotaLimitsCleared,
    QuotaLimitsSet,
    SetQuotaClassLimits,
    SetQuotaLimits,
)
from schema.compute.server import SERVER
from schema.compute.server_state import Server
from schema.compute.task import Task
from schema.event import Command
from schema.refusal import Invalid, OverQuota

ANY = "any"
"""A quota has no statuses: a project nobody spoke of has the defaults and holds nothing."""

ALLOWED: dict[type[Command], set[str]] = {
    SetQuotaLimits: {ANY},
    ClearQuotaLimits: {ANY},
    ChangeQuotaHold: {ANY},
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
        case ChangeQuotaHold():
            return _change_hold(quota, command)
    raise TypeError(f"quotas know no {type(command).__name__}")


def decide_class(quota_class: QuotaClass, command: SetQuotaClassLimits) -> list[QuotaClassLimitsSet]:
    changed = {name: limit for name, limit in command.limits.items() if quota_class.limits.get(name) != limit}
    return [QuotaClassLimitsSet(limits=changed)] if changed else []


def hold_of(server: Server) -> Hold | None:
    """What a server holds: that of its flavor, or of the larger one while it may be either. None: it does not count."""
    softly_deleted = server.soft_deleted_at is not None and server.task is not Task.RESTORING
    if not server.living or softly_deleted:
        return None
    move = server.move
    flavors = [server.flavor, *(it for it in (move.old_flavor, move.new_flavor) if it)] if move else [server.flavor]
    return Hold(
        cores=max(flavor.vcpus for flavor in flavors),
        ram_mb=max(flavor.ram_mb for flavor in flavors),
        user_id=server.order.user_id,
    )


def counting(server_id: str, project_id: str, defaults: dict[str, int] | None = None) -> Wish:
    """The wish that counts what becomes of a server by the wishes before it.

    `defaults`: for somebody who asks for more, and is refused what is too much; None: it is counted whatever it is.
    """

    def command(became: Sequence[Became]) -> ChangeQuotaHold | None:
        [(before, after)] = became
        was, now = hold_of(before), hold_of(after)
        return None if was == now else ChangeQuotaHold(server_id=server_id, before=was, after=now, defaults=defaults)

    return Wish(QUOTAS, project_id, Following((SERVER.stream(server_id),), command))


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


def _change_hold(quota: Quota, command: ChangeQuotaHold) -> list[QuotaEvent]:
    before, after = command.before or _NOTHING, command.after or _NOTHING
    user_id = after.user_id or before.user_id
    instances = (command.after is not None) - (command.before is not None)
    cores, ram_mb = after.cores - before.cores, after.ram_mb - before.ram_mb
    if not (instances or cores or ram_mb):
        return []
    if command.defaults is not None:
        more = {"instances": instances, "cores": cores, "ram": ram_mb}
        refuse_over(limits_in_force(quota, command.defaults), quota.usage, more)
        if user_id in quota.user_limits:
            refuse_over(limits_in_force(quota, command.defaults, user_id), quota.usage_of(user_id), more)
    return [
        QuotaHoldChanged(server_id=command.server_id, user_id=user_id, instances=instances, cores=cores, ram_mb=ram_mb)
    ]


_NOTHING = Hold(0, 0)


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
