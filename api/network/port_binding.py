"""A port's bindings: where it is plugged, and where a live migration is about to take it.

POST to the target host: it prepares ─▶ activate: the port is there, the former binding INACTIVE ─▶ DELETE that one
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType

from api.network.page import selected
from api.network.port import RESOURCE, now
from api.network.port_body import VnicType
from api.network.port_view import binding_view
from api.network.resource import found
from api.network.words import Body, Text, bad
from api.wire import Call, Delete, Get, Post, Put
from bus.execute import Wish
from bus.log import Document
from handlers.network.binding import FAILED, binding, vifs
from handlers.network.port import PORTS, binding_not_found
from schema.network.port_command import (
    ActivatePortBinding,
    AddPortBinding,
    ChangePortBinding,
    RemovePortBinding,
    UnbindPort,
)
from schema.network.port_state import Binding, Port
from schema.refusal import Conflict, Invalid


class NewBinding(Body):
    host: Text
    vnic_type: VnicType = "normal"
    profile: dict[str, Any] | None = None


class CreateBody(Body):
    binding: NewBinding


class BindingChange(Body):
    host: Text | UnsetType = UNSET
    vnic_type: VnicType | UnsetType = UNSET
    profile: dict[str, Any] | None | UnsetType = UNSET


class UpdateBody(Body):
    binding: BindingChange


async def index(call: Call) -> dict[str, Any]:
    port = await _port(call)
    views = [binding_view(it) for it in port.bindings]
    for name in ("host", "vif_type", "vnic_type", "status"):
        if wanted := call.query.getall(name, []):
            views = [view for view in views if view[name] in wanted]
    return {"bindings": [selected(call, view) for view in views]}


async def show(call: Call) -> dict[str, Any]:
    port = await _port(call)
    return {"binding": selected(call, binding_view(_one(port, call.path["host"])))}


async def create(call: Call) -> dict[str, Any]:
    body: NewBinding = call.body.binding
    port = await _compute_port(call)
    if not body.host:
        raise bad("host", "it must not be empty")
    vif = (await vifs(call.cloud, [body.host]))[body.host]
    if vif.type == FAILED:
        raise Conflict(f"Binding for port {port.id} on host {body.host} could not be created.", code="PortBindingError")
    if port.host:
        add = AddPortBinding(
            host=body.host,
            vnic_type=body.vnic_type,
            profile=body.profile or {},
            vif_type=vif.type,
            vif_details=dict(vif.details),
        )
        if port.bound_to(body.host):
            raise Conflict(
                f"Binding for port {port.id} on host {body.host} already exists.", code="PortBindingAlreadyExists"
            )
        return await _answer(call, body.host, Wish(PORTS, port.id, add))
    change = ChangePortBinding(vnic_type=body.vnic_type, profile=body.profile or {})
    return await _answer(call, body.host, Wish(PORTS, port.id, change), binding(port.id, body.host, vif))


async def update(call: Call) -> dict[str, Any]:
    body: BindingChange = call.body.binding
    port, host = await _compute_port(call), call.path["host"]
    _one(port, host)
    if body.host not in {UNSET, host}:
        raise bad("host", "a binding stays on its host; make another one")
    profile = UNSET if body.profile is UNSET else body.profile or {}
    change = ChangePortBinding(host=host, vnic_type=body.vnic_type, profile=profile)
    return await _answer(call, host, Wish(PORTS, port.id, change))


async def activate(call: Call) -> dict[str, Any]:
    port, host = await _compute_port(call), call.path["host"]
    if _one(port, host).status == "ACTIVE":
        raise Conflict(f"Binding for port {port.id} on host {host} is already active.", code="PortBindingAlreadyActive")
    return (await _answer(call, host, Wish(PORTS, port.id, ActivatePortBinding(host=host))))["binding"]  # type: ignore[no-any-return]


async def delete(call: Call) -> None:
    port, host = await _port(call), call.path["host"]
    command = UnbindPort(host=host) if _one(port, host).status == "ACTIVE" else RemovePortBinding(host=host)
    await call.execute(Wish(PORTS, port.id, command))


async def _port(call: Call) -> Port:
    """The port, as it is now, if the caller sees it. Raises NotFound."""
    return await now(call, (await found(call, RESOURCE, call.path["id"])).id)


async def _compute_port(call: Call) -> Port:
    port = await _port(call)
    if not port.device_owner.startswith("compute:"):
        raise Invalid(
            f"Bad port request: Invalid port {port.id}. Operation only valid on compute ports.", code="BadRequest"
        )
    return port


def _one(port: Port, host: str) -> Binding:
    it = port.bound_to(host)
    if it is None:
        raise binding_not_found(port.id, host)
    return it


async def _answer(call: Call, host: str, *wishes: Wish) -> dict[str, Any]:
    document: Document = (await call.execute(*wishes))[-1]
    return {"binding": binding_view(_one(document.state, host))}


_PATH = "/ports/{id}/bindings"

routes = [
    Get(_PATH, index, may="get_port_binding"),
    Get(_PATH + "/{host}", show, may="get_port_binding"),
    Post(_PATH, create, may="create_port_binding", body=CreateBody, lenient=True),
    Put(_PATH + "/{host}", update, may="update_port_binding", body=UpdateBody, lenient=True),
    Put(_PATH + "/{host}/activate", activate, may="activate"),
    Delete(_PATH + "/{host}", delete, may="delete_port_binding"),
]
