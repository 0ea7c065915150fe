"""Values inside of a server's events and state."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, dataclass_transform

import msgspec
from msgspec import field

from schema.compute.task import WAYS, Task


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value inside events and states."""


class ServerFlavor(_Part):
    """The flavor as it was when the server was made from it; what became of it since is of no account."""

    id: str
    name: str
    vcpus: int
    ram_mb: int
    disk_gb: int
    ephemeral_gb: int = 0
    swap_mb: int = 0
    extra_specs: dict[str, str] = field(default_factory=dict)


class ServerImage(_Part):
    """What is remembered of the image a server was made from."""

    id: str
    properties: dict[str, str] = field(default_factory=dict)
    """Those that say what the guest wants of its host: hw_*, os_*, img_*."""
    disk_format: str = ""


class Order(_Part):
    """What was asked for at the beginning, and never changes but for the zone."""

    user_id: str
    reservation_id: str = ""
    launch_index: int = 0
    key_name: str | None = None
    zone: str | None = None
    """The availability zone asked for, if any: it is pinned to that one."""
    host: str | None = None
    """The only host allowed, if an administrator named one."""
    networks: Literal["auto", "none"] = "auto"
    config_drive: bool = False
    scheduler_hints: dict[str, list[str]] = field(default_factory=dict)
    group_id: str | None = None
    """The server group it is a member of."""
    secret_id: str = ""
    """Where the vault keeps its `Boot`."""
    has_user_data: bool = False
    attempts: int = 3
    """Hosts to try, at most."""
    build_seconds: int = WAYS[Task.SPAWNING].seconds
    """How long each of them may take."""


class GuestFile(_Part):
    """A file for a guest to put where it belongs at its first boot."""

    path: str
    contents: str
    """Base64."""


class Boot(_Part):
    """What only the guest itself may learn. Kept in the vault, never in an event."""

    admin_password: str = ""
    user_data: str = ""
    """Base64, as the API took it."""
    public_keys: dict[str, str] = field(default_factory=dict)
    """Name of the keypair → one line of OpenSSH."""
    files: tuple[GuestFile, ...] = ()


class Rebuild(_Part):
    """What a root disk is made anew from."""

    image: ServerImage
    keep_ephemeral: bool = False
    """The other disks stay as they are."""


class Fault(_Part):
    """What went wrong, for a person to read."""

    message: str
    code: int = 500
    details: str = ""
    """For administrators."""
    at: datetime | None = None
