"""A server on its way from a host to another (or, for another size, to where it is).

    evacuation   seeking ─▶ arriving ─▶ there                            built anew; the host it leaves is down
    cold         seeking ─▶ leaving ─▶ arriving ─▶ resting ─▶ there      off at the source, copied, begun at the target
                                                    └─▶ returning ─▶ back
    live         seeking ─▶ preparing ─▶ leaving ─▶ there                the target waits for it, and it comes running

Until it is there a fault leaves it where it came from; while another host may be tried, it seeks again. Its claim on
the host it comes from is a consumer's of the migration's id meanwhile; the server's own has the host it goes to.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import dataclass_transform

import msgspec
from msgspec import field

from schema.compute.migration import MigrationType
from schema.compute.server_parts import ServerFlavor
from schema.compute.task import Task
from schema.compute.topology import Topology
from schema.event import Event
from schema.placement.decision import Decision


class Phase(StrEnum):
    SEEKING = "seeking"
    PREPARING = "preparing"
    """The host it goes to makes ready for it."""
    LEAVING = "leaving"
    """The host it comes from lets it go."""
    ARRIVING = "arriving"
    """It is the host's it goes to."""
    RESTING = "resting"
    """It is there, and could go back."""
    RETURNING = "returning"


_EVACUATING = {Phase.SEEKING: Task.REBUILDING, Phase.ARRIVING: Task.REBUILD_SPAWNING}
_COLD: dict[Phase, Task | None] = {
    Phase.SEEKING: Task.RESIZE_PREP,
    Phase.LEAVING: Task.RESIZE_MIGRATING,
    Phase.ARRIVING: Task.RESIZE_FINISH,
    Phase.RESTING: None,
    Phase.RETURNING: Task.RESIZE_REVERTING,
}
_LIVE = dict.fromkeys((Phase.SEEKING, Phase.PREPARING, Phase.LEAVING), Task.MIGRATING)
TASKS: dict[MigrationType, Mapping[Phase, Task | None]] = {
    MigrationType.EVACUATION: _EVACUATING,
    MigrationType.MIGRATION: _COLD,
    MigrationType.RESIZE: _COLD,
    MigrationType.LIVE: _LIVE,
}
"""The phases of each type, and what the API calls them."""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Move(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where from, where to, and what is to become of it."""

    migration_id: str
    type: MigrationType
    phase: Phase = Phase.SEEKING
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
    stays: bool = False
    """The host it is on will do, too."""
    running: bool = True
    """Whether its guest runs when it is there."""
    old_flavor: ServerFlavor | None = None
    new_flavor: ServerFlavor | None = None
    """What it shall be of from then on; None: as it is."""
    tried: tuple[str, ...] = ()
    """Hosts that could not take it."""
    target_host: str = ""
    target_provider: str = ""
    target_zone: str = ""
    target_topology: Topology | None = None
    cancelled: bool = False
    """Somebody would rather it stayed."""
    confirm_by: datetime | None = None
    """When it is taken to be confirmed."""

    @property
    def task(self) -> Task | None:
        return TASKS[self.type][self.phase]

    @property
    def cold(self) -> bool:
        return self.type in {MigrationType.MIGRATION, MigrationType.RESIZE}

    @property
    def live(self) -> bool:
        return self.type is MigrationType.LIVE

    @property
    def departed(self) -> bool:
        """It is the host's it goes to."""
        return self.phase in {Phase.ARRIVING, Phase.RESTING, Phase.RETURNING}

    @property
    def in_place(self) -> bool:
        """It is another size of the server where it is."""
        return self.cold and self.target_host == self.source_host


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


class MovePrepared(Event):
    """The host it goes to waits for it: it may come."""


class MoveDeparted(Event):
    """It is off at the host it came from, and from now on the other's; its ports are bound there in the same append."""


class MoveFailed(Event):
    """It is given back to the host it came from; what was claimed elsewhere is released in the same append."""

    message: str
    host: str = ""
    """Where it failed; empty: there was no host for it."""
    details: str = ""
    again: bool = False
    """The next host is tried."""
    off: bool = False
    """It must not be started where it came from: its guest may run at a host that is lost."""
    decision: Decision | None = None


class MoveFinished(Event):
    """It is there; what it held of the host it came from is released in the same append, if it cannot go back."""

    running: bool
    confirm_seconds: float = 0
    """After which it is taken to be confirmed; 0: never."""


class MoveConfirmed(Event):
    """It stays; what it held of the host it came from is released in the same append."""

    request_id: str = ""


class MoveReturnRequested(Event):
    """It shall go back to where, and to what, it was."""

    request_id: str = ""


class MoveReturned(Event):
    """It is nowhere else any more, and where it was; what was claimed elsewhere is released in the same append."""


class MoveCancelRequested(Event):
    """It shall stay where it is, if there is time yet."""

    request_id: str = ""


MoveEvent = (
    MoveRequested
    | MovePlaced
    | MovePrepared
    | MoveDeparted
    | MoveFailed
    | MoveFinished
    | MoveConfirmed
    | MoveReturnRequested
    | MoveReturned
    | MoveCancelRequested
)
