"""Images made of servers: one at a time by name, and backups of which the newest are kept."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from api.compute.server import by, server_in_path
from api.compute.server_action import PATH
from api.compute.words import Metadata, Name
from api.wire import Call, Post, Reply
from bus import clock
from bus.execute import Wish
from handlers.compute.quota import defaults, limits_in_force, quota_of
from handlers.compute.server import SERVERS
from handlers.compute.snapshot_image import base_of, making
from schema.compute.quota import UNLIMITED
from schema.compute.server_command import BackUpServer, SnapshotServer
from schema.compute.server_state import Server
from schema.image.image import Image
from schema.refusal import Invalid, OverQuota

ID_SINCE = (2, 45)
"""From here on the image is told by its id; before, by a Location."""
LIMITED_UNTIL = (2, 38)
"""Until here its metadata counts as a server's does."""

Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Digits = Annotated[str, Meta(pattern=r"^[0-9]{1,9}$")]


class CreateImage(Struct, forbid_unknown_fields=True):
    name: Name
    metadata: Metadata = {}


class CreateBackup(Struct, forbid_unknown_fields=True):
    name: Name
    backup_type: str
    rotation: Count | Digits
    metadata: Metadata = {}


async def create_image(call: Call) -> Reply:
    server, wanted = await server_in_path(call), call.body
    await _check_metadata(call, server, wanted.metadata)
    command = SnapshotServer(image_id=clock.uuid4(), **by(call))
    return _told(call, await _make(call, server, command, name=wanted.name))


async def create_backup(call: Call) -> Reply | None:
    """With a rotation of 0 nothing is kept, so no image is told of."""
    server, wanted = await server_in_path(call), call.body
    await _check_metadata(call, server, wanted.metadata)
    rotation = int(wanted.rotation)
    if not wanted.backup_type or len(wanted.backup_type) > 255:
        raise Invalid("Invalid input for field/attribute backup_type: it has 1 to 255 characters.")
    command = BackUpServer(image_id=clock.uuid4(), backup_type=wanted.backup_type, rotation=rotation, **by(call))
    image_id = await _make(call, server, command, name=wanted.name, backup_type=wanted.backup_type)
    return _told(call, image_id) if rotation else None


async def _make(call: Call, server: Server, command: SnapshotServer | BackUpServer, **fields: Any) -> str:
    """The id of the image; of the first one, where the same request was made before."""
    image = making(
        server,
        await base_of(call.cloud, server),
        image_id=command.image_id,
        project_id=call.token.project_id or server.project_id,
        user_id=call.token.user_id,
        metadata=call.body.metadata,
        **fields,
    )
    documents = await call.execute(Wish(SERVERS, server.id, command), *image)
    return next(document.id for document in documents if isinstance(document.state, Image))


def _told(call: Call, image_id: str) -> Reply:
    if call.version >= ID_SINCE:
        return Reply({"image_id": image_id})
    return Reply(headers={"Location": f"{call.cloud.settings.url}/image/v2/images/{image_id}"})


async def _check_metadata(call: Call, server: Server, metadata: dict[str, str]) -> None:
    if call.version > LIMITED_UNTIL:
        return
    limits = limits_in_force(await quota_of(call.cloud, server.project_id), defaults(call.cloud))
    if limits["metadata_items"] != UNLIMITED and len(metadata) > limits["metadata_items"]:
        raise OverQuota("Image metadata limit exceeded")


routes = [
    Post(
        PATH,
        create_image,
        may="os_compute_api:servers:create_image",
        action="createImage",
        body=CreateImage,
        answers=202,
    ),
    Post(
        PATH,
        create_backup,
        may="os_compute_api:os-create-backup",
        action="createBackup",
        body=CreateBackup,
        answers=202,
    ),
]
