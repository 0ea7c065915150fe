"""Trunks: several networks over one guest's card, each subport by its tag."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace

from api.network.filter import Filter
from api.network.resource import (
    Resource,
    common,
    found,
    listing,
    living,
    project_of,
    resource_routes,
    to_change,
    viewed,
    visible,
)
from api.network.words import Body, LongText, Project, Text, Uuid, bad
from api.wire import Call, Get, Put
from bus import clock
from bus.documents import Where
from bus.execute import Wish
from bus.log import Document
from handlers.network.addressing import Picks, with_addresses
from handlers.network.port import not_found as port_not_found
from handlers.network.trunk import TRUNKS, not_found
from handlers.network.trunking import adding, ending, making, port_ids, ports_of, removing_subports, trunk_status
from schema.network.network import NETWORK
from schema.network.port import PORT
from schema.network.port_state import Port
from schema.network.trunk import TRUNK, CreateTrunk, Trunk, TrunkSubport, UpdateTrunk

MOST_SUBPORTS = 500
"""In one request."""


class SubportBody(Body):
    port_id: Uuid
    segmentation_type: Text | None = None
    segmentation_id: int | None = None


SubportBodies = Annotated[list[SubportBody], Meta(max_length=MOST_SUBPORTS)]


class NewTrunk(Body):
    port_id: Uuid
    name: Text = ""
    description: LongText = ""
    admin_state_up: bool = True
    sub_ports: SubportBodies | None = None
    tenant_id: Project | None = None
    project_id: Project | None = None


class CreateBody(Body):
    trunk: NewTrunk


class TrunkChange(Body):
    name: Text | UnsetType = UNSET
    description: LongText | UnsetType = UNSET
    admin_state_up: bool | UnsetType = UNSET


class UpdateBody(Body):
    trunk: TrunkChange


class SubportsBody(Body):
    sub_ports: SubportBodies


async def view(call: Call, documents: Sequence[Document]) -> list[dict[str, Any]]:
    ports = await _stored_ports(call, documents)
    return [
        {
            **common(document),
            "admin_state_up": document.state.admin_state_up,
            "port_id": document.state.port_id,
            "status": trunk_status(document.state, ports),
            "sub_ports": _subports_view(document.state),
        }
        for document in documents
    ]


async def _stored_ports(call: Call, documents: Sequence[Document]) -> dict[str, Port]:
    found = await call.cloud.documents.get_many(PORT, sorted(port_ids(document.state for document in documents)))
    return {id: document.state for id, document in found.items() if document.state.living}


def _subports_view(trunk: Trunk) -> list[dict[str, Any]]:
    return [
        {
            "port_id": it.port_id,
            "segmentation_type": it.segmentation_type,
            "segmentation_id": it.segmentation_id,
        }
        for it in trunk.subports
    ]


RESOURCE = Resource(
    name="trunk",
    plural="trunks",
    kind=TRUNK,
    view=view,
    missing=not_found,
    filters={"admin_state_up": Filter(type=bool), "port_id": Filter("parent_id")},
    retagging=lambda id, tags: Wish(TRUNKS, id, UpdateTrunk(tags=tags)),
)


async def index(call: Call) -> Any:
    """A status is in no trunk, so those that have it are looked for first."""
    if "status" not in call.query:
        return await listing(RESOURCE)(call)
    documents = await call.cloud.documents.find(TRUNK, where=visible(call, RESOURCE), limit=None)
    ports = await _stored_ports(call, documents)
    wanted = set(call.query.getall("status"))
    ids = [document.id for document in documents if trunk_status(document.state, ports) in wanted]
    of_them = Filter(condition=lambda call, values: [Where("id", "in", ids)])
    return await listing(replace(RESOURCE, filters={**RESOURCE.filters, "status": of_them}))(call)


async def create(call: Call) -> dict[str, Any]:
    body: NewTrunk = call.body.trunk
    _refuse_unclear(body.sub_ports or ())
    project_id = project_of(call, body.project_id, body.tenant_id)
    id = clock.uuid4()

    async def attempt(picks: Picks) -> Document:
        ports = await _ports(call, [], [body.port_id, *(it.port_id for it in body.sub_ports or ())])
        command = CreateTrunk(
            name=body.name,
            project_id=project_id,
            parent_id=body.port_id,
            description=body.description,
            admin_state_up=body.admin_state_up,
            subports=await _subports(call, body.sub_ports or [], ports),
        )
        return (await call.execute(*await making(call.cloud, id, command, ports)))[0]

    return await _answer(call, await with_addresses(call.cloud, attempt))


async def update(call: Call) -> dict[str, Any]:
    body: TrunkChange = call.body.trunk
    before = await to_change(call, RESOURCE, call.path["id"])
    changes = UpdateTrunk(name=body.name, description=body.description, admin_state_up=body.admin_state_up)
    return await _answer(call, (await call.execute(Wish(TRUNKS, before.id, changes)))[0])


async def delete(call: Call) -> None:
    before = await to_change(call, RESOURCE, call.path["id"])

    async def attempt(picks: Picks) -> None:
        await call.execute(*ending(await _now(call, before.id)))

    await with_addresses(call.cloud, attempt)


async def add_subports(call: Call) -> dict[str, Any]:
    body: SubportsBody = call.body
    _refuse_unclear(body.sub_ports)
    before = await to_change(call, RESOURCE, call.path["id"])

    async def attempt(picks: Picks) -> Document:
        trunk = await _now(call, before.id)
        ports = await _ports(call, [trunk], [it.port_id for it in body.sub_ports])
        subports = await _subports(call, body.sub_ports, ports)
        return (await call.execute(*await adding(call.cloud, trunk, subports, ports)))[0]

    return await viewed(call, RESOURCE, await with_addresses(call.cloud, attempt))


async def remove_subports(call: Call) -> dict[str, Any]:
    body: SubportsBody = call.body
    before = await to_change(call, RESOURCE, call.path["id"])
    trunk = await _now(call, before.id)
    wishes = removing_subports(trunk, [it.port_id for it in body.sub_ports])
    return await viewed(call, RESOURCE, (await call.execute(*wishes))[0])


async def get_subports(call: Call) -> dict[str, Any]:
    return {"sub_ports": _subports_view((await found(call, RESOURCE, call.path["id"])).state)}


async def _ports(call: Call, trunks: Sequence[Trunk], asked: Sequence[str]) -> dict[str, Port]:
    """The ports of trunks, and those the caller asks for. Raises NotFound: not there, or not theirs."""
    ports = await ports_of(call.cloud, trunks, asked)
    for id in asked:
        if id not in ports or not (call.token.is_admin or ports[id].project_id == call.token.project_id):
            raise port_not_found(id)
    return ports


def _refuse_unclear(bodies: Sequence[SubportBody]) -> None:
    """What is wrong by itself, whatever ports there are. Raises Invalid."""
    if len({it.port_id for it in bodies}) < len(bodies):
        raise bad("sub_ports", "there are duplicates")
    tags = []
    for it in bodies:
        if it.segmentation_type == "inherit":
            continue
        if it.segmentation_type != "vlan":
            raise bad("sub_ports", f"'{it.segmentation_type}' is no segmentation type: it is 'vlan' or 'inherit'")
        if it.segmentation_id is None:
            raise bad("sub_ports", f"subport {it.port_id} has no segmentation_id")
        if not 1 <= it.segmentation_id <= 4094:
            raise bad("sub_ports", f"'{it.segmentation_id}' is no VLAN: segmentation_id is from 1 to 4094")
        tags.append(it.segmentation_id)
    _refuse_twice(tags)


def _refuse_twice(tags: Sequence[int]) -> None:
    if len(set(tags)) < len(tags):
        raise bad("sub_ports", "a segmentation_id is there twice")


async def _subports(call: Call, bodies: Sequence[SubportBody], ports: dict[str, Port]) -> tuple[TrunkSubport, ...]:
    """What is asked for, each with its tag. Raises Invalid."""
    subports = []
    for it in bodies:
        tag = it.segmentation_id
        if tag is None or it.segmentation_type == "inherit":
            tag = await _inherited(call, ports[it.port_id])
        subports.append(TrunkSubport(port_id=it.port_id, segmentation_id=tag))
    _refuse_twice([it.segmentation_id for it in subports])
    return tuple(subports)


async def _inherited(call: Call, port: Port) -> int:
    """The tag of the port's network on the wire."""
    networks = await call.cloud.documents.get_many(NETWORK, [port.network_id])
    for segment in networks[port.network_id].state.segments if port.network_id in networks else ():
        if segment.network_type == "vlan" and segment.segmentation_id is not None:
            return int(segment.segmentation_id)
    raise bad("sub_ports", f"the network of port {port.id} is no VLAN, so there is no segmentation_id to inherit")


async def _now(call: Call, id: str) -> Trunk:
    """A trunk as it is now."""
    return await living(call, TRUNK, id, not_found)


async def _answer(call: Call, document: Document) -> dict[str, Any]:
    return {"trunk": await viewed(call, RESOURCE, document)}


routes = [
    *resource_routes(
        RESOURCE,
        index=index,
        create=create,
        create_body=CreateBody,
        update=update,
        update_body=UpdateBody,
        delete=delete,
    ),
    Put("/trunks/{id}/add_subports", add_subports, may="add_subports", body=SubportsBody, lenient=True),
    Put("/trunks/{id}/remove_subports", remove_subports, may="remove_subports", body=SubportsBody, lenient=True),
    Get("/trunks/{id}/get_subports", get_subports, may="get_subports"),
]
