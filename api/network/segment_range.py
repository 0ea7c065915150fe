"""Network segment ranges: which numbers networks are given, for all projects or for one.

What the settings say is a range that is always there and is not changed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from api.network.network import can_carry
from api.network.page import selected
from api.network.parts import listed
from api.network.resource import empty_unless
from api.network.segment import WRITTEN
from api.network.tag import Tags, tag_routes, tags_of
from api.network.words import Body, LongText, Project, Text, bad, refuse_read_only
from api.wire import Call, Delete, Get, Post, Put
from bus import clock
from bus.execute import Wish
from handlers.network.refusing import invalid_input
from handlers.network.segment import VLAN_IDS, VXLAN_IDS, default_ranges, segment_ranges
from handlers.network.segment_range import NUMBER_RANGES, in_use, not_found
from schema.network.network import NETWORK
from schema.network.segment_range import STREAM, AddSegmentRange, ChangeSegmentRange, RemoveSegmentRange, SegmentRange
from schema.refusal import Invalid

MOST_AVAILABLE = 4096
"""Of a range so many free numbers are shown, the lowest; a cloud's default one has millions."""
FIELDS = (
    "id",
    "name",
    "description",
    "default",
    "shared",
    "project_id",
    "tenant_id",
    "network_type",
    "physical_network",
    "minimum",
    "maximum",
    "revision_number",
)
"""What one may filter and sort by."""
Number = Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]


class NewRange(Body):
    network_type: Literal["local", "flat", "vlan", "vxlan", "gre", "geneve"]
    minimum: Number
    maximum: Number
    name: Text = ""
    description: LongText = ""
    shared: bool = True
    physical_network: Text | None = None
    tenant_id: Project | None = None
    project_id: Project | None = None


class CreateBody(Body):
    network_segment_range: NewRange


class RangeChange(Body):
    name: Text | UnsetType = UNSET
    description: LongText | UnsetType = UNSET
    minimum: Number | UnsetType = UNSET
    maximum: Number | UnsetType = UNSET
    shared: Any = UNSET
    network_type: Any = UNSET
    physical_network: Any = UNSET
    tenant_id: Any = UNSET
    project_id: Any = UNSET


class UpdateBody(Body):
    network_segment_range: RangeChange


async def index(call: Call) -> dict[str, Any]:
    made = await segment_ranges(call.cloud)
    views = [
        *(_view(call, it, default=True) for it in default_ranges(can_carry(call))),
        *(_view(call, it) for it in made),
    ]
    return listed(call, "network_segment_ranges", views, FIELDS)


async def show(call: Call) -> dict[str, Any]:
    it, default = await _found(call)
    return {"network_segment_range": selected(call, _view(call, it, default=default))}


async def create(call: Call) -> dict[str, Any]:
    body: NewRange = call.body.network_segment_range
    if body.network_type not in {"vlan", "vxlan"}:
        raise Invalid(
            f"Network type {body.network_type} does not support network segment ranges.",
            code="NetworkSegmentRangeNetTypeNotSupported",
        )
    project_id = body.project_id or body.tenant_id or ""
    if not body.shared and not project_id:
        raise bad("project_id", "a range that is not shared needs one")
    it = SegmentRange(
        id=clock.uuid4(),
        network_type=body.network_type,
        physical_network=body.physical_network or None,
        minimum=body.minimum,
        maximum=body.maximum,
        name=body.name,
        description=body.description,
        project_id="" if body.shared else project_id,
    )
    _refuse_place(call, it)
    _refuse_numbers(it.network_type, it.minimum, it.maximum)
    await call.execute(Wish(NUMBER_RANGES, STREAM, AddSegmentRange(range=it)))
    return await _answer(call, it.id)


async def update(call: Call) -> dict[str, Any]:
    body: RangeChange = call.body.network_segment_range
    before = await _to_change(call)
    refuse_read_only(body, ("shared", "network_type", "physical_network", "tenant_id", "project_id"))
    minimum = before.minimum if body.minimum is UNSET else body.minimum
    maximum = before.maximum if body.maximum is UNSET else body.maximum
    _refuse_numbers(before.network_type, minimum, maximum)
    if any(not minimum <= number <= maximum for number in _referring(call, before)):
        raise in_use(before.id)
    command = ChangeSegmentRange(
        range_id=before.id, name=body.name, description=body.description, minimum=body.minimum, maximum=body.maximum
    )
    await call.execute(Wish(NUMBER_RANGES, STREAM, command))
    return await _answer(call, before.id)


async def delete(call: Call) -> None:
    it = await _to_change(call)
    if _referring(call, it):
        raise in_use(it.id)
    await call.execute(Wish(NUMBER_RANGES, STREAM, RemoveSegmentRange(range_id=it.id)))


