"""Where routers live: each on one network host that is alive and reaches its networks; moved when that is lost.

router with feet, on no host or a lost one ─▶ the fitting host with the fewest routers ─▶ RouterScheduled + its
ports bound there, one append a router, all routers of a lost host at once ─▶ nobody fits: on no host, until one does
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from bus.cloud import Cloud
from bus.execute import SYSTEM, Context, Wish
from bus.log import Document
from handlers.network.binding import Vif, binding, vifs
from handlers.network.port import PORTS
from handlers.network.router import ROUTERS, not_found
from schema.event import Kind
from schema.network.floating_ip import FLOATING_IP
from schema.network.host import NETWORK_HOST, NetworkHost
from schema.network.network import NETWORK, Network
from schema.network.port import PORT
from schema.network.port_command import ReportPortWired, UnbindPort
from schema.network.router import ROUTER, ReportRouterWired, Router, ScheduleRouter
from schema.network.wiring import RouterSeen
from schema.refusal import Conflict, Refused

log = structlog.get_logger()


class Needs(msgspec.Struct, frozen=True):
    """What a host must have for a router."""

    physical_networks: frozenset[str] = frozenset()
    capabilities: frozenset[str] = frozenset()


def fits(host: NetworkHost, needs: Needs) -> bool:
    """Whether a router may live there."""
    facts = host.facts
    return (
        host.up
        and facts.routes
        and needs.physical_networks <= set(facts.physical_networks)
        and needs.capabilities <= set(facts.capabilities)
    )


def choose(router: Router, needs: Needs, hosts: Iterable[NetworkHost], loads: Mapping[str, int]) -> str:
    """The host for a router: where it is, as long as that will do; else the one with the fewest; empty: none fits."""
    fitting = [host for host in hosts if fits(host, needs)]
    if any(host.id == router.host for host in fitting):
        return router.host
    open_to_it = [host for host in fitting if host.enabled and host.id != router.avoids]
    return min((host.id for host in open_to_it), key=lambda id: (loads.get(id, 0), id), default="")


def needs_of(router: Router, networks: Mapping[str, Network]) -> Needs:
    """What the networks it joins, and its VPN, ask of a host."""
    joined = [foot.network_id for foot in router.interfaces]
    if router.gateway:
        joined.append(router.gateway.network_id)
    segments = [segment for id in joined if id in networks for segment in networks[id].segments]
    capabilities = {"vlan" for it in segments if it.network_type == "vlan"} | ({"vpn"} if router.services else set())
    return Needs(
        physical_networks=frozenset(it.physical_network for it in segments if it.physical_network),
        capabilities=frozenset(capabilities),
    )


def feet(router: Router) -> list[str]:
    """The ports it stands on."""
    own = [foot.port_id for foot in router.interfaces]
    return [*own, router.gateway.port_id] if router.gateway else own


class RouterReactor:
    """`bus.consumer.Reactor` for routers and the hosts they live on. Make it before the mirrors start."""

    kinds: Sequence[Kind[Any]] = (ROUTER, NETWORK_HOST)

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._routers = cloud.mirror(ROUTER)
        self._hosts = cloud.mirror(NETWORK_HOST)
        self._networks = cloud.mirror(NETWORK)

    async def react(self, documents: Sequence[Document]) -> None:
        """Give these routers a host, and so those on these hosts if they are lost, and all that wait for one."""
        routers = {it.id: it.state for it in documents if isinstance(it.state, Router) and it.state.living}
        hosts = {document.id: document.state for document in self._hosts.values()}
        fresh = [it.state for it in documents if isinstance(it.state, NetworkHost)]
        for host in fresh:
            hosts[host.id] = host
        if fresh:
            changed = {host.id for host in fresh}
            for document in self._routers.values():
                if document.state.host in changed or not document.state.host:
                    routers.setdefault(document.id, document.state)
        living = [host for host in hosts.values() if host.living]
        loads = Counter(document.state.host for document in self._routers.values())
        moves: list[tuple[Router, str]] = []
        for id in sorted(routers):
            router = routers[id]
            place = self._host_for(router, living, loads)
            if place != router.host:
                loads[router.host] -= 1
                loads[place] += 1
            moves.append((router, place))
        await move(self._cloud, moves)

    async def sweep(self) -> None:
        """Look once more at routers without a living host: who moved them may have known less than is known by now."""
        hosts = [document.state for document in self._hosts.values()]
        alive = {host.id for host in hosts if host.up}
        astray = [it for it in self._routers.values() if it.state.host not in alive]
        if astray:
            loads = Counter(document.state.host for document in self._routers.values())
            await self.react([it for it in astray if self._host_for(it.state, hosts, loads) != it.state.host])

    def _host_for(self, router: Router, hosts: Sequence[NetworkHost], loads: Mapping[str, int]) -> str:
        if not feet(router):
            return router.host if any(it.id == router.host and it.up for it in hosts) else ""
        networks = {document.id: document.state for document in self._networks_of(router)}
        needs = needs_of(router, networks)
        without_vpn = msgspec.structs.replace(needs, capabilities=needs.capabilities - {"vpn"})
        host = choose(router, needs, hosts, loads) or choose(router, without_vpn, hosts, loads)
        if not host and any(it.id == router.host and it.up and it.facts.routes for it in hosts):
            return router.host  # no host reaches all it joins: what it can do where it is, it goes on doing
        return host

    def _networks_of(self, router: Router) -> list[Document]:
        joined = [foot.network_id for foot in router.interfaces]
        if router.gateway:
            joined.append(router.gateway.network_id)
        return [document for id in joined if (document := self._networks.get(id)) is not None]


async def move(cloud: Cloud, moves: Sequence[tuple[Router, str]], by: Context = SYSTEM) -> None:
    """Have these routers live there, each with its ports in one append, all at once.

    One that somebody else moved meanwhile is left to what that brings.
    """
    ports = await _ports(cloud, [router for router, _ in moves])
    plugs = await vifs(cloud, {host for router, host in moves if host and _astray(router, host, ports[router.id])})
    wanted = []
    for router, host in moves:
        wishes = _wishes(router, host, ports[router.id], plugs)
        if wishes:
            wanted.append((router, host, cloud.executor.submit(wishes, by)))
    outcomes = await asyncio.gather(*(result for _, _, result in wanted), return_exceptions=True)
    for (router, host, _), outcome in zip(wanted, outcomes, strict=True):
        if isinstance(outcome, Refused):
            log.info("router moved by others", router=router.id, host=host, why=outcome.message)
        elif isinstance(outcome, BaseException):
            raise outcome
        elif host != router.host:
            log.info("router moved", router=router.id, host=host, before=router.host)


async def place_by_hand(cloud: Cloud, router_id: str, host: str, by: Context) -> None:
    """An operator wants it there. Raises NotFound, Conflict."""
    router = await _router(cloud, router_id)
    found = (await cloud.executor.load([NETWORK_HOST.stream(host)])).get(NETWORK_HOST.stream(host))
    networks = await cloud.documents.get_many(NETWORK, [foot.network_id for foot in router.interfaces])
    if router.gateway:
        networks |= await cloud.documents.get_many(NETWORK, [router.gateway.network_id])
    needs = needs_of(router, {id: document.state for id, document in networks.items()})
    if found is None or not found.state.living or not fits(found.state, needs):
        raise Conflict(
            f"The L3 agent on {host} cannot host router {router_id}: it is down, routes nothing, or does not reach "
            "the router's networks.",
            code="InvalidL3Agent",
        )
    ports = await _ports(cloud, [router])
    plugs = await vifs(cloud, [host])
    await cloud.executor.execute(*_wishes(router, host, ports[router.id], plugs, always=True), by=by)


async def take_away_by_hand(cloud: Cloud, router_id: str, host: str, by: Context) -> None:
    """An operator wants it off that host; it goes where else it may, and not back there by itself."""
    router = await _router(cloud, router_id)
    if router.host != host:
        raise Conflict(
            f"The router {router_id} is not hosted by the L3 agent on {host}.", code="RouterNotHostedByL3Agent"
        )
    ports = await _ports(cloud, [router])
    await cloud.executor.execute(*_wishes(router, "", ports[router.id], {}, avoids=host), by=by)


def seen(host: str, reported: RouterSeen) -> Wish:
    """What a host says of a router that it has."""
    return Wish(ROUTERS, reported.router_id, ReportRouterWired(host=host, up=reported.up, fault=reported.fault))


async def _router(cloud: Cloud, id: str) -> Router:
    document = (await cloud.executor.load([ROUTER.stream(id)])).get(ROUTER.stream(id))
    if document is None or not document.state.living:
        raise not_found(id)
    router: Router = document.state
    return router


def _wishes(
    router: Router,
    host: str,
    ports: Collection[Document],
    plugs: Mapping[str, Vif],
    *,
    avoids: str = "",
    always: bool = False,
) -> list[Wish]:
    """Its move, and its ports' with it. Nothing to do: nothing.

    What is known of a port may be older than what is known of its router, or the other way round: all of them are told
    when it moves, and none without asking whether it still lives there.
    """
    moves = host != router.host or always or bool(avoids)
    astray = list(ports) if moves else _astray(router, host, ports)
    wishes: list[Wish] = []
    if moves or astray:
        avoided = avoids if moves else router.avoids
        wishes.append(Wish(ROUTERS, router.id, ScheduleRouter(host=host, avoids=avoided, lives_on=router.host)))
    wishes += [binding(port.id, host, plugs[host]) if host else Wish(PORTS, port.id, UnbindPort()) for port in astray]
    if host == router.host and (router.wired or not router.admin_state_up):
        # It is in place, or as much of it as will be while it is switched off; and so are its feet, new ones too: its
        # host has nothing more to say of it.
        wishes += [
            Wish(PORTS, port.id, ReportPortWired(host=host, generation=port.state.generation + 1, up=True))
            for port in ports
            if port.state.host != host or not port.state.wired
        ]
    return wishes


def _astray(router: Router, host: str, ports: Collection[Document]) -> list[Document]:
    """Which of its ports are to be told that it lives there."""
    return [port for port in ports if host != router.host or port.state.host != host]


async def _ports(cloud: Cloud, routers: Sequence[Router]) -> dict[str, list[Document]]:
    """The ports that are where their router is: its feet, and those of the floating IPs that lead through it."""
    floating = [FLOATING_IP.stream(id) for router in routers for id in router.floating]
    found = await cloud.executor.load(floating) if floating else {}
    outer = {document.id: document.state.outer_port_id for document in found.values() if document.state.living}
    wanted = {router.id: [*feet(router), *(outer[id] for id in router.floating if outer.get(id))] for router in routers}
    streams = [PORT.stream(id) for ids in wanted.values() for id in ids]
    documents = await cloud.executor.load(streams) if streams else {}
    there = {document.id: document for document in documents.values() if document.state.living}
    return {id: [there[port] for port in own if port in there] for id, own in wanted.items()}
