"""Where the data of images lies: one object per upload, written once, whole or not at all."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from bus.config import Settings
from schema.refusal import Refused

_PART = ".part"


class Full(Refused):
    """There is no room for the data (413, as Glance answers)."""

    status = 413


class Store(Protocol):
    """What keeps data by name. The name is the id of the upload it came with."""

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Keep all of it, durably; nothing of it, if the chunks or the store fail on the way."""

    def path(self, name: str) -> Path:
        """Where on this machine the data can be read as a file."""

    async def remove(self, name: str) -> None:
        """Forget it, finished or not; there is nothing to do when it is not there."""

    async def names(self) -> set[str]:
        """All there is, finished or not."""


def image_store(settings: Settings) -> Store:
    """The store this cloud's settings name."""
    return FileStore(settings.home / "images")


class FileStore:
    """One file per upload in one folder: `<name>.part` while it grows, `<name>` from the moment it is all on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        part = self._file(name, _PART)
        descriptor = await asyncio.to_thread(self._open, part)
        try:
            async for chunk in chunks:
                await asyncio.to_thread(_write, descriptor, chunk)
            await asyncio.to_thread(self._finish, descriptor, part, self._file(name))
        except BaseException as error:
            part.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise Full("There is not enough disk space on the image storage media.") from None
            raise
        finally:
            os.close(descriptor)

    def path(self, name: str) -> Path:
        return self._file(name)

    async def remove(self, name: str) -> None:
        await asyncio.to_thread(_unlink, (self._file(name), self._file(name, _PART)))

    async def names(self) -> set[str]:
        return await asyncio.to_thread(self._names)

    def _file(self, name: str, ending: str = "") -> Path:
        if not name or "/" in name or name.startswith("."):
            raise ValueError(f"{name!r} is no name of an image's data")
        return self.folder / (name + ending)

    def _open(self, part: Path) -> int:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def _finish(self, descriptor: int, part: Path, final: Path) -> None:
        os.fsync(descriptor)
        part.rename(final)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _names(self) -> set[str]:
        with suppress(FileNotFoundError):
            return {file.name.removesuffix(_PART) for file in self.folder.iterdir() if file.is_file()}
        return set()


def _write(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


def _unlink(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
