"""The pieces a host is told, made from the things they are of. Pure: states in, words of schema/network/wiring out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Protocol, cast

import msgspec
from msgspec.structs import replace

from schema.network.floating_ip import FLOATING_IP, FloatingIp
from schema.network.host import NETWORK_HOST, NetworkHost
from schema.network.network import NETWORK, Network, Segment
from schema.network.port import PORT
from schema.network.port_state import FixedIp, Port
from schema.network.qos_policy import QOS_POLICY, QosPolicy
from schema.network.router import ROUTER, Router
from schema.network.security_group import SECURITY_GROUP, SecurityGroup, SecurityRule
from schema.network.subnet import SUBNET, Subnet
from schema.network.subnet_pool import SUBNET_POOL, SubnetPool
from schema.network.vpn_connection import VPN_CONNECTION, VpnConnection
from schema.network.wiring import (
    Address,
    BandwidthLimit,
    Endpoint,
    FloatingAddress,
    Forwarding,
    Peer,
    Quality,
    RouterPort,
    SiteConnection,
    Subport,
    WiredGroup,
    WiredNetwork,
    WiredPort,
    WiredRouter,
    WiredRule,
    WiredSubnet,
    tap_name,
)

FLOATING = "network:floatingip"
ROUTER_FEET = frozenset({"network:router_interface", "network:router_gateway"})
"""Owners of ports that are where their router is."""


class Ids(Protocol):
    """One thing → the ids of many."""

    def __getitem__(self, key: str) -> Sequence[str]: ...


class Sources(msgspec.Struct, frozen=True):
    """Where pieces take from: any thing by kind and id, and the ways between them."""

    get: Callable[..., Any]
    version: Callable[..., int]
    subports: Ids
    subnets: Ids
    dhcp: Ids
    floating: Ids
    connections: Ids


def wired_port(of: Sources, id: str) -> WiredPort | None:
    port: Port | None = of.get(PORT, id)
    if port is None:
        return None
    network = of.get(NETWORK, port.network_id)
    subports = [of.get(PORT, subport) for subport in of.subports[id]]
    return WiredPort(
        id=id,
        network_id=port.network_id,
        generation=port.generation,
        tap="" if port.subport_of else tap_name(id),
        mac_address=port.mac_address,
        addresses=_addresses(of, port.fixed_ips),
        address_pairs=port.allowed_address_pairs,
        admin_up=port.admin_state_up and (network is None or network.admin_state_up),
        secured=port.port_security_enabled,
        group_ids=tuple(sorted(port.security_group_ids)) if port.port_security_enabled else (),
        device_id=port.device_id,
        device_owner=port.device_owner,
        project_id=port.project_id,
        hostname=port.dns_name,
        dhcp_options=port.extra_dhcp_opts,
        quality=_carried(of, port, network),
        subports=tuple(
            sorted(
                (Subport(port_id=it.id, segmentation_id=it.segmentation_id) for it in subports if it is not None),
                key=lambda it: it.segmentation_id,
            )
        ),
        parent_id=port.subport_of,
        segmentation_id=port.segmentation_id,
        bound_for=_bound_for(of, port),
    )


def _bound_for(of: Sources, port: Port) -> tuple[str, ...]:
    """A subport goes where its parent goes."""
    bound: Port | None = of.get(PORT, port.subport_of) if port.subport_of else port
    names = {it.host for it in bound.inactive_bindings if it.host != bound.host} if bound is not None else set()
    hosts = [of.get(NETWORK_HOST, it) for it in names]
    return tuple(sorted({at.facts.endpoint_ip if at is not None else "" for at in hosts}))


def peer(of: Sources, id: str, host: str) -> Peer | None:
    """A port as the other hosts see it. A floating IP's address is answered by its router's gateway."""
    port: Port | None = of.get(PORT, id)
    if port is None:
        return None
    at = of.get(NETWORK_HOST, host)
    mac_address = port.mac_address
    if port.device_owner == FLOATING:
        mac_address = _gateway_mac(of, port.device_id) or mac_address
    return Peer(
        id=id,
        network_id=port.network_id,
        mac_address=mac_address,
        ips=tuple(fixed.ip_address for fixed in port.fixed_ips),
        endpoint_ip=at.facts.endpoint_ip if at is not None else "",
        hostname=port.dns_name,
        more_macs=_more_macs(port),
        host=host,
    )


def endpoint(of: Sources, network_id: str, host: str) -> Endpoint | None:
    """Where a host takes a network's tunnels; None: nowhere."""
    at = of.get(NETWORK_HOST, host)
    return Endpoint(network_id=network_id, host=host, ip=at.facts.endpoint_ip) if at and at.facts.endpoint_ip else None


def _more_macs(port: Port) -> tuple[str, ...]:
    pairs = {it.mac_address.lower() for it in port.allowed_address_pairs}
    return tuple(sorted(pairs - {port.mac_address.lower(), ""}))


