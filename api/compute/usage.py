"""os-simple-tenant-usage: how long projects held how much, deleted servers included.

Read from a projection that holds a row for every server there ever was; no counter is kept anywhere that could drift
from the log.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from api.compute.page import Paging, listing, next_link, page_size
from api.compute.times import written
from api.wire import Call
from bus import clock
from projections.compute.usage import USAGE, ServerUsage, usages
from schema.refusal import Invalid, NotFound

RULE = "os_compute_api:os-simple-tenant-usage"

_FORMATS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S.%f")


class Query(Struct, frozen=True):
    start: str | None = None
    end: str | None = None
    detailed: str = "0"


class PagedQuery(Paging, frozen=True):
    start: str | None = None
    end: str | None = None
    detailed: str = "0"


class Period(Struct, frozen=True):
    start: datetime
    end: datetime
    now: datetime

    def hours(self, server: ServerUsage) -> float:
        """How long the server was there within the period."""
        until = min(server.ended_at or self.now, self.end)
        return max(0.0, (until - max(server.started_at, self.start)).total_seconds()) / 3600


async def index(call: Call) -> dict[str, Any]:
    period = _period(call)
    servers = await _servers(call, period)
    by_project: dict[str, list[ServerUsage]] = defaultdict(list)
    for server in servers:
        by_project[server.project_id].append(server)
    detailed = call.params.detailed == "1"
    found = [_usage(project, own, period, detailed=detailed) for project, own in sorted(by_project.items())]
    return {"tenant_usages": found, **_links(call, servers, "tenant_usages_links")}


async def show(call: Call) -> dict[str, Any]:
    project_id = call.path["id"]
    call.must(f"{RULE}:show", project_id=project_id)
    period = _period(call)
    servers = await _servers(call, period, project_id)
    usage = _usage(project_id, servers, period, detailed=True)
    return {"tenant_usage": usage, **_links(call, servers, "tenant_usage_links")}


async def _servers(call: Call, period: Period, project_id: str | None = None) -> list[ServerUsage]:
    """Servers that were there for some of the period, deleted ones included, and whatever the client just did."""
    paged = isinstance(call.params, Paging)
    limit = page_size(call) if paged else None
    marker = call.params.marker if paged else None
    await USAGE.caught_up(call.cloud.pool)
    try:
        return await usages(call.cloud.pool, period.start, period.end, project_id, limit, marker)
    except NotFound:
        raise Invalid(f"marker [{marker}] not found") from None


def _links(call: Call, servers: Sequence[ServerUsage], name: str) -> dict[str, Any]:
    if not isinstance(call.params, Paging) or len(servers) < page_size(call):
        return {}
    return {name: next_link(call, servers, lambda server: server.server_id)}


def _usage(project_id: str, servers: Sequence[ServerUsage], period: Period, *, detailed: bool) -> dict[str, Any]:
    hours = [period.hours(server) for server in servers]
    usage: dict[str, Any] = {
        "tenant_id": project_id,
        "start": written(period.start),
        "stop": written(period.end),
        "total_hours": sum(hours),
        "total_vcpus_usage": sum(h * s.vcpus for h, s in zip(hours, servers, strict=True)),
        "total_memory_mb_usage": sum(h * s.memory_mb for h, s in zip(hours, servers, strict=True)),
        "total_local_gb_usage": sum(h * s.local_gb for h, s in zip(hours, servers, strict=True)),
    }
    if detailed:
        usage["server_usages"] = [_server_usage(s, h, period) for h, s in zip(hours, servers, strict=True)]
    return usage


def _server_usage(server: ServerUsage, hours: float, period: Period) -> dict[str, Any]:
    return {
        "instance_id": server.server_id,
        "name": server.name,
        "tenant_id": server.project_id,
        "flavor": server.flavor,
        "vcpus": server.vcpus,
        "memory_mb": server.memory_mb,
        "local_gb": server.local_gb,
        "hours": hours,
        "started_at": written(server.started_at),
        "ended_at": written(server.ended_at),
        "state": server.state,
        "uptime": int(((server.ended_at or period.now) - server.started_at).total_seconds()),
    }


def _period(call: Call) -> Period:
    now = clock.now()
    start, end = (_time(text, now) for text in (call.params.start, call.params.end))
    if start > end:
        raise Invalid("Invalid start time. The start time cannot occur after the end time.")
    return Period(start, end, now)


def _time(text: str | None, now: datetime) -> datetime:
    if not text:
        return now
    for form in _FORMATS:
        try:
            return datetime.strptime(text.strip('"'), form).replace(tzinfo=UTC)
        except ValueError:
            continue
    raise Invalid(f"Datetime is in invalid format: {text!r} must be such as 2030-01-31T12:00:00")


routes = [
    *listing("/os-simple-tenant-usage", index, f"{RULE}:list", Query, until="2.39"),
    *listing("/os-simple-tenant-usage", index, f"{RULE}:list", PagedQuery, since="2.40"),
    *listing("/os-simple-tenant-usage/{id}", show, f"{RULE}:show", Query, until="2.39"),
    *listing("/os-simple-tenant-usage/{id}", show, f"{RULE}:show", PagedQuery, since="2.40"),
]
