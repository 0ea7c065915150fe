"""A server on the shelf: off, its root disk kept as an image, and before long on no host at all.

ShelveRequested ─▶ ServerShelved ─▶ OffloadRequested ─▶ ServerOffloaded: its host has nothing of it any more
│                                      │
└─────── UnshelveRequested ◀───────────┘   from its disk, or anywhere from the image
└─▶ ServerUnshelved: the image goes
"""

from __future__ import annotations

from datetime import datetime
from typing import dataclass_transform

import msgspec
from msgspec import UNSET, UnsetType

from schema.event import Event

NEVER = -1


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Shelf(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a shelved server lies."""

    image_id: str
    offload_seconds: int = 0
    """How long its host keeps it; NEVER: until somebody wants it otherwise."""
    since: datetime | None = None
    """Shelved."""
    host: str = ""
    """The only host it is to come back to, if an administrator named one."""


class ShelveRequested(Event):
    """It shall be powered off and copied into an image, which is made in the same append."""

    image_id: str
    offload_seconds: int = 0
    request_id: str = ""


class ServerShelved(Event):
    pass


class OffloadRequested(Event):
    """Its host shall keep nothing of it."""

    request_id: str = ""


class ServerOffloaded(Event):
    """It is on no host; the claim is released in the same append."""


class UnshelveRequested(Event):
    """`zone`: where it shall be from now on; None: anywhere. `host`: the only one it may come to now."""

    zone: str | UnsetType | None = UNSET
    host: str = ""
    request_id: str = ""


class ServerUnshelved(Event):
    """It runs again; the image it was kept as is deleted in the same append."""


ShelfEvent = ShelveRequested | ServerShelved | OffloadRequested | ServerOffloaded | UnshelveRequested | ServerUnshelved
