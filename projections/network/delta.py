"""What changed for hosts: their own pieces, and what they have in common with others, which is written down once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import msgspec

from projections.network.model import Model
from projections.network.places import COMMON, FOLLOWED, Place
from schema.network.wiring import News, Piece, encode


class Common:
    """What changed of something that hosts have in common: a network, or a group's members, by its key."""

    def __init__(self, of: str, pieces: dict[str, Piece] | None = None, gone: list[str] | None = None) -> None:
        self.of = of
        self.pieces = pieces if pieces is not None else {}
        self.gone = gone if gone is not None else []

    @cached_property
    def encoded(self) -> msgspec.Raw:
        """As it is told, however many are told."""
        return msgspec.Raw(encode(News(of=self.of, pieces=self.pieces, gone=tuple(self.gone))))


class Delta(msgspec.Struct):
    """What changed for one host since a position, up to another; `full`: everything it must have."""

    since: int
    position: int
    full: bool = False
    pieces: dict[str, Piece] = msgspec.field(default_factory=dict)
    gone: list[str] = msgspec.field(default_factory=list)
    common: list[Common] = msgspec.field(default_factory=list)
    """Before all else, in their order; the same object for all who are told the same."""


Deltas = dict[str, Delta]
"""By host."""


class Change(msgspec.Struct, frozen=True):
    """What a piece is now. `fresh`: there was none before."""

    piece: Piece | None
    fresh: bool = False


def deltas(model: Model, newest: dict[str, int], position: int, changed: Mapping[Place, Change]) -> Deltas:
    """What pieces that changed at a position come to for each host; who begins to follow is told the whole.

    `newest`: host → position of the newest it has; moved on.
    """
    found: Deltas = {}

    def of(host: str) -> Delta:
        if host not in found:
            found[host] = Delta(since=newest.get(host, 0), position=position)
        return found[host]

    commons: dict[str, Common] = {}
    wholes: dict[str, Common] = {}
    for (holder, key), change in changed.items():
        if holder.startswith(COMMON):
            _put(commons.setdefault(holder, Common(holder.removeprefix(COMMON))), key, change.piece)
            continue
        _put(of(holder), key, change.piece)
        if change.fresh and key.partition("/")[0] in FOLLOWED:
            name = COMMON + key
            if name not in wholes:
                wholes[name] = Common(key, model.everything(name))
            of(holder).common.append(wholes[name])
    for name, common in commons.items():
        for host in model.followers(name):
            of(host).common.append(common)
    for host in found:
        newest[host] = position
    return found


def _put(of: Delta | Common, key: str, piece: Piece | None) -> None:
    if piece is not None:
        of.pieces[key] = piece
    else:
        of.gone.append(key)
