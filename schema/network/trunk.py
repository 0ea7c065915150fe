"""A trunk: one guest's card that carries several networks, the parent port's untagged and each subport's by its tag.

(absent) ──TrunkCreated──▶ there ──SubportsAdded, SubportsRemoved──▶ there ──TrunkDeleted──▶ gone

What a port is in a trunk stands on the port's own stream, in the same append. How far a trunk is (its status) is what
its ports say together; nothing keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from schema.changes import applied
from schema.compute.domain import Word
from schema.event import Command, Event, Kind, Said, State
from schema.network.port_state import Port

TrunkStatus = Literal["DOWN", "BUILD", "ACTIVE", "DEGRADED", "ERROR"]


class TrunkSubport(Word):
    port_id: str
    segmentation_id: int
    segmentation_type: Literal["vlan"] = "vlan"


class Trunk(State):
    name: str = ""
    project_id: str = ""
    parent_id: str | None = None
    """Its parent port."""
    description: str = ""
    admin_state_up: bool = True
    """Whether its subports may change."""
    subports: tuple[TrunkSubport, ...] = ()
    tags: tuple[str, ...] = ()

    @property
    def port_id(self) -> str:
        return self.parent_id or ""


class _NewTrunk(Said):
    name: str = ""
    project_id: str = ""
    parent_id: str | None = None
    description: str = ""
    admin_state_up: bool = True
    subports: tuple[TrunkSubport, ...] = ()


class TrunkCreated(Event, _NewTrunk):
    """It is there."""


class _TrunkChanges(Said):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    admin_state_up: bool | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET


class TrunkUpdated(Event, _TrunkChanges):
    """It is changed."""


class SubportsAdded(Event):
    subports: tuple[TrunkSubport, ...]


class SubportsRemoved(Event):
    port_ids: tuple[str, ...]


class TrunkDeleted(Event):
    pass


TrunkEvent = TrunkCreated | TrunkUpdated | SubportsAdded | SubportsRemoved | TrunkDeleted


class CreateTrunk(Command, _NewTrunk):
    """Make it."""


class UpdateTrunk(Command, _TrunkChanges):
    """Change it."""


class AddSubports(Command):
    subports: tuple[TrunkSubport, ...]


class RemoveSubports(Command):
    """Those it has not are no mistake."""

    port_ids: tuple[str, ...]


class DeleteTrunk(Command):
    """`port_ids`: the subports that it is thought to have; if it has others by now, the wish is outdated."""

    port_ids: tuple[str, ...] | UnsetType = UNSET


def evolve(trunk: Trunk, event: TrunkEvent, at: datetime) -> Trunk:
    match event:
        case TrunkCreated() | TrunkUpdated():
            return applied(trunk, event)
        case SubportsAdded():
            return replace(trunk, subports=(*trunk.subports, *event.subports))
        case SubportsRemoved():
            return replace(trunk, subports=tuple(it for it in trunk.subports if it.port_id not in event.port_ids))
        case TrunkDeleted():
            return replace(trunk, deleted_at=at)


def status_of(parent: Port | None, subports: Sequence[Port]) -> TrunkStatus:
    """How far a trunk is, as Neutron words it: by what the host of its parent makes of its ports."""
    if parent is None or not parent.host:
        return "DOWN"
    if parent.fault:
        return "ERROR"
    if any(it.fault for it in subports):
        return "DEGRADED"
    return "ACTIVE" if parent.wired and all(it.wired for it in subports) else "BUILD"


TRUNK = Kind("trunk", Trunk, TrunkEvent, evolve)
