"""A server's root disk copied into an image, while the server stays what it is.

SnapshotRequested ─▶ SnapshotProgressed: its host is at it, the data comes ─▶ SnapshotTaken
└── ActionFailed: the image goes
"""

from __future__ import annotations

from typing import dataclass_transform

import msgspec

from schema.compute.task import Task
from schema.event import Event


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Snapshot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The image that its root disk is being copied into."""

    image_id: str
    backup_type: str = ""
    """It is one of a series of that name; empty: of none."""
    rotation: int = 0
    """So many of the series are kept, the newest."""


class SnapshotRequested(Event):
    """Somebody wants an image of it; that is made in the same append, and has no data yet."""

    snapshot: Snapshot
    request_id: str = ""


class SnapshotProgressed(Event):
    task: Task


class SnapshotTaken(Event):
    """The image has its data."""


SnapshotEvent = SnapshotRequested | SnapshotProgressed | SnapshotTaken


COPYING: dict[Task, Task] = {
    Task.IMAGE_SNAPSHOT: Task.IMAGE_PENDING_UPLOAD,
    Task.IMAGE_BACKUP: Task.IMAGE_PENDING_UPLOAD,
    Task.SHELVING: Task.SHELVING_IMAGE_PENDING_UPLOAD,
}
"""What it is at once its host copies the disk."""
UPLOADING: dict[Task, Task] = {
    **dict.fromkeys((*COPYING, Task.IMAGE_PENDING_UPLOAD), Task.IMAGE_UPLOADING),
    **dict.fromkeys((Task.SHELVING, Task.SHELVING_IMAGE_PENDING_UPLOAD), Task.SHELVING_IMAGE_UPLOADING),
}
"""What it is at once the image service gets the data."""
SNAPSHOTTING = frozenset({*UPLOADING, *UPLOADING.values()})
"""Its root disk is being copied into an image."""
