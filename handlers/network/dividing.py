"""How subnets come, change and go: with their network's knowledge, its DHCP port, and addresses that follow from MACs.

Each gives the wishes of one append; together with `with_addresses` they are made anew when others were quicker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from bus.cloud import Cloud
from bus.documents import Where
from bus.execute import Wish
from handlers.network.addressing import Picks, Wanted, eui64, follows_mac
from handlers.network.allotting import given_back
from handlers.network.dhcp import Spot, answering, is_dhcp, silent
from handlers.network.network import NETWORKS
from handlers.network.network import not_found as network_not_found
from handlers.network.port import PORTS
from handlers.network.quota import giving_back, taking
from handlers.network.ranges import SMALLEST_MTU, refuse_subnet
from handlers.network.subnet import SUBNETS, in_use
from schema.changes import differing, given
from schema.network.network import NETWORK, AddNetworkSubnet, Network, NoteSubnetChange, RemoveNetworkSubnet
from schema.network.port import PORT
from schema.network.port_command import AddPortAddress, RemovePortAddress
from schema.network.port_state import DHCP, FixedIp, Port
from schema.network.subnet import (
    AllocateAddress,
    CreateSubnet,
    DeleteSubnet,
    ReleaseAddress,
    Subnet,
    UpdateSubnet,
)
from schema.refusal import Conflict

CHOSEN = frozenset({"network:router_interface", "network:router_gateway", "network:floatingip", DHCP})
"""Owners of ports that get no address of themselves when a subnet comes whose addresses follow from MACs."""


async def subnets_made(cloud: Cloud, wanted: Sequence[tuple[str, CreateSubnet]]) -> list[Wish]:
    """New subnets by id, first of all their own wishes in that order. Raises NotFound, Invalid, Conflict."""
    networks = await _networks(cloud, list(dict.fromkeys(command.parent_id or "" for _, command in wanted)))
    return await subnets_laid(cloud, networks, wanted)


async def subnets_laid(
    cloud: Cloud, networks: Mapping[str, Network], wanted: Sequence[tuple[str, CreateSubnet]]
) -> list[Wish]:
    """The same in networks that are known already, or are made in the same append."""
    making: list[Wish] = []
    knowing: list[Wish] = []
    following: list[Wish] = []
    by_network: dict[str, list[Subnet]] = {}
    by_project: dict[str, list[str]] = {}
    for id, command in wanted:
        subnet = Subnet(id=id, **given(command))
        refuse_subnet(subnet)
        by_network.setdefault(subnet.network_id, []).append(subnet)
        by_project.setdefault(subnet.project_id, []).append(id)
        making.append(Wish(SUBNETS, id, command))
        knowing.append(Wish(NETWORKS, subnet.network_id, AddNetworkSubnet(subnet_id=id, cidr=subnet.cidr)))
    for id, subnets in by_network.items():
        network = networks[id]
        for subnet in subnets:
            refuse_mtu(network, network.mtu, subnet)
        spots = [Spot(it, _first(it)) for it in subnets if it.enable_dhcp and (it.pools or follows_mac(it))]
        following += await answering(cloud, network, spots)
        following += await _followed(cloud, id, [it for it in subnets if follows_mac(it)])
    for project_id, ids in by_project.items():
        following += await taking(cloud, project_id, "subnet", ids)
    return [*making, *knowing, *following]


async def subnet_changed(cloud: Cloud, picks: Picks, before: Subnet, change: UpdateSubnet) -> list[Wish]:
    """A subnet's change, first of all its own. Raises Invalid, Conflict."""
    after = replace(before, **given(change))
    refuse_subnet(after)
    if after.gateway_ip != before.gateway_ip:
        await _refuse_taken_gateway(cloud, before)
    wishes = [Wish(SUBNETS, before.id, change)]
    if differing(before, change):
        told = NoteSubnetChange(subnet_id=before.id, revision=before.revision + 1)
        wishes.append(Wish(NETWORKS, before.network_id, told))
    if after.enable_dhcp and not before.enable_dhcp:
        network = (await _networks(cloud, [before.network_id]))[before.network_id]
        ip = ""
        if not follows_mac(after):
            [fixed] = (await picks.choose(network.id, [Wanted(subnet_id=before.id)], DHCP)).fixed_ips
            ip = fixed.ip_address
        wishes += await answering(cloud, network, [Spot(after, ip)])
    elif before.enable_dhcp and not after.enable_dhcp:
        for port, fixed in await _holders(cloud, before):
            if is_dhcp(port):
                wishes += silent(port, fixed)
    return wishes


