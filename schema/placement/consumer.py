"""A consumer: what a server (or anything else that uses resources) holds, of which providers.

    (absent) ──ResourcesAllocated──▶ holding ──AllocationsEnded──▶ (absent; it may come to hold something again)

The other side of each claim stands in its provider's stream; both are appended together.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import field

from schema.event import Command, Event, Kind, State
from schema.placement.provider import Resources

ANY_GENERATION = -1
NEW_CONSUMER = 0
"""The generation of a consumer that holds nothing."""


class Consumer(State):
    project_id: str | None = None
    user_id: str | None = None
    consumer_type: str | None = None
    """`INSTANCE`, `MIGRATION`…; None: nobody said."""
    generation: int = 0
    allocations: dict[str, Resources] = field(default_factory=dict)
    """Provider id → what it holds there."""
    order: tuple[str, ...] = ()
    """The providers as they were named; left out where that is the order of their ids."""


class ResourcesAllocated(Event):
    """From now on it holds exactly this."""

    allocations: dict[str, Resources]
    project_id: str | None = None
    user_id: str | None = None
    consumer_type: str | None = None
    order: tuple[str, ...] = ()


class AllocationsEnded(Event):
    pass


ConsumerEvent = ResourcesAllocated | AllocationsEnded


class Allocate(Command):
    """Hold exactly this, instead of what is held now.

    `generation`: the one the caller saw, refused if it is another by now; NEW_CONSUMER: it must hold nothing yet. A
    consumer that holds this already and is one generation further has had this very command, unless it is `fresh`: the
    caller knows that it never asked before.
    """

    allocations: dict[str, Resources]
    project_id: str | None = None
    user_id: str | None = None
    consumer_type: str | None = None
    generation: int = ANY_GENERATION
    fresh: bool = False


class EndAllocations(Command):
    """`providers`: where the caller knows it to hold something; refused if it holds something elsewhere by now."""

    generation: int = ANY_GENERATION
    providers: tuple[str, ...] | None = None


def evolve(consumer: Consumer, event: ConsumerEvent, at: datetime) -> Consumer:
    match event:
        case ResourcesAllocated():
            alive = consumer.deleted_at is None
            return Consumer(
                id=consumer.id,
                created_at=consumer.created_at if alive else None,
                project_id=event.project_id,
                user_id=event.user_id,
                consumer_type=event.consumer_type,
                generation=consumer.generation + 1 if alive else 1,
                allocations=event.allocations,
                order=event.order,
            )
        case AllocationsEnded():
            return Consumer(id=consumer.id, created_at=consumer.created_at, deleted_at=at)


CONSUMER = Kind("consumer", Consumer, ConsumerEvent, evolve, reborn=ResourcesAllocated)
