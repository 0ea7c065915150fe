"""What was done to a server, read from its stream: an action is a request's first event, its outcome the others'."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import field

from api.compute.page import NoQuery, Paging, listing, next_link, page_size
from api.compute.server import server_in_path
from api.compute.server_view import host_id
from api.compute.times import written
from api.wire import Call, Get
from bus.log import READ_LIMIT, Recorded
from schema.compute.errand import CrashDumpTriggered, ServerPasswordChanged
from schema.compute.migration import MigrationType
from schema.compute.move import (
    MoveCancelRequested,
    MoveConfirmed,
    MoveDeparted,
    MoveFailed,
    MovePlaced,
    MovePrepared,
    MoveRequested,
    MoveReturnRequested,
)
from schema.compute.nic import NicAttached, NicDetached, NicDetachFailed, NicDetachRequested
from schema.compute.server import SERVER
from schema.compute.server_event import (
    ActionFailed,
    BuildFailed,
    DeletionRequested,
    PauseRequested,
    RebootRequested,
    RebuildRequested,
    RescueRequested,
    ResumeRequested,
    ServerFaulted,
    ServerLocked,
    ServerPlaced,
    ServerRequested,
    ServerStateReset,
    ServerUnlocked,
    StartRequested,
    StopRequested,
    SuspendRequested,
    UnpauseRequested,
    UnrescueRequested,
)
from schema.compute.server_state import Server
from schema.compute.shelf import OffloadRequested, ShelveRequested, UnshelveRequested
from schema.compute.snapshot import SnapshotProgressed, SnapshotRequested
from schema.compute.soft_delete import RestoreRequested, SoftDeletionRequested
from schema.event import Event
from schema.refusal import Invalid, NotFound

RULE = "os_compute_api:os-instance-actions"
PAGES = 10
"""Reads of one stream, at most; older actions than that are not shown."""

_NAMES: dict[type[Event], tuple[str, str]] = {
    ServerRequested: ("create", "compute__do_build_and_run_instance"),
    StartRequested: ("start", "compute_start_instance"),
    StopRequested: ("stop", "compute_stop_instance"),
    RebootRequested: ("reboot", "compute_reboot_instance"),
    PauseRequested: ("pause", "compute_pause_instance"),
    UnpauseRequested: ("unpause", "compute_unpause_instance"),
    SuspendRequested: ("suspend", "compute_suspend_instance"),
    ResumeRequested: ("resume", "compute_resume_instance"),
    DeletionRequested: ("delete", "compute_terminate_instance"),
    RescueRequested: ("rescue", "compute_rescue_instance"),
    UnrescueRequested: ("unrescue", "compute_unrescue_instance"),
    ShelveRequested: ("shelve", "compute_shelve_instance"),
    OffloadRequested: ("shelveOffload", "compute_shelve_offload_instance"),
    UnshelveRequested: ("unshelve", "compute_unshelve_instance"),
    SoftDeletionRequested: ("delete", "compute_soft_delete_instance"),
    RestoreRequested: ("restore", "compute_restore_instance"),
    RebuildRequested: ("rebuild", "compute_rebuild_instance"),
    MoveConfirmed: ("confirmResize", "compute_confirm_resize"),
    MoveReturnRequested: ("revertResize", "compute_revert_resize"),
    MoveCancelRequested: ("live_migration_cancel", "compute_live_migration_abort"),
    ServerPasswordChanged: ("changePassword", "compute_set_admin_password"),
    CrashDumpTriggered: ("trigger_crash_dump", "compute_trigger_crash_dump"),
    NicAttached: ("attach_interface", "compute_attach_interface"),
    NicDetachRequested: ("detach_interface", "compute_detach_interface"),
    ServerLocked: ("lock", "api_lock"),
    ServerUnlocked: ("unlock", "api_unlock"),
    ServerStateReset: ("resetState", "api_reset_state"),
}
"""The event that begins an action: the action's name, and that of its one part."""


_MOVES: dict[MigrationType, tuple[str, str]] = {
    MigrationType.EVACUATION: ("evacuate", "compute_rebuild_instance"),
    MigrationType.RESIZE: ("resize", "compute_prep_resize"),
    MigrationType.MIGRATION: ("migrate", "compute_prep_resize"),
    MigrationType.LIVE: ("live-migration", "compute_live_migration"),
}


_SNAPSHOT = ("createImage", "compute_snapshot_instance")
_BACKUP = ("createBackup", "compute_backup_instance")


def _named(event: Event) -> tuple[str, str] | None:
    """What it begins, if it begins an action."""
    if isinstance(event, SnapshotRequested):
        return _BACKUP if event.snapshot.backup_type else _SNAPSHOT
    return _MOVES[event.move.type] if isinstance(event, MoveRequested) else _NAMES.get(type(event))


_ON_THE_WAY = (ServerPlaced, BuildFailed, MovePlaced, MovePrepared, MoveDeparted, SnapshotProgressed)
"""What is not the end of one, though the server goes by another request by now."""
_AT_ONCE = (
    MoveConfirmed,
    MoveCancelRequested,
    ServerLocked,
    ServerUnlocked,
    ServerStateReset,
    ServerPasswordChanged,
    CrashDumpTriggered,
)
"""Those that are done as soon as they are told."""


class ActionsQuery(Paging, frozen=True):
    """Since 2.58."""

    changes_since: datetime | None = field(default=None, name="changes-since")


class BoundedQuery(ActionsQuery, frozen=True):
    """Since 2.66."""

    changes_before: datetime | None = field(default=None, name="changes-before")


