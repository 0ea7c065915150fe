"""The rules of consumers: what they hold changes as a whole, and only for who knows what it was."""

from __future__ import annotations

from bus.execute import Aggregate
from handlers.placement.provider import ConcurrentUpdate
from schema.event import Command
from schema.placement.consumer import (
    ANY_GENERATION,
    CONSUMER,
    Allocate,
    AllocationsEnded,
    Consumer,
    ConsumerEvent,
    EndAllocations,
    ResourcesAllocated,
)

ABSENT, HOLDING = "absent", "holding"

ALLOWED: dict[type[Command], set[str]] = {
    Allocate: {ABSENT, HOLDING},
    EndAllocations: {HOLDING},
}


def decide(consumer: Consumer, command: Command) -> list[ConsumerEvent]:
    if _already_so(consumer, command):
        return []
    match command:
        case Allocate():
            _expect(consumer, command.generation)
            return [
                ResourcesAllocated(
                    allocations=command.allocations,
                    project_id=command.project_id,
                    user_id=command.user_id,
                    consumer_type=command.consumer_type,
                    order=() if (named := tuple(command.allocations)) == tuple(sorted(named)) else named,
                )
            ]
        case EndAllocations():
            _expect(consumer, command.generation)
            if command.providers is not None and not consumer.allocations.keys() <= set(command.providers):
                raise ConcurrentUpdate(f"consumer {consumer.id} holds something elsewhere by now; read it again.")
            return [AllocationsEnded()]
    raise TypeError(f"consumers know no {type(command).__name__}")


def _already_so(consumer: Consumer, command: Command) -> bool:
    match command:
        case Allocate():
            return (
                consumer.living
                and not command.fresh
                and command.generation in {ANY_GENERATION, consumer.generation - 1}
                and consumer.allocations == command.allocations
                and (consumer.project_id, consumer.user_id) == (command.project_id, command.user_id)
                and consumer.consumer_type == command.consumer_type
            )
        case EndAllocations():
            return not consumer.living
    return False


def _expect(consumer: Consumer, generation: int) -> None:
    if generation not in {ANY_GENERATION, consumer.generation}:
        raise ConcurrentUpdate(
            f"consumer generation conflict - expected {consumer.generation or 'null'} but got {generation or 'null'} "
            f"for consumer {consumer.id}; read its allocations again."
        )


CONSUMERS = Aggregate(CONSUMER, decide, ALLOWED)
