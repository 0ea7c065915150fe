"""The rules of an operator's own traits. That none is in use is asked by the caller, over all providers."""

from __future__ import annotations

from functools import cache

from bus.execute import Aggregate
from schema.event import Command
from schema.placement.trait import TRAIT, CreateTrait, DeleteTrait, Trait, TraitCreated, TraitDeleted, TraitEvent

ABSENT, THERE = "absent", "there"

ALLOWED: dict[type[Command], set[str]] = {CreateTrait: {ABSENT}, DeleteTrait: {THERE}}


@cache
def standard_traits() -> frozenset[str]:
    """The names every cloud knows."""
    import os_traits  # type: ignore[import-untyped]

    return frozenset(os_traits.get_traits())


def decide(trait: Trait, command: Command) -> list[TraitEvent]:
    match command:
        case CreateTrait():
            return [] if trait.living else [TraitCreated()]
        case DeleteTrait():
            return [TraitDeleted()] if trait.living else []
    raise TypeError(f"traits know no {type(command).__name__}")


TRAITS = Aggregate(TRAIT, decide, ALLOWED)
