"""os-simple-tenant-usage: how long projects held how much, deleted servers included.

A server's document stays as a tombstone with the times of its first run and its end, folded from the log; no counter is
kept anywhere that could drift from it.
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
from bus.documents import AnyOf, Sort, Where
from bus.log import Document
from schema.compute.server import SERVER, Server
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

    def hours(self, server: Server) -> float:
        """How long the server was there within the period."""
        if server.launched_at is None:
            return 0.0
        until = min(server.deleted_at or self.now, self.end)
        return max(0.0, (until - max(server.launched_at, self.start)).total_seconds()) / 3600


async def index(call: Call) -> dict[str, Any]:
    period = _period(call)
    servers = await _servers(call, period)
    by_project: dict[str, list[Server]] = defaultdict(list)
    for document in servers:
        by_project[document.state.project_id].append(document.state)
    detailed = call.params.detailed == "1"
    usages = [_usage(project, own, period, detailed=detailed) for project, own in sorted(by_project.items())]
    return {"tenant_usages": usages, **_links(call, servers, "tenant_usages_links")}


async def show(call: Call) -> dict[str, Any]:
    project_id = call.path["id"]
    call.must(f"{RULE}:show", project_id=project_id)
    period = _period(call)
    servers = await _servers(call, period, Where("project_id", "=", project_id))
    usage = _usage(project_id, [document.state for document in servers], period, detailed=True)
    return {"tenant_usage": usage, **_links(call, servers, "tenant_usage_links")}


async def _servers(call: Call, period: Period, *where: Where) -> list[Document]:
    """Servers that were there for some of the period, deleted ones included."""
    paged = isinstance(call.params, Paging)
    try:
        return await call.cloud.documents.find(
            SERVER,
            where=[
                *where,
                Where("launched_at", "<", period.end),
                AnyOf([[Where("deleted_at", "is", False)], [Where("deleted_at", ">", period.start)]]),
            ],
            sort=[Sort("created_at"), Sort("id")],
            limit=page_size(call) if paged else None,
            marker=call.params.marker if paged else None,
            gone=None,
        )
    except NotFound:
        raise Invalid(f"marker [{call.params.marker}] not found") from None


def _links(call: Call, servers: Sequence[Document], name: str) -> dict[str, Any]:
    if not isinstance(call.params, Paging) or len(servers) < page_size(call):
        return {}
    return {name: next_link(call, servers, lambda document: document.id)}


def _usage(project_id: str, servers: Sequence[Server], period: Period, *, detailed: bool) -> dict[str, Any]:
    hours = [period.hours(server) for server in servers]
    usage: dict[str, Any] = {
        "tenant_id": project_id,
        "start": written(period.start),
        "stop": written(period.end),
        "total_hours": sum(hours),
        "total_vcpus_usage": sum(h * s.flavor.vcpus for h, s in zip(hours, servers, strict=True)),
        "total_memory_mb_usage": sum(h * s.flavor.ram_mb for h, s in zip(hours, servers, strict=True)),
        "total_local_gb_usage": sum(h * _disk_gb(s) for h, s in zip(hours, servers, strict=True)),
    }
    if detailed:
        usage["server_usages"] = [_server_usage(s, h, period) for h, s in zip(hours, servers, strict=True)]
    return usage


def _server_usage(server: Server, hours: float, period: Period) -> dict[str, Any]:
    began = server.launched_at or period.now
    return {
        "instance_id": server.id,
        "name": server.name,
        "tenant_id": server.project_id,
        "flavor": server.flavor.name,
        "vcpus": server.flavor.vcpus,
        "memory_mb": server.flavor.ram_mb,
        "local_gb": _disk_gb(server),
        "hours": hours,
        "started_at": written(began),
        "ended_at": written(server.deleted_at),
        "state": "terminated" if server.deleted_at else server.vm_state.value,
        "uptime": int(((server.deleted_at or period.now) - began).total_seconds()),
    }


def _disk_gb(server: Server) -> int:
    return server.flavor.disk_gb + server.flavor.ephemeral_gb


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
