"""What a server's ports want of its host: to be plugged, and the physical network that they are in.

    ports of its cards ──▶ the segments they may be in: those of their addresses' subnets; of ports that wait for a host
        to have addresses, those with some left; else all of the network's
        ──▶ physical networks of which the host must be on one; none where a segment needs none

Neutron's routed networks are this: each segment lies on the physical network of some racks, and has subnets of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from bus.cloud import Cloud
from handlers.compute.ports import ports_of
from handlers.network.deferring import routed, segments_with_room, waiting
from schema.compute.server_state import Server
from schema.network.network import NETWORK, Network
from schema.network.port_state import Port
from schema.network.subnet import SUBNET, Subnet

NORMAL = "normal"


class PortWants(msgspec.Struct, frozen=True):
    """`vnic_types`: besides normal. `reach`: of each set, the host must be on one."""

    vnic_types: frozenset[str] = frozenset()
    reach: tuple[frozenset[str], ...] = ()
    full: str = ""
    """A network that has no address left for them, in any segment."""


NOTHING = PortWants()


async def wants_of(cloud: Cloud, servers: Sequence[Server]) -> dict[str, PortWants]:
    """By server, of those that want anything. Three queries at most, and none for what is remembered."""
    documents = await ports_of(cloud, servers)
    ports: dict[str, Port] = {id: it.state for id, it in documents.items() if it.state.living}
    networks = await networks_of(cloud, {port.network_id for port in ports.values()})
    subnets = await _subnets_of(cloud, ports.values(), networks)
    found = {}
    for server in servers:
        its = [port for nic in server.nics if (port := ports.get(nic.port_id)) is not None]
        if its and (wants := port_wants(its, networks, subnets)) != NOTHING:
            found[server.id] = wants
    return found


def port_wants(ports: Iterable[Port], networks: Mapping[str, Network], subnets: Mapping[str, Subnet]) -> PortWants:
    """`subnets`: those of the ports' addresses, where they are physical; and of networks where ports wait for one."""
    types, reach, full = set[str](), set[frozenset[str]](), ""
    for port in ports:
        types.add(port.binding.vnic_type)
        network = networks.get(port.network_id)
        of = [subnets[it.subnet_id] for it in port.fixed_ips if it.subnet_id in subnets]
        own = {it.segment_id for it in of if it.segment_id}
        if network is not None and waiting(port):
            of = [subnets[it] for it in network.subnet_ids if it in subnets]
            own = set(segments_with_room(of))
            full = full or (network.id if routed(of) and not own else "")
        reach.add(physical_networks(network, own))
    return PortWants(
        vnic_types=frozenset(types - {NORMAL, ""}),
        reach=tuple(sorted(reach - {frozenset()}, key=sorted)),
        full=full,
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


async def _subnets_of(cloud: Cloud, ports: Iterable[Port], networks: Mapping[str, Network]) -> dict[str, Subnet]:
    ids: set[str] = set()
    for port in ports:
        network = networks.get(port.network_id)
        if network is not None and waiting(port):
            ids.update(network.subnet_ids)
        elif network is not None and any(it.physical_network for it in network.segments):
            ids.update(it.subnet_id for it in port.fixed_ips)
    streams = [SUBNET.stream(id) for id in sorted(ids)]
    documents = await cloud.executor.load(streams) if streams else {}
    return {it.id: it.state for it in documents.values() if it.state.living}
