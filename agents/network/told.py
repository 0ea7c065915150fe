"""What a wiring message comes to: the pieces that a host holds afterwards, and what its driver must look at.

What hosts have in common is told to all of them alike: what is of this very host is left out here, and what was of a
network or a group that leaves this host leaves with it.
"""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache

import msgspec

from agents.network.store import Held
from schema.network.wiring import Endpoint, Member, Peer, Piece, Wiring, decode_news

FOLLOWED = ("network/", "members/")


def told(held: Held, word: Wiring, host: str) -> tuple[Held, set[str]]:
    """What a host holds afterwards, and the keys that its driver must look at: some of it may be as it was.

    Raises msgspec.DecodeError.
    """
    pieces, common = (held.pieces, held.common) if not word.full else ({}, {})
    touched = {*word.pieces, *word.gone}
    left = {key for key in word.gone if key.startswith(FOLLOWED)}
    if word.common or left:
        common = dict(common)
    for raw in word.common:
        news = _read(bytes(raw))
        common |= news.pieces
        for key in (*news.gone, *news.of_hosts.get(host, ())):
            common.pop(key, None)
        touched |= news.touched
    if left:
        for key in [key for key, piece in common.items() if _belongs(piece) in left]:
            del common[key]
            touched.add(_looked_at(key))
    pieces = pieces | word.pieces
    for key in word.gone:
        pieces.pop(key, None)
    if word.full:
        touched |= {_looked_at(key) for key in (*held.pieces, *held.common)}
    return Held(word.position, pieces, common), touched


class _Read(msgspec.Struct, frozen=True):
    """News as every host needs it."""

    pieces: dict[str, Piece]
    gone: tuple[str, ...]
    touched: frozenset[str]
    of_hosts: dict[str, list[str]]
    """Host → what is no peer there, as it is its own."""


@lru_cache(maxsize=256)
def _read(message: bytes) -> _Read:
    """All hosts that one process plays share what they are told the same of."""
    news = decode_news(message)
    of_hosts: dict[str, list[str]] = defaultdict(list)
    for key, piece in news.pieces.items():
        if isinstance(piece, Peer | Endpoint):
            of_hosts[piece.host].append(key)
    touched = frozenset(_looked_at(key) for key in (*news.pieces, *news.gone))
    return _Read(news.pieces, news.gone, touched, of_hosts)


def _belongs(piece: Piece) -> str:
    """The key of what it is told with; empty: it stands for itself."""
    match piece:
        case Peer() | Endpoint():
            return f"network/{piece.network_id}"
        case Member():
            return f"members/{piece.id}"
    return ""


def _looked_at(key: str) -> str:
    """Endpoints are a network's, to the driver, and members their group's."""
    what, _, id = key.partition("/")
    whole = {"endpoint": "network", "member": "members"}.get(what)
    return f"{whole}/{id.partition('/')[0]}" if whole else key
