"""Disks of guests: qcow2 files over cached images, made with qemu-img."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

from agents.hypervisor.driver import StepFailed

GIB = 1024**3
TIMEOUT_SECONDS = 600.0


async def overlay(path: Path, base: Path, base_format: str, size_bytes: int) -> None:
    """A disk that begins as `base` and is at least `size_bytes` large. Nothing to do if it is there."""
    if path.exists():  # noqa: ASYNC240  one stat of a local file
        return
    info = await inspect(base, base_format)
    virtual = int(info["virtual-size"])
    if size_bytes and virtual > size_bytes:
        raise StepFailed(
            f"the image needs a disk of {-(-virtual // GIB)} GiB and the flavor gives {size_bytes // GIB}; "
            "choose a larger flavor"
        )
    fresh = path.with_suffix(".new")
    size = str(max(size_bytes, virtual))
    await _qemu_img("create", "-q", "-f", "qcow2", "-b", str(base), "-F", base_format, str(fresh), size)
    fresh.replace(path)


async def blank(path: Path, size_bytes: int) -> None:
    """An empty disk. Nothing to do if it is there."""
    if path.exists():  # noqa: ASYNC240  one stat of a local file
        return
    fresh = path.with_suffix(".new")
    await _qemu_img("create", "-q", "-f", "qcow2", str(fresh), str(size_bytes))
    fresh.replace(path)


async def flatten(path: Path, copy: Path) -> None:
    """A qcow2 file of its own with all that is on a disk which nobody writes to."""
    await _qemu_img("convert", "-q", "--force-share", "-f", "qcow2", "-O", "qcow2", str(path), str(copy))


async def virtual_size(path: Path) -> int:
    """How large a guest's disk is, to the guest; in bytes."""
    said = await _qemu_img("info", "--force-share", "--output=json", "-f", "qcow2", str(path))
    return int(json.loads(said)["virtual-size"])


async def grow(path: Path, size_bytes: int) -> None:
    """Make a guest's disk at least so large."""
    if size_bytes > await virtual_size(path):
        await _qemu_img("resize", "-q", "-f", "qcow2", str(path), str(size_bytes))


async def fetch(source: str, path: Path, disk_format: str) -> None:
    """A file of all that is behind an address of QEMU's."""
    await _qemu_img("convert", "-q", "-f", "raw", "-O", disk_format, source, str(path))


async def inspect(path: Path, disk_format: str) -> dict[str, Any]:
    """What qemu-img says of an image read as that format. Raises StepFailed if it is not, or points to other files.

    An image that names a backing or data file would let whoever uploaded it read this host's files.
    """
    said = await _qemu_img("info", "--force-share", "--output=json", "-f", disk_format, str(path))
    info: dict[str, Any] = json.loads(said)
    details = (info.get("format-specific") or {}).get("data") or {}
    if info.get("backing-filename") or details.get("data-file"):
        raise StepFailed("the image refers to another file, which is not allowed")
    return info


async def _qemu_img(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "qemu-img", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            out, err = await process.communicate()
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            raise StepFailed(f"qemu-img {arguments[0]} took longer than {TIMEOUT_SECONDS:.0f} s") from None
        raise
    if process.returncode:
        raise StepFailed(f"qemu-img {arguments[0]}: {err.decode(errors='replace').strip()[-400:]}")
    return out.decode()
