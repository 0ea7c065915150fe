"""What a wiring message comes to: the pieces that a host holds afterwards, and what its driver must look at.

What hosts have in common is told to all of them alike: what is of this very host is left out here, and what was of a
network or a group that leaves this host leaves with it.
"""

from __future__ import annotations

from schema.network.wiring import Endpoint, Member, Peer, Piece, Wiring, decode_news


def told(pieces: dict[str, Piece], word: Wiring, host: str) -> set[str]:
    """Change `pieces` to what the host is told; the keys that its driver must look at. Raises msgspec.DecodeError."""
    changes: dict[str, Piece | None] = {}
    for raw in word.common:
        news = decode_news(bytes(raw))
        changes |= news.pieces
        changes |= dict.fromkeys(news.gone)
    changes = {key: None if _is_of(piece, host) else piece for key, piece in changes.items()}
    changes |= word.pieces
    changes |= dict.fromkeys(word.gone)
    left = {key for key in word.gone if key.startswith(("network/", "members/"))}
    if left:
        changes |= dict.fromkeys(key for key, piece in (pieces | changes).items() if _belongs(piece) in left)
    touched = set()
    for key, piece in changes.items():
        if pieces.get(key) == piece:
            continue
        touched.add(_looked_at(key))
        if piece is None:
            del pieces[key]
        else:
            pieces[key] = piece
    return touched


def _is_of(piece: Piece | None, host: str) -> bool:
    """Whether it is no peer there, as it is that host's own."""
    return isinstance(piece, Peer | Endpoint) and piece.host == host


def _belongs(piece: Piece | None) -> str:
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
