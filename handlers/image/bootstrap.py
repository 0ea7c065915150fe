"""The image a cloud is born with: a file on this machine, registered once and public."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Mapping
from itertools import count
from pathlib import Path

from bus.cloud import Cloud
from bus.documents import Where
from bus.execute import Wish
from bus.log import Document
from handlers.image.image import IMAGES
from handlers.image.store import Store, image_store
from handlers.image.upload import CHUNK_BYTES, receive
from schema.image.image import (
    ACTIVE,
    DEACTIVATED,
    IMAGE,
    PUBLIC,
    SAVING,
    AbandonImageUpload,
    ChangeImage,
    CreateImage,
    Image,
)

GUEST = "cumulog-guest"
_MARK = {"cumulog_built_in": "true"}
_IDS = uuid.UUID("5d3c1a52-0f0e-5c62-9d1f-2b4a8f6f6d11")


async def register(
    cloud: Cloud,
    path: Path,
    *,
    project_id: str,
    name: str = GUEST,
    disk_format: str = "qcow2",
    min_disk_gb: int = 0,
    min_ram_mb: int = 0,
    properties: Mapping[str, str] | None = None,
    store: Store | None = None,
) -> Document:
    """The public image of that name with that file's data; uploaded if it is not there yet, at most once.

    Its id is a function of name and data, so any number of starts and processes agree on it. An older build of the
    same name is hidden from lists: servers made from it keep it. One that was deleted comes back under another id;
    whoever wants none of it hides or deactivates it.
    """
    digest = await asyncio.to_thread(_sha512, path)
    wish = CreateImage(
        name=name,
        project_id=project_id,
        visibility=PUBLIC,
        disk_format=disk_format,
        container_format="bare",
        min_disk_gb=min_disk_gb,
        min_ram_mb=min_ram_mb,
        properties=_MARK | dict(properties or {}),
    )
    document = await _created(cloud, f"{name}:{digest}", wish)
    document = await _with_data(cloud, document, path, store or image_store(cloud.settings))
    await _hide_older(cloud, document, name, project_id)
    return document


async def _created(cloud: Cloud, seed: str, wish: CreateImage) -> Document:
    for life in count():
        id = str(uuid.uuid5(_IDS, f"{seed}:{life}"))
        found = (await cloud.log.load([IMAGE.stream(id)])).get(IMAGE.stream(id))
        if found is None:
            [found] = await cloud.executor.execute(Wish(IMAGES, id, wish))
        if found.state.living:
            return found
    raise AssertionError("count() never ends")


async def _with_data(cloud: Cloud, document: Document, path: Path, store: Store) -> Document:
    image: Image = document.state
    if image.status in (ACTIVE, DEACTIVATED):
        return document
    if image.status == SAVING:  # a start that was killed: this one takes over
        [document] = await cloud.executor.execute(Wish(IMAGES, image.id, AbandonImageUpload(upload_id=image.upload_id)))
    return await receive(cloud, store, document.state, _read(path))


async def _hide_older(cloud: Cloud, newest: Document, name: str, project_id: str) -> None:
    older = await cloud.documents.find(
        IMAGE,
        where=[
            Where("name", "=", name),
            Where("project_id", "=", project_id),
            Where("visibility", "=", PUBLIC),
            Where("hidden", "=", False),
            Where("id", "!=", newest.id),
            Where("properties", "contains", _MARK),
        ],
    )
    for document in older:
        await cloud.executor.execute(Wish(IMAGES, document.id, ChangeImage(hidden=True)))


async def _read(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk


def _sha512(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha512").hexdigest()
