"""Consoles of servers: a URL that opens one screen or serial line, once, soon. Behind it is `console_proxy`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from msgspec import Struct

from api.compute.asking import ask, not_ready
from api.compute.console_proxy import PAGE, SOCKET
from api.compute.server import server_in_path
from api.wire import Call, Get, Post
from bus import clock
from bus.execute import Wish
from handlers.compute.console import CONSOLES
from schema.compute.console import CONSOLE, Console, GrantConsole, console_id
from schema.compute.question import ConsoleFound, ConsoleKind, FindConsole
from schema.compute.server import SERVER
from schema.compute.server_state import Server
from schema.refusal import Conflict, Invalid, NotFound, Refused

RULE = "os_compute_api:os-remote-consoles"
TOKENS = "os_compute_api:os-console-auth-tokens"

_TYPES: dict[str, tuple[str, ...]] = {
    "vnc": ("novnc",),
    "serial": ("serial",),
    "spice": ("spice-html5", "spice-direct"),
    "rdp": ("rdp-html5",),
    "mks": ("webmks",),
}
"""Which types a protocol has. `xvpvnc` is none any more."""
_OURS: dict[str, ConsoleKind] = {"novnc": "vnc", "serial": "serial", "spice-html5": "spice", "spice-direct": "spice"}


class Gone(Refused):
    """Nova had it once (410)."""

    status = 410


class Vnc(Struct, forbid_unknown_fields=True):
    type: Literal["novnc", "xvpvnc"]


class Spice(Struct, forbid_unknown_fields=True):
    type: Literal["spice-html5"]


class Serial(Struct, forbid_unknown_fields=True):
    type: Literal["serial"]


class Remote(Struct, forbid_unknown_fields=True):
    """Since 2.6."""

    protocol: Literal["vnc", "spice", "rdp", "serial"]
    type: Literal["novnc", "xvpvnc", "rdp-html5", "spice-html5", "serial"]


class Remote8(Struct, forbid_unknown_fields=True):
    """Since 2.8."""

    protocol: Literal["vnc", "spice", "rdp", "serial", "mks"]
    type: Literal["novnc", "xvpvnc", "rdp-html5", "spice-html5", "serial", "webmks"]


class Remote99(Struct, forbid_unknown_fields=True):
    """Since 2.99."""

    protocol: Literal["vnc", "spice", "rdp", "serial", "mks"]
    type: Literal["novnc", "xvpvnc", "rdp-html5", "spice-html5", "spice-direct", "serial", "webmks"]


class RemoteBody(Struct, forbid_unknown_fields=True):
    remote_console: Remote


class Remote8Body(Struct, forbid_unknown_fields=True):
    remote_console: Remote8


class Remote99Body(Struct, forbid_unknown_fields=True):
    remote_console: Remote99


async def create(call: Call) -> dict[str, Any]:
    server = await server_in_path(call)
    wanted = call.body.remote_console
    url = await _granted(call, server, wanted.protocol, wanted.type)
    return {"remote_console": {"protocol": wanted.protocol, "type": wanted.type, "url": url}}


def _legacy(protocol: str) -> Callable[[Call], Awaitable[dict[str, Any]]]:
    async def handler(call: Call) -> dict[str, Any]:
        server = await server_in_path(call)
        return {"console": {"type": call.body.type, "url": await _granted(call, server, protocol, call.body.type)}}

    return handler


async def rdp(call: Call) -> None:
    raise Gone("The RDP console is gone: no hypervisor has it any more.")


async def show_token(call: Call) -> dict[str, Any]:
    """Where the console of a token is; for proxies of others."""
    console = await _living(call)
    server: Server | None = await _server(call, console)
    found = await ask(call, server, FindConsole(server_id=server.id, kind=console.kind)) if server else None
    if server is None or not isinstance(found, ConsoleFound):
        raise NotFound("Token not found")
    told: dict[str, Any] = {
        "instance_uuid": server.id,
        "host": found.address,
        "port": found.port,
        "internal_access_path": None,
    }
    if call.version >= (2, 99):
        # It is by TLS that the host's relay is spoken to.
        told["tls_port"] = found.port
    return {"console": told}


async def old_token(call: Call) -> None:
    raise Gone("Before 2.31 only tokens of RDP consoles could be shown, and there are none.")


async def _granted(call: Call, server: Server, protocol: str, type: str) -> str:
    """The URL of a new console. Raises Invalid: there is no such one; Conflict: the server is not ready."""
    if type not in _TYPES[protocol]:
        raise Invalid(f"Invalid console type {type}", code="ConsoleTypeInvalid")
    kind = _OURS.get(type)
    if server.host is None:
        raise not_ready(server)
    if kind is None:
        raise _unavailable(type)
    answer = await ask(call, server, FindConsole(server_id=server.id, kind=kind))
    if not isinstance(answer, ConsoleFound):
        match getattr(answer, "why", ""):
            case "unsupported":
                raise _unavailable(type)
            case "not_running" | "gone":
                raise not_ready(server)
        raise Conflict(f"The console of server {server.id} cannot be opened: {getattr(answer, 'fault', answer)}")
    token = clock.uuid4()
    until = clock.now() + timedelta(seconds=call.cloud.settings.console_token_seconds)
    granted = GrantConsole(server_id=server.id, kind=kind, console_type=type, expires_at=until)
    await call.execute(Wish(CONSOLES, console_id(token), granted))
    return _url(call, kind, token)


def _url(call: Call, kind: ConsoleKind, token: str) -> str:
    base = (call.cloud.settings.public_url or call.host_url).rstrip("/")
    if kind == "serial":
        return f"ws{base.removeprefix('http')}{SOCKET}?token={token}"
    path = f"{urlsplit(base).path}{SOCKET}?token={token}".lstrip("/")
    return f"{base}{PAGE}?path={quote(path, safe='')}"


def _unavailable(type: str) -> Invalid:
    return Invalid(f"Unavailable console type {type}.", code="ConsoleTypeUnavailable")


async def _living(call: Call) -> Console:
    try:
        document = await call.cloud.documents.get(CONSOLE, console_id(call.path["token"]))
    except NotFound:
        raise NotFound("Token not found") from None
    console: Console = document.state
    if console.expires_at is None or console.expires_at <= clock.now():
        raise NotFound("Token not found")
    return console


async def _server(call: Call, console: Console) -> Server | None:
    try:
        found: Server = (await call.cloud.documents.get(SERVER, console.server_id)).state
    except NotFound:
        return None
    return found


_ACTION = "/servers/{id}/action"
_REMOTE = "/servers/{id}/remote-consoles"

routes = [
    Post(_REMOTE, create, may=RULE, body=RemoteBody, answers=200, since="2.6", until="2.7"),
    Post(_REMOTE, create, may=RULE, body=Remote8Body, answers=200, since="2.8", until="2.98"),
    Post(_REMOTE, create, may=RULE, body=Remote99Body, answers=200, since="2.99"),
    *(
        Post(_ACTION, _legacy(protocol), may=RULE, action=word, body=body, answers=200, until="2.5")
        for word, protocol, body in (
            ("os-getVNCConsole", "vnc", Vnc),
            ("os-getSPICEConsole", "spice", Spice),
            ("os-getSerialConsole", "serial", Serial),
        )
    ),
    Post(_ACTION, rdp, may=RULE, action="os-getRDPConsole", answers=200, until="2.5"),
    Get("/os-console-auth-tokens/{token}", old_token, may=TOKENS, until="2.30"),
    Get("/os-console-auth-tokens/{token}", show_token, may=TOKENS, since="2.31"),
]
