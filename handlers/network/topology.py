"""A project's auto-allocated topology: a network, its subnets and a router to the default external network, at once.

GET ─▶ none there: network + subnets + router with its way out, one append; whoever loses the race finds the other's
    ─▶ some subnet not joined (just made, or the process died in between): the router joins it
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from bus import clock
from bus.cloud import Cloud
from bus.documents import AnyOf, Where
from bus.execute import AlreadyTaken, Context, Wish
from handlers.network.addressing import Picks, unmaking, with_addresses
from handlers.network.allotting import Allotted, NoDefaultPool, PoolWanted, allotted
from handlers.network.dividing import subnets_laid
from handlers.network.ending import network_ended
from handlers.network.joining import GatewayWanted, gateway, join_subnet
from handlers.network.network import NETWORKS
from handlers.network.qos_policy import default_policy, using
from handlers.network.quota import giving_back, taking
from handlers.network.ranges import default_gateway, default_pools
from handlers.network.router import ROUTERS, Outdated
from handlers.network.segment import Carriers, Numbering, SegmentWanted, mtu_for, segment, with_numbers
from schema.network.network import NETWORK, TOPOLOGY, CreateNetwork, Network
from schema.network.port import PORT
from schema.network.router import ROUTER, CreateRouter, DeleteRouter, RemoveRouterInterface, Router
from schema.network.subnet import SUBNET, CreateSubnet
from schema.refusal import Conflict

OWN_RANGE = "10.0.0.0/24"
"""The subnet's, where no default subnet pool says otherwise: behind SNAT, a project's ranges are its own affair."""


async def topology(cloud: Cloud, project_id: str) -> Network | None:
    """The project's, if it has one."""
    where = [Where("project_id", "=", project_id), Where("topology_router_id", "is", True)]
    found = await cloud.documents.find(NETWORK, where=where, limit=1)
    return found[0].state if found else None


async def allocated(cloud: Cloud, project_id: str, of: Carriers, by: Context) -> Network:
    """The project's, made if it had none, whole in any case. Raises Conflict when there is no way out to have."""
    network = await topology(cloud, project_id)
    if network is None:
        outside = await default_outside(cloud, project_id)
        try:
            network = await _made(cloud, project_id, outside, of, by)
        except AlreadyTaken as taken:
            if taken.scope != TOPOLOGY:
                raise
            network = await topology(cloud, project_id)
            if network is None:
                raise
    for subnet_id in network.subnet_ids:
        await _join(cloud, network.topology_router_id, subnet_id, by)
    return network


async def default_outside(cloud: Cloud, project_id: str) -> Network:
    """The default external network. Raises Conflict when the project has none."""
    visible = AnyOf(
        [
            [Where("project_id", "=", project_id)],
            [Where("external_for", "has", "*")],
            [Where("external_for", "has", project_id)],
        ]
    )
    where: list[Where | AnyOf] = [Where("is_default", "=", True), Where("external_for", "is", True), visible]
    found = await cloud.documents.find(NETWORK, where=where, limit=1)
    if not found:
        raise Conflict("Deployment error: No default router:external network.", code="AutoAllocationFailure")
    network: Network = found[0].state
    return network


async def taken_down(cloud: Cloud, project_id: str, by: Context) -> None:
    """Its end, if there is one. Raises Conflict when somebody's ports are in it."""

    async def attempt(picks: Picks) -> None:
        network = await topology(cloud, project_id)
        if network is None:
            return
        wishes, ports = await _router_ended(cloud, network.topology_router_id)
        await cloud.executor.execute(*wishes, *await network_ended(cloud, network, with_them=ports), by=by)

    await with_addresses(cloud, attempt)


