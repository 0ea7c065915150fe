"""What other services say of servers. They all read one log here: it is checked, answered, and waited for by nobody."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from api.compute.words import Uuid
from api.wire import Call, Post, Reply
from schema.compute.server import SERVER
from schema.refusal import Invalid

EVENTS = 1000
"""In one request, at most."""

_SINCE = {
    "volume-extended": (2, 51),
    "power-update": (2, 76),
    "accelerator-request-bound": (2, 82),
    "volume-reimaged": (2, 93),
}


class ExternalEvent(Struct, forbid_unknown_fields=True):
    server_uuid: Uuid
    name: Literal[
        "network-changed",
        "network-vif-plugged",
        "network-vif-unplugged",
        "network-vif-deleted",
        "volume-extended",
        "power-update",
        "accelerator-request-bound",
        "volume-reimaged",
    ]
    status: Literal["failed", "completed", "in-progress"] = "completed"
    tag: Annotated[str, Meta(max_length=255)] | UnsetType = UNSET


class EventsBody(Struct, forbid_unknown_fields=True):
    events: Annotated[list[ExternalEvent], Meta(min_length=1, max_length=EVENTS)]


async def create(call: Call) -> Reply:
    """200 when every event is about a server with a host, 207 otherwise: what went wrong stands at each event."""
    events: list[ExternalEvent] = call.body.events
    for event in events:
        if call.version < _SINCE.get(event.name, (2, 1)):
            raise Invalid(f"Invalid input for field events.name: {event.name!r} is not known in this version.")
    found = await call.cloud.documents.get_many(SERVER, list({event.server_uuid for event in events}))
    shown: list[dict[str, Any]] = []
    for event in events:
        document = found.get(event.server_uuid)
        told = {key: value for key, value in msgspec.structs.asdict(event).items() if value is not UNSET}
        if document is None or not document.state.living:
            shown.append(told | {"status": "failed", "code": 404})
        elif document.state.host is None:
            shown.append(told | {"status": "failed", "code": 422})
        else:
            shown.append(told | {"code": 200})
    fine = all(each["code"] == 200 for each in shown)
    return Reply({"events": shown}, status=200 if fine else 207)


routes = [
    Post(
        "/os-server-external-events",
        create,
        may="os_compute_api:os-server-external-events:create",
        body=EventsBody,
        answers=200,
    )
]