async def _tags(call: Call) -> Tags:
    return (await _found(call))[0].tags


async def _retag(call: Call, change: Callable[[Tags], Tags]) -> Tags:
    it = await _to_change(call)
    tags = tags_of(change(it.tags))
    await call.execute(Wish(NUMBER_RANGES, STREAM, ChangeSegmentRange(range_id=it.id, tags=tags)))
    return tags


async def _found(call: Call) -> tuple[SegmentRange, bool]:
    """A range, and whether it is a default one. Raises NotFound."""
    id = call.path["id"]
    defaults = default_ranges(can_carry(call))
    for it in (*defaults, *await segment_ranges(call.cloud)):
        if it.id == id:
            return it, it in defaults
    raise not_found(id)


async def _to_change(call: Call) -> SegmentRange:
    it, default = await _found(call)
    if default:
        raise Invalid(
            f"Network Segment Range {it.id} is a default segment range which could not be updated or deleted.",
            code="NetworkSegmentRangeDefaultReadOnly",
        )
    return it


async def _answer(call: Call, id: str) -> dict[str, Any]:
    it = next((it for it in await segment_ranges(call.cloud) if it.id == id), None)
    if it is None:
        raise not_found(id)
    return {"network_segment_range": _view(call, it)}


def _refuse_place(call: Call, it: SegmentRange) -> None:
    """Raises Invalid."""
    if it.network_type == "vxlan" and it.physical_network is not None:
        raise bad("physical_network", "a VXLAN range has none")
    if it.network_type == "vlan" and it.physical_network not in can_carry(call).physical:
        raise invalid_input(f"physical_network '{it.physical_network or ''}' unknown for VLAN provider network")


def _refuse_numbers(network_type: str, minimum: int, maximum: int) -> None:
    """Raises Invalid."""
    possible, what, code = (
        (VLAN_IDS, "VLAN", "NetworkVlanRangeError")
        if network_type == "vlan"
        else (VXLAN_IDS, "tunnel", "NetworkTunnelRangeError")
    )
    for number in (minimum, maximum):
        if number not in possible:
            raise Invalid(
                f"Invalid network {what} range: '{minimum}:{maximum}' - {number} is not a valid {what} identifier.",
                code=code,
            )
    if maximum < minimum:
        raise Invalid(
            f"Invalid network {what} range: '{minimum}:{maximum}' - End of {what} range is less than its start.",
            code=code,
        )


def _view(call: Call, it: SegmentRange, *, default: bool = False) -> dict[str, Any]:
    used = _used(call, it)
    return {
        "id": it.id,
        "name": it.name,
        "description": it.description,
        "default": default,
        "shared": not it.project_id,
        "project_id": it.project_id or None,
        "tenant_id": it.project_id or None,
        "network_type": it.network_type,
        "physical_network": it.physical_network,
        "minimum": it.minimum,
        "maximum": it.maximum,
        "used": {str(number): used[number] for number in sorted(used)},
        "available": list(islice(_free(it, used), MOST_AVAILABLE)),
        "tags": list(it.tags),
        "created_at": it.created_at.strftime(WRITTEN) if it.created_at else None,
        "updated_at": it.updated_at.strftime(WRITTEN) if it.updated_at else None,
        "revision_number": it.revision,
    }


def _free(it: SegmentRange, used: dict[int, str]) -> Iterable[int]:
    return (number for number in it.numbers if number not in used)


def _referring(call: Call, it: SegmentRange) -> list[int]:
    """The numbers that networks have of it: where it is one project's, others came by theirs before."""
    return [number for number, project_id in _used(call, it).items() if it.project_id in {"", project_id}]


def _used(call: Call, it: SegmentRange) -> dict[int, str]:
    """Number → the project whose network has it."""
    return {
        segment.segmentation_id: document.state.project_id
        for document in call.cloud.mirror(NETWORK).values()
        for segment in document.state.segments
        if (segment.network_type, segment.physical_network) == it.place and segment.segmentation_id in it.numbers
    }


routes = [
    Get(
        "/network_segment_ranges",
        empty_unless("get_network_segment_range", "network_segment_ranges", index),
        may="get_network_segment_ranges",
    ),
    Get("/network_segment_ranges/{id}", show, may="get_network_segment_range"),
    Post("/network_segment_ranges", create, may="create_network_segment_range", body=CreateBody, lenient=True),
    Put("/network_segment_ranges/{id}", update, may="update_network_segment_range", body=UpdateBody, lenient=True),
    Delete("/network_segment_ranges/{id}", delete, may="delete_network_segment_range"),
    *tag_routes("/network_segment_ranges", "network_segment_range", _tags, _retag),
]
