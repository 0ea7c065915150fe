"""What the scheduler remembers from batch to batch: for each kind of request, which hosts will do and how they rank.

`Choices` holds `KINDS` kinds at most, and rankings of `RANKED` hosts in all: those that were not used for longest go.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from operator import attrgetter

from msgspec import Struct

from handlers.placement.demand import Request
from handlers.placement.ranking import Ranking
from handlers.placement.sieve import Rejection
from schema.placement.decision import Decision

KINDS = 256
"""Kinds of request whose candidates are remembered."""
RANKED = 200_000
"""Hosts in all rankings that are kept, about 250 bytes each; the one that was not used for longest goes."""


class Choice(Struct):
    """Which slots pass the filters that are remembered, for one kind of request; and how those rank."""

    slots: list[int]
    hosts: int
    rejections: list[Rejection]
    turned_down: Decision
    ranking: Ranking | None = None
    refusal: tuple[tuple[int, int], Request, list[Rejection], Decision] | None = None
    """The last one, and when that was: as long as nothing changes, it is not thought over."""


class Choices:
    """One per scheduler; `clear` it when what filters remember has changed."""

    def __init__(self) -> None:
        self._by_kind: dict[Hashable, Choice] = {}
        self._ranked: dict[int, Choice] = {}
        """Those that have a ranking, the one used last at the end."""

    def of(self, request: Request, owner: str, made: Callable[[Request], Choice]) -> Choice:
        """The choice of the request's kind. `owner`: whose it is; empty: that makes no difference."""
        kind = _kind(request, owner)
        choice = self._by_kind.get(kind)
        if choice is None:
            if len(self._by_kind) >= KINDS:
                self._ranked.pop(id(self._by_kind.pop(next(iter(self._by_kind)))), None)
            choice = self._by_kind[kind] = made(request)
        return choice

    def used(self, choice: Choice, hosts: int) -> None:
        """This one's ranking was used just now; those that were not for long go when there are too many."""
        ranked = self._ranked
        ranked[id(choice)] = ranked.pop(id(choice), choice)
        while len(ranked) > 1 and len(ranked) * hosts > RANKED:
            ranked.pop(next(iter(ranked))).ranking = None

    def clear(self) -> None:
        """Forget all of it."""
        self._by_kind.clear()
        self._ranked.clear()

    @property
    def rankings(self) -> int:
        """How many are kept."""
        return sum(choice.ranking is not None for choice in self._by_kind.values())


def _kind(request: Request, owner: str) -> Hashable:
    return (
        tuple(request.resources.items()),
        request.zone,
        request.host,
        request.forced,
        request.flavor,
        tuple(request.extra_specs.items()),
        request.hardware,
        request.vnic_types,
        request.reach,
        request.image_id,
        request.image_format,
        tuple(request.image_properties.items()),
        tuple((name, tuple(said)) for name, said in request.hints.items()),
        owner,
    )


def same(one: Request, other: Request) -> bool:
    """Whether they differ in nothing but who asks."""
    return bool(_shared(one) == _shared(other))


_shared = attrgetter(*(name for name in Request.__struct_fields__ if name != "consumer_id"))
