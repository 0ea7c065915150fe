"""What images still need done: the data of deleted ones removed, uploads whose process is gone given up."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from bus import clock
from bus.cloud import Cloud
from bus.documents import AnyOf, Where
from bus.execute import Wish
from bus.log import Document
from handlers.image.image import IMAGES
from handlers.image.store import Store, image_store
from schema.image.image import IMAGE, SAVING, AbandonImageUpload, Image

log = structlog.get_logger()


def overdue(image: Image) -> AbandonImageUpload | None:
    """The wish to give up an upload that shows no sign of life, if there is cause."""
    if image.status == SAVING and image.upload_deadline is not None and image.upload_deadline <= clock.now():
        return AbandonImageUpload(upload_id=image.upload_id, reason="The process that received the data is gone.")
    return None


class ImageReactor:
    """Follow-through for images: `bus.consumer.Reactor`."""

    kinds = (IMAGE,)

    def __init__(self, cloud: Cloud, store: Store | None = None) -> None:
        self._cloud = cloud
        self._store = store or image_store(cloud.settings)

    async def react(self, documents: Sequence[Document]) -> None:
        for document in documents:
            image: Image = document.state
            if image.deleted_at is not None and image.data_id:
                await self._store.remove(image.data_id)
            elif (abandon := overdue(image)) is not None:
                await self._cloud.executor.execute(Wish(IMAGES, image.id, abandon))


async def remove_orphans(cloud: Cloud, store: Store) -> int:
    """Remove data that no image has and no upload is writing; how many. Safe at any time: for every start.

    An upload is in the log before its file is begun, so what is found first and not known afterwards is nobody's.
    """
    names = await store.names()
    if not names:
        return 0
    known = await cloud.documents.find(
        IMAGE,
        where=[AnyOf([[Where("data_id", "in", list(names))], [Where("upload_id", "in", list(names))]])],
        limit=None,
    )
    orphans = names - {document.state.data_id for document in known} - {document.state.upload_id for document in known}
    for name in orphans:
        await store.remove(name)
    if orphans:
        log.info("removed data without an image", files=len(orphans))
    return len(orphans)
