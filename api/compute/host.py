"""os-hosts, as clients older than 2.43 know them: hosts by name, what they hold, whether they take servers."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from api.compute.hypervisor import NotImplementedHere, provider_of
from api.compute.page import listing
from api.wire import Call, Put
from bus.documents import Where
from handlers.compute.host import switching
from schema.compute.host import HOST, DisableHost, EnableHost, Host
from schema.compute.server import SERVER
from schema.refusal import Invalid, NotFound

RULE = "os_compute_api:os-hosts"
UNTIL = "2.42"


class Query(Struct, frozen=True):
    zone: str | None = None


Switch = Literal["enable", "disable", "Enable", "Disable", "ENABLE", "DISABLE"]


class HostChange(Struct, forbid_unknown_fields=True):
    status: Switch | UnsetType = UNSET
    maintenance_mode: Switch | UnsetType = UNSET


async def index(call: Call) -> dict[str, Any]:
    hosts = sorted((document.state for document in call.cloud.mirror(HOST).values()), key=lambda host: host.id)
    return {
        "hosts": [
            {"host_name": host.id, "service": "compute", "zone": host.zone}
            for host in hosts
            if not call.params.zone or call.params.zone == host.zone
        ]
    }


async def show(call: Call) -> dict[str, Any]:
    """What the host has, what is taken, what its servers may use at most; and that again by project."""
    host = _named(call)
    facts, provider = host.facts, provider_of(call, host)
    taken = {"cpu": "VCPU", "memory_mb": "MEMORY_MB", "disk_gb": "DISK_GB"}
    used = {name: provider.used.get(word, 0) for name, word in taken.items()}
    projects: dict[str, dict[str, int]] = {}
    for document in await call.cloud.documents.find(SERVER, where=[Where("host", "=", host.id)], limit=None):
        flavor = document.state.flavor
        sums = projects.setdefault(document.state.project_id, dict.fromkeys(taken, 0))
        sums["cpu"] += flavor.vcpus
        sums["memory_mb"] += flavor.ram_mb
        sums["disk_gb"] += flavor.disk_gb + flavor.ephemeral_gb
    rows = {
        "(total)": {"cpu": facts.vcpus, "memory_mb": facts.memory_mb, "disk_gb": facts.disk_gb},
        "(used_now)": used,
        "(used_max)": {name: sum(sums[name] for sums in projects.values()) for name in taken},
        **projects,
    }
    return {"host": [{"resource": {"host": host.id, "project": project, **row}} for project, row in rows.items()]}


async def update(call: Call) -> dict[str, Any]:
    host = _named(call)
    change: HostChange = call.body
    if change.maintenance_mode is not UNSET:
        raise NotImplementedHere("The hypervisors have no maintenance mode: disable the host and migrate its servers.")
    if change.status is UNSET:
        raise Invalid("Invalid input: it needs a status, enable or disable")
    enable = change.status.lower() == "enable"
    await call.execute(*switching(host, EnableHost() if enable else DisableHost()))
    return {"host": host.id, "status": "enabled" if enable else "disabled"}


async def power(call: Call) -> dict[str, Any]:
    host = _named(call)
    raise NotImplementedHere(f"The power of host {host.id} is not Cumulog's: its agent runs beside the hypervisor.")


def _named(call: Call) -> Host:
    name = call.path["name"]
    document = call.cloud.mirror(HOST).get(name)
    if document is None:
        raise NotFound(f"Compute host {name} could not be found.")
    host: Host = document.state
    return host


_ONE = "/os-hosts/{name}"

routes = [
    *listing("/os-hosts", index, f"{RULE}:list", Query, until=UNTIL),
    *listing(_ONE, show, f"{RULE}:show", until=UNTIL),
    Put(_ONE, update, may=f"{RULE}:update", body=HostChange, until=UNTIL, lenient=True),
    *listing(f"{_ONE}/startup", power, f"{RULE}:start", until=UNTIL),
    *listing(f"{_ONE}/shutdown", power, f"{RULE}:shutdown", until=UNTIL),
    *listing(f"{_ONE}/reboot", power, f"{RULE}:reboot", until=UNTIL),
]
