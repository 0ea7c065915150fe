"""A tiny aggregate for the tests of the bus: a counter with a name that is unique, a deadline, and a few rules."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import field

from bus.execute import Aggregate, Wish
from bus.log import Actor, Batch, Recorded, partition_of
from schema.event import Command, Event, Kind, State
from schema.refusal import Refused


class Tallied(Event):
    by: int = 1


class TallyNamed(Event):
    name: str


class TallyUsed(Event):
    """It uses another."""

    other: str


class TallyDue(Event):
    at: datetime | None


class TallySealed(Event):
    secret_id: str


class TallyEnded(Event):
    pass


class Tally(State):
    project_id: str = "p1"
    name: str = ""
    count: int = 0
    due: datetime | None = None
    labels: dict[str, str] = field(default_factory=dict)
    uses: str = ""
    secret_id: str = ""


def evolve(state: Tally, event: Any, at: datetime) -> Tally:
    replace = msgspec.structs.replace
    match event:
        case Tallied(by=by):
            return replace(state, count=state.count + by)
        case TallyNamed(name=name):
            return replace(state, name=name)
        case TallyUsed(other=other):
            return replace(state, uses=other)
        case TallyDue(at=due):
            return replace(state, due=due)
        case TallySealed(secret_id=secret_id):
            return replace(state, secret_id=secret_id)
        case TallyEnded():
            return replace(state, deleted_at=at, due=None)
    return state


TALLY = Kind(
    "tally",
    Tally,
    Tallied | TallyNamed | TallyUsed | TallyDue | TallySealed | TallyEnded,
    evolve,
    unique=lambda state: (
        ([("tally name", state.name)] if state.name else [])
        + ([(f"use of {state.uses}", state.id)] if state.uses else [])
    ),
    secrets=lambda state: [state.secret_id],
    deadline=lambda state: state.due,
)


class Add(Command):
    by: int = 1
    most: int = 1_000_000


class Rename(Command):
    name: str


class Use(Command):
    other: str


class Stay(Command):
    """Changes nothing; refused when it is gone."""


class Due(Command):
    at: datetime | None


class Seal(Command):
    secret_id: str


class End(Command):
    pass


class Break(Command):
    pass


def decide(state: Tally, command: Any) -> list[Event]:
    match command:
        case Add(by=by, most=most):
            if state.count + by > most:
                raise Refused(f"{state.count} + {by} would be more than {most}")
            return [Tallied(by=by)]
        case Rename(name=name):
            return [] if state.name == name else [TallyNamed(name=name)]
        case Use(other=other):
            return [] if state.uses == other else [TallyUsed(other=other)]
        case Stay():
            if not state.living:
                raise Refused("it is gone")
            return []
        case Due(at=at):
            return [TallyDue(at=at)]
        case Seal(secret_id=secret_id):
            return [TallySealed(secret_id=secret_id)]
        case End():
            return [TallyEnded()] if state.living else []
        case Break():
            raise ZeroDivisionError("this rule is broken")
    raise AssertionError(command)


TALLIES = Aggregate(TALLY, decide, dict.fromkeys((Add, Rename, Use, Stay, Due, Seal, End, Break)))


def wish(id: str, command: Command, **more: Any) -> Wish:
    return Wish(TALLIES, id, command, **more)


NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def recorded(position: int, stream: str = "tally/a", version: int | None = None, by: int = 1) -> Recorded:
    """An event as if it stood in a log."""
    return Recorded(
        position,
        stream,
        version or position,
        "Tallied",
        NOON,
        partition_of(stream),
        Actor(),
        "",
        "",
        Tallied(by=by),
    )


def batch(previous: int, count: int, streams: Sequence[str] = ("tally/a",)) -> Batch:
    """A batch of the whole log: the events after a position."""
    return Batch(
        previous,
        tuple(recorded(previous + n, streams[(previous + n) % len(streams)]) for n in range(1, count + 1)),
    )


def stream_in(partition: int) -> str:
    """The name of a stream that falls into a partition."""
    return next(name for n in range(10_000) if partition_of(name := f"tally/{n}") == partition)
