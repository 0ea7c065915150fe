"""Hypervisors: hosts and what they offer, as administrators see them."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api.compute.page import NoQuery, Paging, listing, page
from api.wire import Call
from bus import clock
from bus.log import Document
from schema.compute.host import HOST, Host
from schema.compute.server import SERVER
from schema.placement.provider import PROVIDER, Provider
from schema.refusal import Invalid, NotFound, Refused

RULE = "os_compute_api:os-hypervisors"
UUIDS: tuple[int, int] = (2, 53)
"""From here on ids are uuids; before, they are numbers."""
UUID = re.compile(r"(?i)[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
LEAN: tuple[int, int] = (2, 88)
"""From here on what placement knows better is left out."""


class ListQuery(Paging, frozen=True):
    """Since 2.33."""


class PatternQuery(Paging, frozen=True):
    """Since 2.53."""

    hypervisor_hostname_pattern: Annotated[str, Meta(min_length=1)] | None = None
    with_servers: bool = False


class ShowQuery(Struct, frozen=True):
    with_servers: bool = False


class NotImplementedHere(Refused):
    """The driver cannot say (501)."""

    status = 501


async def index(call: Call) -> dict[str, Any]:
    return await _listed(call, detailed=False)


async def detail(call: Call) -> dict[str, Any]:
    return await _listed(call, detailed=True)


async def show(call: Call) -> dict[str, Any]:
    host = _by_id(call)
    names = await _servers(call, [host]) if getattr(call.params, "with_servers", False) else None
    return {"hypervisor": _detailed(call, host, names)}


async def statistics(call: Call) -> dict[str, Any]:
    totals: dict[str, int] = dict.fromkeys(_AMOUNTS, 0)
    hosts = [host for host in _hosts(call) if host.enabled]
    for host in hosts:
        for name, amount in _amounts(call, host).items():
            totals[name] += amount
    return {"hypervisor_statistics": {"count": len(hosts), **totals}}


async def uptime(call: Call) -> dict[str, Any]:
    host = _by_id(call)
    if not host.alive:
        raise Invalid(f"Service {host.id} of type nova-compute is unavailable: it cannot be asked for its uptime.")
    told = _uptime(host)
    if told is None:
        raise NotImplementedHere(f"The hypervisor {host.id} does not tell its uptime.")
    return {"hypervisor": _brief(call, host) | {"uptime": told}}


async def search(call: Call) -> dict[str, Any]:
    return {"hypervisors": [_brief(call, host) for host in _matching(call, call.path["pattern"])]}


async def servers(call: Call) -> dict[str, Any]:
    hosts = _matching(call, call.path["pattern"])
    names = await _servers(call, hosts)
    return {"hypervisors": [_with_servers(call, _brief(call, host), names.get(host.id, [])) for host in hosts]}


def provider_of(call: Call, host: Host) -> Provider:
    """The host's resource provider; an empty one if it is not there (yet)."""
    document = call.cloud.mirror(PROVIDER).get(host.provider_id)
    provider: Provider = document.state if document else Provider(id=host.provider_id)
    return provider


def shown_id(call: Call, uuid: str) -> str | int:
    """An id as this version writes it."""
    return uuid if call.version >= UUIDS else number_of(uuid)


def number_of(uuid: str) -> int:
    """The number by which old versions know what has a uuid."""
    return zlib.crc32(uuid.encode()) & 0x7FFFFFFF


def state_of(host: Host) -> dict[str, str]:
    return {"state": "up" if host.alive else "down", "status": "enabled" if host.enabled else "disabled"}


async def _listed(call: Call, *, detailed: bool) -> dict[str, Any]:
    pattern = getattr(call.params, "hypervisor_hostname_pattern", None)
    hosts = _matching(call, pattern) if pattern is not None else _hosts(call)
    if pattern is not None and (call.params.limit is not None or call.params.marker is not None):
        raise Invalid("Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported.")
    next_links: list[dict[str, str]] = []
    if isinstance(call.params, Paging):
        hosts, next_links = page(call, hosts, lambda host: str(shown_id(call, host.provider_id)))
    names = await _servers(call, hosts) if getattr(call.params, "with_servers", False) else None
    shown = [_detailed(call, host, names) if detailed else _briefly(call, host, names) for host in hosts]
    answer: dict[str, Any] = {"hypervisors": shown}
    if next_links:
        answer["hypervisors_links"] = next_links
    return answer


def _hosts(call: Call) -> list[Host]:
    """Every host, in an order that does not change."""
    documents: Iterable[Document] = call.cloud.mirror(HOST).values()
    return sorted((document.state for document in documents), key=lambda host: (host.created_at, host.id))


def _matching(call: Call, pattern: str) -> list[Host]:
    hosts = [host for host in _hosts(call) if pattern in host.id]
    if not hosts:
        raise NotFound(f"No hypervisor matching '{pattern}' could be found.")
    return hosts


def _by_id(call: Call) -> Host:
    wanted = call.path["id"]
    if call.version >= UUIDS and not UUID.fullmatch(wanted):
        raise Invalid(f"Invalid uuid {wanted[:64]}")
    for host in _hosts(call):
        if wanted == str(shown_id(call, host.provider_id)):
            return host
    raise NotFound(f"Hypervisor with ID '{wanted}' could not be found.")