async def _made(cloud: Cloud, project_id: str, outside: Network, of: Carriers, by: Context) -> Network:
    network_id, router_id = clock.uuid4(), clock.uuid4()

    async def numbered(numbering: Numbering) -> Network:
        segments = await numbering.numbered([segment(SegmentWanted(), of)], project_id)
        policy_id = await default_policy(cloud, project_id)
        network = CreateNetwork(
            name="auto_allocated_network",
            project_id=project_id,
            mtu=mtu_for(0, segments),
            qos_policy_id=policy_id,
            segments=segments,
            topology_router_id=router_id,
        )

        async def attempt(picks: Picks) -> Network:
            way, wishes = await gateway(cloud, picks, router_id, None, GatewayWanted(network_id=outside.id))
            router = CreateRouter(name="auto_allocated_router", project_id=project_id, gateway=way)
            dividing, ranges = await _subnets(cloud, project_id, network_id)
            laid = await subnets_laid(cloud, {network_id: _born(network_id, network)}, dividing)
            counted = chain(
                await taking(cloud, project_id, "network", [network_id]),
                await taking(cloud, project_id, "router", [router_id]),
                using(policy_id, project_id),
            )
            making = [Wish(NETWORKS, network_id, network), Wish(ROUTERS, router_id, router)]
            documents = await cloud.executor.execute(*making, *wishes, *laid, *ranges, *counted, by=by)
            made: Network = documents[0].state
            return made

        return await with_addresses(cloud, attempt)

    return await with_numbers(cloud, of, numbered)


def _born(id: str, command: CreateNetwork) -> Network:
    return Network(id=id, project_id=command.project_id, mtu=command.mtu)


async def _subnets(
    cloud: Cloud, project_id: str, network_id: str
) -> tuple[list[tuple[str, CreateSubnet]], Sequence[Wish]]:
    """One of each family there is a default pool of; at least an IPv4 one."""
    dividing: list[tuple[str, CreateSubnet]] = []
    wishes: list[Wish] = []
    for version in (4, 6):
        id = clock.uuid4()
        of = await _range(cloud, id, project_id, network_id, version)
        if of is None:
            continue
        router = default_gateway(of.cidr)
        slaac = "slaac" if version == 6 else None
        command = CreateSubnet(
            name=f"auto_allocated_subnet_v{version}",
            project_id=project_id,
            parent_id=network_id,
            ip_version=version,
            cidr=of.cidr,
            gateway_ip=router,
            pools=default_pools(of.cidr, router),
            ipv6_ra_mode=slaac,
            ipv6_address_mode=slaac,
            subnetpool_id=of.subnetpool_id or None,
        )
        dividing.append((id, command))
        wishes += of.wishes
    return dividing, wishes


async def _range(cloud: Cloud, id: str, project_id: str, network_id: str, version: int) -> Allotted | None:
    wanted = PoolWanted(subnet_id=id, project_id=project_id, network_id=network_id, ip_version=version)
    try:
        return await allotted(cloud, wanted)
    except NoDefaultPool:
        return Allotted(OWN_RANGE, "") if version == 4 else None


async def _join(cloud: Cloud, router_id: str, subnet_id: str, by: Context) -> None:
    async def attempt(picks: Picks) -> None:
        found = await cloud.executor.load([ROUTER.stream(router_id), SUBNET.stream(subnet_id)])
        router, subnet = found.get(ROUTER.stream(router_id)), found.get(SUBNET.stream(subnet_id))
        if router is None or subnet is None or not (router.state.living and subnet.state.living):
            return
        if router.state.in_subnet(subnet_id) is None:
            joined = await join_subnet(cloud, picks, router.state, subnet.state)
            await cloud.executor.execute(*joined.wishes, by=by)

    await with_addresses(cloud, attempt)


async def _router_ended(cloud: Cloud, id: str) -> tuple[list[Wish], frozenset[str]]:
    """A router's end with all its feet, and the ports that go with it."""
    document = (await cloud.executor.load([ROUTER.stream(id)])).get(ROUTER.stream(id))
    if document is None or not document.state.living:
        return [], frozenset()
    router: Router = document.state
    feet = [foot.port_id for foot in router.interfaces]
    ids = [*feet, *([router.gateway.port_id] if router.gateway else [])]
    ports = [it.state for it in (await cloud.executor.load([PORT.stream(it) for it in ids])).values()]
    wishes: list[Wish] = []
    changes = router.changes
    for port_id in feet:
        wishes.append(Wish(ROUTERS, id, RemoveRouterInterface(port_id=port_id, expected=changes)))
        changes += 1
    wishes.append(Wish(ROUTERS, id, DeleteRouter(expected=changes)))
    for port in ports:
        if not port.living:
            raise Outdated(f"Router {id} was changed by somebody else meanwhile; try again.", code="Conflict")
        wishes += unmaking(port)
    return [*wishes, *giving_back(router.project_id, "router", [id])], frozenset(ids)
