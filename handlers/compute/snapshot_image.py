"""Images made of servers: their record, and what a server's fate means for them, in the very append that decides it.

failed, or the server ended meanwhile ─▶ the image that has no data yet goes
unshelved, or ended on the shelf ─▶ the image it was kept as goes       backed up ─▶ the oldest of the series go
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from bus.cloud import Cloud
from bus.documents import AnyOf, Where
from bus.execute import Wish
from handlers.compute.server import SERVERS, decide
from handlers.image.image import IMAGES
from schema.compute.server import SERVER
from schema.compute.server_command import FinishSnapshot
from schema.compute.server_event import ActionFailed, ServerDeleted, ServerStateReset
from schema.compute.server_state import Server
from schema.compute.shelf import ServerUnshelved
from schema.compute.snapshot import SnapshotTaken
from schema.event import Command, Event
from schema.image.image import IMAGE, PRIVATE, SHARED, CreateImage, DeleteImage, Image, ShareImage
from schema.refusal import Refused

SNAPSHOT, BACKUP = "snapshot", "backup"

_NOT_INHERITED = re.compile(
    r"cache_in_nova|bittorrent|img_signature.*|cinder_encryption_key_.*|os_glance_.*|owner_specified\..*"
    r"|cumulog_built_in|instance_uuid|user_id|image_type|backup_type|base_image_ref"
)
"""Properties that are of one image only, and say nothing of a copy of what was made from it."""


def making(
    server: Server,
    base: Image | None,
    *,
    image_id: str,
    name: str,
    project_id: str,
    user_id: str,
    backup_type: str = "",
    metadata: Mapping[str, str] | None = None,
) -> tuple[Wish, ...]:
    """The wishes for the record of an image of this server, without data. `base`: what it was made from, if known."""
    inherited = (base.properties if base else {}) | (server.image.properties if server.image else {})
    properties = {key: value for key, value in inherited.items() if not _NOT_INHERITED.fullmatch(key)}
    properties |= {
        "instance_uuid": server.id,
        "user_id": user_id,
        "image_type": BACKUP if backup_type else SNAPSHOT,
        "base_image_ref": server.image.id if server.image else "",
        "owner_id": server.project_id,
        "image_location": "snapshot",
        "image_state": "available",
        **(metadata or {}),
        **({"backup_type": backup_type} if backup_type else {}),
    }
    another = project_id != server.project_id
    record = CreateImage(
        name=name,
        project_id=project_id,
        visibility=SHARED if another else PRIVATE,
        min_disk_gb=max(base.min_disk_gb if base else 0, server.flavor.disk_gb),
        min_ram_mb=base.min_ram_mb if base else 0,
        disk_format="qcow2",
        container_format="bare",
        properties=properties,
    )
    shared = (Wish(IMAGES, image_id, ShareImage(project_id=server.project_id)),) if another else ()
    return (Wish(IMAGES, image_id, record), *shared)


async def base_of(cloud: Cloud, server: Server) -> Image | None:
    """The image a server was made from, as far as it is remembered."""
    if server.image is None:
        return None
    stream = IMAGE.stream(server.image.id)
    document = (await cloud.executor.load([stream])).get(stream)
    return document.state if document is not None else None


async def bringing(cloud: Cloud, image: Image) -> Server | None:
    """The server that an image is being made of, as it is by now; None: it is an image of none."""
    stream = SERVER.stream(image.properties.get("instance_uuid", ""))
    document = (await cloud.log.load([stream])).get(stream)
    return document.state if document is not None else None


async def brought(cloud: Cloud, image: Image) -> tuple[Wish, ...]:
    """What goes with the data of an image of a server, in the append that makes it active."""
    server = await bringing(cloud, image)
    if server is None:
        return ()
    command = FinishSnapshot(image_id=image.id)
    also = await image_wishes(cloud, [(server, command)])
    return (Wish(SERVERS, server.id, command), *also.get(server.id, ()))


async def image_wishes(cloud: Cloud, wanted: Sequence[tuple[Server, Command]]) -> dict[str, tuple[Wish, ...]]:
    """What goes with these commands about servers, by server id. No query where nothing is copied or shelved."""
    wishes: dict[str, tuple[Wish, ...]] = {}
    all_going: dict[str, list[tuple[str, bool]]] = {}
    backed_up: list[Server] = []
    for server, command in wanted:
        if server.snapshot is None and server.shelf is None:
            continue
        events = _events(server, command)
        if server.snapshot and server.snapshot.backup_type and any(isinstance(it, SnapshotTaken) for it in events):
            backed_up.append(server)
        if going := _going(server, events):
            all_going[server.id] = going
    for server_id, rotated in (await _rotated(cloud, backed_up) if backed_up else {}).items():
        all_going.setdefault(server_id, []).extend(rotated)
    streams = [IMAGE.stream(id) for going in all_going.values() for id, _ in going]
    found = await cloud.log.load(streams) if streams else {}
    images: dict[str, Image] = {document.id: document.state for document in found.values()}
    for server_id, going in all_going.items():
        wishes[server_id] = tuple(
            Wish(IMAGES, id, DeleteImage())
            for id, always in going
            if (image := images.get(id)) and image.living and not image.protected and (always or not image.data_id)
        )
    return wishes


def _going(server: Server, events: Sequence[Event]) -> list[tuple[str, bool]]:
    """Images that go: (id, whether also if it has data)."""
    going: list[tuple[str, bool]] = []
    for event in events:
        match event:
            case ServerUnshelved() if server.shelf:
                going.append((server.shelf.image_id, True))
            case ServerDeleted():
                going += [(server.shelf.image_id, True)] if server.shelf else []
                going += [(server.snapshot.image_id, False)] if server.snapshot and not server.shelf else []
            case ServerStateReset() if server.snapshot:
                going.append((server.snapshot.image_id, False))
            case ActionFailed() if server.snapshot:
                going.append((server.snapshot.image_id, True))
    return going


async def _rotated(cloud: Cloud, servers: Sequence[Server]) -> dict[str, list[tuple[str, bool]]]:
    """Those of their series of backups that are too many now, the oldest first to go; by server id, in one query."""
    series = [Where("properties", "contains", _series(server)) for server in servers]
    found = await cloud.documents.find(IMAGE, where=[AnyOf([[it] for it in series])], sort=(), limit=None)
    rotated = {}
    for server in servers:
        if (snapshot := server.snapshot) is not None:
            mine = [it for it in found if _series(server).items() <= it.state.properties.items()]
            mine.sort(key=lambda it: (it.state.created_at, it.id == snapshot.image_id), reverse=True)
            rotated[server.id] = [(document.id, True) for document in mine[snapshot.rotation :]]
    return rotated


def _series(server: Server) -> dict[str, str]:
    """What images of a server have in common that are backups of the same type."""
    backup_type = server.snapshot.backup_type if server.snapshot else ""
    return {"instance_uuid": server.id, "image_type": BACKUP, "backup_type": backup_type}


def _events(server: Server, command: Command) -> Sequence[Event]:
    """What the command will come to; nothing where it will be refused, and the whole append with it."""
    try:
        return decide(server, command)
    except Refused:
        return ()
