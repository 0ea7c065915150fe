"""Segments: the ways a network is carried, one by one."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType

from api.network.network import can_carry
from api.network.page import selected
from api.network.parts import listed
from api.network.resource import empty_unless
from api.network.words import Body, LongText, Text, Uuid
from api.wire import Call, Delete, Get, Post, Put
from bus.documents import Where
from bus.execute import Wish
from bus.log import Document
from handlers.network.network import NETWORKS, no_segment, segment_in_use
from handlers.network.segment import Numbering, SegmentWanted, segment, with_numbers
from schema.network.network import (
    NETWORK,
    AddNetworkSegment,
    ChangeNetworkSegment,
    Network,
    RemoveNetworkSegment,
    Segment,
)
from schema.network.subnet import SUBNET

FIELDS = (
    "id",
    "name",
    "description",
    "network_id",
    "network_type",
    "physical_network",
    "segmentation_id",
    "revision_number",
)
"""What one may filter and sort by."""
WRITTEN = "%Y-%m-%dT%H:%M:%SZ"


class NewSegment(Body):
    network_id: Uuid
    network_type: Text
    physical_network: Text | None = None
    segmentation_id: int | None = None
    name: Text | None = None
    description: LongText | None = None
    tenant_id: str | None = None
    project_id: str | None = None


class CreateBody(Body):
    segment: NewSegment


class SegmentChange(Body):
    name: Text | None | UnsetType = UNSET
    description: LongText | None | UnsetType = UNSET


class UpdateBody(Body):
    segment: SegmentChange


async def index(call: Call) -> dict[str, Any]:
    documents = call.cloud.mirror(NETWORK).values()
    views = [_view(it, document.state) for document in documents for it in document.state.segments]
    return listed(call, "segments", views, FIELDS)


async def show(call: Call) -> dict[str, Any]:
    network, it = _found(call)
    return {"segment": selected(call, _view(it, network))}


async def create(call: Call) -> dict[str, Any]:
    body: NewSegment = call.body.segment
    of = can_carry(call)
    wanted = SegmentWanted(
        network_type=body.network_type,
        physical_network=body.physical_network,
        segmentation_id=body.segmentation_id,
        name=body.name or "",
        description=body.description or "",
    )
    fresh = segment(wanted, of)
    there = call.cloud.mirror(NETWORK).get(body.network_id)
    project_id = there.state.project_id if there else ""

    async def attempt(numbering: Numbering) -> Document:
        [numbered] = await numbering.numbered([fresh], project_id)
        return (await call.execute(Wish(NETWORKS, body.network_id, AddNetworkSegment(segment=numbered))))[0]

    network = (await with_numbers(call.cloud, of, attempt)).state
    return {"segment": _view(_of(network, fresh.id), network)}


async def update(call: Call) -> dict[str, Any]:
    body: SegmentChange = call.body.segment
    network, it = _found(call)
    command = ChangeNetworkSegment(
        segment_id=it.id,
        name=UNSET if body.name is UNSET else body.name or "",
        description=UNSET if body.description is UNSET else body.description or "",
    )
    after = (await call.execute(Wish(NETWORKS, network.id, command)))[0].state
    return {"segment": _view(_of(after, it.id), after)}


async def delete(call: Call) -> None:
    network, it = _found(call)
    subnets = await call.cloud.documents.find(SUBNET, where=[Where("segment_id", "=", it.id)], limit=1)
    if subnets:
        raise segment_in_use(it.id, f"The segment is still associated with subnet(s) {subnets[0].id}")
    await call.execute(Wish(NETWORKS, network.id, RemoveNetworkSegment(segment_id=it.id)))


def _found(call: Call) -> tuple[Network, Segment]:
    """A segment and its network. Raises NotFound."""
    id = call.path["id"]
    for document in call.cloud.mirror(NETWORK).values():
        for it in document.state.segments:
            if it.id == id:
                return document.state, it
    raise no_segment(id)


def _of(network: Network, id: str) -> Segment:
    found = next((it for it in network.segments if it.id == id), None)
    if found is None:
        raise no_segment(id)
    return found


def _view(it: Segment, network: Network) -> dict[str, Any]:
    created, updated = it.created_at or network.created_at, it.updated_at or network.created_at
    return {
        "id": it.id,
        "network_id": network.id,
        "network_type": it.network_type,
        "physical_network": it.physical_network,
        "segmentation_id": it.segmentation_id,
        "name": it.name or None,
        "description": it.description or None,
        "created_at": created.strftime(WRITTEN) if created else None,
        "updated_at": updated.strftime(WRITTEN) if updated else None,
        "revision_number": it.revision,
    }


routes = [
    Get("/segments", empty_unless("get_segment", "segments", index), may="get_segments"),
    Get("/segments/{id}", show, may="get_segment"),
    Post("/segments", create, may="create_segment", body=CreateBody, lenient=True),
    Put("/segments/{id}", update, may="update_segment", body=UpdateBody, lenient=True),
    Delete("/segments/{id}", delete, may="delete_segment"),
]
