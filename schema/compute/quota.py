"""A project's compute quota: what it may hold and, on the same stream, what each of its servers holds of it.

Reserving is decided where the usage is, and appended together with the server's own event, so that of a thousand
servers created at once exactly as many succeed as the limit allows, and no usage outlives its server.
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


class Quota(State):
    """The stream's id is the project's."""

    limits: dict[str, int] = field(default_factory=dict)
    """Only what was set for this project; -1 is unlimited."""
    user_limits: dict[str, dict[str, int]] = field(default_factory=dict)
    """User → what was set for them within this project."""
    held: dict[str, Hold] = field(default_factory=dict)
    """By server id."""
    cores: int = 0
    ram_mb: int = 0

    @property
    def usage(self) -> dict[str, int]:
        """What its servers hold together, by the names of the limits."""
        return {"instances": len(self.held), "cores": self.cores, "ram": self.ram_mb}

    def usage_of(self, user_id: str) -> dict[str, int]:
        """What the servers hold that somebody ordered."""
        its = [hold for hold in self.held.values() if hold.user_id == user_id]
        return {
            "instances": len(its),
            "cores": sum(hold.cores for hold in its),
            "ram": sum(hold.ram_mb for hold in its),
        }


class QuotaLimitsSet(Event):
    limits: dict[str, int]
    """The limits that were set; the others stay."""
    user_id: str = ""
    """For whom; empty: for the whole project."""


class QuotaLimitsCleared(Event):
    """Every limit is the default again."""

    user_id: str = ""
    """Whose, which are the project's again; empty: the project's and everybody's."""


class QuotaReserved(Event):
    """A server holds this much from now on, in place of what it held before."""

    server_id: str
    cores: int
    ram_mb: int
    user_id: str = ""
    """Who ordered it."""


class QuotaReleased(Event):
    server_id: str


QuotaEvent = QuotaLimitsSet | QuotaLimitsCleared | QuotaReserved | QuotaReleased


class SetQuotaLimits(Command):
    limits: dict[str, int]
    force: bool = False
    """Also below what is in use already, or beyond what the project leaves to somebody."""
    user_id: str = ""
    """For whom; empty: for the whole project."""
    defaults: dict[str, int] = field(default_factory=lambda: DEFAULTS)
    """As in `ReserveQuota`."""


class ClearQuotaLimits(Command):
    user_id: str = ""
    """Whose; empty: the project's and everybody's."""


class ReserveQuota(Command):
    """Hold quota for a server, or (a resize) hold another amount for it. Append it together with the server's event."""

    server_id: str
    cores: int
    ram_mb: int
    defaults: dict[str, int] = field(default_factory=lambda: DEFAULTS)
    """What counts where the project has no limit of its own: `handlers.compute.quota.defaults(cloud)`."""
    user_id: str = ""
    """Who orders it; empty: whoever did."""


class ReleaseQuota(Command):
    """A server holds nothing any more. Append it together with the server's last event."""

    server_id: str


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
        case QuotaReserved():
            hold = Hold(event.cores, event.ram_mb, event.user_id)
            return _holding(quota, quota.held | {event.server_id: hold}, quota.held.get(event.server_id), hold)
        case QuotaReleased():
            rest = {id: hold for id, hold in quota.held.items() if id != event.server_id}
            return _holding(quota, rest, quota.held.get(event.server_id), None)


def _holding(quota: Quota, held: dict[str, Hold], before: Hold | None, after: Hold | None) -> Quota:
    return replace(
        quota,
        held=held,
        cores=quota.cores + (after.cores if after else 0) - (before.cores if before else 0),
        ram_mb=quota.ram_mb + (after.ram_mb if after else 0) - (before.ram_mb if before else 0),
    )


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
