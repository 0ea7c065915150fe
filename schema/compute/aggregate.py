"""A host aggregate: hosts grouped by an operator, with metadata; the key `availability_zone` makes it (part of) a zone.

    (absent) ──AggregateCreated──▶ there ──AggregateDeleted──▶ gone

The stream's id is the number people know it by. That a host is in one zone only is decided on the host's own stream
(`JoinAggregate`), whose command is appended together with the one here.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import field
from msgspec.structs import replace

from schema.event import Command, Event, Key, Kind, State

ZONE = "availability_zone"
"""The metadata key that names the zone."""


class Aggregate(State):
    uuid: str = ""
    name: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    hosts: tuple[str, ...] = ()

    @property
    def zone(self) -> str:
        """The zone it makes its hosts part of; empty for none."""
        return self.metadata.get(ZONE, "")


class AggregateCreated(Event):
    uuid: str
    name: str
    zone: str = ""


class AggregateRenamed(Event):
    name: str


class AggregateMetadataSet(Event):
    metadata: dict[str, str | None]
    """The keys that changed; None: removed."""


class AggregateHostAdded(Event):
    host: str


class AggregateHostRemoved(Event):
    host: str


class AggregateDeleted(Event):
    pass


AggregateEvent = (
    AggregateCreated
    | AggregateRenamed
    | AggregateMetadataSet
    | AggregateHostAdded
    | AggregateHostRemoved
    | AggregateDeleted
)


class CreateAggregate(Command):
    uuid: str
    name: str
    zone: str = ""


class RenameAggregate(Command):
    name: str


class SetAggregateMetadata(Command):
    metadata: dict[str, str | None]
    hosts: tuple[str, ...] = ()
    """The hosts whose zone is changed along with this; refused if a new zone finds others here."""


class AddAggregateHost(Command):
    host: str
    zone: str = ""
    """The zone the host is told it joins; refused if it is another one by now."""


class RemoveAggregateHost(Command):
    host: str


class DeleteAggregate(Command):
    pass


def evolve(aggregate: Aggregate, event: AggregateEvent, at: datetime) -> Aggregate:
    match event:
        case AggregateCreated():
            metadata = {ZONE: event.zone} if event.zone else {}
            return replace(aggregate, uuid=event.uuid, name=event.name, metadata=metadata)
        case AggregateRenamed():
            return replace(aggregate, name=event.name)
        case AggregateMetadataSet():
            merged = aggregate.metadata | event.metadata
            return replace(aggregate, metadata={k: v for k, v in merged.items() if v is not None})
        case AggregateHostAdded():
            return replace(aggregate, hosts=(*aggregate.hosts, event.host))
        case AggregateHostRemoved():
            return replace(aggregate, hosts=tuple(host for host in aggregate.hosts if host != event.host))
        case AggregateDeleted():
            return replace(aggregate, deleted_at=at)


def _unique(aggregate: Aggregate) -> tuple[Key, ...]:
    return (("aggregate name", aggregate.name),)


AGGREGATE = Kind("aggregate", Aggregate, AggregateEvent, evolve, unique=_unique)
