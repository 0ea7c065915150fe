"""What may be wished of a server."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType, field

from schema.compute.move import Move
from schema.compute.nic import NicAddress, ServerNic
from schema.compute.server_parts import Fault, Order, Rebuild, ServerFlavor, ServerImage
from schema.compute.task import PowerState, Task, VmState
from schema.compute.topology import Topology
from schema.event import Command
from schema.placement.decision import Decision


class CreateServer(Command):
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
    request_id: str = ""


class Action(Command, kw_only=True):
    """Something a person does to a server. A locked one obeys only whoever may override the lock."""

    overrides_lock: bool = False
    request_id: str = ""


class StartServer(Action):
    pass


class StopServer(Action):
    pass


class RebootServer(Action):
    pass


class HardRebootServer(Action):
    pass


class PauseServer(Action):
    pass


class UnpauseServer(Action):
    pass


class SuspendServer(Action):
    pass


class ResumeServer(Action):
    pass


class DeleteServer(Action):
    """`reclaim_seconds`: how long it may be taken back, as far as there is something to take back; 0: not at all."""

    reclaim_seconds: int = 0


class RestoreServer(Action):
    """Goes with the wish that reserves its quota anew."""


class SnapshotServer(Action):
    """Goes with the wish that makes the image."""

    image_id: str


class BackUpServer(Action):
    """Goes with the wish that makes the image. Of those of that type the newest `rotation` are kept."""

    image_id: str
    backup_type: str
    rotation: int


class ProgressSnapshot(Command):
    """Its host copies the disk; or (`uploading`) the image service gets the data."""

    image_id: str
    uploading: bool = False


class FinishSnapshot(Command):
    """The image has all its data. Goes with the wish that makes it active."""

    image_id: str


class ShelveServer(Action):
    """Goes with the wish that makes the image. `offload_seconds`: how long its host keeps it then; negative: ever."""

    image_id: str
    offload_seconds: int = 0


class OffloadServer(Action):
    pass


class FinishOffload(Command):
    """Nothing of it is left on its host. Goes with the wishes that release the claim there."""

    host: str


class UnshelveServer(Action):
    zone: str | UnsetType | None = UNSET
    host: str = ""


class RescueServer(Action):
    image: ServerImage


class UnrescueServer(Action):
    pass


class RebuildServer(Action):
    """Goes with its new `Boot`, sealed."""

    rebuild: Rebuild
    key_name: str | UnsetType | None = UNSET
    secret_id: str = ""
    scripted: bool = False


class ChangeServerDetails(Action):
    """The fields to change."""

    name: str | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    hostname: str | UnsetType = UNSET
    access_ipv4: str | UnsetType = UNSET
    access_ipv6: str | UnsetType = UNSET
    disk_config: Literal["MANUAL", "AUTO"] | UnsetType = UNSET
    pinned_zone: str | UnsetType | None = UNSET


class SetServerMetadata(Action):
    metadata: dict[str, str | None]
    """Keys to set, or (None) to remove; the others stay."""
    limit: int = 128


class ReplaceServerMetadata(Action):
    metadata: dict[str, str]
    """All keys there shall be."""


class AddServerTag(Action):
    tag: str
    limit: int = 50


class RemoveServerTag(Action):
    tag: str


class ReplaceServerTags(Action):
    tags: tuple[str, ...]


class LockServer(Command):
    by: Literal["owner", "admin"]
    reason: str | None = None


class UnlockServer(Command):
    overrides_lock: bool = False


class ResetServerState(Command):
    vm_state: VmState


class ChangeServerPassword(Action):
    """The guest's agent has set it."""


class TriggerCrashDump(Action):
    """The guest was interrupted."""


class PostGuestPassword(Command):
    """Goes with the secret."""

    secret_id: str


class ClearGuestPassword(Command):
    pass


class AttachNic(Action):
    """Goes with the wishes that make or take the port."""

    nic: ServerNic


class DetachNic(Action):
    port_id: str


class SettleNics(Command):
    """The host has carried out that generation, or (`fault`) could not. Goes with the wishes that let go of ports."""

    generation: int
    fault: str | None = None
    gone: bool = False
    """The host holds nothing of the server, so that no card of it is plugged in."""


class ChangeNic(Command):
    """What became of a port."""

    port_id: str
    label: str
    mac_address: str
    mtu: int
    addresses: tuple[NicAddress, ...] = ()
    security_groups: tuple[str, ...] = ()


class LoseNic(Command):
    """Somebody deleted the port, or took it away from the server."""

    port_id: str


class MoveServer(Action):
    """Goes with the wishes that begin the migration."""

    move: Move


class EvacuateServer(MoveServer):
    """Build it anew on another host, as its own is down."""


class ResizeServer(MoveServer):
    """Make it of another flavor, on whichever host has room. Goes with a wish for its quota."""


class MigrateServer(MoveServer):
    """Off here, on there."""


class LiveMigrateServer(MoveServer):
    """Move it while it runs."""


class ConfirmResize(Action):
    """Goes with the wishes that release what it held of the host it came from."""


class RevertResize(Action):
    """Goes with its migration's."""


class CancelMove(Action):
    """Goes with its migration's."""

    migration_id: str


class PrepareMove(Command):
    """The host it goes to waits for it."""

    migration_id: str
    host: str


class DepartMove(Command):
    """It is off at the host it came from. Goes with the wishes that bind its ports elsewhere."""

    migration_id: str


class ReturnMove(Command):
    """It is nowhere else any more. Goes with the wishes that release what was claimed there."""

    migration_id: str


class PlaceMove(Command):
    """Goes with the wishes that claim the host's resources."""

    migration_id: str
    host: str
    provider_id: str
    zone: str = ""
    decision: Decision | None = None
    topology: Topology | None = None


class FailMove(Command):
    """Goes with the wishes that give back what was claimed. `host`: where it failed; empty: there was none yet."""

    migration_id: str
    host: str
    fault: Fault
    off: bool = False
    """Its guest may run where it failed."""
    final: bool = False
    """No other host is to be tried."""
    decision: Decision | None = None


class FinishMove(Command):
    """It is there. Goes with the wishes that release what it held of the host it came from, unless it could go back."""

    migration_id: str
    host: str
    running: bool
    confirm_seconds: float = 0


class PlaceServer(Command):
    """Goes with the wishes that claim the host's resources."""

    host: str
    provider_id: str
    zone: str = ""
    decision: Decision | None = None
    topology: Topology | None = None


class RefusePlacement(Command):
    """No host will do."""

    fault: Fault
    decision: Decision | None = None


class FailBuild(Command):
    """Goes with the wishes that release the claim on the host."""

    host: str
    fault: Fault


class GiveUpTask(Command):
    """It took too long, or the host says that it cannot."""

    task: Task
    fault: Fault


class RenewWish(Command):
    """Its guest was found otherwise than it should be, though its host has carried out the wish of that generation."""

    generation: int


class ObserveServer(Command):
    """What a host says of a server it holds. `generation`: the newest wish it has carried out, or failed to.

    `unwired`: ports of it that are not in place (yet). A server that is being built is not there before they are; what
    its guest does is remembered.
    """

    host: str
    generation: int
    power_state: PowerState
    fault: str | None = None
    unwired: tuple[str, ...] = ()
    remade: int = 0
    """How often its root disk was made anew there."""
    snapshot: str = ""
    """The image its root disk was copied into last."""


class EndServer(Command):
    """Nothing of it is left on its host. Goes with the wishes that release claim and quota."""
