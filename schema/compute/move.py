"""A server on its way from a host to another.

    MoveRequested ─▶ MovePlaced ─▶ MoveFinished: it is there
         ▲               │
         └── MoveFailed ─┘  another host is tried, or it is given back to the host it came from

Its claim on that host is a consumer's of the migration's id meanwhile; the server's own consumer has the new host.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import dataclass_transform

import msgspec
from msgspec import field

from schema.compute.migration import MigrationType
from schema.compute.topology import Topology
from schema.event import Event
from schema.placement.decision import Decision


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Move(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where from, and what is to become of it."""

    migration_id: str
    type: MigrationType
    source_host: str
    source_provider: str
    source_epoch: int = 0
    """Of its lease, when it was down: alive in this one or a later one it is back."""
    source_zone: str = ""
    source_topology: Topology | None = None
    source_power: int = 0
    """How its guest was there."""
    held: Mapping[str, int] = field(default_factory=dict)
    """What it holds of the host it comes from."""
    host: str = ""
    """The host asked for, if any."""
    forced: bool = False
    """No filter but that of room is asked about it."""
    running: bool = True
    """Whether its guest runs when it is there."""
    tried: tuple[str, ...] = ()
    """Hosts that could not take it."""


class MoveRequested(Event):
    """Somebody wants it moved; its migration begins in the same append."""

    move: Move
    request_id: str = ""


class MovePlaced(Event):
    """A host was found; the claim on it stands in the same append."""

    host: str
    provider_id: str
    zone: str = ""
    decision: Decision | None = None
    topology: Topology | None = None


class MoveFailed(Event):
    """It is given back to the host it came from; what was claimed elsewhere is released in the same append."""

    message: str
    host: str = ""
    """Where it failed; empty: there was no host for it."""
    details: str = ""
    again: bool = False
    """The next host is tried."""
    decision: Decision | None = None


class MoveFinished(Event):
    """It is there; what it held of the host it came from is released in the same append."""

    running: bool


MoveEvent = MoveRequested | MovePlaced | MoveFailed | MoveFinished
