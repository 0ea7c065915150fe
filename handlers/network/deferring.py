"""Addresses that wait for a host: in a routed network, where a port is bound says of which subnets it may have some.

    no host, no address asked for ─▶ `deferred`: no addresses yet
        ─▶ bound to a host: one of each family, of subnets in segments that the host reaches, in the same append

A network is routed when subnets of it are in segments. Addresses that are asked for are given at once, wherever.
"""

from __future__ import annotations

from collections.abc import Iterable

from bus.cloud import Cloud
from handlers.network.addressing import Chosen, Picks, follows_mac, pick
from schema.network.host import NETWORK_HOST, NetworkHost
from schema.network.network import Network
from schema.network.port_state import Port
from schema.network.subnet import Subnet
from schema.refusal import Conflict

DEFERRED = "deferred"


class NotConnected(Conflict):
    """The host reaches no segment that has subnets."""

    def __init__(self, host: str, network_id: str) -> None:
        super().__init__(
            f"Host {host} is not connected to any segments on routed provider network '{network_id}'. "
            "It should be connected to one.",
            code="HostNotConnectedToAnySegment",
        )


def routed(subnets: Iterable[Subnet]) -> bool:
    return any(it.segment_id for it in subnets)


def waiting(port: Port) -> bool:
    """Whether it is to have addresses as soon as it has a host."""
    return port.ip_allocation == DEFERRED and not port.fixed_ips


def segments_with_room(subnets: Iterable[Subnet]) -> frozenset[str]:
    """The segments in which a port could have an address of each family that there is."""
    room: dict[str, dict[int, bool]] = {}
    for it in subnets:
        if it.segment_id:
            families = room.setdefault(it.segment_id, {})
            families[it.ip_version] = families.get(it.ip_version, False) or follows_mac(it) or _some_left(it)
    return frozenset(id for id, families in room.items() if all(families.values()))


async def addresses_at(
    cloud: Cloud, picks: Picks, network_id: str, host: str, *, owner: str, mac_address: str
) -> Chosen:
    """What a port of a routed network has on that host. Raises what `Picks.choose` raises, and NotConnected."""
    network = (await picks.know([network_id]))[network_id]
    found = (await cloud.executor.load([NETWORK_HOST.stream(host)])).get(NETWORK_HOST.stream(host))
    subnets = await picks.subnets(network_id)
    among = _within_reach(network, subnets, found.state if found is not None else None)
    if subnets and not among:
        raise NotConnected(host, network_id)
    return await picks.choose(network_id, None, owner, mac_address, among=among)


def _within_reach(network: Network, subnets: Iterable[Subnet], host: NetworkHost | None) -> frozenset[str]:
    """The subnets in segments that the host reaches, and those in none."""
    there = set(host.facts.physical_networks) if host is not None and host.living else set()
    reached = {it.id for it in network.segments if it.physical_network is None or it.physical_network in there}
    return frozenset(it.id for it in subnets if not it.segment_id or it.segment_id in reached)


def _some_left(subnet: Subnet) -> bool:
    return pick(subnet, (), 0.0) is not None
