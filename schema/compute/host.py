"""A hypervisor host: what it offers, whether it may be used, and the epoch of its lease.

    (absent) ──HostRegistered──▶ up ──HostLost──▶ lost ──HostReturned──▶ up       ──HostRemoved──▶ (absent)
    any of these, beside it:     enabled ◀──▶ disabled (an operator)   forced down ◀──▶ not (an operator, fencing)

Heartbeats are not events; only what they change is. Losing a host raises its epoch, so that whatever was done under the
lapsed lease is told from what is done after. The stream's id is the host's name.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import field
from msgspec.structs import replace

from schema.compute.domain import HostFacts
from schema.event import Command, Event, Kind, State

DISABLED_TRAIT = "COMPUTE_STATUS_DISABLED"
"""What placement says of one that is disabled."""
DEFAULT_ZONE = "nova"
"""The availability zone of hosts that no aggregate puts into another."""


class Host(State):
    provider_id: str = ""
    """Its resource provider in placement; also the hypervisor's id."""
    service_id: str = ""
    """The nova-compute service it appears as in os-services."""
    facts: HostFacts = field(default_factory=HostFacts)
    epoch: int = 0
    """Counts the leases: raised when the host is lost."""
    up: bool = False
    """It was heard of within its lease, as far as the log knows."""
    enabled: bool = True
    disabled_reason: str | None = None
    forced_down: bool = False
    zones: dict[str, str] = field(default_factory=dict)
    """Aggregates it is in, by id, with the zone each makes it part of (empty: none)."""

    @property
    def zone(self) -> str:
        """Its availability zone."""
        return next((zone for zone in self.zones.values() if zone), DEFAULT_ZONE)

    @property
    def alive(self) -> bool:
        """Up, and not held down by an operator: its agent may be asked."""
        return self.up and not self.forced_down

    @property
    def traits(self) -> tuple[str, ...]:
        """What its resource provider says of it: what it can do, and whether it is disabled."""
        return self.facts.traits if self.enabled else tuple(sorted({*self.facts.traits, DISABLED_TRAIT}))

    @property
    def usable(self) -> bool:
        """Whether new servers may be placed here."""
        return self.living and self.alive and self.enabled


class HostRegistered(Event):
    provider_id: str
    service_id: str
    facts: HostFacts
    epoch: int = 1


class HostFactsChanged(Event):
    facts: HostFacts


class HostEnabled(Event):
    pass


class HostDisabled(Event):
    reason: str | None = None


class HostForcedDown(Event):
    """An operator has fenced it: it stays down, whatever it says, until `HostForcedDownEnded`."""

    epoch: int


class HostForcedDownEnded(Event):
    pass


class HostLost(Event):
    """Nothing was heard of it for a whole lease. Its agent has fenced itself by now."""

    epoch: int
    silent_seconds: float = 0.0


class HostReturned(Event):
    epoch: int


class HostJoinedAggregate(Event):
    aggregate_id: str
    zone: str


class HostLeftAggregate(Event):
    aggregate_id: str


class HostRemoved(Event):
    pass


HostEvent = (
    HostRegistered
    | HostFactsChanged
    | HostEnabled
    | HostDisabled
    | HostForcedDown
    | HostForcedDownEnded
    | HostLost
    | HostReturned
    | HostJoinedAggregate
    | HostLeftAggregate
    | HostRemoved
)


class RegisterHost(Command):
    provider_id: str
    service_id: str
    facts: HostFacts


class ChangeHostFacts(Command):
    facts: HostFacts


class EnableHost(Command):
    pass


class DisableHost(Command):
    reason: str | None = None


class ForceHostDown(Command):
    pass


class EndForcedDown(Command):
    pass


class LoseHost(Command):
    """`epoch`: the lease that lapsed; if the host has another by now, it is too late to lose it."""

    epoch: int
    silent_seconds: float = 0.0


class ReturnHost(Command):
    pass


class JoinAggregate(Command):
    """Become part of an aggregate, or (already in it) of the zone it makes now."""

    aggregate_id: str
    zone: str = ""


class LeaveAggregate(Command):
    aggregate_id: str


class RemoveHost(Command):
    pass


def evolve(host: Host, event: HostEvent, at: datetime) -> Host:
    match event:
        case HostRegistered():
            return Host(
                id=host.id,
                provider_id=event.provider_id,
                service_id=event.service_id,
                facts=event.facts,
                epoch=event.epoch,
                up=True,
            )
        case HostFactsChanged():
            return replace(host, facts=event.facts)
        case HostEnabled():
            return replace(host, enabled=True, disabled_reason=None)
        case HostDisabled():
            return replace(host, enabled=False, disabled_reason=event.reason)
        case HostForcedDown():
            return replace(host, forced_down=True, epoch=event.epoch)
        case HostForcedDownEnded():
            return replace(host, forced_down=False)
        case HostLost():
            return replace(host, up=False, epoch=event.epoch)
        case HostReturned():
            return replace(host, up=True, epoch=event.epoch)
        case HostJoinedAggregate():
            return replace(host, zones=host.zones | {event.aggregate_id: event.zone})
        case HostLeftAggregate():
            return replace(host, zones={id: zone for id, zone in host.zones.items() if id != event.aggregate_id})
        case HostRemoved():
            return replace(host, deleted_at=at)


HOST = Kind("host", Host, HostEvent, evolve, reborn=HostRegistered)
