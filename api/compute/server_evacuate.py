"""Evacuating: a server whose host is down is built anew on another; where hosts share their storage, on its disks."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from api.compute.server import by, server_in_path
from api.compute.server_action import PATH
from api.compute.words import AdminPassword, HostName
from api.wire import Call, Post, Route
from bus import clock
from bus.log import Secret
from handlers.compute.departure import begin, departure
from schema.compute.host import HOST, Host
from schema.compute.migration import MigrationType
from schema.compute.server_command import EvacuateServer
from schema.compute.server_parts import Boot
from schema.compute.server_state import Server
from schema.compute.task import VmState
from schema.refusal import Invalid, NotFound

RULE = "os_compute_api:os-evacuate"
STOPPED_SINCE = (2, 95)
"""From here on what was evacuated does not run until somebody starts it."""
PASSWORD_UNTIL = (2, 13)


class Evacuation(Struct, forbid_unknown_fields=True, kw_only=True):
    """Since 2.14."""

    host: HostName = ""
    adminPass: AdminPassword | UnsetType = UNSET  # noqa: N815  the wire's own word


class ForcedEvacuation(Evacuation, forbid_unknown_fields=True, kw_only=True):
    """2.29 to 2.67."""

    force: bool = False


class SharedEvacuation(Evacuation, forbid_unknown_fields=True, kw_only=True):
    """Before 2.14."""

    onSharedStorage: bool  # noqa: N815  the wire's own word


async def evacuate(call: Call) -> dict[str, str | None] | None:
    """The password stays what it is where the disks stay what they are."""
    server, wanted = await server_in_path(call), call.body
    if isinstance(wanted, SharedEvacuation):
        _check_storage(call, wanted)
    target = wanted.host
    forced = bool(getattr(wanted, "force", False))
    if forced and not target:
        raise Invalid("Can't force to a non-provided destination")
    _check_target(call, server, target)
    source = _source(call, server)
    kept = isinstance(wanted, SharedEvacuation) and wanted.onSharedStorage
    asked = wanted.adminPass or ""
    password = None if kept else asked or clock.password()
    secrets = await _secrets(call, server, asked, password) if password else ()
    running = call.version < STOPPED_SINCE and server.vm_state is not VmState.STOPPED
    move = await departure(
        call.cloud,
        server,
        MigrationType.EVACUATION,
        source_epoch=source.epoch if source else 0,
        running=running,
        host=target,
        forced=forced,
    )
    await begin(
        call.cloud,
        call.execute,
        server,
        EvacuateServer(move=move, **by(call)),
        project_id=call.token.project_id or "",
        user_id=call.token.user_id,
        secrets=secrets,
    )
    return {"adminPass": password} if call.version <= PASSWORD_UNTIL else None


def _check_storage(call: Call, wanted: SharedEvacuation) -> None:
    """Who asks says whether its disks are there; it has to be so."""
    if wanted.onSharedStorage and wanted.adminPass is not UNSET:
        raise Invalid("admin password can't be changed on existing disk")
    shared = call.cloud.settings.shared_storage is not None
    if wanted.onSharedStorage is not shared:
        here = "hosts share their storage here" if shared else "hosts share no storage here"
        raise Invalid(f"Invalid state of instance files on shared storage: {here}.")


def _check_target(call: Call, server: Server, target: str) -> None:
    if target and target == server.host:
        raise Invalid("The target host can't be the same one.")
    if target and call.cloud.mirror(HOST).get(target) is None:
        raise NotFound(f"Compute host {target} not found.")


def _source(call: Call, server: Server) -> Host | None:
    """Its host, which is down. None: it is no host of this cloud any more. Raises Invalid where it works."""
    document = call.cloud.mirror(HOST).get(server.host) if server.host else None
    if document is not None and document.state.alive:
        raise Invalid(f"Compute service of {server.host} is still in use.", code="ComputeServiceInUse")
    return document.state if document else None


async def _secrets(call: Call, server: Server, asked: str, password: str) -> tuple[Secret, ...]:
    """What its guest may learn, with the new password, where there is to be one."""
    id = server.order.secret_id
    if not id or (call.version > PASSWORD_UNTIL and not asked):
        return ()
    opened = await call.cloud.vault.open_many([id])
    boot = msgspec.json.decode(opened[id], type=Boot) if id in opened else Boot()
    changed = msgspec.structs.replace(boot, admin_password=password)
    return (await call.cloud.vault.seal(id, f"project/{server.project_id}", msgspec.json.encode(changed)),)


def _row(body: Any, **fields: Any) -> Route:
    fields |= {"body": body, "lenient": True, "answers": 200}
    route: Route = Post(PATH, evacuate, may=RULE, action="evacuate", **fields)
    return route


routes = [
    _row(SharedEvacuation, until="2.13"),
    _row(Evacuation, since="2.14", until="2.28"),
    _row(ForcedEvacuation, since="2.29", until="2.67"),
    _row(Evacuation, since="2.68"),
]
