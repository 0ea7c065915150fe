"""os-services: the compute services, one a host; enabling, disabling, forcing down, forgetting them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from api.compute.hypervisor import UUID, UUIDS, provider_of, shown_id, state_of
from api.compute.page import listing
from api.compute.times import written
from api.compute.words import HostName
from api.wire import Call, Delete, Put
from bus.execute import Wish
from handlers.compute.aggregate import HOST_AGGREGATES
from handlers.compute.host import HOSTS, switching
from handlers.placement.provider import PROVIDERS
from schema.compute.aggregate import RemoveAggregateHost
from schema.compute.host import HOST, DisableHost, EnableHost, EndForcedDown, ForceHostDown, Host, RemoveHost
from schema.event import Command
from schema.placement.provider import DeleteProvider
from schema.refusal import Conflict, Invalid, NotFound

RULE = "os_compute_api:os-services"
BINARY = "nova-compute"

Reason = Annotated[str, Meta(min_length=1, max_length=255)]


class Query(Struct, frozen=True):
    host: str | None = None
    binary: str | None = None


class ServiceChange(Struct, forbid_unknown_fields=True):
    status: Literal["enabled", "disabled"] | UnsetType = UNSET
    disabled_reason: Reason | UnsetType = UNSET
    forced_down: bool | UnsetType = UNSET


class OldChange(Struct, forbid_unknown_fields=True):
    host: HostName
    binary: Reason


class OldDisable(Struct, forbid_unknown_fields=True):
    host: HostName
    binary: Reason
    disabled_reason: Reason


class OldForceDown(Struct, forbid_unknown_fields=True):
    host: HostName
    binary: Reason
    forced_down: bool


async def index(call: Call) -> dict[str, Any]:
    query: Query = call.params
    hosts = [
        document.state
        for document in call.cloud.mirror(HOST).values()
        if query.host in {None, document.id} and query.binary in {None, BINARY}
    ]
    return {"services": [_view(call, host) for host in sorted(hosts, key=lambda host: host.id)]}


async def update(call: Call) -> dict[str, Any]:
    host = _by_id(call)
    change: ServiceChange = call.body
    if change.status is UNSET and change.forced_down is UNSET:
        raise Invalid("No updates were requested. Fields 'status' or 'forced_down' should be specified.")
    if change.disabled_reason is not UNSET and change.status != "disabled":
        raise Invalid("Specifying 'disabled_reason' requires that 'status' is 'disabled'.")
    commands: list[Command] = []
    if change.status == "enabled":
        commands.append(EnableHost())
    elif change.status == "disabled":
        commands.append(DisableHost(reason=change.disabled_reason or None))
    if change.forced_down is not UNSET:
        commands.append(ForceHostDown() if change.forced_down else EndForcedDown())
    return {"service": _view(call, await _changed(call, host, *commands))}


async def enable(call: Call) -> dict[str, Any]:
    await _changed(call, _named(call), EnableHost())
    return {"service": {"host": call.body.host, "binary": BINARY, "status": "enabled"}}


async def disable(call: Call) -> dict[str, Any]:
    await _changed(call, _named(call), DisableHost())
    return {"service": {"host": call.body.host, "binary": BINARY, "status": "disabled"}}


async def disable_with_reason(call: Call) -> dict[str, Any]:
    reason = call.body.disabled_reason
    await _changed(call, _named(call), DisableHost(reason=reason))
    service = {"host": call.body.host, "binary": BINARY, "status": "disabled", "disabled_reason": reason}
    return {"service": service}


async def force_down(call: Call) -> dict[str, Any]:
    forced = call.body.forced_down
    await _changed(call, _named(call), ForceHostDown() if forced else EndForcedDown())
    return {"service": {"host": call.body.host, "binary": BINARY, "forced_down": forced}}


async def delete(call: Call) -> None:
    """Forget a host: its aggregates and its resource provider forget it in the same append, or nothing does."""
    host = _by_id(call)
    if provider_of(call, host).claims:
        raise Conflict(f"Unable to delete compute service that is hosting instances: {host.id} still has some.")
    await call.execute(
        Wish(HOSTS, host.id, RemoveHost()),
        *(Wish(HOST_AGGREGATES, id, RemoveAggregateHost(host=host.id)) for id in host.zones),
        Wish(PROVIDERS, host.provider_id, DeleteProvider()),
    )


async def _changed(call: Call, host: Host, *commands: Command) -> Host:
    wishes = [
        wish
        for command in commands
        for wish in (
            switching(host, command)
            if isinstance(command, EnableHost | DisableHost)
            else (Wish(HOSTS, host.id, command),)
        )
    ]
    documents = await call.execute(*wishes)
    states: list[Host] = [it.state for it in documents if isinstance(it.state, Host)]
    return states[-1]


def _by_id(call: Call) -> Host:
    wanted = call.path["id"]
    if call.version >= UUIDS and not UUID.fullmatch(wanted):
        raise Invalid(f"Invalid uuid {wanted[:64]}")
    if call.version < UUIDS and not (wanted.isascii() and wanted.isdigit()):
        raise Invalid(f"Invalid input for field id: {wanted[:64]!r} is not a whole number")
    for document in call.cloud.mirror(HOST).values():
        if wanted == str(shown_id(call, document.state.service_id)):
            host: Host = document.state
            return host
    raise NotFound(f"Service {wanted} could not be found.")


def _named(call: Call) -> Host:
    document = call.cloud.mirror(HOST).get(call.body.host)
    if document is None or call.body.binary != BINARY:
        raise NotFound(f"Service {call.body.binary} on host {call.body.host} could not be found.")
    host: Host = document.state
    return host


def _view(call: Call, host: Host) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": shown_id(call, host.service_id),
        "binary": BINARY,
        "host": host.id,
        "zone": host.zone,
        **state_of(host),
        "updated_at": written(host.updated_at),
        "disabled_reason": host.disabled_reason,
    }
    if call.version >= (2, 11):
        shown["forced_down"] = host.forced_down
    return shown


def _old(word: str, handler: Any, body: Any, since: str | None = None) -> Any:
    return Put(
        f"/os-services/{word}", handler, may=f"{RULE}:update", body=body, since=since, until="2.52", lenient=True
    )


routes = [
    *listing("/os-services", index, f"{RULE}:list", Query),
    Put("/os-services/{id}", update, may=f"{RULE}:update", body=ServiceChange, since="2.53", lenient=True),
    _old("enable", enable, OldChange),
    _old("disable", disable, OldChange),
    _old("disable-log-reason", disable_with_reason, OldDisable),
    _old("force-down", force_down, OldForceDown, since="2.11"),
    Delete("/os-services/{id}", delete, may=f"{RULE}:delete"),
]
