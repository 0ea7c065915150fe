"""What a subnet's ranges may be: its gateway and pools where nothing is said of them, and Neutron's refusals. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from itertools import pairwise

from handlers.network.refusing import invalid_input
from schema.network.subnet import Pool, Subnet
from schema.network.wiring import HostRoute
from schema.refusal import Conflict, Invalid

DNS_SERVERS = 5
HOST_ROUTES = 20
"""Of one subnet, at most, as Neutron has it."""
EUI64_PREFIX = 64
SMALLEST_MTU = {4: 68, 6: 1280}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def default_gateway(cidr: str) -> str:
    """The first address of it."""
    network = ipaddress.ip_network(cidr)
    first = network.network_address
    return str(first + 1 if network.num_addresses > 1 else first)


def default_pools(cidr: str, gateway_ip: str | None) -> tuple[Pool, ...]:
    """All its host addresses but the gateway's."""
    network = ipaddress.ip_network(cidr)
    first, last = int(network.network_address), int(network.broadcast_address)
    if last - first > 1:
        first, last = first + 1, last - (network.version == 4)
    kind = type(network.network_address)
    gateway = int(ipaddress.ip_address(gateway_ip)) if gateway_ip and _inside(gateway_ip, network) else first - 1
    halves = [(first, last)] if not first <= gateway <= last else [(first, gateway - 1), (gateway + 1, last)]
    return tuple(Pool(start=str(kind(low)), end=str(kind(high))) for low, high in halves if low <= high)


def refuse_subnet(subnet: Subnet) -> None:
    """Raises Invalid or Conflict when a subnet cannot be like that."""
    network = ipaddress.ip_network(subnet.cidr)
    if network.version != subnet.ip_version:
        raise _other_version("cidr", subnet.cidr, subnet.ip_version)
    if not network.prefixlen:
        raise invalid_input("0 is not allowed as CIDR prefix length")
    if subnet.enable_dhcp:
        _refuse_dhcp(network)
    _refuse_modes(subnet, network)
    if subnet.gateway_ip is not None:
        _refuse_gateway(subnet.gateway_ip, subnet.ip_version, network)
    _refuse_pools(subnet.pools, network)
    _refuse_gateway_in_pools(subnet)
    _refuse_servers(subnet)
    _refuse_routes(subnet.host_routes, subnet)


def total(pools: Sequence[Pool]) -> int:
    """How many addresses there are in pools."""
    return sum(int(ipaddress.ip_address(it.end)) - int(ipaddress.ip_address(it.start)) + 1 for it in pools)


def _refuse_dhcp(network: Network) -> None:
    if network.prefixlen > network.max_prefixlen - 2:
        raise invalid_input("Subnet has a prefix length that is incompatible with DHCP service enabled")
    for kind, it in (("Multicast", network.is_multicast), ("Loopback", network.is_loopback)):
        if it:
            raise invalid_input(f"{kind} IP subnet is not supported if enable_dhcp is True")


def _refuse_modes(subnet: Subnet, network: Network) -> None:
    ra, mode = subnet.ipv6_ra_mode, subnet.ipv6_address_mode
    if ra is None and mode is None:
        return
    if subnet.ip_version == 4:
        raise invalid_input("ipv6_ra_mode and ipv6_address_mode are not valid when ip_version is 4")
    if not subnet.enable_dhcp:
        raise invalid_input("ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False")
    if ra and mode and ra != mode:
        raise invalid_input(
            f"ipv6_ra_mode set to '{ra}' with ipv6_address_mode set to '{mode}' is not valid. If both attributes are "
            "set, they must be the same value"
        )
    if {ra, mode} & {"slaac", "dhcpv6-stateless"} and network.prefixlen != EUI64_PREFIX:
        raise invalid_input(
            f"Invalid CIDR {subnet.cidr} for IPv6 address mode. OpenStack uses the EUI-64 address format, which "
            "requires the prefix to be /64"
        )


def _refuse_gateway(gateway_ip: str, version: int, network: Network) -> None:
    gateway = ipaddress.ip_address(gateway_ip)
    if gateway.version != version:
        raise _other_version("gateway_ip", gateway_ip, version)
    ends = {network.network_address, network.broadcast_address} if version == 4 else {network.network_address}
    if network.prefixlen < network.max_prefixlen - 1 and gateway in ends:
        raise invalid_input("Gateway is not valid on subnet")


def _refuse_pools(pools: Sequence[Pool], network: Network) -> None:
    for pool in pools:
        first, last = ipaddress.ip_address(pool.start), ipaddress.ip_address(pool.end)
        if first.version != network.version or last.version != network.version or int(first) > int(last):
            raise Invalid(f"The allocation pool {_shown(pool)} is not valid.", code="InvalidAllocationPool")
        lowest, highest = _usable(network)
        if int(first) < lowest or int(last) > highest:
            raise Invalid(
                f"The allocation pool {_shown(pool)} spans beyond the subnet cidr {network}.",
                code="OutOfBoundsAllocationPool",
            )
    ordered = sorted(pools, key=lambda pool: int(ipaddress.ip_address(pool.start)))
    for one, other in pairwise(ordered):
        if int(ipaddress.ip_address(one.end)) >= int(ipaddress.ip_address(other.start)):
            raise Conflict(
                f"Found overlapping allocation pools: {_shown(one)} {_shown(other)} for subnet {network}.",
                code="OverlappingAllocationPools",
            )


def _usable(network: Network) -> tuple[int, int]:
    """The first and last number that a pool may have."""
    first, last = int(network.network_address), int(network.broadcast_address)
    return (first + 1, last - (network.version == 4)) if last - first > 1 else (first, last)


def _refuse_gateway_in_pools(subnet: Subnet) -> None:
    if subnet.gateway_ip is None:
        return
    gateway = int(ipaddress.ip_address(subnet.gateway_ip))
    for pool in subnet.pools:
        if int(ipaddress.ip_address(pool.start)) <= gateway <= int(ipaddress.ip_address(pool.end)):
            raise Conflict(
                f"Gateway ip {subnet.gateway_ip} conflicts with allocation pool {_shown(pool)}.",
                code="GatewayConflictWithAllocationPools",
            )


def _refuse_servers(subnet: Subnet) -> None:
    if len(subnet.dns_nameservers) > DNS_SERVERS:
        raise Invalid(
            f"Unable to complete operation for {subnet.id}. The number of DNS nameservers exceeds the limit "
            f"{DNS_SERVERS}.",
            code="DNSNameServersExhausted",
        )
    for server in subnet.dns_nameservers:
        if ipaddress.ip_address(server).version != subnet.ip_version:
            raise _other_version("dns_nameserver", server, subnet.ip_version)


def _refuse_routes(routes: Sequence[HostRoute], subnet: Subnet) -> None:
    if len(routes) > HOST_ROUTES:
        raise Invalid(
            f"Unable to complete operation for {subnet.id}. The number of host routes exceeds the limit {HOST_ROUTES}.",
            code="HostRoutesExhausted",
        )
    for route in routes:
        if ipaddress.ip_network(route.destination).version != subnet.ip_version:
            raise _other_version("destination", route.destination, subnet.ip_version)
        if ipaddress.ip_address(route.nexthop).version != subnet.ip_version:
            raise _other_version("nexthop", route.nexthop, subnet.ip_version)


def _other_version(name: str, value: str, version: int) -> Invalid:
    return invalid_input(f"{name} '{value}' does not match the ip_version '{version}'")


def _inside(ip: str, network: Network) -> bool:
    return ipaddress.ip_address(ip) in network


def _shown(pool: Pool) -> str:
    return f"{pool.start}-{pool.end}"
