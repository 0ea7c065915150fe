"""A tree of files as the kernel takes it at boot: cpio in the `newc` format, gzipped, the same bytes for the same tree.

Format: https://www.kernel.org/doc/html/latest/driver-api/early-userspace/buffer-format.html
"""

from __future__ import annotations

import gzip
import stat


class Tree:
    """Files, folders, links and devices, all root's; made without being root."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, bytes, tuple[int, int]]] = {}

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        self._put(path, stat.S_IFREG | mode, content)

    def folder(self, path: str, mode: int = 0o755) -> None:
        self._put(path, stat.S_IFDIR | mode)

    def link(self, path: str, target: str) -> None:
        self._put(path, stat.S_IFLNK | 0o777, target.encode())

    def device(self, path: str, major: int, minor: int) -> None:
        self._put(path, stat.S_IFCHR | 0o600, device=(major, minor))

    def packed(self) -> bytes:
        """Folders before what is in them; no times, no owners, so that the bytes depend on the content alone."""
        parts = [
            _record(number, path, mode, content, device)
            for number, (path, (mode, content, device)) in enumerate(sorted(self._entries.items()), start=1)
        ]
        parts.append(_record(0, "TRAILER!!!", 0, b"", (0, 0)))
        return gzip.compress(b"".join(parts), mtime=0)

    def _put(self, path: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        above = path.rpartition("/")[0]
        if above and above not in self._entries:
            self.folder(above)
        self._entries[path] = (mode, content, device)


def _record(number: int, path: str, mode: int, content: bytes, device: tuple[int, int]) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (number, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
