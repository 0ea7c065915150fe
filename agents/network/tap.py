"""Persistent taps: made before their guest, which opens them by name and leaves them when it goes."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct

_DEVICE = "/dev/net/tun"
_SET_INTERFACE, _SET_PERSISTENT = 0x400454CA, 0x400454CB
_TAP, _NO_HEADER, _VIRTIO_HEADER = 0x0002, 0x1000, 0x4000
_REQUEST = struct.Struct("16sH22x")
_ETHTOOL, _GET_LINK = 0x8946, 0xA
_ASK = struct.Struct("16sP16x")


def create(name: str) -> None:
    """In the namespace of this thread, down. One queue, as QEMU opens it: a tap of several would be refused.

    Raises OSError.
    """
    opened = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(opened, _SET_INTERFACE, _REQUEST.pack(name.encode(), _TAP | _NO_HEADER | _VIRTIO_HEADER))
        fcntl.ioctl(opened, _SET_PERSISTENT, 1)
    finally:
        os.close(opened)


def held(name: str) -> bool | None:
    """Whether somebody has it open; None: there is none of that name. In the namespace of this thread."""
    value = ctypes.create_string_buffer(struct.pack("=II", _GET_LINK, 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
        try:
            fcntl.ioctl(asking, _ETHTOOL, _ASK.pack(name.encode(), ctypes.addressof(value)))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
    return bool(struct.unpack("=II", value.raw[:8])[1])
