"""What a server's ports want of its host: to be plugged, and the physical network that they are in.

    ports of its cards ──▶ the segments they may be in: those of their addresses' subnets, else all of the network's
        ──▶ physical networks of which the host must be on one; none where a segment needs none

Neutron's routed networks are this: each segment lies on the physical network of some racks, and has subnets of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from bus.cloud import Cloud
from handlers.compute.ports import ports_of
from schema.compute.server_state import Server
from schema.network.network import NETWORK, Network
from schema.network.port import Port
from schema.network.subnet import SUBNET

NORMAL = "normal"


class PortWants(msgspec.Struct, frozen=True):
    """`vnic_types`: besides normal. `reach`: of each set, the host must be on one."""

    vnic_types: frozenset[str] = frozenset()
    reach: tuple[frozenset[str], ...] = ()


NOTHING = PortWants()


async def wants_of(cloud: Cloud, servers: Sequence[Server]) -> dict[str, PortWants]:
    """By server, of those that want anything. Three queries at most, and none for what is remembered."""
    documents = await ports_of(cloud, servers)
    ports: dict[str, Port] = {id: it.state for id, it in documents.items() if it.state.living}
    networks = await networks_of(cloud, {port.network_id for port in ports.values()})
    segments = await _segments_of(cloud, [it for it in ports.values() if _physical(networks.get(it.network_id))])
    found = {}
    for server in servers:
        its = [port for nic in server.nics if (port := ports.get(nic.port_id)) is not None]
        if its and (wants := port_wants(its, networks, segments)) != NOTHING:
            found[server.id] = wants
    return found


def port_wants(ports: Iterable[Port], networks: Mapping[str, Network], segments: Mapping[str, str]) -> PortWants:
    """`segments`: subnet → the segment it is in, of those that are in one."""
    types, reach = set[str](), set[frozenset[str]]()
    for port in ports:
        types.add(port.binding.vnic_type)
        own = {segments[it.subnet_id] for it in port.fixed_ips if it.subnet_id in segments}
        reach.add(physical_networks(networks.get(port.network_id), own))
    return PortWants(
        vnic_types=frozenset(types - {NORMAL, ""}),
        reach=tuple(sorted(reach - {frozenset()}, key=sorted)),
    )


def physical_networks(network: Network | None, segments: Iterable[str] = ()) -> frozenset[str]:
    """Those of which one would do for a port in these segments of a network (none: any of it); empty: any host will."""
    own = set(segments)
    able = [it for it in network.segments if not own or it.id in own] if network is not None else []
    if any(it.physical_network is None for it in able):
        return frozenset()
    return frozenset(it.physical_network for it in able if it.physical_network)


async def networks_of(cloud: Cloud, ids: Iterable[str]) -> dict[str, Network]:
    streams = [NETWORK.stream(id) for id in sorted(ids)]
    documents = await cloud.executor.load(streams) if streams else {}
    return {it.id: it.state for it in documents.values() if it.state.living}


async def _segments_of(cloud: Cloud, ports: Iterable[Port]) -> dict[str, str]:
    streams = sorted({SUBNET.stream(it.subnet_id) for port in ports for it in port.fixed_ips})
    documents = await cloud.executor.load(streams) if streams else {}
    return {it.id: it.state.segment_id for it in documents.values() if it.state.segment_id}


def _physical(network: Network | None) -> bool:
    return network is not None and any(it.physical_network for it in network.segments)
