"""What `execute` is asked for: a command for a stream, in somebody's name, beside others that share its fate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from bus.log import Actor, Secret
from schema.event import Command, Event, Kind


class Aggregate:
    """A kind with its rules. `allowed`: command type → statuses it may act in, for the laws and the reader."""

    def __init__(
        self,
        kind: Kind[Any],
        decide: Callable[[Any, Any], Sequence[Event]],
        allowed: Mapping[type[Command], Any],
    ) -> None:
        self.kind = kind
        self.decide = decide
        self.allowed = allowed
        AGGREGATES[kind.name] = self

    def __repr__(self) -> str:
        return f"Aggregate({self.kind.name!r})"


AGGREGATES: dict[str, Aggregate] = {}


class Became(NamedTuple):
    """The states of a stream before a call and after the wishes for it."""

    before: Any
    after: Any


class Following(msgspec.Struct, frozen=True):
    """A command made of what becomes of other streams, `of`, by the wishes before it in the same call.

    So a sum over many streams is kept without knowing its parts: it changes by exactly what they do, in their append.
    What is done once is followed once, however often it is wished. `command` gives None if it makes no difference: then
    the stream it is for is not looked at, and no conflict about it spoils the call.
    """

    of: Sequence[str]
    command: Callable[[Sequence[Became]], Command | None]


class Wish(msgspec.Struct, frozen=True):
    """One command for one stream. `secrets`: sealed beforehand by the vault, stored only if the wish is granted.

    `vacant`: scopes in which nobody may hold a reservation if this changes anything, as nobody may be in a group that
    goes (StillHeld). Who takes one there must touch the same stream, be it by a wish that changes nothing.
    """

    aggregate: Any
    id: str
    command: Command | Following
    secrets: Sequence[Secret] = ()
    vacant: Sequence[str] = ()

    @property
    def stream(self) -> str:
        return f"{self.aggregate.kind.name}/{self.id}"


class Context(msgspec.Struct, frozen=True):
    """Who asks, in which request, because of what.

    `idempotency`: a key that makes a repeated request the same request; `fingerprint` is a hash of its body, so that a
    key used again for something else is noticed. The same request again gets the documents of the first one's streams,
    as they are by now.
    """

    actor: Actor = Actor()
    request_id: str = ""
    causation: str = ""
    idempotency: str = ""
    fingerprint: str = ""
    at: Mapping[str, int] = {}
    """Stream → the version that who asks saw it at: changed by others since, it is OtherVersion."""


SYSTEM = Context()
