"""What follows from what: which pieces of hosts' networks are touched when a thing becomes another.

Costs what is touched, never a walk over all ports. A new kind needs its name in `KINDS` and a row in `changes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from bus.log import Document
from projections.network.pieces import named_members, wired_subnet
from projections.network.places import COMMON, Touched
from projections.network.relations import KINDS, Relations
from projections.network.seats import Seats
from schema.event import State
from schema.network.address_group import ADDRESS_GROUP, AddressGroup
from schema.network.floating_ip import FLOATING_IP, FloatingIp
from schema.network.host import NETWORK_HOST, NetworkHost
from schema.network.network import NETWORK, Network
from schema.network.port import PORT
from schema.network.port_state import DHCP, Port
from schema.network.qos_policy import QOS_POLICY, QosPolicy
from schema.network.router import ROUTER, Router
from schema.network.security_group import SECURITY_GROUP, SecurityGroup
from schema.network.subnet import SUBNET, Subnet
from schema.network.subnet_pool import SUBNET_POOL, SubnetPool
from schema.network.vpn_connection import VPN_CONNECTION, VpnConnection


class Following:
    """Listens to the things of `relations`, keeps them related and seated, and touches what that changes."""

    def __init__(self, things: Relations, seats: Seats, touch: Touched) -> None:
        self._things = things
        self._seats = seats
        self._touch = touch
        changes: dict[str, Callable[[Any, Any], None]] = {
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
            things.mirrors[kind.name].on_change(_hearing(changes[kind.name]))

    def _network_changed(self, before: Network | None, after: Network | None) -> None:
        id = _id(before, after)
        self._things.relate_policy(f"network/{id}", before, after)
        self._seats.touch_network(id)
        if _differ(before, after, "admin_state_up", "qos_policy_id"):
            for port_id in self._seats.in_network[id]:
                self._seats.touch_port(port_id)
        if _differ(before, after, "mtu", "external_for"):
            self._touch_routers_in(id)
        if _differ(before, after, "qos_policy_id"):
            self._touch_routers_of_floating_in(id)

    def _subnet_changed(self, before: Subnet | None, after: Subnet | None) -> None:
        network_id = (after or before or Subnet()).network_id
        if _differ(before, after, "subnetpool_id"):
            self._things.subnets_of_pool.follow(_id(before, after), before, after, lambda it: it.subnetpool_id)
            self._touch_routers_in(network_id)
        if before is not None and after is not None and wired_subnet(before) == wired_subnet(after):
            return  # only an address came or went
        self._things.relate_subnet(_id(before, after), before, after)
        self._seats.touch_network(network_id)
        self._touch_routers_in(network_id)
        if before is None or after is None:
            for port_id in self._seats.in_network[network_id]:
                self._seats.touch_port(port_id)

    def _pool_changed(self, before: SubnetPool | None, after: SubnetPool | None) -> None:
        if _differ(before, after, "address_scope_id"):
            for id in self._things.subnets_of_pool[_id(before, after)]:
                subnet = self._things.get(SUBNET, id)
                self._touch_routers_in(subnet.network_id if subnet is not None else "")

    def _port_changed(self, before: Port | None, after: Port | None) -> None:
        id = _id(before, after)
        self._things.relate_policy(f"port/{id}", before, after)
        for group, addresses in self._things.relate_port(id, before, after).items():
            self._touch_members(group, addresses)
        self._seats.reseat(id)
        for subport in self._things.subports[id]:
            self._seats.reseat(subport)
            self._seats.touch_port(subport)
        self._seats.touch_port(id)
        if _differ(
            before, after, "mac_address", "fixed_ips", "dns_name", "device_owner", "device_id", "allowed_address_pairs"
        ):
            self._seats.touch_peer(id)
        for router_id in self._things.routers_of_port[id]:
            self._touch_router(router_id)
            self._touch_floating_peers(router_id)
        for port in (before, after):
            if port is None:
                continue
            if port.device_owner == DHCP:
                self._seats.touch_network(port.network_id)
            if port.subport_of:
                self._seats.touch_port(port.subport_of)

    def _group_changed(self, before: SecurityGroup | None, after: SecurityGroup | None) -> None:
        id = _id(before, after)
        for host in self._seats.group_hosts[id]:
            self._touch(host, f"group/{id}")
        was, now = named_members(before), named_members(after)
        for named in was ^ now:
            if named in now:
                self._things.referrers.add(named, id)
            else:
                self._things.referrers.discard(named, id)
            for host in self._seats.group_hosts[id]:
                self._touch(host, f"members/{named}")

    def _address_group_changed(self, before: AddressGroup | None, after: AddressGroup | None) -> None:
        was, now = ({*it.addresses} if it is not None else set() for it in (before, after))
        self._touch_members(_id(before, after), was ^ now)

    def _router_changed(self, before: Router | None, after: Router | None) -> None:
        id = _id(before, after)
        self._things.relate_policy(f"router/{id}", before and before.gateway, after and after.gateway)
        self._things.relate_router(id, before, after)
        for router in (before, after):
            if router is not None:
                self._touch(router.host, f"router/{id}")
        if _differ(before, after, "gateway"):
            self._touch_floating_peers(id)
        if _differ(before, after, "host"):
            self._seats.reseat_devices(id)
            for floating in self._things.floating_of_router[id]:
                self._seats.reseat_devices(floating)

    def _floating_changed(self, before: FloatingIp | None, after: FloatingIp | None) -> None:
        id = _id(before, after)
        self._things.relate_policy(f"floating-ip/{id}", before, after)
        self._things.relate_floating(id, before, after)
        for floating in (before, after):
            if floating is not None:
                self._touch_router(floating.router_id)
        for port_id in self._things.ports_of_device[id]:
            self._seats.reseat(port_id)
            self._seats.touch_peer(port_id)

    def _connection_changed(self, before: VpnConnection | None, after: VpnConnection | None) -> None:
        self._things.relate_connection(_id(before, after), before, after)
        for connection in (before, after):
            if connection is not None:
                self._touch_router(connection.router_id)

    def _host_changed(self, before: NetworkHost | None, after: NetworkHost | None) -> None:
        id = _id(before, after)
        if _reach(before) == _reach(after):
            return
        for network_id in {self._seats[port_id][0].network_id for port_id in self._seats.on_host[id]}:
            self._touch(id, f"network/{network_id}")
            self._seats.touch_endpoint(network_id, id)
        for port_id in self._seats.on_host[id]:
            self._seats.touch_peer(port_id)
            if any(seat.standby for seat in self._seats[port_id]):
                self._seats.touch_port(port_id)  # it says where it may go

    def _policy_changed(self, before: QosPolicy | None, after: QosPolicy | None) -> None:
        if not _differ(before, after, "rules"):
            return
        for user in list(self._things.users_of_policy[_id(before, after)]):
            what, _, id = user.partition("/")
            match what:
                case "network":
                    for port_id in self._seats.in_network[id]:
                        self._seats.touch_port(port_id)
                    self._touch_routers_of_floating_in(id)
                case "port":
                    self._seats.touch_port(id)
                case "router":
                    self._touch_router(id)
                case "floating-ip":
                    floating = self._things.get(FLOATING_IP, id)
                    self._touch_router(floating.router_id if floating is not None else None)

    def _touch_floating_peers(self, router_id: str) -> None:
        for floating in self._things.floating_of_router[router_id]:
            for port_id in self._things.ports_of_device[floating]:
                self._seats.touch_peer(port_id)

    def _touch_members(self, id: str, addresses: Iterable[str]) -> None:
        for address in addresses:
            self._touch(f"{COMMON}members/{id}", f"member/{id}/{address}")

    def _touch_router(self, router_id: str | None) -> None:
        router = self._things.get(ROUTER, router_id)
        if router is not None:
            self._touch(router.host, f"router/{router.id}")

    def _touch_routers_in(self, network_id: str) -> None:
        for router_id in self._things.routers_of_network[network_id]:
            self._touch_router(router_id)

    def _touch_routers_of_floating_in(self, network_id: str) -> None:
        """Floating IPs without a policy of their own have that of their network."""
        for id in self._things.floating_of_network[network_id]:
            floating = self._things.get(FLOATING_IP, id)
            self._touch_router(floating.router_id if floating is not None else None)


def _hearing(changed: Callable[[Any, Any], None]) -> Callable[[Document | None, Document | None], None]:
    return lambda before, after: changed(before.state if before else None, after.state if after else None)


def _reach(host: NetworkHost | None) -> tuple[str, tuple[str, ...]] | None:
    """Where it takes tunnels, and what else it can carry networks by."""
    return (host.facts.endpoint_ip, host.facts.physical_networks) if host is not None else None


def _id(before: State | None, after: State | None) -> str:
    return (after or before or State()).id


def _differ(before: State | None, after: State | None, *fields: str) -> bool:
    return any(getattr(before, field, None) != getattr(after, field, None) for field in fields)
