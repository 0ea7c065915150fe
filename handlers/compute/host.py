"""The rules of hosts."""

from __future__ import annotations

from msgspec.structs import replace

from bus.execute import Aggregate, Wish
from handlers.placement.provider import PROVIDERS
from schema.compute.host import (
    HOST,
    ChangeHostFacts,
    DisableHost,
    EnableHost,
    EndForcedDown,
    ForceHostDown,
    Host,
    HostDisabled,
    HostEnabled,
    HostEvent,
    HostFactsChanged,
    HostForcedDown,
    HostForcedDownEnded,
    HostJoinedAggregate,
    HostLeftAggregate,
    HostLost,
    HostRegistered,
    HostRemoved,
    HostReturned,
    JoinAggregate,
    LeaveAggregate,
    LoseHost,
    RegisterHost,
    RemoveHost,
    ReturnHost,
)
from schema.event import Command
from schema.placement.provider import ReportTraits
from schema.refusal import Conflict, NotFound

ABSENT, UP, LOST = "absent", "up", "lost"

ALLOWED: dict[type[Command], set[str]] = {
    RegisterHost: {ABSENT},
    ChangeHostFacts: {UP, LOST},
    EnableHost: {UP, LOST},
    DisableHost: {UP, LOST},
    ForceHostDown: {UP, LOST},
    EndForcedDown: {UP, LOST},
    LoseHost: {UP},
    ReturnHost: {LOST},
    JoinAggregate: {UP, LOST},
    LeaveAggregate: {UP, LOST},
    RemoveHost: {UP, LOST},
}


def decide(host: Host, command: Command) -> list[HostEvent]:
    if _already_so(host, command):
        return []
    status = _status(host)
    if status not in ALLOWED[type(command)]:
        if status == ABSENT:
            raise NotFound(f"Compute host {host.id} could not be found.")
        raise Conflict(f"Compute host {host.id} is {status}: {type(command).__name__} is not possible.")
    match command:
        case RegisterHost():
            return [
                HostRegistered(
                    provider_id=command.provider_id,
                    service_id=command.service_id,
                    facts=command.facts,
                    epoch=host.epoch + 1,
                )
            ]
        case ChangeHostFacts():
            return [HostFactsChanged(facts=command.facts)]
        case EnableHost():
            return [HostEnabled()]
        case DisableHost():
            return [HostDisabled(reason=command.reason)]
        case ForceHostDown():
            return [HostForcedDown(epoch=host.epoch + 1)]
        case EndForcedDown():
            return [HostForcedDownEnded()]
        case LoseHost():
            return [HostLost(epoch=host.epoch + 1, silent_seconds=command.silent_seconds)]
        case ReturnHost():
            return [HostReturned(epoch=host.epoch)]
        case JoinAggregate():
            return [_join(host, command)]
        case LeaveAggregate():
            return [HostLeftAggregate(aggregate_id=command.aggregate_id)]
        case RemoveHost():
            return [HostRemoved()]
    raise TypeError(f"hosts know no {type(command).__name__}")


def switching(host: Host, command: EnableHost | DisableHost) -> tuple[Wish, ...]:
    """To enable or disable it, and to say so in placement, which others ask for candidates."""
    after = replace(host, enabled=isinstance(command, EnableHost))
    return (
        Wish(HOSTS, host.id, command),
        Wish(PROVIDERS, host.provider_id, ReportTraits(traits=after.traits)),
    )


def _already_so(host: Host, command: Command) -> bool:
    match command:
        case RegisterHost():
            return host.living
        case RemoveHost():
            return host.deleted_at is not None
    if not host.living:
        return False
    match command:
        case ChangeHostFacts():
            return host.facts == command.facts
        case EnableHost():
            return host.enabled
        case DisableHost():
            return not host.enabled and host.disabled_reason == command.reason
        case ForceHostDown():
            return host.forced_down
        case EndForcedDown():
            return not host.forced_down
        case LoseHost():
            return not host.up or host.epoch != command.epoch
        case ReturnHost():
            return host.up
        case JoinAggregate():
            return host.zones.get(command.aggregate_id) == command.zone
        case LeaveAggregate():
            return command.aggregate_id not in host.zones
    return False


def _join(host: Host, command: JoinAggregate) -> HostJoinedAggregate:
    others = {zone for id, zone in host.zones.items() if zone and id != command.aggregate_id}
    if command.zone and others - {command.zone}:
        raise Conflict(
            f"Host {host.id} is in the availability zone {others.pop()} already and cannot be in {command.zone} too; "
            "take it out of the aggregate that puts it there first."
        )
    return HostJoinedAggregate(aggregate_id=command.aggregate_id, zone=command.zone)


def _status(host: Host) -> str:
    if not host.living:
        return ABSENT
    return UP if host.up else LOST


HOSTS = Aggregate(HOST, decide, ALLOWED)
