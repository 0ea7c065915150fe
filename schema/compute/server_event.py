"""What happens to a server."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType, field

from schema.compute.errand import ErrandEvent
from schema.compute.move import MoveEvent
from schema.compute.nic import (
    NicAttached,
    NicChanged,
    NicDetached,
    NicDetachFailed,
    NicDetachRequested,
    NicSettled,
    ServerNic,
)
from schema.compute.server_parts import Fault, Order, Rebuild, ServerFlavor, ServerImage
from schema.compute.shelf import ShelfEvent
from schema.compute.snapshot import SnapshotEvent
from schema.compute.soft_delete import SoftDeleteEvent
from schema.compute.task import PowerState, Task, VmState
from schema.compute.topology import Topology
from schema.event import Event
from schema.placement.decision import Decision


class Requested(Event, kw_only=True):
    """Somebody wants something of a host: the beginning of a task."""

    request_id: str = ""


class ServerRequested(Requested):
    name: str
    project_id: str
    order: Order
    flavor: ServerFlavor
    image: ServerImage | None = None
    description: str | None = None
    hostname: str = ""
    access_ipv4: str = ""
    access_ipv6: str = ""
    disk_config: Literal["MANUAL", "AUTO"] = "MANUAL"
    metadata: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    nics: tuple[ServerNic, ...] = ()


class ServerPlaced(Event):
    """A host was found; the claim on it stands in the same append."""

    host: str
    provider_id: str
    zone: str = ""
    decision: Decision | None = None
    topology: Topology | None = None


class BuildFailed(Event):
    """This host could not build it; the claim is released in the same append. The next one is tried, if any is left."""

    host: str
    fault: Fault


class ServerFaulted(Event):
    """It will not become what was asked for. `decision`: the scheduler's, if it was that there is no host for it."""

    fault: Fault
    decision: Decision | None = None


class ServerStarted(Event):
    """It runs: newly built, or after it was stopped."""


class ServerStopped(Event):
    pass


class ServerRebooted(Event):
    pass


class ServerPaused(Event):
    pass


class ServerUnpaused(Event):
    pass


class ServerSuspended(Event):
    pass


class ServerResumed(Event):
    pass


class StartRequested(Requested):
    pass


class StopRequested(Requested):
    pass


class RebootRequested(Requested):
    hard: bool = False


class PauseRequested(Requested):
    pass


class UnpauseRequested(Requested):
    pass


class SuspendRequested(Requested):
    pass


class ResumeRequested(Requested):
    pass


class ActionFailed(Event):
    """The task is given up: the server is held to be where it was, until its host reports otherwise."""

    task: Task
    fault: Fault
    decision: Decision | None = None
    """The scheduler's, if it was that there is no host for it."""
    in_error: bool = False
    """It was to run, and is off: somebody must look at it, so that is what it shows."""


class WishRenewed(Event):
    """Its host is to do once more what it did already; its guest did not stay so, and nobody had asked it not to."""


class PowerObserved(Event):
    """Nobody asked for it: the guest shut itself down, crashed, or was handled behind our back."""

    power_state: PowerState


class ServerDetailsChanged(Event):
    """The fields that changed."""

    name: str | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    hostname: str | UnsetType = UNSET
    access_ipv4: str | UnsetType = UNSET
    access_ipv6: str | UnsetType = UNSET
    disk_config: Literal["MANUAL", "AUTO"] | UnsetType = UNSET
    pinned_zone: str | UnsetType | None = UNSET
    """The only availability zone it may be in; None: it may go to any."""


class ServerMetadataSet(Event):
    metadata: dict[str, str | None]
    """The keys that changed; None: removed."""


class ServerTagsSet(Event):
    tags: tuple[str, ...]
    """All of them."""


class ServerLocked(Event):
    by: Literal["owner", "admin"]
    reason: str | None = None


class ServerUnlocked(Event):
    pass


class ServerStateReset(Event):
    """An administrator says where it is."""

    vm_state: VmState


class DeletionRequested(Requested):
    pass


class RescueRequested(Requested):
    """It shall boot from a fresh copy of this image."""

    image: ServerImage


class ServerRescued(Event):
    pass


class UnrescueRequested(Requested):
    pass


class ServerUnrescued(Event):
    pass


class RebuildRequested(Requested):
    """Its root disk shall be made anew from an image; what else it shall be from now on, where that changes."""

    rebuild: Rebuild
    key_name: str | UnsetType | None = UNSET
    secret_id: str = ""
    """Where the vault keeps its `Boot` from now on."""
    scripted: bool = False
    """There is user data among it."""


class ServerRebuilt(Event):
    """Its root disk is a new one."""


class ServerDeleted(Event):
    """Nothing of it is left; claim and quota are released in the same append."""


ServerEvent = (
    ServerRequested
    | ServerPlaced
    | BuildFailed
    | ServerFaulted
    | ServerStarted
    | ServerStopped
    | ServerRebooted
    | ServerPaused
    | ServerUnpaused
    | ServerSuspended
    | ServerResumed
    | StartRequested
    | StopRequested
    | RebootRequested
    | PauseRequested
    | UnpauseRequested
    | SuspendRequested
    | ResumeRequested
    | ActionFailed
    | PowerObserved
    | WishRenewed
    | ServerDetailsChanged
    | ServerMetadataSet
    | ServerTagsSet
    | ServerLocked
    | ServerUnlocked
    | ServerStateReset
    | DeletionRequested
    | RescueRequested
    | ServerRescued
    | UnrescueRequested
    | ServerUnrescued
    | RebuildRequested
    | ServerRebuilt
    | ServerDeleted
    | NicAttached
    | NicSettled
    | NicDetachRequested
    | NicDetached
    | NicDetachFailed
    | NicChanged
    | MoveEvent
    | ErrandEvent
    | SnapshotEvent
    | ShelfEvent
    | SoftDeleteEvent
)
