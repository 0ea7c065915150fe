"""Longer queues for the sockets by which the switch reads devices: it asks for none, and gets what the machine gives.

That is three packets as large as guests hand them over, so TCP loses many whenever the switch does not run at once. The
setting is the machine's, not a host's, and so no business of ours; so each socket is made longer from outside.
"""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path

import structlog

log = structlog.get_logger()

BYTES = 4 << 20
"""Taken only while frames wait."""
_GET_DESCRIPTOR = 438
"""pidfd_getfd(2): of all architectures the same."""
_FORCE_BUFFER = 33
_libc = ctypes.CDLL(None, use_errno=True)


def lengthen(pid: int) -> int:
    """Of all sockets by which that process reads devices; how many were made longer. Blocks."""
    count = 0
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return 0
    try:
        for path in Path(f"/proc/{pid}/fd").iterdir():
            try:
                count += _lengthen(process, path)
            except FileNotFoundError:
                continue  # closed meanwhile
    except OSError as error:
        log.info("the switch's queues stay short, so guests lose packets under load", error=str(error))
    finally:
        os.close(process)
    return count


def _lengthen(process: int, path: Path) -> bool:
    """Raises OSError."""
    if not str(path.readlink()).startswith("socket:"):
        return False
    found = _libc.syscall(_GET_DESCRIPTOR, process, int(path.name), 0)
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    with socket.socket(fileno=found) as it:
        # The kernel tells of twice what it was asked for.
        if it.family != socket.AF_PACKET or it.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 2 * BYTES:
            return False
        it.setsockopt(socket.SOL_SOCKET, _FORCE_BUFFER, BYTES)
    return True
