"""Availability zones, as the hosts in them make them."""

from __future__ import annotations

from typing import Any

from api.compute.service_record import BINARY
from api.compute.times import written
from api.wire import Call, Get
from schema.compute.host import HOST, Host


async def index(call: Call) -> dict[str, Any]:
    return {
        "availabilityZoneInfo": [
            {"zoneName": zone, "zoneState": {"available": _available(hosts)}, "hosts": None}
            for zone, hosts in _zones(call).items()
        ]
    }


async def detail(call: Call) -> dict[str, Any]:
    return {
        "availabilityZoneInfo": [
            {
                "zoneName": zone,
                "zoneState": {"available": _available(hosts)},
                "hosts": {host.id: {BINARY: _service(host)} for host in hosts},
            }
            for zone, hosts in _zones(call).items()
        ]
    }


def _zones(call: Call) -> dict[str, list[Host]]:
    zones: dict[str, list[Host]] = {}
    for document in sorted(call.cloud.mirror(HOST).values(), key=lambda document: document.id):
        zones.setdefault(document.state.zone, []).append(document.state)
    return dict(sorted(zones.items()))


def _available(hosts: list[Host]) -> bool:
    return any(host.enabled for host in hosts)


def _service(host: Host) -> dict[str, Any]:
    return {"available": host.alive, "active": host.enabled, "updated_at": written(host.updated_at)}


routes = [
    Get("/os-availability-zone", index, may="os_compute_api:os-availability-zone:list"),
    Get("/os-availability-zone/detail", detail, may="os_compute_api:os-availability-zone:detail"),
]
