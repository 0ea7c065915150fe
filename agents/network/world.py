"""The world as a host should have it: the pieces it was told of, by kind, with the ways from one to another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from schema.network.wiring import Members, Peer, Piece, WiredGroup, WiredNetwork, WiredPort, WiredRouter


class World:
    """Frozen: a new one is made when pieces change. `pieces` by key, as in schema/network/wiring.py."""

    def __init__(self, pieces: Mapping[str, Piece], *, endpoint_ip: str = "") -> None:
        self.pieces = dict(pieces)
        self.endpoint_ip = endpoint_ip
        """This host's own tunnel endpoint."""
        self.ports: dict[str, WiredPort] = {}
        self.peers: dict[str, Peer] = {}
        self.networks: dict[str, WiredNetwork] = {}
        self.groups: dict[str, WiredGroup] = {}
        self.members: dict[str, Members] = {}
        self.routers: dict[str, WiredRouter] = {}
        for piece in self.pieces.values():
            match piece:
                case WiredPort():
                    self.ports[piece.id] = piece
                case Peer():
                    self.peers[piece.id] = piece
                case WiredNetwork():
                    self.networks[piece.id] = piece
                case WiredGroup():
                    self.groups[piece.id] = piece
                case Members():
                    self.members[piece.id] = piece
                case WiredRouter():
                    self.routers[piece.id] = piece

    @cached_property
    def ports_of(self) -> dict[str, list[WiredPort]]:
        """The ports here, by network."""
        return _by_network(self.ports.values())

    @cached_property
    def peers_of(self) -> dict[str, list[Peer]]:
        """The ports elsewhere, by network."""
        found: dict[str, list[Peer]] = {}
        for peer in self.peers.values():
            found.setdefault(peer.network_id, []).append(peer)
        return found

    def networks_of(self, key: str) -> list[str]:
        """The networks that a piece is in, or is."""
        what, _, id = key.partition("/")
        if what == "network":
            return [id]
        if what == "router":
            router = self.routers.get(id)
            feet = (*router.ports, *([router.gateway] if router.gateway else [])) if router else ()
            return [foot.network_id for foot in feet]
        there = self.ports.get(id) if what == "port" else self.peers.get(id) if what == "peer" else None
        return [there.network_id] if there else []


def _by_network(ports: Iterable[WiredPort]) -> dict[str, list[WiredPort]]:
    found: dict[str, list[WiredPort]] = {}
    for port in ports:
        found.setdefault(port.network_id, []).append(port)
    return found
