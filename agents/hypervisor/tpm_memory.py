"""What a guest's TPM remembers, packed into one file for the way to another host, where libvirt is to find it again."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path


def pack(memory: Path, archive: Path) -> None:
    """Blocks. Nothing to do for a guest without one."""
    if memory.exists():
        fresh = archive.with_suffix(".new")
        with tarfile.open(fresh, "w") as packed:
            packed.add(memory, arcname=".")
        fresh.chmod(0o600)
        fresh.replace(archive)


def unpack(archive: Path, memory: Path) -> None:
    """Blocks. What is there already has been unpacked whole."""
    if archive.exists() and not memory.exists():
        fresh = memory.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True, mode=0o711)
        with tarfile.open(archive) as packed:
            for member in packed.getmembers():
                path, content = fresh / member.name, packed.extractfile(member) if member.isfile() else None
                if content and path.resolve().is_relative_to(fresh.resolve()):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content.read())
                    path.chmod(0o600)
        fresh.replace(memory)
    archive.unlink(missing_ok=True)
