"""The volume side of servers: none has any, and none can be attached, until there is block storage."""

from __future__ import annotations

from typing import Annotated, Any, NoReturn

from msgspec import UNSET, Meta, Struct, UnsetType, field

from api.compute.page import Paging, listing
from api.compute.server import server_in_path
from api.wire import Call, Delete, Get, Post, Put
from schema.refusal import Invalid, NotFound

Uuid = Annotated[str, Meta(min_length=36, max_length=36)]
Device = Annotated[str, Meta(pattern=r"^(/dev/[a-zA-Z0-9]{1,250})?$")]


class NewAttachment(Struct, forbid_unknown_fields=True):
    volume_id: Uuid = field(name="volumeId")
    device: Device | None = None
    tag: Annotated[str, Meta(min_length=1, max_length=60, pattern=r"^[^,/]*$")] | UnsetType = UNSET
    delete_on_termination: bool | UnsetType = UNSET


class AttachBody(Struct, forbid_unknown_fields=True):
    attachment: NewAttachment = field(name="volumeAttachment")


class ChangeBody(Struct):
    attachment: dict[str, Any] = field(name="volumeAttachment")


class AttachmentsQuery(Paging, frozen=True):
    offset: Annotated[int, Meta(ge=0)] = 0


_SINCE = {"tag": (2, 49), "delete_on_termination": (2, 79)}


async def attachments(call: Call) -> dict[str, Any]:
    await server_in_path(call)
    return {"volumeAttachments": []}


async def attach(call: Call) -> NoReturn:
    wanted: NewAttachment = call.body.attachment
    for name, since in _SINCE.items():
        if call.version < since and getattr(wanted, name) is not UNSET:
            raise Invalid(f"Additional properties are not allowed ('{name}' was unexpected)")
    await server_in_path(call)
    raise NotFound(f"Volume {wanted.volume_id} could not be found: this cloud has no block storage.")


async def attachment(call: Call) -> NoReturn:
    server = await server_in_path(call)
    volume = call.path["volume"][:255]
    raise NotFound(f"Instance {server.id} is not attached to volume {volume}", code="VolumeAttachmentNotFound")


_RULE = "os_compute_api:os-volumes-attachments"
_PATH = "/servers/{id}/os-volume_attachments"
_ONE = f"{_PATH}/{{volume}}"

routes = [
    *listing(_PATH, attachments, f"{_RULE}:index", AttachmentsQuery),
    Post(_PATH, attach, may=f"{_RULE}:create", body=AttachBody, answers=200, until="2.100"),
    Post(_PATH, attach, may=f"{_RULE}:create", body=AttachBody, answers=202, since="2.101"),
    Get(_ONE, attachment, may=f"{_RULE}:show"),
    Put(_ONE, attachment, may=f"{_RULE}:update", body=ChangeBody, answers=202),
    Delete(_ONE, attachment, may=f"{_RULE}:delete", answers=202),
]