def wired_network(of: Sources, id: str, host: str) -> WiredNetwork | None:
    network = of.get(NETWORK, id)
    if network is None:
        return None
    segment = _segment(network, of.get(NETWORK_HOST, host))
    dhcp: Port | None = of.get(PORT, min(of.dhcp[id], default=None))
    return WiredNetwork(
        id=id,
        project_id=network.project_id,
        network_type=segment.network_type,
        segmentation_id=segment.segmentation_id,
        physical_network=segment.physical_network,
        mtu=network.mtu,
        external=bool(network.external_for),
        dns_domain=network.dns_domain,
        subnets=tuple(wired_subnet(of.get(SUBNET, subnet)) for subnet in sorted(of.subnets[id])),
        dhcp_port_id=dhcp.id if dhcp else "",
        dhcp_mac=dhcp.mac_address if dhcp else "",
        dhcp_addresses=_addresses(of, dhcp.fixed_ips) if dhcp else (),
    )


def _segment(network: Network, host: NetworkHost | None) -> Segment:
    """The first of its segments that the host can carry; where it can none, the first."""
    there = set(host.facts.physical_networks) if host is not None else set()
    able = [it for it in network.segments if it.physical_network is None or it.physical_network in there]
    return next(iter([*able, *network.segments]), Segment(id="", network_type="local"))


def wired_subnet(subnet: Subnet) -> WiredSubnet:
    return WiredSubnet(
        id=subnet.id,
        cidr=subnet.cidr,
        ip_version=subnet.ip_version,
        gateway_ip=subnet.gateway_ip,
        dhcp=subnet.enable_dhcp,
        dns_nameservers=subnet.dns_nameservers,
        host_routes=subnet.host_routes,
        ipv6_address_mode=subnet.ipv6_address_mode,
        ipv6_ra_mode=subnet.ipv6_ra_mode,
    )


def wired_group(of: Sources, id: str) -> WiredGroup | None:
    group: SecurityGroup | None = of.get(SECURITY_GROUP, id)
    if group is None:
        return None
    return WiredGroup(id=id, stateful=group.stateful, rules=tuple(_rule(rule) for rule in group.rules))


def named_members(group: SecurityGroup | None) -> frozenset[str]:
    """The groups and address groups that its rules name."""
    rules = group.rules if group is not None else ()
    return frozenset(named for rule in rules if (named := _remote(rule)))


def addresses_of(port: Port) -> frozenset[str]:
    """What it counts for in its groups."""
    return frozenset([*(it.ip_address for it in port.fixed_ips), *(it.ip for it in port.allowed_address_pairs)])


def feet_of(router: Router) -> frozenset[str]:
    """The ports it is made of."""
    return frozenset([*(it.port_id for it in router.interfaces), *([router.gateway.port_id] if router.gateway else [])])


def networks_of(router: Router) -> frozenset[str]:
    """The networks it joins."""
    inner = (it.network_id for it in router.interfaces)
    return frozenset([*inner, *([router.gateway.network_id] if router.gateway else [])])


def wired_router(of: Sources, id: str) -> WiredRouter | None:
    router = of.get(ROUTER, id)
    if router is None:
        return None
    floating = [it for it in (of.get(FLOATING_IP, it) for it in sorted(of.floating[id])) if it is not None]
    gateway = _foot(of, router.gateway.port_id) if router.gateway else None
    feet = tuple(foot for it in router.interfaces if (foot := _foot(of, it.port_id)) is not None)
    return WiredRouter(
        id=id,
        generation=of.version(ROUTER, id),
        admin_up=router.admin_state_up,
        ports=feet,
        gateway=gateway,
        gateway_ips=_gateway_ips(of, gateway),
        snat=router.gateway.enable_snat if router.gateway else True,
        floating=tuple(_floating(of, it) for it in floating if it.port_id and it.fixed_ip_address),
        forwardings=tuple(forwarding for it in floating for forwarding in _forwardings(it)),
        routes=router.routes,
        quality=_quality(of, router.gateway.qos_policy_id if router.gateway else None),
        connections=tuple(
            _connection(it, gateway)
            for id in sorted(of.connections[id])
            if (it := of.get(VPN_CONNECTION, id)) is not None
        ),
        scopes=_scopes(of, [*feet, *([gateway] if gateway else [])]),
    )


def _rule(rule: SecurityRule) -> WiredRule:
    return WiredRule(
        id=rule.id,
        direction=rule.direction,
        ethertype=cast(Literal["IPv4", "IPv6"], rule.ethertype),
        protocol=rule.protocol,
        port_min=rule.port_range_min,
        port_max=rule.port_range_max,
        remote_prefix=rule.remote_ip_prefix,
        remote_members=_remote(rule),
    )


def _remote(rule: SecurityRule) -> str | None:
    return rule.remote_group_id or rule.remote_address_group_id


def _addresses(of: Sources, fixed_ips: Iterable[FixedIp]) -> tuple[Address, ...]:
    return tuple(
        Address(ip=it.ip_address, subnet_id=it.subnet_id, prefix_length=_prefix_length(of.get(SUBNET, it.subnet_id)))
        for it in fixed_ips
    )


