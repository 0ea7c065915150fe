"""A project's compute quota: what it may hold and, on the same stream, what its servers hold of it together.

What one server holds follows from its own state (`handlers.compute.quota.hold_of`), and the sums change by exactly what
that does, in the append that changes it: so of a thousand servers created at once exactly as many succeed as the limit
allows, no usage outlives its server, and a project of many servers is as small a document as one of few.
`quota-class/default` changes the limits of every project that has none of its own. Somebody in a project may be given
limits below its: what they hold is counted by who ordered each server.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec import field
from msgspec.structs import replace

from schema.event import Command, Event, Kind, State

UNLIMITED = -1

DEFAULTS: dict[str, int] = {
    "instances": 10,
    "cores": 20,
    "ram": 50 * 1024,
    "key_pairs": 100,
    "metadata_items": 128,
    "server_groups": 10,
    "server_group_members": 10,
    "injected_files": 5,
    "injected_file_content_bytes": 10 * 1024,
    "injected_file_path_bytes": 255,
}
"""What a project may hold when nobody said otherwise; ram in MB."""

HELD = ("instances", "cores", "ram")
"""The limits whose usage is kept here."""


class Hold(msgspec.Struct, frozen=True, array_like=True):
    """What one server holds."""

    cores: int
    ram_mb: int
    user_id: str = ""
    """Who ordered it."""


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """What servers hold together."""

    instances: int = 0
    cores: int = 0
    ram_mb: int = 0

    def more(self, instances: int, cores: int, ram_mb: int) -> Usage:
        return Usage(self.instances + instances, self.cores + cores, self.ram_mb + ram_mb)

    @property
    def named(self) -> dict[str, int]:
        """By the names of the limits."""
        return {"instances": self.instances, "cores": self.cores, "ram": self.ram_mb}


class Quota(State):
    """The stream's id is the project's."""

    limits: dict[str, int] = field(default_factory=dict)
    """Only what was set for this project; -1 is unlimited."""
    user_limits: dict[str, dict[str, int]] = field(default_factory=dict)
    """User → what was set for them within this project."""
    used: Usage = Usage()
    used_by: dict[str, Usage] = field(default_factory=dict)
    """User → what the servers hold that they ordered."""
    held: dict[str, Hold] = field(default_factory=dict)
    """Server → what it held when each was counted by itself, as in old logs; the next change adds all to the sums."""

    @property
    def usage(self) -> dict[str, int]:
        """What its servers hold together, by the names of the limits."""
        return summed(self).used.named

    def usage_of(self, user_id: str) -> dict[str, int]:
        """What the servers hold that somebody ordered."""
        return summed(self).used_by.get(user_id, Usage()).named


class QuotaLimitsSet(Event):
    limits: dict[str, int]
    """The limits that were set; the others stay."""
    user_id: str = ""
    """For whom; empty: for the whole project."""


class QuotaLimitsCleared(Event):
    """Every limit is the default again."""

    user_id: str = ""
    """Whose, which are the project's again; empty: the project's and everybody's."""


class QuotaHoldChanged(Event):
    """What a server holds is so much more than before, or (below 0) less."""

    server_id: str
    user_id: str
    """Who ordered it."""
    instances: int = 0
    cores: int = 0
    ram_mb: int = 0


class QuotaReserved(Event):
    """A server holds this much from now on, in place of what it held before. (In old logs.)"""

    server_id: str
    cores: int
    ram_mb: int
    user_id: str = ""
    """Who ordered it."""


class QuotaReleased(Event):
    """A server holds nothing any more. (In old logs.)"""

    server_id: str


QuotaEvent = QuotaLimitsSet | QuotaLimitsCleared | QuotaHoldChanged | QuotaReserved | QuotaReleased


class SetQuotaLimits(Command):
    limits: dict[str, int]
    force: bool = False
    """Also below what is in use already, or beyond what the project leaves to somebody."""
    user_id: str = ""
    """For whom; empty: for the whole project."""
    defaults: dict[str, int] = field(default_factory=lambda: DEFAULTS)
    """What counts where the project has no limit of its own: `handlers.compute.quota.defaults(cloud)`."""


class ClearQuotaLimits(Command):
    user_id: str = ""
    """Whose; empty: the project's and everybody's."""


class ChangeQuotaHold(Command):
    """What a server holds is another than before.

    It is made of what becomes of the server in the same append (`handlers.compute.quota.counting`): said by anybody
    else, it would count twice if it came twice.
    """

    server_id: str
    before: Hold | None
    after: Hold | None
    defaults: dict[str, int] | None = None
    """What counts where the project has no limit of its own; None: it is counted whatever the limits are."""


def evolve(quota: Quota, event: QuotaEvent, at: datetime) -> Quota:
    match event:
        case QuotaLimitsSet(user_id=""):
            return replace(quota, limits=quota.limits | event.limits)
        case QuotaLimitsSet():
            its = quota.user_limits.get(event.user_id, {}) | event.limits
            return replace(quota, user_limits=quota.user_limits | {event.user_id: its})
        case QuotaLimitsCleared(user_id=""):
            return replace(quota, limits={}, user_limits={})
        case QuotaLimitsCleared():
            rest_limits = {id: limits for id, limits in quota.user_limits.items() if id != event.user_id}
            return replace(quota, user_limits=rest_limits)
        case QuotaHoldChanged():
            before = summed(quota)
            more = (event.instances, event.cores, event.ram_mb)
            theirs = before.used_by.get(event.user_id, Usage()).more(*more)
            used_by = before.used_by | {event.user_id: theirs}
            if theirs == Usage():
                del used_by[event.user_id]
            return replace(before, used=before.used.more(*more), used_by=used_by)
        case QuotaReserved():
            hold = Hold(event.cores, event.ram_mb, event.user_id)
            return replace(quota, held=quota.held | {event.server_id: hold})
        case QuotaReleased():
            return replace(quota, held={id: hold for id, hold in quota.held.items() if id != event.server_id})


def summed(quota: Quota) -> Quota:
    """With what old logs say of each server in the sums."""
    if not quota.held:
        return quota
    used, used_by = quota.used, dict(quota.used_by)
    for hold in quota.held.values():
        used = used.more(1, hold.cores, hold.ram_mb)
        used_by[hold.user_id] = used_by.get(hold.user_id, Usage()).more(1, hold.cores, hold.ram_mb)
    return replace(quota, held={}, used=used, used_by=used_by)


QUOTA = Kind("quota", Quota, QuotaEvent, evolve)


class QuotaClass(State):
    """The stream's id is the class's name; only `default` has an effect."""

    limits: dict[str, int] = field(default_factory=dict)


class QuotaClassLimitsSet(Event):
    limits: dict[str, int]


class SetQuotaClassLimits(Command):
    limits: dict[str, int]


def evolve_class(quota_class: QuotaClass, event: QuotaClassLimitsSet, at: datetime) -> QuotaClass:
    return replace(quota_class, limits=quota_class.limits | event.limits)


QUOTA_CLASS = Kind("quota-class", QuotaClass, QuotaClassLimitsSet, evolve_class)
