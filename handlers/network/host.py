"""The rules of hosts' network sides."""

from __future__ import annotations

from bus.execute import Aggregate
from schema.changes import differing
from schema.event import Command
from schema.network.host import (
    NETWORK_HOST,
    ChangeNetworkHost,
    ChangeNetworkHostFacts,
    LoseNetworkHost,
    NetworkHost,
    NetworkHostChanged,
    NetworkHostEvent,
    NetworkHostFactsChanged,
    NetworkHostLost,
    NetworkHostRegistered,
    NetworkHostRemoved,
    NetworkHostReturned,
    RegisterNetworkHost,
    RemoveNetworkHost,
    ReturnNetworkHost,
)
from schema.refusal import Conflict, NotFound

ABSENT, UP, LOST = "absent", "up", "lost"

ALLOWED: dict[type[Command], set[str]] = {
    RegisterNetworkHost: {ABSENT},
    ChangeNetworkHostFacts: {UP, LOST},
    ChangeNetworkHost: {UP, LOST},
    LoseNetworkHost: {UP},
    ReturnNetworkHost: {LOST},
    RemoveNetworkHost: {UP, LOST},
}


def decide(host: NetworkHost, command: Command) -> list[NetworkHostEvent]:
    if _already_so(host, command):
        return []
    status = _status(host)
    if status not in ALLOWED[type(command)]:
        if status == ABSENT:
            raise NotFound(f"Network host {host.id} could not be found.")
        raise Conflict(f"Network host {host.id} is {status}: {type(command).__name__} is not possible.")
    match command:
        case RegisterNetworkHost():
            return [NetworkHostRegistered(agent_id=command.agent_id, facts=command.facts, epoch=host.epoch + 1)]
        case ChangeNetworkHostFacts():
            return [NetworkHostFactsChanged(facts=command.facts)]
        case ChangeNetworkHost():
            return [NetworkHostChanged(**differing(host, command))]
        case LoseNetworkHost():
            return [NetworkHostLost(epoch=host.epoch + 1, silent_seconds=command.silent_seconds)]
        case ReturnNetworkHost():
            return [NetworkHostReturned(epoch=host.epoch)]
        case RemoveNetworkHost():
            return [NetworkHostRemoved()]
    raise TypeError(f"network hosts know no {type(command).__name__}")


def _already_so(host: NetworkHost, command: Command) -> bool:
    if not host.living:
        return isinstance(command, RemoveNetworkHost) and host.deleted_at is not None
    match command:
        case RegisterNetworkHost():
            return True
        case ChangeNetworkHostFacts():
            return host.facts == command.facts
        case ChangeNetworkHost():
            return not differing(host, command)
        case LoseNetworkHost():
            return not host.up or host.epoch != command.epoch
        case ReturnNetworkHost():
            return host.up
    return False


def _status(host: NetworkHost) -> str:
    if not host.living:
        return ABSENT
    return UP if host.up else LOST


NETWORK_HOSTS = Aggregate(NETWORK_HOST, decide, ALLOWED)