async def subnet_ended(cloud: Cloud, subnet: Subnet) -> list[Wish]:
    """The end of a subnet that no port needs any more. Raises Conflict."""
    wishes: list[Wish] = []
    for port, fixed in await _holders(cloud, subnet):
        if is_dhcp(port):
            wishes += silent(port, fixed)
        elif follows_mac(subnet) and port.device_owner not in CHOSEN:
            wishes.append(Wish(PORTS, port.id, RemovePortAddress(fixed_ip=fixed)))
            wishes.append(Wish(SUBNETS, subnet.id, ReleaseAddress(ip=fixed.ip_address, port_id=port.id)))
        else:
            raise in_use(subnet.id)
    knowing = Wish(NETWORKS, subnet.network_id, RemoveNetworkSubnet(subnet_id=subnet.id))
    back = [*giving_back(subnet.project_id, "subnet", [subnet.id]), *given_back(subnet)]
    return [*wishes, Wish(SUBNETS, subnet.id, DeleteSubnet()), knowing, *back]


def refuse_mtu(network: Network, mtu: int, subnet: Subnet) -> None:
    """Raises Conflict when what its IP asks of every network does not fit through."""
    smallest = SMALLEST_MTU[subnet.ip_version]
    if mtu < smallest:
        raise Conflict(
            f"MTU of {network.id} is not valid, subnet requires a minimum of {smallest}",
            code="NetworkMTUSubnetConflict",
        )


async def caught_up(cloud: Cloud, subnets: Sequence[Subnet]) -> list[Wish]:
    """What ports still lack that came into a network while subnets did whose addresses follow from MACs."""
    wishes: list[Wish] = []
    for subnet in subnets:
        if follows_mac(subnet):
            wishes += await _followed(cloud, subnet.network_id, [subnet])
    return wishes


async def _followed(cloud: Cloud, network_id: str, subnets: Sequence[Subnet]) -> list[Wish]:
    """The ports that are there already get an address in each of these."""
    if not subnets:
        return []
    where = [Where("parent_id", "=", network_id), Where("device_owner", "not in", sorted(CHOSEN))]
    wishes = []
    for document in await cloud.documents.find(PORT, where=where, limit=None):
        has = {fixed.subnet_id for fixed in document.state.fixed_ips}
        for subnet in subnets:
            if subnet.id in has:
                continue
            fixed = FixedIp(subnet_id=subnet.id, ip_address=eui64(subnet.cidr, document.state.mac_address))
            wishes.append(Wish(PORTS, document.id, AddPortAddress(fixed_ip=fixed)))
            wishes.append(Wish(SUBNETS, subnet.id, AllocateAddress(ip=fixed.ip_address, port_id=document.id)))
    return wishes


async def _refuse_taken_gateway(cloud: Cloud, subnet: Subnet) -> None:
    """Raises Conflict when a router stands at the gateway's address."""
    if subnet.gateway_ip is None or not subnet.allocation.has(subnet.gateway_ip):
        return
    for port, fixed in await _holders(cloud, subnet):
        if fixed.ip_address == subnet.gateway_ip and port.device_owner == "network:router_interface":
            raise Conflict(
                f"Current gateway ip {subnet.gateway_ip} already in use by port {port.id}. Unable to update.",
                code="GatewayIpInUse",
            )


async def _holders(cloud: Cloud, subnet: Subnet) -> list[tuple[Port, FixedIp]]:
    """Who has which of its addresses."""
    if not subnet.taken:
        return []
    inside = Where("fixed_ips", "contains", [{"subnet_id": subnet.id}])
    where = [Where("parent_id", "=", subnet.network_id), inside]
    ports = [document.state for document in await cloud.documents.find(PORT, where=where, limit=None)]
    return [(port, fixed) for port in ports for fixed in port.fixed_ips if fixed.subnet_id == subnet.id]


async def _networks(cloud: Cloud, ids: Sequence[str]) -> dict[str, Network]:
    found = await cloud.executor.load([NETWORK.stream(id) for id in ids])
    for id in ids:
        document = found.get(NETWORK.stream(id))
        if document is None or not document.state.living:
            raise network_not_found(id)
    return {document.id: document.state for document in found.values()}


def _first(subnet: Subnet) -> str:
    return subnet.pools[0].start if subnet.pools else ""
