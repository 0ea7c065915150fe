"""What every host must have, kept in memory from the log: which pieces an event touches, and what they are now.

    event ─▶ fold the one thing it is about (relations) ─▶ where ports lie (seats) ─▶ touched places (following)
                                                                                  ─▶ `piece(holder, key)`

Pure, and incremental: an event costs what it touches, never a walk over all ports. What shows in a piece is a line in
projections/network/pieces.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bus.log import Document, Recorded
from projections.network.following import Following
from projections.network.pieces import endpoint, peer, wired_group, wired_network, wired_port, wired_router
from projections.network.places import COMMON, Place, Touched
from projections.network.relations import Relations
from projections.network.seats import Seats
from schema.event import Kind
from schema.network.network import NETWORK
from schema.network.router import ROUTER
from schema.network.wiring import Member, Members, Piece


class Model:
    """`apply` events, then `take` what they touched and ask for each `piece`."""

    def __init__(self) -> None:
        self._touched = Touched()
        self._things = Relations()
        self._seats = Seats(self._things, self._touched)
        Following(self._things, self._seats, self._touched)

    def load(self, kind: Kind[Any], position: int, documents: Iterable[Document]) -> None:
        """Start a kind from a snapshot true at that position."""
        self._things.mirrors[kind.name].reset(position, documents)

    def apply(self, recorded: Recorded) -> None:
        """One event further, in the order of the log."""
        mirror = self._things.mirrors.get(recorded.stream.partition("/")[0])
        if mirror is not None:
            mirror.apply(recorded)

    def take(self) -> list[Place]:
        """What was touched since the last time; some of it may be as it was."""
        return self._touched.take()

    def piece(self, holder: str, key: str) -> Piece | None:
        """What the holder must have under that key; None: nothing."""
        what, _, id = key.partition("/")
        if holder.startswith(COMMON):
            return self._common_piece(holder.partition("/")[2], what, id)
        match what:
            case "port":
                return wired_port(self._things.sources, id) if self._is_guest(holder, id) else None
            case "network":
                return wired_network(self._things.sources, id, holder) if holder in self._seats.presence[id] else None
            case "group":
                return wired_group(self._things.sources, id) if holder in self._seats.group_hosts[id] else None
            case "members":
                return Members(id=id) if self._names(holder, id) else None
            case "router":
                router = self._things.get(ROUTER, id)
                return wired_router(self._things.sources, id) if router is not None and router.host == holder else None
        return None

    def _common_piece(self, of: str, what: str, id: str) -> Piece | None:
        match what:
            case "peer":
                seat = self._seats.of(id)
                return peer(self._things.sources, id, seat.host) if seat is not None and seat.network_id == of else None
            case "endpoint":
                host = id.partition("/")[2]
                return endpoint(self._things.sources, of, host) if host in self._seats.presence[of] else None
            case "member":
                address = id.partition("/")[2]
                return Member(id=of, address=address) if address in self._things.addresses(of) else None
        return None

    def news_by_generation(self, key: str) -> bool:
        """Whether a new generation is news, even if nothing else of the piece differs from what was told.

        Of a port it is: what its host says of an older one is void. A router's rises with what its host says of it,
        so only one that the control plane has yet to hear of is told again for that.
        """
        what, _, id = key.partition("/")
        if what != "router":
            return True
        router = self._things.get(ROUTER, id)
        return router is not None and not router.wired and router.fault is None

    def holders(self) -> set[str]:
        """Every host that must have something, and all that hosts have in common."""
        networks = {f"{COMMON}network/{id}" for id in self._seats.in_network}
        groups = {*self._things.group_addresses, *self._things.address_groups()}
        return {
            *self._seats.on_host,
            *self._things.routers_of_host,
            *networks,
            *(f"{COMMON}members/{id}" for id in groups),
        }

    def keys(self, holder: str) -> set[str]:
        """Of everything that a holder must have."""
        found = self._common_keys(holder) if holder.startswith(COMMON) else self._host_keys(holder)
        return {key for key in found if self.piece(holder, key) is not None}

    def _common_keys(self, holder: str) -> set[str]:
        what, _, of = holder.removeprefix(COMMON).partition("/")
        if what == "members":
            return {f"member/{of}/{address}" for address in self._things.addresses(of)}
        peers = {f"peer/{id}" for id in self._seats.in_network[of]}
        return peers | {f"endpoint/{of}/{host}" for host in self._seats.presence[of]}

    def _host_keys(self, host: str) -> set[str]:
        seats = {id: seat for id in self._seats.on_host[host] if (seat := self._seats.at(id, host)) is not None}
        groups = {group for seat in seats.values() for group in seat.group_ids}
        found = {f"port/{id}" for id, seat in seats.items() if seat.guest}
        found |= {f"network/{seat.network_id}" for seat in seats.values()}
        found |= {f"group/{id}" for id in groups}
        found |= {f"members/{id}" for group in groups for id in self._things.named_by(group)}
        return found | {f"router/{id}" for id in self._things.routers_of_host[host]}

    def everything(self, holder: str) -> dict[str, Piece]:
        return {key: piece for key in self.keys(holder) if (piece := self.piece(holder, key)) is not None}

    def followers(self, common: str) -> list[str]:
        """The hosts that have it."""
        what, _, of = common.removeprefix(COMMON).partition("/")
        if what == "network":
            return list(self._seats.presence[of]) if self._things.get(NETWORK, of) is not None else []
        return list({host: None for group in self._things.referrers[of] for host in self._seats.group_hosts[group]})

    def _is_guest(self, host: str, port_id: str) -> bool:
        seat = self._seats.at(port_id, host)
        return seat is not None and seat.guest

    def _names(self, host: str, id: str) -> bool:
        """Whether a group there has a rule that names this one."""
        return any(host in self._seats.group_hosts[group] for group in self._things.referrers[id])
