"""What compute had once, and is answered with 410 ever since: nova-network, cells v1, old agents and certificates."""

from __future__ import annotations

from typing import Any

from api.compute.console import Gone
from api.wire import Call, Route

RULE = "os_compute_api:removed"


async def gone(call: Call) -> None:
    raise Gone("This resource is no longer available. No forwarding address is given.")


_ONE = ("GET", "PUT", "DELETE")
_PATHS: tuple[tuple[str, tuple[str, ...], str | None], ...] = (
    ("/os-networks", ("POST",), "2.35"),
    ("/os-networks/add", ("POST",), "2.35"),
    ("/os-networks/{id}", ("DELETE",), "2.35"),
    ("/os-networks/{id}/action", ("POST",), "2.35"),
    ("/os-tenant-networks", ("POST",), "2.35"),
    ("/os-tenant-networks/{id}", ("DELETE",), "2.35"),
    ("/os-floating-ips-bulk", ("GET", "POST"), "2.35"),
    ("/os-floating-ips-bulk/{id}", ("GET", "PUT"), "2.35"),
    ("/os-floating-ip-dns", ("GET",), "2.35"),
    ("/os-floating-ip-dns/{id}", ("PUT", "DELETE"), "2.35"),
    ("/os-floating-ip-dns/{id}/entries/{name}", _ONE, "2.35"),
    ("/os-security-group-default-rules", ("GET", "POST"), "2.35"),
    ("/os-security-group-default-rules/{id}", ("GET", "DELETE"), "2.35"),
    ("/os-fixed-ips/{id}", ("GET",), "2.35"),
    ("/os-fixed-ips/{id}/action", ("POST",), "2.35"),
    ("/os-fping", ("GET",), "2.35"),
    ("/os-fping/{id}", ("GET",), "2.35"),
    ("/os-baremetal-nodes", ("GET", "POST"), "2.35"),
    ("/os-baremetal-nodes/{id}", ("GET", "DELETE"), "2.35"),
    ("/os-baremetal-nodes/{id}/action", ("POST",), "2.35"),
    ("/servers/{id}/os-virtual-interfaces", ("GET",), "2.43"),
    ("/servers/{id}/consoles", ("GET", "POST"), None),
    ("/servers/{id}/consoles/{console_id}", ("GET", "DELETE"), None),
    ("/os-agents", ("GET", "POST"), None),
    ("/os-agents/{id}", ("PUT", "DELETE"), None),
    ("/os-cells", ("GET", "POST"), None),
    ("/os-cells/detail", ("GET",), None),
    ("/os-cells/info", ("GET",), None),
    ("/os-cells/capacities", ("GET",), None),
    ("/os-cells/sync_instances", ("POST",), None),
    ("/os-cells/{id}", _ONE, None),
    ("/os-cells/{id}/capacities", ("GET",), None),
    ("/os-certificates", ("POST",), None),
    ("/os-certificates/{id}", ("GET",), None),
    ("/os-cloudpipe", ("GET", "POST"), None),
    ("/os-cloudpipe/{id}", ("PUT",), None),
)
"""Path, methods, and the last microversion that knows it: later on it is a 404."""


def _row(method: str, path: str, until: str | None) -> Route:
    fields: dict[str, Any] = {"until": until} if until else {}
    return Route(method=method, path=path, handler=gone, may=RULE, **fields)


routes = [_row(method, path, until) for path, methods, until in _PATHS for method in methods]
