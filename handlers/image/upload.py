"""An upload: bytes flow through checks and digests into the store; the image turns active, or is queued again.

started ──▶ chunks ─▶ checked, hashed ─▶ stored ──▶ finished
               └── broken off, too large, unsafe, no room ──▶ abandoned: queued again, no file left
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta

import asyncpg
import structlog

from bus import clock
from bus.cloud import Cloud
from bus.execute import SYSTEM, Context, Wish
from bus.log import Document
from handlers.image import inspect
from handlers.image.image import IMAGES
from handlers.image.store import Store
from schema.image.image import (
    AbandonImageUpload,
    ContinueImageUpload,
    FinishImageUpload,
    Image,
    StartImageUpload,
)
from schema.refusal import Invalid, Refused

log = structlog.get_logger()

CHUNK_BYTES = 1 << 20
"""Gathered before hashing and writing, each in a thread."""
PATIENCE_SECONDS = 120.0
"""Without new data for so long, an upload is given up."""
LEASE = timedelta(seconds=3 * PATIENCE_SECONDS)
"""Past this without renewal (the process is gone), the image is queued again."""
HASH_ALGORITHM = "sha512"


class TooLarge(Refused):
    """The data exceeds the limit (413)."""

    status = 413


class BrokenOff(Invalid):
    """The client went away, or sent less than it said (400, if anybody still listens)."""


async def receive(
    cloud: Cloud,
    store: Store,
    image: Image,
    chunks: AsyncIterator[bytes],
    *,
    declared_bytes: int | None = None,
    by: Context = SYSTEM,
    also: Sequence[Wish] = (),
    finally_also: Callable[[], Awaitable[Sequence[Wish]]] | None = None,
) -> Document:
    """Take in an image's data; the active image. Whatever is raised, the image is queued again and no file is left.

    `also`: what is wished along with the beginning; `finally_also`: with the end.
    """
    execute = cloud.executor.execute
    upload_id = clock.uuid4()
    limit = cloud.settings.image_limit_bytes
    if declared_bytes is not None and declared_bytes > limit:
        raise _too_large(limit)
    await execute(Wish(IMAGES, image.id, StartImageUpload(upload_id=upload_id, deadline=_lease())), *also, by=by)
    intake = _Intake(cloud, image, upload_id, limit, by)
    try:
        await store.put(upload_id, intake.through(chunks))
        wishes = await finally_also() if finally_also else ()
        [document, *_] = await execute(Wish(IMAGES, image.id, intake.finish(declared_bytes)), *wishes, by=by)
    except BaseException as error:
        reason = error.message if isinstance(error, Refused) else "The data stopped coming."
        wish = AbandonImageUpload(upload_id=upload_id, reason=reason)
        await asyncio.shield(_abandon(cloud, store, image.id, wish, by))
        raise
    return document


async def _abandon(cloud: Cloud, store: Store, id: str, wish: AbandonImageUpload, by: Context) -> None:
    """Back to queued; if the log cannot be told now, the sweep does it past the deadline."""
    try:
        [document] = await cloud.executor.execute(Wish(IMAGES, id, wish), by=by)
        # An append whose answer was lost on the way may have made the image active after all.
        if document.state.data_id != wish.upload_id or not document.state.living:
            await store.remove(wish.upload_id)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        log.warning("upload left to the sweep", image=id, error=repr(error))


class _Intake:
    """Counts, checks and hashes what flows through it."""

    def __init__(self, cloud: Cloud, image: Image, upload_id: str, limit: int, by: Context) -> None:
        self.size = 0
        self._cloud = cloud
        self._image = image
        self._upload_id = upload_id
        self._limit = limit
        self._by = by
        self._header = b""
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._hash = hashlib.new(HASH_ALGORITHM)
        self._renew_at = clock.monotonic() + PATIENCE_SECONDS

    async def through(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in _gathered(chunks):
            if not self.size:
                self._header = chunk[: inspect.HEADER_BYTES]
                inspect.check(self._header, self._image.disk_format)
            self.size += len(chunk)
            if self.size > self._limit:
                raise _too_large(self._limit)
            await asyncio.gather(
                asyncio.to_thread(self._md5.update, chunk), asyncio.to_thread(self._hash.update, chunk)
            )
            yield chunk
            if clock.monotonic() > self._renew_at:
                self._renew_at = clock.monotonic() + PATIENCE_SECONDS
                renewed = ContinueImageUpload(upload_id=self._upload_id, deadline=_lease())
                await self._cloud.executor.execute(Wish(IMAGES, self._image.id, renewed), by=self._by)

    def finish(self, declared_bytes: int | None) -> FinishImageUpload:
        if declared_bytes is not None and self.size != declared_bytes:
            raise BrokenOff(f"{declared_bytes} bytes were announced, and {self.size} came.")
        return FinishImageUpload(
            upload_id=self._upload_id,
            size=self.size,
            virtual_size=inspect.virtual_size(self._header, self._image.disk_format, self.size),
            checksum=self._md5.hexdigest(),
            hash_algorithm=HASH_ALGORITHM,
            hash_value=self._hash.hexdigest(),
        )


async def _gathered(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Small chunks put together to large ones. Raises BrokenOff when nothing comes for too long."""
    waiting: list[bytes] = []
    size = 0
    while True:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise BrokenOff(f"No data came for {PATIENCE_SECONDS:.0f} seconds.") from None
        if chunk is not None:
            waiting.append(chunk)
            size += len(chunk)
        if size >= CHUNK_BYTES or (chunk is None and size):
            yield b"".join(waiting)
            waiting, size = [], 0
        if chunk is None:
            return


def _lease() -> datetime:
    return clock.now() + LEASE


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"Image exceeds the storage quota: it may have {limit} bytes at most.")
