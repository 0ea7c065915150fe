"""Errands inside of a guest: asked of its host at once, and recorded when they are done."""

from __future__ import annotations

from msgspec import Struct

from api.compute.asking import ask
from api.compute.server import RULE, by, server_in_path
from api.compute.words import AdminPassword
from api.wire import Call, Post
from bus.execute import Wish
from handlers.compute.server import SERVERS, decide
from schema.compute.question import Answer, Ask, CrashGuest, Done, SetPassword, Unable
from schema.compute.server_command import ChangeServerPassword, TriggerCrashDump
from schema.compute.server_state import Server
from schema.refusal import Conflict, Invalid, Refused

PATH = "/servers/{id}/action"
ERRAND_SECONDS = 20.0


class Password(Struct, forbid_unknown_fields=True):
    adminPass: AdminPassword  # noqa: N815  the wire's own word


class NotImplementedThere(Refused):
    """The server's hypervisor cannot do it (501)."""

    status = 501


async def change_password(call: Call) -> None:
    server = await server_in_path(call)
    user = server.image.properties.get("os_admin_user", "") if server.image else ""
    windows = server.image is not None and server.image.properties.get("os_type") == "windows"
    question = SetPassword(
        server_id=server.id,
        user=user or ("Administrator" if windows else "root"),
        password=call.body.adminPass,
    )
    answer = await _run(call, server, ChangeServerPassword(**by(call)), question)
    if isinstance(answer, Unable):
        if answer.why == "unsupported":
            raise NotImplementedThere("Unable to set password on instance")
        if answer.why == "no_agent":
            raise Conflict(f"Failed to set admin password on {server.id}: {answer.fault}")
        raise Conflict(f"Failed to set admin password on {server.id} because {answer.fault}")


async def trigger_crash_dump(call: Call) -> None:
    server = await server_in_path(call)
    answer = await _run(call, server, TriggerCrashDump(**by(call)), CrashGuest(server_id=server.id))
    if isinstance(answer, Unable):
        if answer.why == "unsupported":
            raise Invalid("Triggering crash dump is not supported", code="TriggerCrashDumpNotSupported")
        raise Conflict(f"The crash dump of server {server.id} could not be triggered: {answer.fault}")


async def _run(call: Call, server: Server, command: ChangeServerPassword | TriggerCrashDump, errand: Ask) -> Answer:
    """Ask the host if the rules allow it, and record it if it was done."""
    decide(server, command)
    answer = await ask(call, server, errand, ERRAND_SECONDS)
    if isinstance(answer, Done):
        await call.execute(Wish(SERVERS, server.id, command))
    elif not isinstance(answer, Unable):
        raise Conflict(f"The host of server {server.id} answered something else.")
    return answer


routes = [
    Post(
        PATH,
        change_password,
        may="os_compute_api:os-admin-password",
        action="changePassword",
        body=Password,
        answers=202,
    ),
    Post(
        PATH,
        trigger_crash_dump,
        may=f"{RULE}:trigger_crash_dump",
        action="trigger_crash_dump",
        body=type(None),
        answers=202,
        since="2.17",
    ),
]