def _prefix_length(subnet: Subnet | None) -> int:
    length = subnet.cidr.partition("/")[2] if subnet is not None else ""
    return int(length) if length else 0


def _foot(of: Sources, port_id: str) -> RouterPort | None:
    port: Port | None = of.get(PORT, port_id)
    if port is None:
        return None
    network = of.get(NETWORK, port.network_id)
    return RouterPort(
        port_id=port_id,
        network_id=port.network_id,
        mac_address=port.mac_address,
        addresses=_addresses(of, port.fixed_ips),
        mtu=network.mtu if network is not None else 1450,
    )


def _scopes(of: Sources, feet: Iterable[RouterPort]) -> dict[str, str]:
    """Subnet → address scope, which is its pool's."""
    found = {}
    for id in sorted({address.subnet_id for foot in feet for address in foot.addresses}):
        subnet: Subnet | None = of.get(SUBNET, id)
        pool: SubnetPool | None = of.get(SUBNET_POOL, subnet.subnetpool_id) if subnet is not None else None
        if pool is not None and pool.address_scope_id:
            found[id] = pool.address_scope_id
    return found


def _gateway_ips(of: Sources, gateway: RouterPort | None) -> tuple[str, ...]:
    """One next hop a family, of the subnets the router has an address in."""
    found: dict[int, str] = {}
    for address in gateway.addresses if gateway else ():
        subnet: Subnet | None = of.get(SUBNET, address.subnet_id)
        if subnet is not None and subnet.gateway_ip:
            found.setdefault(subnet.ip_version, subnet.gateway_ip)
    return tuple(found[family] for family in sorted(found))


def _gateway_mac(of: Sources, floating_id: str) -> str:
    floating: FloatingIp | None = of.get(FLOATING_IP, floating_id)
    router = of.get(ROUTER, floating.router_id) if floating is not None else None
    port: Port | None = of.get(PORT, router.gateway.port_id) if router is not None and router.gateway else None
    return port.mac_address if port is not None else ""


def _floating(of: Sources, it: FloatingIp) -> FloatingAddress:
    network = of.get(NETWORK, it.network_id)
    return FloatingAddress(
        id=it.id,
        floating_ip=it.floating_ip_address,
        fixed_ip=it.fixed_ip_address or "",
        port_id=it.port_id or "",
        quality=_quality(of, it.qos_policy_id or (network.qos_policy_id if network is not None else None)),
    )


def _forwardings(it: FloatingIp) -> list[Forwarding]:
    return [
        Forwarding(
            id=forwarding.id,
            floating_ip=it.floating_ip_address,
            protocol=cast(Literal["tcp", "udp"], forwarding.protocol),
            external_port=forwarding.external_port,
            external_port_end=forwarding.external_port_end,
            internal_ip=forwarding.internal_ip_address,
            internal_port=forwarding.internal_port,
            internal_port_end=forwarding.internal_port_end,
        )
        for forwarding in it.forwardings
    ]


def _connection(it: VpnConnection, gateway: RouterPort | None) -> SiteConnection:
    """From the router's outside address, of the peer's family if it can be told."""
    outside = [address.ip for address in gateway.addresses] if gateway else []
    local_ip = next((ip for ip in outside if (":" in ip) == (":" in it.peer_address)), outside[0] if outside else "")
    return SiteConnection(
        id=it.id,
        local_ip=local_ip,
        local_id=it.local_id or local_ip,
        peer_address=it.peer_address,
        peer_id=it.peer_id,
        local_cidrs=it.local_cidrs,
        peer_cidrs=it.peer_cidrs,
        initiator=cast(Literal["bi-directional", "response-only"], it.initiator),
        dpd_action=it.dpd_action,
        dpd_interval_seconds=it.dpd_interval,
        dpd_timeout_seconds=it.dpd_timeout,
        mtu=it.mtu,
        admin_up=it.admin_state_up and it.service_up,
        ike=it.ike,
        ipsec=it.ipsec,
        secret_id=it.secret_id,
    )


def _carried(of: Sources, port: Port, network: Network | None) -> Quality:
    """What its policy says, or its network's; where they limit nothing, its server's flavor."""
    quality = _quality(of, port.qos_policy_id or (network.qos_policy_id if network is not None else None))
    return quality if quality.limits else replace(quality, limits=port.card_limits)


def _quality(of: Sources, policy_id: str | None) -> Quality:
    """What its QoS policy says of it."""
    policy: QosPolicy | None = of.get(QOS_POLICY, policy_id)
    rules = policy.rules if policy is not None else ()
    return Quality(
        limits=tuple(
            BandwidthLimit(direction=it.direction, max_kbps=it.max_kbps, max_burst_kbps=it.max_burst_kbps)
            for it in rules
            if it.type == "bandwidth_limit"
        ),
        dscp_mark=next((it.dscp_mark for it in rules if it.type == "dscp_marking"), None),
    )
