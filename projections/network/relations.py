"""The things that hosts' networks are made of, as they are now, and the ways from one to many others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any, TypeVar

from bus.mirror import Mirror
from projections.network.index import Index
from projections.network.pieces import FLOATING, ROUTER_FEET, Sources, addresses_of, feet_of, named_members, networks_of
from schema.event import Kind, State
from schema.network.address_group import ADDRESS_GROUP
from schema.network.floating_ip import FLOATING_IP, FloatingIp
from schema.network.host import NETWORK_HOST
from schema.network.network import NETWORK
from schema.network.port import PORT
from schema.network.port_state import DHCP, Port
from schema.network.qos_policy import QOS_POLICY
from schema.network.router import ROUTER, Router
from schema.network.security_group import SECURITY_GROUP
from schema.network.subnet import SUBNET, Subnet
from schema.network.subnet_pool import SUBNET_POOL
from schema.network.vpn_connection import VPN_CONNECTION, VpnConnection

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


class Relations:
    """Each `relate_…` follows one thing from what it was to what it is; either may be nothing."""

    def __init__(self) -> None:
        self.mirrors = {kind.name: Mirror(kind) for kind in KINDS}
        self.group_addresses: dict[str, Counter[str]] = {}
        """Security group → how many ports in it have an address."""
        self.referrers = Index()
        """Group or address group → security groups whose rules name it."""
        self.ports_of_device = Index()
        """Router or floating IP → its own ports."""
        self.routers_of_port = Index()
        self.routers_of_network = Index()
        self.subports = Index()
        self.subnets_of_network = Index()
        self.subnets_of_pool = Index()
        self.dhcp_of_network = Index()
        self.floating_of_router = Index()
        self.floating_of_network = Index()
        self.connections_of_router = Index()
        self.routers_of_host = Index()
        self.users_of_policy = Index()
        """QoS policy → `<kind>/<id>` of what it is said of."""
        self.sources = Sources(
            get=self.get,
            version=self._version,
            subports=self.subports,
            subnets=self.subnets_of_network,
            dhcp=self.dhcp_of_network,
            floating=self.floating_of_router,
            connections=self.connections_of_router,
        )

    def get(self, kind: Kind[S], id: str | None) -> S | None:
        """A thing as it is now."""
        document = self.mirrors[kind.name].get(id) if id else None
        return document.state if document is not None else None

    def _version(self, kind: Kind[Any], id: str) -> int:
        document = self.mirrors[kind.name].get(id)
        return document.version if document is not None else 0

    def address_groups(self) -> list[str]:
        return [document.id for document in self.mirrors[ADDRESS_GROUP.name].values()]

    def addresses(self, id: str) -> Collection[str]:
        """Of a group or address group."""
        named = self.get(ADDRESS_GROUP, id)
        return named.addresses if named is not None else self.group_addresses.get(id, ())

    def named_by(self, group_id: str) -> frozenset[str]:
        """The groups that its rules name."""
        return named_members(self.get(SECURITY_GROUP, group_id))

    def relate_subnet(self, id: str, before: Subnet | None, after: Subnet | None) -> None:
        self.subnets_of_network.follow(id, before, after, lambda it: it.network_id)

    def relate_port(self, id: str, before: Port | None, after: Port | None) -> dict[str, set[str]]:
        """The addresses that came to its groups, or left them, by group."""
        self.ports_of_device.follow(id, before, after, _device)
        self.dhcp_of_network.follow(id, before, after, lambda it: it.network_id if _answers(it) else None)
        self.subports.follow(id, before, after, lambda it: it.subport_of)
        return self._move_addresses(before, after)

    def relate_router(self, id: str, before: Router | None, after: Router | None) -> None:
        self.routers_of_host.follow(id, before, after, lambda it: it.host)
        self.routers_of_port.follow_all(id, before, after, feet_of)
        self.routers_of_network.follow_all(id, before, after, networks_of)

    def relate_floating(self, id: str, before: FloatingIp | None, after: FloatingIp | None) -> None:
        self.floating_of_router.follow(id, before, after, lambda it: it.router_id)
        self.floating_of_network.follow(id, before, after, lambda it: it.network_id)

    def relate_connection(self, id: str, before: VpnConnection | None, after: VpnConnection | None) -> None:
        self.connections_of_router.follow(id, before, after, lambda it: it.router_id)

    def relate_policy(self, user: str, before: Any, after: Any) -> None:
        """`user`: `<kind>/<id>` of what has a policy."""
        self.users_of_policy.follow(user, before, after, lambda it: it.qos_policy_id)

    def _move_addresses(self, before: Port | None, after: Port | None) -> dict[str, set[str]]:
        was, now = (
            {group: addresses_of(port) for group in port.security_group_ids} if port is not None else {}
            for port in (before, after)
        )
        moved: dict[str, set[str]] = {}
        for group in was.keys() | now.keys():
            if was.get(group) == now.get(group):
                continue
            addresses = self.group_addresses.setdefault(group, Counter())
            addresses.update(now.get(group, ()))
            for address in was.get(group, ()):
                addresses[address] -= 1
                if not addresses[address]:
                    del addresses[address]
            if not addresses:
                del self.group_addresses[group]
            moved[group] = {*(was.get(group, frozenset()) ^ now.get(group, frozenset()))}
        return moved


def _answers(port: Port) -> bool:
    """Whether it is a network's own DHCP port, not one that somebody made by that owner's name."""
    return port.device_owner == DHCP and port.made_by == port.network_id


def _device(port: Port) -> str:
    """The router or floating IP a port belongs to, if it does."""
    return port.device_id if port.device_owner == FLOATING or port.device_owner in ROUTER_FEET else ""
