"""The rules of host aggregates, and the wishes that change an aggregate together with its hosts."""

from __future__ import annotations

from bus.execute import Aggregate as Rules
from bus.execute import Wish
from handlers.compute.host import HOSTS
from schema.compute.aggregate import (
    AGGREGATE,
    ZONE,
    AddAggregateHost,
    Aggregate,
    AggregateCreated,
    AggregateDeleted,
    AggregateEvent,
    AggregateHostAdded,
    AggregateHostRemoved,
    AggregateMetadataSet,
    AggregateRenamed,
    CreateAggregate,
    DeleteAggregate,
    RemoveAggregateHost,
    RenameAggregate,
    SetAggregateMetadata,
)
from schema.compute.host import JoinAggregate, LeaveAggregate
from schema.event import Command
from schema.refusal import Conflict, Invalid, NotFound

ABSENT, THERE, GONE = "absent", "there", "gone"

ALLOWED: dict[type[Command], set[str]] = {
    CreateAggregate: {ABSENT},
    RenameAggregate: {THERE},
    SetAggregateMetadata: {THERE},
    AddAggregateHost: {THERE},
    RemoveAggregateHost: {THERE},
    DeleteAggregate: {THERE},
}


def decide(aggregate: Aggregate, command: Command) -> list[AggregateEvent]:
    if _already_so(aggregate, command):
        return []
    status = _status(aggregate)
    if status not in ALLOWED[type(command)]:
        if status == ABSENT:
            raise NotFound(f"Aggregate {aggregate.id} could not be found.")
        raise Conflict(f"Aggregate {aggregate.id} is {status}: {type(command).__name__} is not possible.")
    match command:
        case CreateAggregate():
            return [AggregateCreated(uuid=command.uuid, name=command.name, zone=command.zone)]
        case RenameAggregate():
            return [AggregateRenamed(name=command.name)]
        case SetAggregateMetadata():
            if (command.metadata.get(ZONE, aggregate.zone) or "") != aggregate.zone and set(command.hosts) != set(
                aggregate.hosts
            ):
                raise Conflict(f"The hosts of aggregate {aggregate.id} changed meanwhile; try again.")
            return [AggregateMetadataSet(metadata=_changes(aggregate, command.metadata))]
        case AddAggregateHost():
            if command.zone != aggregate.zone:
                raise Conflict(f"The zone of aggregate {aggregate.id} changed meanwhile; try again.")
            return [AggregateHostAdded(host=command.host)]
        case RemoveAggregateHost():
            return [AggregateHostRemoved(host=command.host)]
        case DeleteAggregate():
            if aggregate.hosts:
                raise Invalid(
                    f"Cannot remove aggregate {aggregate.id}: it still has the hosts {', '.join(aggregate.hosts)}. "
                    "Remove them first."
                )
            return [AggregateDeleted()]
    raise TypeError(f"aggregates know no {type(command).__name__}")


def adding(aggregate: Aggregate, host: str) -> tuple[Wish, Wish]:
    """A host into an aggregate; refused on the host's stream when it is in another zone already."""
    return (
        Wish(HOST_AGGREGATES, aggregate.id, AddAggregateHost(host=host, zone=aggregate.zone)),
        Wish(HOSTS, host, JoinAggregate(aggregate_id=aggregate.id, zone=aggregate.zone)),
    )


def removing(aggregate: Aggregate, host: str) -> tuple[Wish, Wish]:
    return (
        Wish(HOST_AGGREGATES, aggregate.id, RemoveAggregateHost(host=host)),
        Wish(HOSTS, host, LeaveAggregate(aggregate_id=aggregate.id)),
    )


def with_metadata(aggregate: Aggregate, metadata: dict[str, str | None]) -> tuple[Wish, ...]:
    """New metadata; where it changes the zone, every host of the aggregate changes with it or nothing does."""
    zone = (metadata[ZONE] or "") if ZONE in metadata else aggregate.zone
    hosts = aggregate.hosts if zone != aggregate.zone else ()
    return (
        Wish(HOST_AGGREGATES, aggregate.id, SetAggregateMetadata(metadata=metadata, hosts=hosts)),
        *(Wish(HOSTS, host, JoinAggregate(aggregate_id=aggregate.id, zone=zone)) for host in hosts),
    )


def _already_so(aggregate: Aggregate, command: Command) -> bool:
    match command:
        case CreateAggregate():
            return aggregate.living and aggregate.uuid == command.uuid
        case DeleteAggregate():
            return aggregate.deleted_at is not None
    if not aggregate.living:
        return False
    match command:
        case RenameAggregate():
            return aggregate.name == command.name
        case SetAggregateMetadata():
            return not _changes(aggregate, command.metadata)
        case AddAggregateHost():
            return command.host in aggregate.hosts
        case RemoveAggregateHost():
            return command.host not in aggregate.hosts
    return False


def _changes(aggregate: Aggregate, metadata: dict[str, str | None]) -> dict[str, str | None]:
    return {key: value for key, value in metadata.items() if aggregate.metadata.get(key) != value}


def _status(aggregate: Aggregate) -> str:
    if aggregate.deleted_at is not None:
        return GONE
    return THERE if aggregate.living else ABSENT


HOST_AGGREGATES = Rules(AGGREGATE, decide, ALLOWED)
