"""Shelving: a server is put away as an image, and comes back where there is room."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from api.compute.server import by, server_in_path
from api.compute.server_action import PATH
from api.compute.words import HostName, Name
from api.wire import Call, Post, Route
from bus import clock
from bus.execute import Wish
from handlers.compute.server import SERVERS
from handlers.compute.snapshot_image import base_of, making
from schema.compute.host import HOST, Host
from schema.compute.server_command import OffloadServer, ShelveServer, UnshelveServer
from schema.compute.server_state import Server
from schema.compute.task import VmState
from schema.refusal import Conflict, Invalid

RULE = "os_compute_api:os-shelve"
TO_HOST = f"{RULE}:unshelve_to_host"


class ToZone(Struct, forbid_unknown_fields=True):
    """2.77 to 2.90."""

    availability_zone: Name


class ToZoneOrHost(Struct, forbid_unknown_fields=True):
    """Since 2.91. No zone: it stays where it was; null: it may come to any, now and later."""

    availability_zone: Name | UnsetType | None = UNSET
    host: HostName | UnsetType = UNSET


async def shelve(call: Call) -> None:
    server = await server_in_path(call)
    image_id = clock.uuid4()
    command = ShelveServer(image_id=image_id, offload_seconds=call.cloud.settings.shelved_offload_time, **by(call))
    image = making(
        server,
        await base_of(call.cloud, server),
        image_id=image_id,
        name=f"{server.name}-shelved",
        project_id=server.project_id,
        user_id=call.token.user_id,
    )
    await call.execute(Wish(SERVERS, server.id, command), *image)


async def offload(call: Call) -> None:
    server = await server_in_path(call)
    await call.execute(Wish(SERVERS, server.id, OffloadServer(**by(call))))


async def unshelve(call: Call) -> None:
    server, wanted = await server_in_path(call), call.body
    zone = wanted.availability_zone if wanted is not None else UNSET
    host = getattr(wanted, "host", UNSET) or ""
    if host:
        call.must(TO_HOST, project_id=server.project_id, user_id=server.order.user_id)
    if (zone is not UNSET or host) and server.vm_state is not VmState.SHELVED_OFFLOADED:
        raise _not_offloaded(server)
    _check_target(call, server, zone, host)
    await call.execute(Wish(SERVERS, server.id, UnshelveServer(zone=zone, host=host, **by(call))))


def _not_offloaded(server: Server) -> Conflict:
    return Conflict(
        f"Specifying an availability zone or a host when unshelving server {server.id} is only allowed while it is in "
        f"vm_state {VmState.SHELVED_OFFLOADED}; it is {server.vm_state}."
    )


def _check_target(call: Call, server: Server, zone: str | UnsetType | None, host: str) -> None:
    """Raises Invalid if there is no such place, Conflict if the host is not in the zone."""
    hosts: dict[str, Host] = {document.id: document.state for document in call.cloud.mirror(HOST).values()}
    if zone and zone not in {it.zone for it in hosts.values()}:
        raise Invalid("The requested availability zone is not available")
    if not host:
        return
    if host not in hosts:
        raise Invalid(f"Compute host {host} could not be found.")
    kept = server.order.zone if zone is UNSET else zone
    if kept and hosts[host].zone != kept:
        raise Conflict(f"Host {host} is not in the availability zone {kept}.")


def _unshelve(body: Any = None, **fields: Any) -> Route:
    fields |= {"body": body, "answers": 202}
    route: Route = Post(PATH, unshelve, may=f"{RULE}:unshelve", action="unshelve", **fields)
    return route


routes = [
    Post(PATH, shelve, may=f"{RULE}:shelve", action="shelve", answers=202),
    Post(PATH, offload, may=f"{RULE}:shelve_offload", action="shelveOffload", answers=202),
    _unshelve(until="2.76"),
    _unshelve(ToZone | None, since="2.77", until="2.90"),
    _unshelve(ToZoneOrHost | None, since="2.91"),
]
