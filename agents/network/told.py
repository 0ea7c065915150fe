"""What a wiring message comes to: the pieces that a host holds afterwards, and what its driver must look at.

What hosts have in common is told to all of them alike; what was of a network or a group that leaves this host leaves
with it. A process that plays many hosts holds it once for all that were told the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from weakref import WeakValueDictionary

import msgspec

from agents.network.store import Held, Shared
from schema.network.wiring import News, Piece, Wiring, decode_news

REMEMBERED = 256
"""Messages that other hosts of this process may be told too."""


def told(held: Held, word: Wiring) -> tuple[Held, set[str]]:
    """What a host holds afterwards, and the keys that its driver must look at: some of it may be as it was.

    Raises msgspec.DecodeError.
    """
    pieces, common = (dict(held.pieces), dict(held.common)) if not word.full else ({}, Shared())
    touched = {*word.pieces, *word.gone}
    for of, messages in _by_what(word.common).items():
        common[of] = _after(of, common.get(of), messages)
        for message in messages:
            touched |= _touched(message)
    pieces |= word.pieces
    for key in word.gone:
        pieces.pop(key, None)
        touched |= _looked_at_all(common.pop(key, {}))
    if word.full:
        touched |= _looked_at_all(held.pieces)
        for group in held.common.values():
            touched |= _looked_at_all(group)
    return Held(word.position, pieces, common), touched


Messages = tuple[bytes, ...]


def _by_what(news: Iterable[msgspec.Raw]) -> dict[str, Messages]:
    """In their order, by the key of what they are of."""
    found: dict[str, Messages] = {}
    for raw in news:
        message = bytes(raw)
        of = _read(message).of
        found[of] = (*found.get(of, ()), message)
    return found


class _Group(dict[str, Piece]):
    """What hosts hold of one network, or of one group. `became`: what news made of it, while somebody holds that.

    So it is worked out by the first host that is told, and taken by the others of its process.
    """

    __slots__ = ("__weakref__", "became")

    def __init__(self, pieces: Mapping[str, Piece]) -> None:
        super().__init__(pieces)
        self.became: WeakValueDictionary[Messages, _Group] = WeakValueDictionary()


_nothing = _Group({})
_newest: WeakValueDictionary[str, _Group] = WeakValueDictionary()
"""By key. Hosts that came to a network at different times were told of it differently, and hold the same after a word:
what is equal to the newest is replaced by it."""


def _after(of: str, before: dict[str, Piece] | None, messages: Messages) -> _Group:
    held = _nothing if before is None else before if isinstance(before, _Group) else _Group(before)
    after = held.became.get(messages)
    if after is None:
        after = _Group(held)
        for news in map(_read, messages):
            after |= news.pieces
            for key in news.gone:
                after.pop(key, None)
        newest = _newest.get(of)
        if newest is not None and newest == after:
            after = newest
        held.became[messages] = _newest[of] = after
    return after


@lru_cache(maxsize=REMEMBERED)
def _read(message: bytes) -> News:
    return decode_news(message)


@lru_cache(maxsize=REMEMBERED)
def _touched(message: bytes) -> frozenset[str]:
    news = _read(message)
    return frozenset(_looked_at(key) for key in (*news.pieces, *news.gone))


def _looked_at_all(pieces: dict[str, Piece]) -> set[str]:
    return {_looked_at(key) for key in pieces}


def _looked_at(key: str) -> str:
    """Endpoints are a network's, to the driver, and members their group's."""
    what, _, id = key.partition("/")
    whole = {"endpoint": "network", "member": "members"}.get(what)
    return f"{whole}/{id.partition('/')[0]}" if whole else key
