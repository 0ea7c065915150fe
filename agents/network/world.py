"""The world as a host should have it: the pieces it was told of, by kind, with the ways from one to another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, TypeVar

from msgspec.structs import replace

from schema.network.wiring import (
    Endpoint,
    Member,
    Members,
    Peer,
    Piece,
    WiredGroup,
    WiredNetwork,
    WiredPort,
    WiredRouter,
)

P = TypeVar("P")
_COMMON: frozenset[type] = frozenset({Peer, Endpoint, Member})


class World:
    """Frozen: a new one is made when pieces change. `pieces` by key, as in schema/network/wiring.py.

    What is told by element is put together here: a network has its endpoints, a group its members.
    """

    def __init__(
        self,
        own: Mapping[str, Piece],
        common: Mapping[str, Mapping[str, Piece]] | None = None,
        *,
        host: str = "",
        endpoint_ip: str = "",
    ) -> None:
        """`common`: peers, endpoints and members, which may be many; who asks for none of them does not pay for them.

        They may be among the host's own, too. What is said there of `host` is left out: it is no peer of its own.
        """
        self.own = dict(own)
        self.common: Mapping[str, Mapping[str, Piece]] = common or {}
        self.host = host
        self.endpoint_ip = endpoint_ip
        """This host's own tunnel endpoint."""

    @cached_property
    def pieces(self) -> dict[str, Piece]:
        """All of them."""
        return {
            **{key: it for group in self.common.values() for key, it in group.items() if self._others(it)},
            **self.own,
        }

    @cached_property
    def ports(self) -> dict[str, WiredPort]:
        return {it.id: it for it in self._all(WiredPort)}

    @cached_property
    def peers(self) -> dict[str, Peer]:
        return {it.id: it for it in self._all(Peer)}

    @cached_property
    def groups(self) -> dict[str, WiredGroup]:
        return {it.id: it for it in self._all(WiredGroup)}

    @cached_property
    def routers(self) -> dict[str, WiredRouter]:
        return {it.id: it for it in self._all(WiredRouter)}

    @cached_property
    def networks(self) -> dict[str, WiredNetwork]:
        found = {it.id: it for it in self._all(WiredNetwork)}
        ips: dict[str, set[str]] = {}
        for it in self._all(Endpoint):
            ips.setdefault(it.network_id, set()).add(it.ip)
        for id in ips.keys() & found.keys():
            found[id] = replace(found[id], endpoints=tuple(sorted(ips[id].union(found[id].endpoints))))
        return found

    @cached_property
    def members(self) -> dict[str, Members]:
        found = {it.id: it for it in self._all(Members)}
        addresses: dict[str, set[str]] = {}
        for it in self._all(Member):
            addresses.setdefault(it.id, set()).add(it.address)
        for id in addresses.keys() & found.keys():
            found[id] = replace(found[id], addresses=tuple(sorted(addresses[id].union(found[id].addresses))))
        return found

    @cached_property
    def _own_by_kind(self) -> dict[type, list[Any]]:
        return _by_kind(self.own.values())

    @cached_property
    def _common_by_kind(self) -> dict[type, list[Any]]:
        return _by_kind(it for group in self.common.values() for it in group.values() if self._others(it))

    def _others(self, piece: Piece) -> bool:
        return not self.host or not isinstance(piece, Peer | Endpoint) or piece.host != self.host

    def _all(self, kind: type[P]) -> list[P]:
        more = self._common_by_kind.get(kind, []) if kind in _COMMON else []
        return [*self._own_by_kind.get(kind, []), *more]

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


def _by_kind(pieces: Iterable[Piece]) -> dict[type, list[Any]]:
    found: dict[type, list[Any]] = {}
    for piece in pieces:
        found.setdefault(type(piece), []).append(piece)
    return found


def _by_network(ports: Iterable[WiredPort]) -> dict[str, list[WiredPort]]:
    found: dict[str, list[WiredPort]] = {}
    for port in ports:
        found.setdefault(port.network_id, []).append(port)
    return found
