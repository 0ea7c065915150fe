"""The rules of an operator's own resource classes. That none is in use is asked by the caller, over all providers."""

from __future__ import annotations

from bus.execute import Aggregate
from schema.event import Command
from schema.placement.resource_class import (
    RESOURCE_CLASS,
    CreateResourceClass,
    DeleteResourceClass,
    ResourceClass,
    ResourceClassCreated,
    ResourceClassDeleted,
    ResourceClassEvent,
)

ABSENT, THERE = "absent", "there"

ALLOWED: dict[type[Command], set[str]] = {CreateResourceClass: {ABSENT}, DeleteResourceClass: {THERE}}


def decide(resource_class: ResourceClass, command: Command) -> list[ResourceClassEvent]:
    match command:
        case CreateResourceClass():
            return [] if resource_class.living else [ResourceClassCreated()]
        case DeleteResourceClass():
            return [ResourceClassDeleted()] if resource_class.living else []
    raise TypeError(f"resource classes know no {type(command).__name__}")


RESOURCE_CLASSES = Aggregate(RESOURCE_CLASS, decide, ALLOWED)
