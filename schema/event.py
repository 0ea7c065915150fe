"""The bones of every aggregate: events, commands, states, and the `Kind` that ties them to a stream name and a fold.

A kind is declared beside its words, in `schema/<service>/<thing>.py`:

    SERVER = Kind("server", Server, ServerEvent, evolve)

and is found by name afterwards (`kind_of("server/4f…")`), which is how the log decodes, rebuilds and verifies.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import cache
from types import UnionType
from typing import Any, Generic, TypeVar, cast, dataclass_transform, get_args

import msgspec

# `dataclass_transform` tells type checkers what the subclasses of these structs inherit.


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag=True, tag_field="type"):
    """Something that happened. Past tense. Never renamed; new fields have defaults."""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A wish. It may be refused."""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a command says and the event that comes of it repeats: a second base of both, so that it is written once."""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a stream's events add up to. The fold keeps these four fields; `evolve` keeps the rest.

    `deleted_at` is set by `evolve` on the event that ends the thing. The document then stays as a tombstone, which
    listings leave out unless asked (`gone=True`).
    """

    id: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    deleted_at: datetime | None = None

    @property
    def living(self) -> bool:
        """Born and not ended."""
        return self.created_at is not None and self.deleted_at is None


S = TypeVar("S", bound=State)
Key = tuple[str, str]
"""A reservation: (scope, key). No two streams hold the same one."""


def _nothing_unique(state: Any) -> Iterable[Key]:
    return ()


def _no_secrets(state: Any) -> Iterable[str]:
    return ()


def _no_deadline(state: Any) -> datetime | None:
    return None


class Kind(Generic[S]):
    """One kind of aggregate: its stream name, its state, its events and how they fold.

    `unique(state)` names what the state reserves across all streams; the append takes and releases the difference.
    `secrets(state)` names what the vault keeps for it; the append forgets what is named no more, or is gone.
    `deadline(state)` is when the sweep must look at it again, if ever. `reborn` is the event that may start a thing
    of this name anew after its end (a flavor whose id is used again, a host that comes back); else a stream ends once.
    """

    def __init__(
        self,
        name: str,
        state: type[S],
        events: Any,
        evolve: Callable[[S, Any, datetime], S],
        *,
        unique: Callable[[S], Iterable[Key]] = _nothing_unique,
        secrets: Callable[[S], Iterable[str]] = _no_secrets,
        deadline: Callable[[S], datetime | None] = _no_deadline,
        reborn: type[Event] | None = None,
    ) -> None:
        self.name = name
        self.state = state
        self.events: tuple[type[Event], ...] = get_args(events) if isinstance(events, UnionType) else (events,)
        self.evolve = evolve
        self.unique = unique
        self.secrets = secrets
        self.deadline = deadline
        self.reborn = reborn
        self.decoder = msgspec.json.Decoder(state)
        texts = ((field.name, field.default) for field in msgspec.structs.fields(state))
        self._texts = tuple((name, default) for name, default in texts if isinstance(default, str) and default)
        if _KINDS.setdefault(name, cast("Kind[Any]", self)) is not self:
            raise ValueError(f"two kinds are called {name!r}; stream names must differ")
        for event in self.events:
            if _OWNER.setdefault(event.__name__, self) is not self:
                raise ValueError(f"event {event.__name__} belongs to {_OWNER[event.__name__].name} and to {name}")

    def __repr__(self) -> str:
        return f"Kind({self.name!r})"

    @property
    def has_secrets(self) -> bool:
        """Whether the vault may keep anything for such a thing."""
        return self.secrets is not _no_secrets

    def stream(self, id: str) -> str:
        """`server/4f…`: the name of one thing's stream."""
        return f"{self.name}/{id}"

    def unborn(self, id: str) -> S:
        """The state before the first event."""
        return self.state(id=id)

    def fold(self, state: S, event: Event, at: datetime) -> S:
        """One event further. `at` is the envelope's time (UTC).

        A text that is the default is the very default: it is left out when the state is written, whoever said it.
        """
        state = self.evolve(state, event, at)
        defaults = {name: default for name, default in self._texts if getattr(state, name) == default}
        return msgspec.structs.replace(state, **defaults, created_at=state.created_at or at, updated_at=at)


_KINDS: dict[str, Kind[Any]] = {}
_OWNER: dict[str, Kind[Any]] = {}


@cache
def kinds() -> dict[str, Kind[Any]]:
    """Every kind there is, by name. Importing the whole schema is what finds them."""
    import schema

    for module in pkgutil.walk_packages(schema.__path__, "schema."):
        importlib.import_module(module.name)
    return _KINDS


def kind_named(name: str) -> Kind[Any]:
    """The kind of that name; KeyError when the schema has none."""
    return _KINDS.get(name) or kinds()[name]


def kind_of(stream: str) -> Kind[Any]:
    """The kind a stream belongs to, by the part before the slash."""
    return kind_named(stream.partition("/")[0])


def id_of(stream: str) -> str:
    """The part after the first slash."""
    return stream.partition("/")[2]


def event_named(name: str) -> type[Event]:
    """The event struct of that name; KeyError when the schema has none."""
    if name not in _OWNER:
        kinds()
    return next(event for event in _OWNER[name].events if event.__name__ == name)


Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
_UPCASTERS: dict[str, Upcaster] = {}


def upcasts(old: str) -> Callable[[Upcaster], Upcaster]:
    """Register how a retired event type (or an old shape of one) is read today.

    The function takes the stored JSON object and returns one in today's words, its `type` included. Rules only ever
    see today's events.
    """

    def register(upcaster: Upcaster) -> Upcaster:
        _UPCASTERS[old] = upcaster
        return upcaster

    return register


_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {}


def decode(type: str, data: str | bytes) -> Event:
    """A stored event as today's struct, upcast where its type was retired.

    Raises msgspec.ValidationError when the data does not fit, KeyError when no schema knows the type: both mean that
    the code is older than the log, and whoever reads must stop rather than guess.
    """
    decoder = _DECODERS.get(type)
    if decoder is None:
        if type in _UPCASTERS:
            return _upcast(type, data)
        decoder = _DECODERS[type] = msgspec.json.Decoder(event_named(type))
    return cast("Event", decoder.decode(data))


def _upcast(type: str, data: str | bytes) -> Event:
    raw: dict[str, Any] = msgspec.json.decode(data)
    while raw["type"] in _UPCASTERS:
        before = raw["type"]
        raw = _UPCASTERS[before](raw)
        if raw["type"] == before:
            break
    return msgspec.convert(raw, event_named(raw["type"]))