async def _servers(call: Call, hosts: Sequence[Host]) -> dict[str, list[Document]]:
    """The servers that hold something of each host, by its name."""
    on = {consumer: host.id for host in hosts for consumer in provider_of(call, host).claims}
    found: dict[str, list[Document]] = {}
    for id, document in (await call.cloud.documents.get_many(SERVER, list(on))).items():
        if document.state.living:
            found.setdefault(on[id], []).append(document)
    return found


def _brief(call: Call, host: Host) -> dict[str, Any]:
    return {"id": shown_id(call, host.provider_id), "hypervisor_hostname": host.id, **state_of(host)}


def _briefly(call: Call, host: Host, names: dict[str, list[Document]] | None) -> dict[str, Any]:
    brief = _brief(call, host)
    return brief if names is None else _with_servers(call, brief, names.get(host.id, []))


def _detailed(call: Call, host: Host, names: dict[str, list[Document]] | None) -> dict[str, Any]:
    facts = host.facts
    shown = {
        **_brief(call, host),
        "hypervisor_type": facts.hypervisor_type,
        "hypervisor_version": facts.hypervisor_version,
        "host_ip": facts.host_ip,
        "service": {
            "id": shown_id(call, host.service_id),
            "host": host.id,
            "disabled_reason": host.disabled_reason,
        },
    }
    if call.version < LEAN:
        shown |= _amounts(call, host)
        info = facts.cpu_info
        shown["cpu_info"] = info if call.version >= (2, 28) else msgspec.json.encode(info).decode()
    else:
        shown["uptime"] = _uptime(host)
    return shown if names is None else _with_servers(call, shown, names.get(host.id, []))


def _uptime(host: Host) -> str | None:
    """` 12:00:00 up 3 days,  4:05`, as the tool of that name writes it; None: nobody can tell."""
    if not host.alive or not host.facts.booted_at:
        return None
    now = clock.now()
    minutes = max(0, int(now.timestamp()) - host.facts.booted_at) // 60
    days, minutes = divmod(minutes, 24 * 60)
    some = f"{days} day{'s' if days > 1 else ''}, " if days else ""
    return f" {now:%H:%M:%S} up {some}{minutes // 60:2}:{minutes % 60:02}"


_AMOUNTS = (
    "current_workload",
    "disk_available_least",
    "free_disk_gb",
    "free_ram_mb",
    "local_gb",
    "local_gb_used",
    "memory_mb",
    "memory_mb_used",
    "running_vms",
    "vcpus",
    "vcpus_used",
)


def _amounts(call: Call, host: Host) -> dict[str, int]:
    """What the host has, and what of it is taken."""
    provider, facts = provider_of(call, host), host.facts
    memory = provider.inventories.get("MEMORY_MB")
    memory_used = provider.used.get("MEMORY_MB", 0) + (memory.reserved if memory else 0)
    disk_used = provider.used.get("DISK_GB", 0)
    return {
        "current_workload": 0,
        "disk_available_least": facts.disk_gb - disk_used,
        "free_disk_gb": facts.disk_gb - disk_used,
        "free_ram_mb": facts.memory_mb - memory_used,
        "local_gb": facts.disk_gb,
        "local_gb_used": disk_used,
        "memory_mb": facts.memory_mb,
        "memory_mb_used": memory_used,
        "running_vms": len(provider.claims),
        "vcpus": facts.vcpus,
        "vcpus_used": provider.used.get("VCPU", 0),
    }


def _with_servers(call: Call, shown: dict[str, Any], documents: Sequence[Document]) -> dict[str, Any]:
    names = [{"name": document.state.name, "uuid": document.id} for document in documents]
    return {**shown, "servers": names} if names or call.version >= (2, 75) else shown


routes = [
    *listing("/os-hypervisors", index, f"{RULE}:list", until="2.32"),
    *listing("/os-hypervisors", index, f"{RULE}:list", ListQuery, since="2.33", until="2.52"),
    *listing("/os-hypervisors", index, f"{RULE}:list", PatternQuery, since="2.53", strict_since="2.53"),
    *listing("/os-hypervisors/detail", detail, f"{RULE}:list-detail", until="2.32"),
    *listing("/os-hypervisors/detail", detail, f"{RULE}:list-detail", ListQuery, since="2.33", until="2.52"),
    *listing("/os-hypervisors/detail", detail, f"{RULE}:list-detail", PatternQuery, since="2.53", strict_since="2.53"),
    *listing("/os-hypervisors/statistics", statistics, f"{RULE}:statistics", until="2.87"),
    *listing("/os-hypervisors/{id}", show, f"{RULE}:show", NoQuery, until="2.52"),
    *listing("/os-hypervisors/{id}", show, f"{RULE}:show", ShowQuery, since="2.53", strict_since="2.53"),
    *listing("/os-hypervisors/{id}/uptime", uptime, f"{RULE}:uptime", until="2.87"),
    *listing("/os-hypervisors/{pattern}/search", search, f"{RULE}:search", until="2.52"),
    *listing("/os-hypervisors/{pattern}/servers", servers, f"{RULE}:servers", until="2.52"),
]
