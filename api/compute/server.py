"""Servers: show, change, delete; and how every other door of a server finds it."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType, field

from api.compute.server_view import View
from api.compute.words import Description, Name, ZoneName
from api.wire import Call, Delete, Get, Put
from bus.execute import Wish
from handlers.compute.quota import counting
from handlers.compute.server import SERVERS
from schema.compute.server import SERVER
from schema.compute.server_command import ChangeServerDetails, DeleteServer
from schema.compute.server_state import Server
from schema.refusal import Invalid, NotFound

RULE = "os_compute_api:servers"
OVERRIDES_LOCK = "os_compute_api:os-lock-server:unlock:unlock_override"

DiskConfig = Literal["AUTO", "MANUAL"]

HOSTNAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9-]{0,61}[a-zA-Z0-9]")
FQDN = re.compile(r"(?=.{2,255}$)(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9-]{1,63})*")
FQDN_SINCE = (2, 94)


class Change(Struct, forbid_unknown_fields=True):
    name: Name | UnsetType = UNSET
    disk_config: DiskConfig | UnsetType = field(default=UNSET, name="OS-DCF:diskConfig")
    access_ipv4: str | UnsetType = field(default=UNSET, name="accessIPv4")
    access_ipv6: str | UnsetType = field(default=UNSET, name="accessIPv6")


class DescribedChange(Change, forbid_unknown_fields=True):
    description: Description | UnsetType | None = UNSET


class NamedChange(DescribedChange, forbid_unknown_fields=True):
    hostname: str | UnsetType = UNSET


class PinnedChange(NamedChange, forbid_unknown_fields=True):
    pinned_availability_zone: ZoneName | UnsetType | None = UNSET


class ChangeBody(Struct, forbid_unknown_fields=True):
    server: Change


class DescribedChangeBody(Struct, forbid_unknown_fields=True):
    server: DescribedChange


class NamedChangeBody(Struct, forbid_unknown_fields=True):
    server: NamedChange


class PinnedChangeBody(Struct, forbid_unknown_fields=True):
    server: PinnedChange


async def show(call: Call) -> dict[str, Any]:
    return await View(call).one(await server_in_path(call))


async def update(call: Call) -> dict[str, Any]:
    server = await server_in_path(call)
    [document] = await call.execute(Wish(SERVERS, server.id, _changes(call)))
    return await View(call).one(document.state, updated=True)


async def delete(call: Call) -> None:
    """What can be taken back for a while counts for no quota meanwhile."""
    seconds = call.cloud.settings.reclaim_instance_interval
    server = await server_in_path(call)
    command = DeleteServer(reclaim_seconds=seconds, **by(call))
    await call.execute(Wish(SERVERS, server.id, command), counting(server.id, server.project_id))


async def server_in_path(call: Call, *, gone: bool = False) -> Server:
    """The server in the path. Raises NotFound if it is not there or another project's, Forbidden if policy says so."""
    id = call.path["id"]
    try:
        server: Server = (await call.cloud.documents.get(SERVER, id, gone=gone)).state
    except NotFound:
        raise not_found(id) from None
    if server.project_id != call.token.project_id and not call.token.is_admin:
        raise not_found(id)
    if call.route.may is not None:
        call.must(call.route.may, project_id=server.project_id, user_id=server.order.user_id)
    return server


def not_found(id: str) -> NotFound:
    return NotFound(f"Instance {id} could not be found.", code="InstanceNotFound")


def by(call: Call) -> dict[str, Any]:
    """What every action carries of its call."""
    return {"request_id": call.request_id, "overrides_lock": call.may(OVERRIDES_LOCK)}


def checked_hostname(hostname: str, version: tuple[int, int]) -> str:
    """A hostname somebody chose. Raises Invalid."""
    form, what = (
        (FQDN, "a domain name") if version >= FQDN_SINCE else (HOSTNAME, "letters, digits and dashes, 2 to 63 of them")
    )
    if not form.fullmatch(hostname):
        raise Invalid(f"Invalid input for field server.hostname: it must be {what}, not {hostname[:255]!r}")
    return hostname


def checked_address(field: str, address: str | UnsetType, version: Literal[4, 6]) -> str:
    """An address somebody says a server has, in its shortest form; empty for none. Raises Invalid."""
    if address is UNSET:
        return ""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        known = None
    if known is None or known.version != version:
        raise Invalid(f"Invalid input for field server.{field}: {address[:64]!r} is no IPv{version} address.")
    return str(known)


def _changes(call: Call) -> ChangeServerDetails:
    wanted: Change = call.body.server
    fields: dict[str, Any] = by(call)
    if wanted.name is not UNSET:
        fields["name"] = wanted.name
    if wanted.disk_config is not UNSET:
        fields["disk_config"] = wanted.disk_config
    if wanted.access_ipv4 is not UNSET:
        fields["access_ipv4"] = checked_address("accessIPv4", wanted.access_ipv4, 4)
    if wanted.access_ipv6 is not UNSET:
        fields["access_ipv6"] = checked_address("accessIPv6", wanted.access_ipv6, 6)
    if isinstance(wanted, DescribedChange) and wanted.description is not UNSET:
        fields["description"] = wanted.description
    if isinstance(wanted, NamedChange) and wanted.hostname is not UNSET:
        fields["hostname"] = checked_hostname(wanted.hostname, call.version)
    if isinstance(wanted, PinnedChange) and wanted.pinned_availability_zone is not UNSET:
        fields["pinned_zone"] = wanted.pinned_availability_zone
    return ChangeServerDetails(**fields)


routes = [
    Get("/servers/{id}", show, may=f"{RULE}:show"),
    Put("/servers/{id}", update, may=f"{RULE}:update", body=ChangeBody, until="2.18"),
    Put("/servers/{id}", update, may=f"{RULE}:update", body=DescribedChangeBody, since="2.19", until="2.89"),
    Put("/servers/{id}", update, may=f"{RULE}:update", body=NamedChangeBody, since="2.90", until="2.103"),
    Put("/servers/{id}", update, may=f"{RULE}:update", body=PinnedChangeBody, since="2.104"),
    Delete("/servers/{id}", delete, may=f"{RULE}:delete"),
]
