"""nftables without the `nft` program: libnftables takes commands as `nft` does, as one transaction, and lists as JSON.

Everything here belongs to the network namespace of the thread that calls it: run it by `Namespace.run`.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from functools import cache
from typing import Any

import msgspec

from agents.network import netlink

LIBRARY = "libnftables.so.1"
_JSON, _NUMERIC, _HANDLES = 1 << 4, 0b1111 << 7, 1 << 3
_NETFILTER = 12
"""Netlink family."""
_TABLES, _GET_GENERATION, _GENERATION_ID = 10 << 8, 16, 1
_TIMEOUT_SECONDS = 5.0
_LONGEST_ERROR = 1000


class NftRefused(Exception):
    """The kernel or the grammar refused a transaction, of which nothing was done."""


def apply(commands: str) -> None:
    """All of it or nothing, at once for every packet. Raises NftRefused."""
    _run(commands, 0)


def listed(family: str, table: str) -> list[dict[str, Any]] | None:
    """What is in a table: libnftables' JSON objects, each `{kind: fields}`. None: there is no such table."""
    try:
        text = _run(f"list table {family} {table}", _JSON | _NUMERIC | _HANDLES)
    except NftRefused as error:
        if "No such file" in str(error):
            return None
        raise
    found: list[dict[str, Any]] = msgspec.json.decode(text)["nftables"]
    return [it for it in found if "metainfo" not in it]


def generation() -> int:
    """Rises by one with every transaction of anybody: while it stays, nothing has changed."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER) as asking:
        asking.settimeout(_TIMEOUT_SECONDS)
        asking.bind((0, 0))
        asking.send(struct.pack("=IHHIIBBH", 20, _TABLES | _GET_GENERATION, netlink.REQUEST, 1, 0, 0, 0, 0))
        answer = asking.recv(4096)
    found = netlink.attributes(answer, 20)
    return int.from_bytes(found[_GENERATION_ID], "big") if _GENERATION_ID in found else -1


def _run(commands: str, flags: int) -> str:
    library = _library()
    context = library.nft_ctx_new(0)
    if not context:
        raise NftRefused("libnftables cannot reach the kernel: is nf_tables there, and is this process allowed to?")
    try:
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        library.nft_ctx_output_set_flags(context, flags)
        if library.nft_run_cmd_from_buffer(context, commands.encode()) != 0:
            raise NftRefused(_error(library.nft_ctx_get_error_buffer(context)))
        return (library.nft_ctx_get_output_buffer(context) or b"").decode()
    finally:
        library.nft_ctx_free(context)


def _error(said: bytes | None) -> str:
    lines = (said or b"").decode(errors="replace").strip() or "libnftables refused, and did not say why"
    return lines[:_LONGEST_ERROR]


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise NftRefused(f"{LIBRARY} is not on this host: install Debian's libnftables1") from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    return library
