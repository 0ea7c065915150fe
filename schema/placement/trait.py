"""A trait of an operator's own: a name beginning with CUSTOM_. The standard ones are facts, not streams.

    (absent) ──TraitCreated──▶ there ──TraitDeleted──▶ (absent; the name may be used again)

The stream's id is the name.
"""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from schema.event import Command, Event, Kind, State


class Trait(State):
    pass


class TraitCreated(Event):
    pass


class TraitDeleted(Event):
    pass


TraitEvent = TraitCreated | TraitDeleted


class CreateTrait(Command):
    pass


class DeleteTrait(Command):
    pass


def evolve(trait: Trait, event: TraitEvent, at: datetime) -> Trait:
    match event:
        case TraitCreated():
            return Trait(id=trait.id)
        case TraitDeleted():
            return replace(trait, deleted_at=at)


TRAIT = Kind("trait", Trait, TraitEvent, evolve, reborn=TraitCreated)
