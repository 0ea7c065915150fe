"""Where a server rests, and the ways it is on: Nova's own words for both."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Literal, NamedTuple

Power = Literal["running", "stopped", "paused", "suspended", "absent"]
"""What may be wanted of a guest. `suspended`: its memory is on disk and it uses none."""


class VmState(StrEnum):
    BUILDING = "building"
    ACTIVE = "active"
    STOPPED = "stopped"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    RESCUED = "rescued"
    RESIZED = "resized"
    """It is of another size or on another host, and could go back."""
    SHELVED = "shelved"
    SHELVED_OFFLOADED = "shelved_offloaded"
    """It is on no host."""
    SOFT_DELETED = "soft-delete"
    ERROR = "error"
    DELETED = "deleted"


class Task(StrEnum):
    SCHEDULING = "scheduling"
    SPAWNING = "spawning"
    POWERING_ON = "powering-on"
    POWERING_OFF = "powering-off"
    REBOOTING = "rebooting"
    REBOOTING_HARD = "rebooting_hard"
    PAUSING = "pausing"
    UNPAUSING = "unpausing"
    SUSPENDING = "suspending"
    RESUMING = "resuming"
    RESCUING = "rescuing"
    UNRESCUING = "unrescuing"
    DELETING = "deleting"
    REBUILD_DISK = "rebuild_block_device_mapping"
    """Its root disk is made anew where it is."""
    REBUILDING = "rebuilding"
    REBUILD_SPAWNING = "rebuild_spawning"
    RESIZE_PREP = "resize_prep"
    RESIZE_MIGRATING = "resize_migrating"
    RESIZE_FINISH = "resize_finish"
    RESIZE_REVERTING = "resize_reverting"
    MIGRATING = "migrating"
    """It moves while it runs."""
    IMAGE_SNAPSHOT = "image_snapshot"
    IMAGE_BACKUP = "image_backup"
    IMAGE_PENDING_UPLOAD = "image_pending_upload"
    IMAGE_UPLOADING = "image_uploading"
    SHELVING = "shelving"
    SHELVING_IMAGE_PENDING_UPLOAD = "shelving_image_pending_upload"
    SHELVING_IMAGE_UPLOADING = "shelving_image_uploading"
    SHELVING_OFFLOADING = "shelving_offloading"
    UNSHELVING = "unshelving"
    SOFT_DELETING = "soft-deleting"
    RESTORING = "restoring"


class PowerState(IntEnum):
    NOSTATE = 0
    RUNNING = 1
    PAUSED = 3
    SHUTDOWN = 4
    CRASHED = 6
    SUSPENDED = 7


class Way(NamedTuple):
    """What is so while a task is under way."""

    seconds: int
    """How long it may take."""
    guest: Power | None = None
    """What its host should have the guest do; None: what it did before."""
    heavy: bool = True
    """It keeps a host's disks and network at work."""


WAYS: dict[Task, Way] = {
    Task.SCHEDULING: Way(60, heavy=False),
    Task.SPAWNING: Way(900, "running"),
    Task.POWERING_ON: Way(120, "running", heavy=False),
    Task.POWERING_OFF: Way(150, "stopped", heavy=False),
    Task.REBOOTING: Way(210, "running", heavy=False),
    Task.REBOOTING_HARD: Way(120, "running", heavy=False),
    Task.PAUSING: Way(60, "paused", heavy=False),
    Task.UNPAUSING: Way(60, "running", heavy=False),
    Task.SUSPENDING: Way(600, "suspended"),
    Task.RESUMING: Way(300, "running"),
    Task.RESCUING: Way(900, "running"),
    Task.UNRESCUING: Way(300, "running"),
    Task.DELETING: Way(120, "absent", heavy=False),
    Task.REBUILD_DISK: Way(900),
    Task.REBUILDING: Way(60, heavy=False),
    Task.REBUILD_SPAWNING: Way(900),
    Task.RESIZE_PREP: Way(60, heavy=False),
    Task.RESIZE_MIGRATING: Way(150, "stopped"),
    Task.RESIZE_FINISH: Way(3600),
    Task.RESIZE_REVERTING: Way(300, "running"),
    Task.MIGRATING: Way(3600),
    Task.IMAGE_SNAPSHOT: Way(1800),
    Task.IMAGE_BACKUP: Way(1800),
    Task.IMAGE_PENDING_UPLOAD: Way(3600),
    Task.IMAGE_UPLOADING: Way(14_400),
    Task.SHELVING: Way(1800, "stopped"),
    Task.SHELVING_IMAGE_PENDING_UPLOAD: Way(3600, "stopped"),
    Task.SHELVING_IMAGE_UPLOADING: Way(14_400, "stopped"),
    Task.SHELVING_OFFLOADING: Way(120, "absent", heavy=False),
    Task.UNSHELVING: Way(120, "running", heavy=False),
    Task.SOFT_DELETING: Way(150, "stopped", heavy=False),
    Task.RESTORING: Way(120, "running", heavy=False),
}
"""A guest has 60 seconds to shut down when asked to, which stopping and rebooting include."""
CARD_SECONDS = 150
"""How long a card may take to be plugged in or out: a host waits a minute for its tap, and another for the guest."""
