"""What the first bytes of an image say: how large a disk it is, and whether it can be trusted on a host.

qcow2's header: https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.txt
"""

from __future__ import annotations

from schema.refusal import Refused

HEADER_BYTES = 512
"""How much of an image must be at hand to say all this."""

_QCOW2 = b"QFI\xfb"
_EXTERNAL_DATA = 1 << 2
_AS_LONG_AS_THE_FILE = ("raw", "iso", "gpt", "ami", "ari", "aki")


class Unsafe(Refused):
    """The data is not what was declared, or would make a host read files of its own (415, as Glance answers)."""

    status = 415


def check(header: bytes, disk_format: str | None) -> None:
    """Refuse what no host should open. Raises Unsafe."""
    if not header.startswith(_QCOW2):
        return
    if disk_format != "qcow2":
        raise Unsafe(f"The data is a qcow2 image, and disk_format says {disk_format}; set disk_format to qcow2.")
    if _number(header, 8, 8):
        raise Unsafe("The qcow2 image has a backing file; flatten it with `qemu-img convert -O qcow2`.")
    if _number(header, 4, 4) >= 3 and _number(header, 72, 8) & _EXTERNAL_DATA:
        raise Unsafe("The qcow2 image keeps its data in another file; convert it with `qemu-img convert -O qcow2`.")


def virtual_size(header: bytes, disk_format: str | None, size: int) -> int:
    """Bytes of the disk a guest sees; 0: cannot be told."""
    if disk_format == "qcow2":
        return _number(header, 24, 8) if header.startswith(_QCOW2) and len(header) >= 32 else 0
    return size if disk_format in _AS_LONG_AS_THE_FILE else 0


def _number(header: bytes, offset: int, length: int) -> int:
    return int.from_bytes(header[offset : offset + length], "big")
