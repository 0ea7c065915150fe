"""A host's network side: where its tunnels end, what its driver can, whether its agent lives. Beside `host/<name>`.

    (absent) ──NetworkHostRegistered──▶ up ──NetworkHostLost──▶ lost ──NetworkHostReturned──▶ up
    any of these ──NetworkHostRemoved──▶ (absent)

Losing it raises its epoch: routers that lived there move, and what it still says under the old epoch is void.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import UNSET, UnsetType, field
from msgspec.structs import replace

from schema.changes import applied
from schema.event import Command, Event, Kind, State
from schema.network.wiring import NetworkHostFacts


class NetworkHost(State):
    agent_id: str = ""
    """What its agents' ids in the API are made from."""
    facts: NetworkHostFacts = field(default_factory=NetworkHostFacts)
    epoch: int = 0
    up: bool = False
    enabled: bool = True
    """`admin_state_up` of its agents: no new router comes to a host that is not."""
    description: str = ""

    @property
    def alive(self) -> bool:
        return self.up


class NetworkHostRegistered(Event):
    agent_id: str
    facts: NetworkHostFacts
    epoch: int = 1


class NetworkHostFactsChanged(Event):
    facts: NetworkHostFacts


class NetworkHostChanged(Event):
    """An operator has said so."""

    enabled: bool | UnsetType = UNSET
    description: str | UnsetType = UNSET


class NetworkHostLost(Event):
    """Nothing was heard of it for a whole lease. Its agent has taken its routers down by now."""

    epoch: int
    silent_seconds: float = 0.0


class NetworkHostReturned(Event):
    epoch: int


class NetworkHostRemoved(Event):
    pass


NetworkHostEvent = (
    NetworkHostRegistered
    | NetworkHostFactsChanged
    | NetworkHostChanged
    | NetworkHostLost
    | NetworkHostReturned
    | NetworkHostRemoved
)


class RegisterNetworkHost(Command):
    agent_id: str
    facts: NetworkHostFacts


class ChangeNetworkHostFacts(Command):
    facts: NetworkHostFacts


class ChangeNetworkHost(Command):
    enabled: bool | UnsetType = UNSET
    description: str | UnsetType = UNSET


class LoseNetworkHost(Command):
    """`epoch`: the lease that lapsed; if the host has another by now, it is too late to lose it."""

    epoch: int
    silent_seconds: float = 0.0


class ReturnNetworkHost(Command):
    pass


class RemoveNetworkHost(Command):
    pass


def evolve(host: NetworkHost, event: NetworkHostEvent, at: datetime) -> NetworkHost:
    match event:
        case NetworkHostRegistered():
            return NetworkHost(id=host.id, agent_id=event.agent_id, facts=event.facts, epoch=event.epoch, up=True)
        case NetworkHostFactsChanged() | NetworkHostChanged():
            return applied(host, event)
        case NetworkHostLost():
            return replace(host, up=False, epoch=event.epoch)
        case NetworkHostReturned():
            return replace(host, up=True, epoch=event.epoch)
        case NetworkHostRemoved():
            return replace(host, deleted_at=at)


NETWORK_HOST = Kind("network-host", NetworkHost, NetworkHostEvent, evolve, reborn=NetworkHostRegistered)
