"""Where ports lie: in which networks, and on which hosts."""

from __future__ import annotations

import msgspec

from projections.network.index import Index, Tally
from projections.network.pieces import FLOATING, ROUTER_FEET
from projections.network.places import COMMON, Touched
from projections.network.relations import Relations
from schema.network.floating_ip import FLOATING_IP
from schema.network.port import PORT
from schema.network.port_state import DHCP, Port
from schema.network.router import ROUTER


class Seat(msgspec.Struct, frozen=True):
    """Where a port lies: in which network, on which host. A guest's is a piece there; a router's foot only a peer.

    `standby`: a live migration may take it there. The host has the piece already, and the port is a peer there, too.
    """

    network_id: str
    host: str
    guest: bool
    group_ids: tuple[str, ...] = ()
    standby: bool = False


class Seats:
    """`reseat` a port when where it lies may have changed: what follows from that is touched."""

    def __init__(self, things: Relations, touch: Touched) -> None:
        self._things = things
        self._touch = touch
        self._seats: dict[str, tuple[Seat, ...]] = {}
        self.in_network = Index()
        """Network → ports in it that are on a host."""
        self.on_host = Index()
        """Host → ports on it."""
        self.presence = Tally()
        """Network → host → how many ports of the one are on the other."""
        self.group_hosts = Tally()
        """Security group → host → how many ports there are in it."""

    def __getitem__(self, port_id: str) -> tuple[Seat, ...]:
        return self._seats.get(port_id, ())

    def at(self, port_id: str, host: str) -> Seat | None:
        return next((seat for seat in self._seats.get(port_id, ()) if seat.host == host), None)

    def of(self, port_id: str) -> Seat | None:
        """Where it really is."""
        return next((seat for seat in self._seats.get(port_id, ()) if not seat.standby), None)

    def reseat_devices(self, device_id: str) -> None:
        for port_id in list(self._things.ports_of_device[device_id]):
            self.reseat(port_id)

    def reseat(self, port_id: str) -> None:
        old, new = self._seats.get(port_id, ()), self._places_of(self._things.get(PORT, port_id))
        if old == new:
            return
        for seat in old:
            if seat not in new:
                self._rise(port_id, seat)
        self._seats[port_id] = new
        self.in_network.follow_all(port_id, old, new, lambda seats: [seat.network_id for seat in seats])
        for seat in new:
            if seat not in old:
                self._sit(port_id, seat)
        if not new:
            del self._seats[port_id]

    def _places_of(self, port: Port | None) -> tuple[Seat, ...]:
        if port is None:
            return ()
        host = self._host_of(port) or ""
        guest = not port.device_owner.startswith("network:")
        groups = port.security_group_ids if guest and port.port_security_enabled else ()
        bound = self._things.get(PORT, port.subport_of) if port.subport_of else port
        standby = [it.host for it in bound.inactive_bindings if it.host != host] if bound is not None and guest else []
        places = [(host, False), *((it, True) for it in dict.fromkeys(standby))]
        return tuple(Seat(port.network_id, place, guest, groups, waits) for place, waits in places if place)

    def _host_of(self, port: Port) -> str | None:
        """Routers' ports are where the router is, subports where their parent is."""
        router_id: str | None = None
        if port.device_owner == DHCP:
            return None
        if port.device_owner == FLOATING:
            floating = self._things.get(FLOATING_IP, port.device_id)
            router_id = floating.router_id if floating is not None else None
        elif port.device_owner in ROUTER_FEET:
            router_id = port.device_id
        elif port.subport_of:
            parent = self._things.get(PORT, port.subport_of)
            return parent.host if parent is not None else None
        else:
            return port.host
        router = self._things.get(ROUTER, router_id)
        return router.host if router is not None else None

    def _sit(self, port_id: str, seat: Seat) -> None:
        self.on_host.add(seat.host, port_id)
        if self.presence.add(seat.network_id, seat.host):
            self._touch_presence(seat)
        for group in seat.group_ids:
            if self.group_hosts.add(group, seat.host):
                self._touch_group_at(group, seat.host)
        self._touch_at(port_id, seat)

    def _rise(self, port_id: str, seat: Seat) -> None:
        self._touch_at(port_id, seat)
        if self.presence.remove(seat.network_id, seat.host):
            self._touch_presence(seat)
        for group in seat.group_ids:
            if self.group_hosts.remove(group, seat.host):
                self._touch_group_at(group, seat.host)
        self.on_host.discard(seat.host, port_id)

    def touch_port(self, port_id: str) -> None:
        for seat in self[port_id]:
            if seat.guest:
                self._touch(seat.host, f"port/{port_id}")

    def touch_peer(self, port_id: str) -> None:
        seat = self.of(port_id)
        if seat is not None:
            self._touch(f"{COMMON}network/{seat.network_id}", f"peer/{port_id}")

    def touch_network(self, network_id: str) -> None:
        for host in self.presence[network_id]:
            self._touch(host, f"network/{network_id}")

    def _touch_at(self, port_id: str, seat: Seat) -> None:
        if seat.guest:
            self._touch(seat.host, f"port/{port_id}")
        self._touch(f"{COMMON}network/{seat.network_id}", f"peer/{port_id}")

    def _touch_presence(self, seat: Seat) -> None:
        """A network came to a host, or left it."""
        self._touch(seat.host, f"network/{seat.network_id}")
        self.touch_endpoint(seat.network_id, seat.host)

    def touch_endpoint(self, network_id: str, host: str) -> None:
        self._touch(f"{COMMON}network/{network_id}", f"endpoint/{network_id}/{host}")

    def _touch_group_at(self, group_id: str, host: str) -> None:
        self._touch(host, f"group/{group_id}")
        for named in self._things.named_by(group_id):
            self._touch(host, f"members/{named}")
