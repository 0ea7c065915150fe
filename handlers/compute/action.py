"""What may be done to a server through its host: a row for each action, in the words of the API.

Whatever an action needs beyond its row (a move, new cards, another image) has rules in a module of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from schema.compute.server_command import (
    Action,
    AttachNic,
    BackUpServer,
    ChangeServerPassword,
    ConfirmResize,
    DetachNic,
    EvacuateServer,
    HardRebootServer,
    LiveMigrateServer,
    MigrateServer,
    OffloadServer,
    PauseServer,
    RebootServer,
    RebuildServer,
    RescueServer,
    ResizeServer,
    RestoreServer,
    ResumeServer,
    RevertResize,
    ShelveServer,
    SnapshotServer,
    StartServer,
    StopServer,
    SuspendServer,
    TriggerCrashDump,
    UnpauseServer,
    UnrescueServer,
    UnshelveServer,
)
from schema.compute.server_event import (
    PauseRequested,
    RebootRequested,
    ResumeRequested,
    ServerEvent,
    ServerPaused,
    ServerRebooted,
    ServerRescued,
    ServerResumed,
    ServerStarted,
    ServerStopped,
    ServerSuspended,
    ServerUnpaused,
    ServerUnrescued,
    StartRequested,
    StopRequested,
    SuspendRequested,
    UnpauseRequested,
    UnrescueRequested,
)
from schema.compute.shelf import ServerUnshelved
from schema.compute.soft_delete import RestoreRequested, ServerRestored, ServerSoftDeleted
from schema.compute.task import PowerState, Task, VmState
from schema.event import Command


class Row(NamedTuple):
    verb: str
    states: frozenset[VmState]
    """Where it may be wished."""
    task: Task | None = None
    """Where it leads: wished again meanwhile, it is the same wish."""
    begins: Callable[[str], ServerEvent] | None = None
    """What begins it, by the request's id, if that is all there is to decide."""


_ACTIVE = frozenset({VmState.ACTIVE})
_STANDING = frozenset({VmState.ACTIVE, VmState.STOPPED, VmState.ERROR})
_PLUGGABLE = frozenset({VmState.ACTIVE, VmState.PAUSED, VmState.STOPPED})
_RESTING = frozenset({VmState.ACTIVE, VmState.STOPPED})
_RESIZED = frozenset({VmState.RESIZED})
_COPIABLE = frozenset({VmState.ACTIVE, VmState.STOPPED, VmState.PAUSED, VmState.SUSPENDED})
BUILT = _STANDING | {VmState.PAUSED, VmState.SUSPENDED}

ACTIONS: dict[type[Command], Row] = {
    StartServer: Row("start", frozenset({VmState.STOPPED}), Task.POWERING_ON, lambda id: StartRequested(request_id=id)),
    StopServer: Row(
        "stop",
        frozenset({VmState.ACTIVE, VmState.ERROR}),
        Task.POWERING_OFF,
        lambda id: StopRequested(request_id=id),
    ),
    RebootServer: Row("reboot", _ACTIVE, Task.REBOOTING, lambda id: RebootRequested(request_id=id)),
    HardRebootServer: Row("reboot", BUILT, Task.REBOOTING_HARD, lambda id: RebootRequested(hard=True, request_id=id)),
    PauseServer: Row("pause", _ACTIVE, Task.PAUSING, lambda id: PauseRequested(request_id=id)),
    UnpauseServer: Row(
        "unpause", frozenset({VmState.PAUSED}), Task.UNPAUSING, lambda id: UnpauseRequested(request_id=id)
    ),
    SuspendServer: Row("suspend", _ACTIVE, Task.SUSPENDING, lambda id: SuspendRequested(request_id=id)),
    ResumeServer: Row(
        "resume", frozenset({VmState.SUSPENDED}), Task.RESUMING, lambda id: ResumeRequested(request_id=id)
    ),
    UnrescueServer: Row(
        "unrescue", frozenset({VmState.RESCUED}), Task.UNRESCUING, lambda id: UnrescueRequested(request_id=id)
    ),
    RescueServer: Row("rescue", _STANDING, Task.RESCUING),
    RebuildServer: Row("rebuild", _STANDING, Task.REBUILD_DISK),
    EvacuateServer: Row("evacuate", _STANDING, Task.REBUILDING),
    ResizeServer: Row("resize", _RESTING, Task.RESIZE_PREP),
    MigrateServer: Row("migrate", _RESTING, Task.RESIZE_PREP),
    LiveMigrateServer: Row("os-migrateLive", frozenset({VmState.ACTIVE, VmState.PAUSED}), Task.MIGRATING),
    ConfirmResize: Row("confirmResize", _RESIZED),
    RevertResize: Row("revertResize", _RESIZED, Task.RESIZE_REVERTING),
    SnapshotServer: Row("createImage", _COPIABLE),
    BackUpServer: Row("createBackup", _COPIABLE),
    ShelveServer: Row("shelve", _COPIABLE),
    OffloadServer: Row("shelveOffload", frozenset({VmState.SHELVED})),
    UnshelveServer: Row("unshelve", frozenset({VmState.SHELVED, VmState.SHELVED_OFFLOADED})),
    RestoreServer: Row(
        "restore", frozenset({VmState.SOFT_DELETED}), Task.RESTORING, lambda id: RestoreRequested(request_id=id)
    ),
    ChangeServerPassword: Row("changePassword", _ACTIVE),
    TriggerCrashDump: Row("trigger_crash_dump", frozenset({VmState.ACTIVE, VmState.PAUSED, VmState.ERROR})),
    AttachNic: Row("attach_interface", _PLUGGABLE),
    DetachNic: Row("detach_interface", _PLUGGABLE),
}
"""What asks the host for something. One such thing at a time."""

OUTCOMES: dict[Task, tuple[PowerState, ServerEvent]] = {
    Task.SPAWNING: (PowerState.RUNNING, ServerStarted()),
    Task.POWERING_ON: (PowerState.RUNNING, ServerStarted()),
    Task.POWERING_OFF: (PowerState.SHUTDOWN, ServerStopped()),
    Task.REBOOTING: (PowerState.RUNNING, ServerRebooted()),
    Task.REBOOTING_HARD: (PowerState.RUNNING, ServerRebooted()),
    Task.PAUSING: (PowerState.PAUSED, ServerPaused()),
    Task.UNPAUSING: (PowerState.RUNNING, ServerUnpaused()),
    Task.SUSPENDING: (PowerState.SUSPENDED, ServerSuspended()),
    Task.RESUMING: (PowerState.RUNNING, ServerResumed()),
    Task.RESCUING: (PowerState.RUNNING, ServerRescued()),
    Task.UNRESCUING: (PowerState.RUNNING, ServerUnrescued()),
    Task.RESIZE_REVERTING: (PowerState.RUNNING, ServerStarted()),
    Task.UNSHELVING: (PowerState.RUNNING, ServerUnshelved()),
    Task.SOFT_DELETING: (PowerState.SHUTDOWN, ServerSoftDeleted()),
    Task.RESTORING: (PowerState.RUNNING, ServerRestored()),
}
"""What ends a task: the guest found like this, by a host that has carried the wish out."""


def row_of(command: Command) -> Row | None:
    """The row of an action; None: it asks nothing of a host."""
    return ACTIONS.get(type(command)) if isinstance(command, Action) else None
