"""The rules of errands: what is done inside of a guest, and recorded once it is done."""

from __future__ import annotations

from schema.compute.errand import (
    CrashDumpTriggered,
    ErrandEvent,
    GuestPasswordCleared,
    GuestPasswordPosted,
    ServerPasswordChanged,
)
from schema.compute.server_command import ChangeServerPassword, ClearGuestPassword, PostGuestPassword, TriggerCrashDump
from schema.compute.server_state import Server
from schema.refusal import Conflict

ErrandCommand = ChangeServerPassword | TriggerCrashDump | PostGuestPassword | ClearGuestPassword


def decide_errand(server: Server, command: ErrandCommand) -> list[ErrandEvent]:
    """What comes of it, where it is allowed and not so already."""
    match command:
        case ChangeServerPassword():
            return [ServerPasswordChanged(request_id=command.request_id)]
        case TriggerCrashDump():
            return [CrashDumpTriggered(request_id=command.request_id)]
        case PostGuestPassword():
            if server.password_id:
                raise Conflict(f"Server {server.id} has posted a password; it is kept until its owner clears it.")
            return [GuestPasswordPosted(secret_id=command.secret_id)]
        case ClearGuestPassword():
            return [GuestPasswordCleared()]


def errand_already_so(server: Server, command: ErrandCommand) -> bool:
    match command:
        case ChangeServerPassword() | TriggerCrashDump():
            return server.errand == command.request_id
        case PostGuestPassword():
            return server.password_id == command.secret_id
        case ClearGuestPassword():
            return not server.password_id
