"""The end of networks and of security groups: what goes along is in the same append; somebody's ports keep them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from bus.cloud import Cloud
from bus.documents import Where
from bus.execute import Wish
from handlers.network.addressing import unmaking
from handlers.network.allotting import given_back
from handlers.network.dhcp import is_dhcp
from handlers.network.floating_ip import FLOATING_IPS
from handlers.network.network import NETWORKS
from handlers.network.quota import giving_back
from handlers.network.security_group import SECURITY_GROUPS, ending
from handlers.network.security_group import not_found as group_not_found
from handlers.network.sharable import forgetting
from handlers.network.subnet import SUBNETS
from schema.network.floating_ip import FLOATING_IP, DeleteFloatingIp
from schema.network.network import DeleteNetwork, Network, RemoveNetworkSubnet
from schema.network.port import PORT, macs_of
from schema.network.port_state import Port
from schema.network.security_group import SECURITY_GROUP, RemoveSecurityRule, SecurityGroup, named_by_rules
from schema.network.subnet import SUBNET, DeleteSubnet, Subnet
from schema.refusal import Conflict

FLOATING = "network:floatingip"


async def network_ended(cloud: Cloud, network: Network, *, with_them: Collection[str] = ()) -> list[Wish]:
    """The wishes that end it; StillHeld when a port comes into it meanwhile. Raises Conflict when some are there.

    `with_them`: ports whose own end is in the same append, before.
    """
    ports = [port for port in await _ports_in(cloud, network.id) if port.id not in with_them]
    wishes, idle = await _idle_ended(cloud, ports)
    used = [port.id for port in ports if not is_dhcp(port) and port.id not in idle]
    if used:
        raise in_use(network.id, used)
    subnets = await cloud.documents.get_many(SUBNET, network.subnet_ids)
    wishes += await forgetting(cloud, network.id)
    for port in ports:
        wishes += unmaking(port)
    for id in network.subnet_ids:
        wishes += [Wish(SUBNETS, id, DeleteSubnet()), Wish(NETWORKS, network.id, RemoveNetworkSubnet(subnet_id=id))]
        if id in subnets:
            subnet: Subnet = subnets[id].state
            wishes += [*giving_back(subnet.project_id, "subnet", [id]), *given_back(subnet)]
    wishes.append(Wish(NETWORKS, network.id, DeleteNetwork(), vacant=(macs_of(network.id),)))
    return [*wishes, *giving_back(network.project_id, "network", [network.id])]


async def group_ended(cloud: Cloud, id: str, *, even_default: bool) -> list[Wish]:
    """The wishes that end a security group, and the rules of others that name it.

    StillHeld when ports are in it, or rules name it by then. Raises NotFound.
    """
    stream = SECURITY_GROUP.stream(id)
    document = (await cloud.executor.load([stream])).get(stream)
    if document is None or not document.state.living:
        raise group_not_found(id)
    group: SecurityGroup = document.state
    naming = await cloud.log.holding([named_by_rules(id)])
    others = await cloud.executor.load([held.stream for held in naming])
    wishes: list[Wish] = []
    for held in naming:
        other: SecurityGroup = others[held.stream].state
        wishes.append(Wish(SECURITY_GROUPS, other.id, RemoveSecurityRule(rule_id=held.key)))
        wishes += giving_back(other.project_id, "security_group_rule", [held.key])
    return [
        *wishes,
        *await forgetting(cloud, id),
        ending(group, even_default=even_default),
        *giving_back(group.project_id, "security_group", [id]),
        *giving_back(group.project_id, "security_group_rule", [rule.id for rule in group.rules]),
    ]


async def _idle_ended(cloud: Cloud, ports: Iterable[Port]) -> tuple[list[Wish], set[str]]:
    """The end of floating IPs that lead nowhere, and their ports, whose end is not in it."""
    outer = {port.device_id: port.id for port in ports if port.device_owner == FLOATING}
    found = await cloud.documents.get_many(FLOATING_IP, list(outer)) if outer else {}
    idle = [it.state for it in found.values() if it.state.living and not it.state.router_id]
    wishes = []
    for floating in idle:
        wishes.append(Wish(FLOATING_IPS, floating.id, DeleteFloatingIp(expected=floating.changes)))
        wishes += giving_back(floating.project_id, "floatingip", [floating.id])
    return wishes, {outer[floating.id] for floating in idle}


async def _ports_in(cloud: Cloud, network_id: str) -> list[Port]:
    found = await cloud.documents.find(PORT, where=[Where("parent_id", "=", network_id)], limit=None)
    return [document.state for document in found]


def in_use(id: str, port_ids: Iterable[str]) -> Conflict:
    return Conflict(
        f"Unable to complete operation on network {id}. There are one or more ports still in use on the network, id "
        f"for these ports is: {','.join(port_ids)}.",
        code="NetworkInUse",
    )
