"""Actions on servers: one word each, one command each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from api.compute.asking import ask
from api.compute.server import OVERRIDES_LOCK, RULE, by, server_in_path
from api.wire import Call, Post, Route
from bus.execute import Wish
from handlers.compute.server import SERVERS
from handlers.compute.snapshot_image import image_wishes
from schema.compute.question import ConsoleOutput, ConsoleText, Unable
from schema.compute.server_command import (
    Action,
    HardRebootServer,
    LockServer,
    PauseServer,
    RebootServer,
    ResetServerState,
    ResumeServer,
    StartServer,
    StopServer,
    SuspendServer,
    UnlockServer,
    UnpauseServer,
)
from schema.compute.task import VmState
from schema.event import Command
from schema.refusal import Conflict, Refused

PATH = "/servers/{id}/action"


class Reboot(Struct, forbid_unknown_fields=True):
    type: Literal["SOFT", "Soft", "soft", "HARD", "Hard", "hard"]


class LockReason(Struct, forbid_unknown_fields=True):
    locked_reason: Annotated[str, Meta(min_length=1, max_length=255)] | UnsetType = UNSET


class State(Struct, forbid_unknown_fields=True):
    state: Literal["active", "error"]


class Console(Struct, forbid_unknown_fields=True):
    length: int | None = None


class Gone(Refused):
    """Nova knew this action once, for hypervisors that it has left behind (410)."""

    status = 410


async def reboot(call: Call) -> None:
    hard = call.body.type.upper() == "HARD"
    await _do(call, (HardRebootServer if hard else RebootServer)(**by(call)))


async def lock(call: Call) -> None:
    reason = None if call.body is None or call.body.locked_reason is UNSET else call.body.locked_reason
    server = await server_in_path(call)
    owner = server.project_id == call.token.project_id and not call.token.is_admin
    await call.execute(Wish(SERVERS, server.id, LockServer(by="owner" if owner else "admin", reason=reason)))


async def unlock(call: Call) -> None:
    await _do(call, UnlockServer(overrides_lock=call.may(OVERRIDES_LOCK)))


async def reset_state(call: Call) -> None:
    """An image that it is being copied into, and has no data yet, goes."""
    server = await server_in_path(call)
    command = ResetServerState(vm_state=VmState(call.body.state))
    also = (await image_wishes(call.cloud, [(server, command)])).get(server.id, ())
    await call.execute(Wish(SERVERS, server.id, command), *also)


async def console_output(call: Call) -> dict[str, str]:
    """The end of the guest's serial console, from the agent of its host."""
    server = await server_in_path(call)
    length = call.body.length
    lines = None if length is None or length < 0 else length
    answer = await ask(call, server, ConsoleOutput(server_id=server.id, lines=lines))
    if not isinstance(answer, ConsoleText) or answer.fault is not None:
        why = answer.fault if isinstance(answer, (ConsoleText, Unable)) else "its host answered something else"
        raise Conflict(f"The console of server {server.id} cannot be read: {why}")
    return {"output": answer.text if lines is None else _tail(answer.text, lines)}


def _tail(text: str, lines: int) -> str:
    """The last of the lines as Nova counts them: what follows the last line's end is one more, if empty."""
    return "\n".join(text.split("\n")[-lines:]) if lines else ""


async def _do(call: Call, command: Command) -> None:
    server = await server_in_path(call)
    await call.execute(Wish(SERVERS, server.id, command))


def _action(word: str, command: type[Action], rule: str) -> Route:
    """An action that carries nothing but its name."""

    async def handler(call: Call) -> None:
        await _do(call, command(**by(call)))

    return _row(word, handler, rule)


async def gone(call: Call) -> None:
    raise Gone("This action is not there any more.")


def _row(word: str, handler: Callable[[Call], Awaitable[Any]], rule: str, **fields: Any) -> Route:
    fields.setdefault("answers", 202)
    route: Route = Post(PATH, handler, may=rule, action=word, **fields)
    return route


_LOCK = "os_compute_api:os-lock-server"

routes = [
    _action("os-start", StartServer, f"{RULE}:start"),
    _action("os-stop", StopServer, f"{RULE}:stop"),
    _row("reboot", reboot, f"{RULE}:reboot", body=Reboot),
    _action("pause", PauseServer, "os_compute_api:os-pause-server:pause"),
    _action("unpause", UnpauseServer, "os_compute_api:os-pause-server:unpause"),
    _action("suspend", SuspendServer, "os_compute_api:os-suspend-server:suspend"),
    _action("resume", ResumeServer, "os_compute_api:os-suspend-server:resume"),
    _row("lock", lock, f"{_LOCK}:lock", until="2.72"),
    _row("lock", lock, f"{_LOCK}:lock", body=LockReason, optional_body=True, since="2.73"),
    _row("unlock", unlock, f"{_LOCK}:unlock"),
    _row("os-resetState", reset_state, "os_compute_api:os-admin-actions:reset_state", body=State),
    _row(
        "os-getConsoleOutput",
        console_output,
        "os_compute_api:os-console-output",
        body=Console,
        answers=200,
        lenient=True,
    ),
    _row("resetNetwork", gone, "os_compute_api:os-admin-actions:reset_network"),
]
