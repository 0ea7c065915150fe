"""What every host must have, kept in memory from the log: which pieces an event touches, and what they are now.

    event ─▶ fold the one thing it is about ─▶ seats and tallies ─▶ touched (holder, key) pairs ─▶ `piece(holder, key)`

A holder is a host, or what hosts have in common: the peers and endpoints of a network, the members of a group. Every
host that holds `network/…` or `members/…` follows the common of that name, so that a port is one piece there, however
many hosts there are.

Pure, and incremental: an event costs what it touches, never a walk over all ports. A new kind needs its name in
`KINDS`, a row in `_changes`, and (where it shows in a piece) a line in projections/network/pieces.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

import msgspec

from bus.log import Document, Recorded
from bus.mirror import Mirror
from projections.network.index import Index, Tally
from projections.network.pieces import (
    FLOATING,
    ROUTER_FEET,
    Sources,
    addresses_of,
    endpoint,
    feet_of,
    named_members,
    networks_of,
    peer,
    wired_group,
    wired_network,
    wired_port,
    wired_router,
    wired_subnet,
)
from schema.event import Kind, State
from schema.network.address_group import ADDRESS_GROUP, AddressGroup
from schema.network.floating_ip import FLOATING_IP, FloatingIp
from schema.network.host import NETWORK_HOST, NetworkHost
from schema.network.network import NETWORK, Network
from schema.network.port import DHCP, PORT, Port
from schema.network.qos_policy import QOS_POLICY, QosPolicy
from schema.network.router import ROUTER, Router
from schema.network.security_group import SECURITY_GROUP, SecurityGroup
from schema.network.subnet import SUBNET, Subnet
from schema.network.subnet_pool import SUBNET_POOL, SubnetPool
from schema.network.vpn_connection import VPN_CONNECTION, VpnConnection
from schema.network.wiring import Member, Members, Piece

KINDS: tuple[Kind[Any], ...] = (
    NETWORK_HOST,
    QOS_POLICY,
    SUBNET_POOL,
    NETWORK,
    SUBNET,
    SECURITY_GROUP,
    ADDRESS_GROUP,
    ROUTER,
    FLOATING_IP,
    VPN_CONNECTION,
    PORT,
)
"""What it is made from, in the order a snapshot of them is read."""

S = TypeVar("S", bound=State)
Place = tuple[str, str]
"""(holder, key) of a piece."""
COMMON = "*"
"""How the name of a holder begins that is no host; the key follows that is the same of all hosts that follow it."""
FOLLOWED = frozenset({"network", "members"})
"""What keys begin with that have something in common behind them."""


class Seat(msgspec.Struct, frozen=True):
    """Where a port lies: in which network, on which host. A guest's is a piece there; a router's foot only a peer.

    `standby`: a live migration may take it there. The host has the piece already, and the port is a peer there, too.
    """

    network_id: str
    host: str
    guest: bool
    group_ids: tuple[str, ...] = ()
    standby: bool = False


class Model:
    """`apply` events, then `take` what they touched and ask for each `piece`."""

    def __init__(self) -> None:
        self._mirrors = {kind.name: Mirror(kind) for kind in KINDS}
        self._touched: dict[Place, None] = {}
        self._seats: dict[str, tuple[Seat, ...]] = {}
        self._seated_in = Index()
        """Network → ports in it that are on a host."""
        self._seated_on = Index()
        """Host → ports on it."""
        self._presence = Tally()
        """Network → host → how many ports of the one are on the other."""
        self._group_hosts = Tally()
        """Security group → host → how many ports there are in it."""
        self._group_addresses: dict[str, Counter[str]] = {}
        """Security group → how many ports in it have an address."""
        self._referrers = Index()
        """Group or address group → security groups whose rules name it."""
        self._ports_of_network = Index()
        self._ports_of_device = Index()
        """Router or floating IP → its own ports."""
        self._routers_of_port = Index()
        self._routers_of_network = Index()
        self._subports = Index()
        self._subnets_of_network = Index()
        self._subnets_of_pool = Index()
        self._dhcp_of_network = Index()
        self._floating_of_router = Index()
        self._floating_of_network = Index()
        self._connections_of_router = Index()
        self._routers_of_host = Index()
        self._users_of_policy = Index()
        """QoS policy → `<kind>/<id>` of what it is said of."""
        self._sources = Sources(
            get=self.get,
            version=self._version,
            subports=self._subports,
            subnets=self._subnets_of_network,
            dhcp=self._dhcp_of_network,
            floating=self._floating_of_router,
            connections=self._connections_of_router,
        )
        self._changes: dict[str, Callable[[Any, Any], None]] = {
            QOS_POLICY.name: self._policy_changed,
            SUBNET_POOL.name: self._pool_changed,
            NETWORK.name: self._network_changed,
            SUBNET.name: self._subnet_changed,
            PORT.name: self._port_changed,
            SECURITY_GROUP.name: self._group_changed,
            ADDRESS_GROUP.name: self._address_group_changed,
            ROUTER.name: self._router_changed,
            FLOATING_IP.name: self._floating_changed,
            VPN_CONNECTION.name: self._connection_changed,
            NETWORK_HOST.name: self._host_changed,
        }
        for kind in KINDS:
            self._mirrors[kind.name].on_change(self._hearing(self._changes[kind.name]))

    # What is said to it

    def load(self, kind: Kind[Any], position: int, documents: Iterable[Document]) -> None:
        """Start a kind from a snapshot true at that position."""
        self._mirrors[kind.name].reset(position, documents)

    def apply(self, recorded: Recorded) -> None:
        """One event further, in the order of the log."""
        mirror = self._mirrors.get(recorded.stream.partition("/")[0])
        if mirror is not None:
            mirror.apply(recorded)

    def take(self) -> list[Place]:
        """What was touched since the last time; some of it may be as it was."""
        touched, self._touched = self._touched, {}
        return list(touched)

    # What it says

    def piece(self, holder: str, key: str) -> Piece | None:
        """What the holder must have under that key; None: nothing."""
        what, _, id = key.partition("/")
        if holder.startswith(COMMON):
            return self._common_piece(holder.partition("/")[2], what, id)
        match what:
            case "port":
                return wired_port(self._sources, id) if self._is_guest(holder, id) else None
            case "network":
                return wired_network(self._sources, id, holder) if holder in self._presence[id] else None
            case "group":
                return wired_group(self._sources, id) if holder in self._group_hosts[id] else None
            case "members":
                return Members(id=id) if self._names(holder, id) else None
            case "router":
                router = self.get(ROUTER, id)
                return wired_router(self._sources, id) if router is not None and router.host == holder else None
        return None

    def _common_piece(self, of: str, what: str, id: str) -> Piece | None:
        match what:
            case "peer":
                seat = self._seat_of(id)
                return peer(self._sources, id, seat.host) if seat is not None and seat.network_id == of else None
            case "endpoint":
                host = id.partition("/")[2]
                return endpoint(self._sources, of, host) if host in self._presence[of] else None
            case "member":
                address = id.partition("/")[2]
                return Member(id=of, address=address) if address in self._addresses(of) else None
        return None

    def news_by_generation(self, key: str) -> bool:
        """Whether a new generation is news, even if nothing else of the piece differs from what was told.

        Of a port it is: what its host says of an older one is void. A router's rises with what its host says of it,
        so only one that the control plane has yet to hear of is told again for that.
        """
        what, _, id = key.partition("/")
        if what != "router":
            return True
        router = self.get(ROUTER, id)
        return router is not None and not router.wired and router.fault is None

    def holders(self) -> set[str]:
        """Every host that must have something, and all that hosts have in common."""
        networks = {f"{COMMON}network/{id}" for id in self._seated_in}
        groups = {*self._group_addresses, *(document.id for document in self._mirrors[ADDRESS_GROUP.name].values())}
        return {*self._seated_on, *self._routers_of_host, *networks, *(f"{COMMON}members/{id}" for id in groups)}

    def keys(self, holder: str) -> set[str]:
        """Of everything that a holder must have."""
        found = self._common_keys(holder) if holder.startswith(COMMON) else self._host_keys(holder)
        return {key for key in found if self.piece(holder, key) is not None}

    def _common_keys(self, holder: str) -> set[str]:
        what, _, of = holder.removeprefix(COMMON).partition("/")
        if what == "members":
            return {f"member/{of}/{address}" for address in self._addresses(of)}
        peers = {f"peer/{id}" for id in self._seated_in[of]}
        return peers | {f"endpoint/{of}/{host}" for host in self._presence[of]}

    def _host_keys(self, host: str) -> set[str]:
        seats = {id: seat for id in self._seated_on[host] if (seat := self._seat_at(id, host)) is not None}
        groups = {group for seat in seats.values() for group in seat.group_ids}
        found = {f"port/{id}" for id, seat in seats.items() if seat.guest}
        found |= {f"network/{seat.network_id}" for seat in seats.values()}
        found |= {f"group/{id}" for id in groups}
        found |= {f"members/{id}" for group in groups for id in self._named_by(group)}
        return found | {f"router/{id}" for id in self._routers_of_host[host]}

    def everything(self, holder: str) -> dict[str, Piece]:
        return {key: piece for key in self.keys(holder) if (piece := self.piece(holder, key)) is not None}

    def followers(self, common: str) -> list[str]:
        """The hosts that have it."""
        what, _, of = common.removeprefix(COMMON).partition("/")
        if what == "network":
            return list(self._presence[of]) if self.get(NETWORK, of) is not None else []
        return list({host: None for group in self._referrers[of] for host in self._group_hosts[group]})

    def get(self, kind: Kind[S], id: str | None) -> S | None:
        """A thing as it is now."""
        document = self._mirrors[kind.name].get(id) if id else None
        return document.state if document is not None else None

    def _version(self, kind: Kind[Any], id: str) -> int:
        document = self._mirrors[kind.name].get(id)
        return document.version if document is not None else 0

    def _is_guest(self, host: str, port_id: str) -> bool:
        seat = self._seat_at(port_id, host)
        return seat is not None and seat.guest

    def _seat_at(self, port_id: str, host: str) -> Seat | None:
        return next((seat for seat in self._seats.get(port_id, ()) if seat.host == host), None)

    def _seat_of(self, port_id: str) -> Seat | None:
        """Where it really is."""
        return next((seat for seat in self._seats.get(port_id, ()) if not seat.standby), None)

    def _names(self, host: str, id: str) -> bool:
        """Whether a group there has a rule that names this one."""
        return any(host in self._group_hosts[group] for group in self._referrers[id])

    def _addresses(self, id: str) -> Collection[str]:
        """Of a group or address group."""
        named = self.get(ADDRESS_GROUP, id)
        return named.addresses if named is not None else self._group_addresses.get(id, ())

    # What follows from what

    def _hearing(self, changed: Callable[[Any, Any], None]) -> Callable[[Document | None, Document | None], None]:
        return lambda before, after: changed(before.state if before else None, after.state if after else None)

    def _network_changed(self, before: Network | None, after: Network | None) -> None:
        id = _id(before, after)
        self._use_policy(f"network/{id}", before, after)
        self._touch_network(id)
        if _differ(before, after, "admin_state_up", "qos_policy_id"):
            for port_id in self._seated_in[id]:
                self._touch_port(port_id)
        if _differ(before, after, "mtu", "external_for"):
            self._touch_routers_in(id)
        if _differ(before, after, "qos_policy_id"):
            self._touch_routers_of_floating_in(id)

    def _subnet_changed(self, before: Subnet | None, after: Subnet | None) -> None:
        network_id = (after or before or Subnet()).network_id
        if _differ(before, after, "subnetpool_id"):
            self._subnets_of_pool.follow(_id(before, after), before, after, lambda it: it.subnetpool_id)
            self._touch_routers_in(network_id)
        if before is not None and after is not None and wired_subnet(before) == wired_subnet(after):
            return  # only an address came or went
        self._subnets_of_network.follow(_id(before, after), before, after, lambda it: it.network_id)
        self._touch_network(network_id)
        self._touch_routers_in(network_id)
        if before is None or after is None:
            for port_id in self._seated_in[network_id]:
                self._touch_port(port_id)

    def _pool_changed(self, before: SubnetPool | None, after: SubnetPool | None) -> None:
        if _differ(before, after, "address_scope_id"):
            for id in self._subnets_of_pool[_id(before, after)]:
                subnet = self.get(SUBNET, id)
                self._touch_routers_in(subnet.network_id if subnet is not None else "")

    def _port_changed(self, before: Port | None, after: Port | None) -> None:
        id = _id(before, after)
        self._use_policy(f"port/{id}", before, after)
        self._ports_of_network.follow(id, before, after, lambda it: it.network_id)
        self._ports_of_device.follow(id, before, after, _device)
        self._dhcp_of_network.follow(id, before, after, lambda it: it.network_id if _answers(it) else None)
        self._subports.follow(id, before, after, lambda it: it.subport_of)
        self._move_addresses(before, after)
        self._reseat(id)
        for subport in self._subports[id]:
            self._reseat(subport)
            self._touch_port(subport)
        self._touch_port(id)
        if _differ(
            before, after, "mac_address", "fixed_ips", "dns_name", "device_owner", "device_id", "allowed_address_pairs"
        ):
            self._touch_peer(id)
        for router_id in self._routers_of_port[id]:
            self._touch_router(router_id)
            self._touch_floating_peers(router_id)
        for port in (before, after):
            if port is None:
                continue
            if port.device_owner == DHCP:
                self._touch_network(port.network_id)
            if port.subport_of:
                self._touch_port(port.subport_of)

    def _group_changed(self, before: SecurityGroup | None, after: SecurityGroup | None) -> None:
        id = _id(before, after)
        for host in self._group_hosts[id]:
            self._touch(host, f"group/{id}")
        was, now = named_members(before), named_members(after)
        for named in was ^ now:
            if named in now:
                self._referrers.add(named, id)
            else:
                self._referrers.discard(named, id)
            for host in self._group_hosts[id]:
                self._touch(host, f"members/{named}")

    def _address_group_changed(self, before: AddressGroup | None, after: AddressGroup | None) -> None:
        was, now = ({*it.addresses} if it is not None else set() for it in (before, after))
        self._touch_members(_id(before, after), was ^ now)

    def _router_changed(self, before: Router | None, after: Router | None) -> None:
        id = _id(before, after)
        self._use_policy(f"router/{id}", before and before.gateway, after and after.gateway)
        self._routers_of_host.follow(id, before, after, lambda it: it.host)
        self._routers_of_port.follow_all(id, before, after, feet_of)
        self._routers_of_network.follow_all(id, before, after, networks_of)
        for router in (before, after):
            if router is not None:
                self._touch(router.host, f"router/{id}")
        if _differ(before, after, "gateway"):
            self._touch_floating_peers(id)
        if _differ(before, after, "host"):
            self._reseat_devices(id)
            for floating in self._floating_of_router[id]:
                self._reseat_devices(floating)

    def _floating_changed(self, before: FloatingIp | None, after: FloatingIp | None) -> None:
        id = _id(before, after)
        self._use_policy(f"floating-ip/{id}", before, after)
        self._floating_of_router.follow(id, before, after, lambda it: it.router_id)
        self._floating_of_network.follow(id, before, after, lambda it: it.network_id)
        for floating in (before, after):
            if floating is not None:
                self._touch_router(floating.router_id)
        for port_id in self._ports_of_device[id]:
            self._reseat(port_id)
            self._touch_peer(port_id)

    def _connection_changed(self, before: VpnConnection | None, after: VpnConnection | None) -> None:
        self._connections_of_router.follow(_id(before, after), before, after, lambda it: it.router_id)
        for connection in (before, after):
            if connection is not None:
                self._touch_router(connection.router_id)

    def _host_changed(self, before: NetworkHost | None, after: NetworkHost | None) -> None:
        id = _id(before, after)
        if _reach(before) == _reach(after):
            return
        for network_id in {self._seats[port_id][0].network_id for port_id in self._seated_on[id]}:
            self._touch(id, f"network/{network_id}")
            self._touch_endpoint(network_id, id)
        for port_id in self._seated_on[id]:
            self._touch_peer(port_id)
            if any(seat.standby for seat in self._seats[port_id]):
                self._touch_port(port_id)  # it says where it may go

    def _policy_changed(self, before: QosPolicy | None, after: QosPolicy | None) -> None:
        if not _differ(before, after, "rules"):
            return
        for user in list(self._users_of_policy[_id(before, after)]):
            what, _, id = user.partition("/")
            match what:
                case "network":
                    for port_id in self._seated_in[id]:
                        self._touch_port(port_id)
                    self._touch_routers_of_floating_in(id)
                case "port":
                    self._touch_port(id)
                case "router":
                    self._touch_router(id)
                case "floating-ip":
                    floating = self.get(FLOATING_IP, id)
                    self._touch_router(floating.router_id if floating is not None else None)

    def _use_policy(self, user: str, before: Any, after: Any) -> None:
        self._users_of_policy.follow(user, before, after, lambda it: it.qos_policy_id)

    def _move_addresses(self, before: Port | None, after: Port | None) -> None:
        """Keep the addresses of the groups the port was in and is in."""
        was, now = (
            {group: addresses_of(port) for group in port.security_group_ids} if port is not None else {}
            for port in (before, after)
        )
        for group in was.keys() | now.keys():
            if was.get(group) == now.get(group):
                continue
            addresses = self._group_addresses.setdefault(group, Counter())
            addresses.update(now.get(group, ()))
            for address in was.get(group, ()):
                addresses[address] -= 1
                if not addresses[address]:
                    del addresses[address]
            if not addresses:
                del self._group_addresses[group]
            self._touch_members(group, was.get(group, frozenset()) ^ now.get(group, frozenset()))

    # Seats

    def _reseat_devices(self, device_id: str) -> None:
        for port_id in list(self._ports_of_device[device_id]):
            self._reseat(port_id)

    def _reseat(self, port_id: str) -> None:
        old, new = self._seats.get(port_id, ()), self._seats_of(self.get(PORT, port_id))
        if old == new:
            return
        for seat in old:
            if seat not in new:
                self._rise(port_id, seat)
        self._seats[port_id] = new
        self._seated_in.follow_all(port_id, old, new, lambda seats: [seat.network_id for seat in seats])
        for seat in new:
            if seat not in old:
                self._sit(port_id, seat)
        if not new:
            del self._seats[port_id]

    def _seats_of(self, port: Port | None) -> tuple[Seat, ...]:
        if port is None:
            return ()
        host = self._host_of(port) or ""
        guest = not port.device_owner.startswith("network:")
        groups = port.security_group_ids if guest and port.port_security_enabled else ()
        bound = self.get(PORT, port.subport_of) if port.subport_of else port
        standby = [it.host for it in bound.inactive_bindings if it.host != host] if bound is not None and guest else []
        places = [(host, False), *((it, True) for it in dict.fromkeys(standby))]
        return tuple(Seat(port.network_id, place, guest, groups, waits) for place, waits in places if place)

    def _host_of(self, port: Port) -> str | None:
        """Routers' ports are where the router is, subports where their parent is."""
        router_id: str | None = None
        if port.device_owner == DHCP:
            return None
        if port.device_owner == FLOATING:
            floating = self.get(FLOATING_IP, port.device_id)
            router_id = floating.router_id if floating is not None else None
        elif port.device_owner in ROUTER_FEET:
            router_id = port.device_id
        elif port.subport_of:
            parent = self.get(PORT, port.subport_of)
            return parent.host if parent is not None else None
        else:
            return port.host
        router = self.get(ROUTER, router_id)
        return router.host if router is not None else None

    def _sit(self, port_id: str, seat: Seat) -> None:
        self._seated_on.add(seat.host, port_id)
        if self._presence.add(seat.network_id, seat.host):
            self._touch_presence(seat)
        for group in seat.group_ids:
            if self._group_hosts.add(group, seat.host):
                self._touch_group_at(group, seat.host)
        self._touch_at(port_id, seat)

    def _rise(self, port_id: str, seat: Seat) -> None:
        self._touch_at(port_id, seat)
        if self._presence.remove(seat.network_id, seat.host):
            self._touch_presence(seat)
        for group in seat.group_ids:
            if self._group_hosts.remove(group, seat.host):
                self._touch_group_at(group, seat.host)
        self._seated_on.discard(seat.host, port_id)

    # Touching

    def _touch(self, holder: str, key: str) -> None:
        if holder:
            self._touched[holder, key] = None

    def _touch_at(self, port_id: str, seat: Seat) -> None:
        if seat.guest:
            self._touch(seat.host, f"port/{port_id}")
        self._touch(f"{COMMON}network/{seat.network_id}", f"peer/{port_id}")

    def _touch_port(self, port_id: str) -> None:
        for seat in self._seats.get(port_id, ()):
            if seat.guest:
                self._touch(seat.host, f"port/{port_id}")

    def _touch_peer(self, port_id: str) -> None:
        seat = self._seat_of(port_id)
        if seat is not None:
            self._touch(f"{COMMON}network/{seat.network_id}", f"peer/{port_id}")

    def _touch_floating_peers(self, router_id: str) -> None:
        for floating in self._floating_of_router[router_id]:
            for port_id in self._ports_of_device[floating]:
                self._touch_peer(port_id)

    def _touch_network(self, network_id: str) -> None:
        for host in self._presence[network_id]:
            self._touch(host, f"network/{network_id}")

    def _touch_presence(self, seat: Seat) -> None:
        """A network came to a host, or left it."""
        self._touch(seat.host, f"network/{seat.network_id}")
        self._touch_endpoint(seat.network_id, seat.host)

    def _touch_endpoint(self, network_id: str, host: str) -> None:
        self._touch(f"{COMMON}network/{network_id}", f"endpoint/{network_id}/{host}")

    def _touch_group_at(self, group_id: str, host: str) -> None:
        self._touch(host, f"group/{group_id}")
        for named in self._named_by(group_id):
            self._touch(host, f"members/{named}")

    def _touch_members(self, id: str, addresses: Iterable[str]) -> None:
        for address in addresses:
            self._touch(f"{COMMON}members/{id}", f"member/{id}/{address}")

    def _touch_router(self, router_id: str | None) -> None:
        router = self.get(ROUTER, router_id)
        if router is not None:
            self._touch(router.host, f"router/{router.id}")

    def _touch_routers_in(self, network_id: str) -> None:
        for router_id in self._routers_of_network[network_id]:
            self._touch_router(router_id)

    def _touch_routers_of_floating_in(self, network_id: str) -> None:
        """Floating IPs without a policy of their own have that of their network."""
        for id in self._floating_of_network[network_id]:
            floating = self.get(FLOATING_IP, id)
            self._touch_router(floating.router_id if floating is not None else None)

    def _named_by(self, group_id: str) -> frozenset[str]:
        return named_members(self.get(SECURITY_GROUP, group_id))


def _answers(port: Port) -> bool:
    """Whether it is a network's own DHCP port, not one that somebody made by that owner's name."""
    return port.device_owner == DHCP and port.made_by == port.network_id


def _reach(host: NetworkHost | None) -> tuple[str, tuple[str, ...]] | None:
    """Where it takes tunnels, and what else it can carry networks by."""
    return (host.facts.endpoint_ip, host.facts.physical_networks) if host is not None else None


def _id(before: State | None, after: State | None) -> str:
    return (after or before or State()).id


def _differ(before: State | None, after: State | None, *fields: str) -> bool:
    return any(getattr(before, field, None) != getattr(after, field, None) for field in fields)


def _device(port: Port) -> str:
    """The router or floating IP a port belongs to, if it does."""
    return port.device_id if port.device_owner == FLOATING or port.device_owner in ROUTER_FEET else ""
