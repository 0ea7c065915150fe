"""What a network agent keeps on disk: the pieces it was told, and the position they are true at.

One file, replaced as a whole, so that it is always some state the agent was in. Losing it costs a full telling.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from schema.network.wiring import Piece

log = structlog.get_logger()


Shared = dict[str, dict[str, Piece]]
"""Network → its peers and endpoints, group → its members, by key. Never changed: hosts that one process plays share it,
and so some of it may be of the very host that holds it."""


class Held(msgspec.Struct, frozen=True):
    """What an agent was told, up to a position. 0: nothing."""

    position: int = 0
    pieces: dict[str, Piece] = msgspec.field(default_factory=dict)
    """The host's own."""
    common: Shared = msgspec.field(default_factory=dict)
    """What it has in common with others."""


class Store(Protocol):
    def load(self) -> Held:
        """What was kept last."""

    async def save(self, held: Held) -> None:
        """Keep this instead. Raises OSError."""


class NoStore:
    """Nothing is kept: the agent asks for everything when it starts."""

    def load(self) -> Held:
        return Held()

    async def save(self, held: Held) -> None:
        """Nothing is kept."""


class FileStore:
    """Kept in a file that only its owner reads: keys of VPN connections are in it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Held:
        try:
            return _decode(self._path.read_bytes())
        except FileNotFoundError:
            return Held()
        except (OSError, msgspec.DecodeError) as error:
            log.warning("what was kept cannot be read; everything is asked for", path=str(self._path), error=str(error))
            return Held()

    async def save(self, held: Held) -> None:
        data = _encode(held)
        await asyncio.to_thread(self._replace, data)

    def _replace(self, data: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        fresh.replace(self._path)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Held).decode
