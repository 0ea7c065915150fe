"""Which NUMA nodes a server has, since 2.78; where on its host they are, for administrators."""

from __future__ import annotations

from typing import Any

from api.compute.server import server_in_path
from api.wire import Call, Get
from schema.compute.topology import SMALL_PAGE_KIB, GuestCell, Topology

RULE = "compute:server:topology"


async def show(call: Call) -> dict[str, Any]:
    server = await server_in_path(call)
    whole = call.may(f"{RULE}:host:index", project_id=server.project_id)
    return view(server.topology, whole=whole)


def view(topology: Topology | None, *, whole: bool) -> dict[str, Any]:
    """A server without NUMA nodes of its own has none to show."""
    cells = topology.cells if topology is not None and topology.numa else ()
    pages = {cell.page_kib for cell in cells if cell.page_kib} or ({SMALL_PAGE_KIB} if cells else set())
    return {
        "nodes": [_cell(cell, whole=whole) for cell in cells],
        "pagesize_kb": min(pages) if pages else None,
    }


def _cell(cell: GuestCell, *, whole: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "memory_mb": cell.memory_mb,
        "vcpu_set": sorted(cell.cpus),
        "siblings": [sorted(cores) for cores in cell.siblings],
    }
    if whole:
        shown["host_node"] = cell.host_cell
        shown["cpu_pinning"] = {str(vcpu): cpu for vcpu, cpu in sorted(cell.pins.items())}
    return shown


routes = [Get("/servers/{id}/topology", show, may=f"{RULE}:index", since="2.78")]
