"""Auto-allocated topology: networking for who wants none in particular."""

from __future__ import annotations

from typing import Any

from api.network.network import can_carry
from api.wire import Call, Delete, Get
from handlers.network.topology import allocated, default_outside, taken_down, topology


async def show(call: Call) -> dict[str, Any]:
    """The caller's network, made whole if need be. `fields=dry-run`: whether it could be."""
    project_id = _project(call)
    if "dry-run" in call.query.getall("fields", []):
        if await topology(call.cloud, project_id) is None:
            await default_outside(call.cloud, project_id)
        return _view("dry-run=pass", project_id)
    network = await allocated(call.cloud, project_id, can_carry(call), call.by)
    return _view(network.id, project_id)


async def delete(call: Call) -> None:
    await taken_down(call.cloud, _project(call), call.by)


def _project(call: Call) -> str:
    """Whose it is: by `None` clients mean their own."""
    asked = call.path["project"]
    project_id = (call.token.project_id or "") if asked in {"None", "null"} else asked
    call.must(call.route.may or "", project_id=project_id)
    return project_id


def _view(id: str, project_id: str) -> dict[str, Any]:
    return {"auto_allocated_topology": {"id": id, "tenant_id": project_id, "project_id": project_id}}


routes = [
    Get("/auto-allocated-topology/{project}", show, may="get_auto_allocated_topology"),
    Delete("/auto-allocated-topology/{project}", delete, may="delete_auto_allocated_topology"),
]