class InstanceAction(msgspec.Struct):
    """One request's events on the server's stream."""

    begun: Recorded
    name: str
    part: str
    host: str | None
    """The host it was for: the one that was chosen in its course, or else the server's when it began."""
    since: list[Recorded] = []

    @property
    def updated_at(self) -> datetime:
        return self.since[-1].at if self.since else self.begun.at

    @property
    def failure(self) -> str | None:
        """Why it came to nothing, if it did."""
        return next((why for it in reversed(self.since) if (why := _failure(it.event))), None)


def _failure(event: Event) -> str | None:
    match event:
        case MoveFailed(again=False):
            return event.message
        case ActionFailed() | ServerFaulted():
            return event.fault.message
        case NicDetachFailed() | NicDetached():
            return event.fault
    return None


async def index(call: Call) -> dict[str, Any]:
    server = await server_in_path(call, gone=call.version >= (2, 21))
    actions = await _actions(call, server)
    answer: dict[str, Any] = {}
    if isinstance(call.params, ActionsQuery):
        actions = _filtered(call.params, actions)
        limit = page_size(call)
        if len(actions) > limit:
            actions = actions[:limit]
            answer["links"] = next_link(call, actions, lambda action: action.begun.correlation)
    return {"instanceActions": [_brief(call, server, action) for action in actions]} | answer


async def show(call: Call) -> dict[str, Any]:
    server = await server_in_path(call, gone=call.version >= (2, 21))
    request_id = call.path["request_id"]
    action = next((it for it in await _actions(call, server) if it.begun.correlation == request_id), None)
    if action is None:
        raise NotFound(f"Action {request_id[:255]} not found")
    shown = _brief(call, server, action)
    if call.version >= (2, 51) or call.may(f"{RULE}:events"):
        shown["events"] = [_part(call, server, action)]
    return {"instanceAction": shown}


async def _actions(call: Call, server: Server) -> list[InstanceAction]:
    """Newest first."""
    actions: dict[str, InstanceAction] = {}
    state = SERVER.unborn(server.id)
    for recorded in await _stream(call, server.id):
        before, state = state, SERVER.fold(state, recorded.event, recorded.at)
        known = actions.get(recorded.correlation)
        if known is not None:
            known.since.append(recorded)
            if isinstance(recorded.event, ServerPlaced | MovePlaced):
                known.host = recorded.event.host
        elif recorded.correlation and (names := _named(recorded.event)):
            actions[recorded.correlation] = InstanceAction(recorded, *names, before.host)
    return list(reversed(actions.values()))


async def _stream(call: Call, id: str) -> list[Recorded]:
    events: list[Recorded] = []
    for _ in range(PAGES):
        after = events[-1].version if events else 0
        some = await call.cloud.log.read_stream(SERVER.stream(id), after)
        events += some
        if len(some) < READ_LIMIT:
            break
    return events


def _filtered(query: ActionsQuery, actions: Sequence[InstanceAction]) -> list[InstanceAction]:
    before = query.changes_before if isinstance(query, BoundedQuery) else None
    since = query.changes_since
    if since and before and since > before:
        raise Invalid("The value of changes-since must be less than or equal to changes-before.")
    ids = [action.begun.correlation for action in actions]
    if query.marker is not None and query.marker not in ids:
        raise Invalid(f"marker [{query.marker[:255]}] not found")
    rest = actions[ids.index(query.marker) + 1 :] if query.marker is not None else actions
    return [
        action
        for action in rest
        if (since is None or action.updated_at >= since) and (before is None or action.updated_at <= before)
    ]


def _brief(call: Call, server: Server, action: InstanceAction) -> dict[str, Any]:
    begun = action.begun
    shown = {
        "action": action.name,
        "instance_uuid": server.id,
        "request_id": begun.correlation,
        "user_id": begun.actor.user or None,
        "project_id": begun.actor.project or None,
        "start_time": written(begun.at),
        "message": "Error" if action.failure is not None else None,
    }
    if call.version >= (2, 58):
        shown["updated_at"] = written(action.updated_at)
    return shown


def _part(call: Call, server: Server, action: InstanceAction) -> dict[str, Any]:
    """Nova tells the parts of an action by the functions it went through; here it is one."""
    under_way = server.request_id == action.begun.correlation
    finished = bool(action.since) and not under_way and not isinstance(action.since[-1].event, _ON_THE_WAY)
    begins_and_ends = isinstance(action.begun.event, _AT_ONCE)
    done = finished or begins_and_ends
    admin = call.may(f"{RULE}:events")
    part: dict[str, Any] = {
        "event": action.part,
        "start_time": written(action.begun.at),
        "finish_time": written(action.updated_at) if done else None,
        "result": ("Error" if action.failure is not None else "Success") if done else None,
    }
    if admin or call.version < (2, 51):
        part["traceback"] = action.failure
    if call.version >= (2, 62):
        part["hostId"] = host_id(server.project_id, action.host)
        if admin and action.host is not None:
            part["host"] = action.host
    if call.version >= (2, 84) and call.may(f"{RULE}:events:details"):
        part["details"] = action.failure
    return part


_PATH = "/servers/{id}/os-instance-actions"

routes = [
    *listing(_PATH, index, f"{RULE}:list", NoQuery, until="2.57"),
    *listing(_PATH, index, f"{RULE}:list", ActionsQuery, since="2.58", until="2.65", strict_since="2.58"),
    *listing(_PATH, index, f"{RULE}:list", BoundedQuery, since="2.66", strict_since="2.58"),
    Get(f"{_PATH}/{{request_id}}", show, may=f"{RULE}:show"),
]
