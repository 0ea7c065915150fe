"""Images on a hypervisor host: each downloaded once, checked, and shared by every guest made from it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp
import structlog

from agents.hypervisor.disk import inspect
from agents.hypervisor.driver import StepFailed
from bus import clock
from schema.compute.domain import ImageRef

log = structlog.get_logger()

ATTEMPTS = 3
RETRY_SECONDS = 1.0
CHUNK_BYTES = 1024 * 1024
SILENCE_SECONDS = 60.0
"""A download that brings nothing for so long has failed."""
UNUSED_SECONDS = 24 * 3600.0

FORMATS = {"qcow2": "qcow2", "raw": "raw"}

OnBytes = Callable[[int, int], None]
"""(bytes so far, bytes in all or 0)"""

_Download = tuple[asyncio.Task[Path], list[OnBytes]]


class ImageCache:
    """A folder of images. However many wait for one, it is downloaded once; it is there whole and checked, or not."""

    def __init__(self, folder: Path, *, unused_seconds: float = UNUSED_SECONDS) -> None:
        self.folder = folder
        self._unused_seconds = unused_seconds
        self._downloads: dict[Path, _Download] = {}
        self._number = 0

    def path(self, image: ImageRef) -> Path:
        """Where it is, or would be. Named by checksum, so that an image that changes is another one."""
        name = re.sub(r"[^A-Za-z0-9-]", "_", image.checksum[:64] or image.id)
        return self.folder / f"{name}.{image.disk_format}"

    async def get(self, image: ImageRef, on_bytes: OnBytes) -> Path:
        """The image as a file. Raises StepFailed. When nobody waits any more, the download ends."""
        if image.disk_format not in FORMATS:
            raise StepFailed(f"image {image.id} is {image.disk_format}; this host takes {' and '.join(FORMATS)}")
        path = self.path(image)
        if path.exists():
            os.utime(path)
            return path
        download = self._downloads.get(path)
        if download is None:
            waiting: list[OnBytes] = []
            task = asyncio.create_task(self._fetch(image, path, waiting), name=f"image {image.id}")
            download = self._downloads[path] = (task, waiting)
            task.add_done_callback(lambda _: self._forget(path, download))
        task, waiting = download
        waiting.append(on_bytes)
        try:
            return await asyncio.shield(task)
        finally:
            waiting.remove(on_bytes)
            if not waiting:
                self._forget(path, download)
                task.cancel()

    def clean(self, in_use: Collection[Path]) -> None:
        """Remove what no disk is laid over and nobody asked for in a day."""
        if not self.folder.exists():
            return
        old = clock.now().timestamp() - self._unused_seconds
        for path in self.folder.iterdir():
            if path not in in_use and path.stat().st_mtime < old:
                log.info("unused image removed", image=path.name)
                path.unlink(missing_ok=True)

    def _forget(self, path: Path, download: _Download) -> None:
        if self._downloads.get(path) is download:
            del self._downloads[path]

    async def _fetch(self, image: ImageRef, path: Path, waiting: list[OnBytes]) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._number += 1
        part = path.with_suffix(f".part-{os.getpid()}-{self._number}")
        try:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    await self._download(image, part, waiting)
                    break
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    words = f"image {image.id} could not be downloaded: {str(error) or type(error).__name__}"
                    if attempt == ATTEMPTS or (isinstance(error, aiohttp.ClientResponseError) and error.status < 500):
                        raise StepFailed(words) from None
                    log.warning("download of an image failed and begins again", image=image.id, error=words)
                    await asyncio.sleep(attempt * RETRY_SECONDS)
            await inspect(part, FORMATS[image.disk_format])
            part.chmod(0o644)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return path

    async def _download(self, image: ImageRef, part: Path, waiting: list[OnBytes]) -> None:
        started = clock.monotonic()
        digest = hashlib.sha512()
        size = 0
        with part.open("wb") as file:
            async for chunk in _chunks(image):
                size += len(chunk)
                if image.size_bytes and size > image.size_bytes:
                    raise StepFailed(f"image {image.id} is longer than the {image.size_bytes} bytes it should be")
                await asyncio.to_thread(_keep, file.write, digest.update, chunk)
                for on_bytes in waiting:
                    on_bytes(size, image.size_bytes)
        if image.size_bytes and size != image.size_bytes:
            raise OSError(f"only {size} of {image.size_bytes} bytes came")
        if image.checksum and digest.hexdigest() != image.checksum.lower():
            raise StepFailed(f"image {image.id} is damaged: its sha512 is not the one it was stored with")
        log.info("image downloaded", image=image.id, size_bytes=size, seconds=round(clock.monotonic() - started, 2))


def _keep(write: Callable[[bytes], object], update: Callable[[bytes], object], chunk: bytes) -> None:
    write(chunk)
    update(chunk)


async def _chunks(image: ImageRef) -> AsyncIterator[bytes]:
    url = urlsplit(image.url)
    if url.scheme == "file":
        with open(unquote(url.path), "rb") as file:  # noqa: ASYNC230  read in a thread
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield chunk
        return
    headers = {"X-Auth-Token": image.ticket.token} if image.ticket.token else {}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SILENCE_SECONDS)
    async with (
        aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
        session.get(image.url, raise_for_status=True) as response,
    ):
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            yield chunk
