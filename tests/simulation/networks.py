"""The network side of a simulated world: agents on its hosts, and the read model that they are told from, in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from agents.network.agent import NetworkAgent
from agents.network.link import BrokerNetworkLink
from agents.network.simulated import SimulatedNetwork
from agents.network.store import Held
from agents.network.world import World as Wired
from bus.memory_log import MemoryLog
from handlers.compute.ports import device_of
from handlers.network.routing import feet
from projections.network.delta import Change, Common, Delta, Deltas, deltas
from projections.network.model import Model
from projections.network.places import COMMON, FOLLOWED, Place
from schema.compute.server_state import Server
from schema.event import State
from schema.network.floating_ip import FloatingIp
from schema.network.port_state import Port
from schema.network.quota import UNLIMITED, NetworkUsage
from schema.network.router import Router
from schema.network.security_group import SecurityGroup
from schema.network.subnet import Subnet
from schema.network.trunk import Trunk
from schema.network.wiring import Piece, link_name
from tests.network.wiring import holding
from tests.simulation.bus import HostEnd
from tests.simulation.loop import Owner

if TYPE_CHECKING:
    from tests.simulation.world import World

NETWORK_LEASE_SECONDS = 4.0
COUNTED: dict[str, tuple[type[State], Callable[[Any], int]]] = {
    "port": (Port, lambda port: 1),
    "security_group": (SecurityGroup, lambda group: 1),
    "security_group_rule": (SecurityGroup, lambda group: len(group.rules)),
    "trunk": (Trunk, lambda trunk: 1),
}
"""What quotas count: of which kind, and how many of them one thing is."""


class Book:
    """What `projections.network.host` keeps in a table: every host's pieces, as of the position that changed them."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.model = Model()
        self.position = 0
        self._rows: dict[Place, tuple[int, Piece | None]] = {}
        self._newest: dict[str, int] = {}

    def follow(self) -> Deltas:
        """Up to the end of the log; what that changed."""
        fresh = self._log.events[self.position :]
        if not fresh:
            return {}
        for event in fresh:
            self.model.apply(event)
        self.position = fresh[-1].position
        changed: dict[Place, Change] = {}
        for place in self.model.take():
            piece = self.model.piece(*place)
            before = self._rows.get(place, (0, None))[1]
            if before != piece:
                self._rows[place] = (self.position, piece)
                changed[place] = Change(piece, before is None)
        return deltas(self.model, self._newest, self.position, changed)

    async def lacking(self, holding: Mapping[str, int]) -> Deltas:
        found: Deltas = {}

        def of(host: str, since: int, position: int) -> Delta:
            delta = found.setdefault(host, Delta(since=since, position=0, full=since == 0))
            delta.position = max(delta.position, position)
            return delta

        for host, since in holding.items():
            follows: dict[str, int] = {}
            for (holder, key), (position, piece) in self._rows.items():
                if holder != host:
                    continue
                if piece is not None and key.partition("/")[0] in FOLLOWED:
                    follows[COMMON + key] = since if position <= since else 0
                if position > since:
                    delta = of(host, since, position)
                    if piece is not None or not delta.full:
                        self._put(delta, key, piece)
            for (holder, key), (position, piece) in self._rows.items():
                if holder in follows and position > follows[holder]:
                    delta = of(host, since, position)
                    if not delta.common or delta.common[-1].of != holder.removeprefix(COMMON):
                        delta.common.append(Common(holder.removeprefix(COMMON)))
                    self._put(delta.common[-1], key, piece)
        return found

    @staticmethod
    def _put(delta: Delta | Common, key: str, piece: Piece | None) -> None:
        if piece is not None:
            delta.pieces[key] = piece
        else:
            delta.gone.append(key)


class Disk:
    """What a network agent keeps; it outlives the agent, and now and then it is an older state of it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._held = Held()

    def load(self) -> Held:
        return self._held

    async def save(self, held: Held) -> None:
        if self._world.random.random() < self._world.network.trouble / 4:
            raise OSError("the disk is full")
        self._held = held


class NetworkSide:
    """A machine's network: what is wired outlives its agent."""

    def __init__(self, world: World, machine: str) -> None:
        self.world = world
        self.name = link_name(machine)
        self.machine = machine
        self.disk = Disk(world)
        self.driver = SimulatedNetwork(machine)
        self.owner = Owner(self.name)
        self.owner.dead = True

    def start(self) -> None:
        if not self.owner.dead:
            return
        self.owner = Owner(self.name)
        wired, self.driver = self.driver.world, SimulatedNetwork(self.machine)
        self.driver.world = wired
        link = BrokerNetworkLink(HostEnd(self.name, self.world.network))
        agent = NetworkAgent(
            self.machine,
            self.driver,
            link,
            store=self.disk,
            lease_seconds=NETWORK_LEASE_SECONDS,
            sweep_seconds=15.0,
        )
        self.world.watch(self.world.loop.spawn(self.owner, agent.run()), self.name)

    def kill(self) -> None:
        self.world.bury(self.owner)

    def lose_power(self) -> None:
        """What was wired is not any more; what is on disk stays."""
        self.kill()
        self.driver.world = Wired({})


def as_the_log_says(world: World) -> Iterator[str]:
    """In the end each host has wired what the log says, and nothing else."""
    for machine in world.machines:
        if machine.gone:
            continue
        wanted, wired = holding(world.book.model, machine.name), machine.wiring.driver.world.pieces
        for key in sorted(wanted.keys() | wired.keys()):
            if _apart_from_generation(key, wanted.get(key)) != _apart_from_generation(key, wired.get(key)):
                yield f"{machine.name} has {key} as {wired.get(key)}, the log says {wanted.get(key)}"


def _apart_from_generation(key: str, piece: Piece | None) -> object:
    """A router's generation rises with what its host says of it, and is not told for that alone."""
    return msgspec.structs.replace(piece, generation=0) if piece is not None and key.startswith("router/") else piece


def never_broken(world: World) -> Iterator[str]:
    """What an append can never leave broken: addresses, and whose a port is."""
    ports, subnets, servers, floating, routers = (
        world.states(kind) for kind in (Port, Subnet, Server, FloatingIp, Router)
    )
    shown = Counter((it.subnet_id, it.ip_address) for port in ports.values() if port.living for it in port.fixed_ips)
    for (subnet_id, ip), times in shown.items():
        if times > 1:
            yield f"{times} ports have the address {ip} of {subnet_id}"
    for port in ports.values():
        for it in port.fixed_ips if port.living else ():
            if not subnets[it.subnet_id].allocation.given_to(it.ip_address, port.id):
                yield f"port {port.id} shows {it.ip_address} of {it.subnet_id}, which was not given to it"
    for id, subnet in subnets.items():
        mine = sum(1 for subnet_id, _ in shown if subnet_id == id)
        if len(subnet.allocation) != mine:
            yield f"subnet {id} has given out {len(subnet.allocation)} addresses, ports have {mine}"
    for id, port in ports.items():
        owner = servers.get(port.device_id) if port.device_owner.startswith("compute:") and port.living else None
        if port.living and port.device_owner.startswith("compute:") and (owner is None or not owner.living):
            yield f"port {id} outlives its server {port.device_id}"
        # One that could not be taken in somewhere is off, and has no place before the next host has it.
        seeking = owner is not None and owner.move is not None and bool(owner.move.tried) and not owner.move.departed
        if owner is not None and owner.living and port.host != (owner.host or "") and (port.host or not seeking):
            yield f"port {id} is bound to {port.host or 'no host'}, its server is on {owner.host}"
        if owner is not None and owner.nic(id) is None:
            yield f"port {id} belongs to {owner.id}, which has no such card"
    for id, it in floating.items():
        if it.port_id and not ports[it.port_id].living:
            yield f"floating IP {id} leads to port {it.port_id}, which is gone"
        if bool(it.router_id) != bool(it.port_id):
            yield f"floating IP {id} leads to {it.port_id} through {it.router_id}"
    for id, router in routers.items():
        for floating_id in router.floating:
            if floating[floating_id].router_id != id:
                other = floating[floating_id].router_id
                yield f"router {id} serves floating IP {floating_id}, which is led through {other}"
    for usage in world.states(NetworkUsage).values():
        kind, count = COUNTED[usage.name]
        there = sum(count(it) for it in world.states(kind).values() if it.living and it.project_id)
        if usage.used != there:
            yield f"{usage.used} of {usage.name} are counted, there are {there}"
        if usage.name == "port" and UNLIMITED != world.ports_at_most < usage.used:
            yield f"there are {usage.used} ports, {world.ports_at_most} were allowed"
    yield from _members(world)


def _members(world: World) -> Iterator[str]:
    """What ports are in is there: groups, and trunks, which know them."""
    groups, trunks = world.states(SecurityGroup), world.states(Trunk)
    for id, port in world.states(Port).items():
        for group_id in port.security_group_ids if port.living else ():
            if not groups[group_id].living:
                yield f"port {id} is in group {group_id}, which is gone"
        if port.living and port.trunk_id:
            trunk = trunks[port.trunk_id]
            known = {it.port_id for it in trunk.subports} | {trunk.port_id}
            if not trunk.living or id not in known:
                yield f"port {id} is in trunk {trunk.id}, which knows {sorted(known) if trunk.living else 'none'}"
    for id, group in groups.items():
        for rule in group.rules if group.living else ():
            if rule.remote_group_id and not groups[rule.remote_group_id].living:
                yield f"a rule of group {id} names {rule.remote_group_id}, which is gone"
    for id, trunk in trunks.items():
        for port_id in (trunk.port_id, *(it.port_id for it in trunk.subports)) if trunk.living else ():
            port = world.states(Port)[port_id]
            if not port.living or port.trunk_id != id:
                yield f"trunk {id} has port {port_id}, which is in {port.trunk_id or 'none'}"


def where_they_belong(world: World) -> Iterator[str]:
    """In the end each router is on one host that is alive, its feet with it, and subports are with their parents."""
    alive = {machine.name: machine for machine in world.machines if not machine.gone}
    ports = world.states(Port)
    for id, router in world.states(Router).items():
        if alive and router.host not in alive:
            yield f"router {id} is on {router.host or 'no host'}, alive are {sorted(alive)}"
        has_it = [name for name, it in alive.items() if f"router/{id}" in it.wiring.driver.world.pieces]
        if alive and has_it != [router.host]:
            yield f"router {id} is on {router.host}, hosts {has_it} have it"
        for port_id in feet(router):
            if ports[port_id].host != router.host:
                yield f"router {id} is on {router.host}, its port {port_id} on {ports[port_id].host}"
    for id, port in ports.items():
        if port.living and port.subport_of and port.host != ports[port.subport_of].host:
            yield f"port {id} is on {port.host or 'no host'}, its trunk on {ports[port.subport_of].host or 'none'}"


def as_their_ports_are(world: World) -> Iterator[str]:
    """In the end servers show of their cards what is so."""
    lost = {machine.name for machine in world.machines if machine.gone}
    ports, leading = world.states(Port), world.states(FloatingIp)
    for id, server in world.states(Server).items():
        for nic in server.nics if server.living else ():
            port = ports[nic.port_id]
            outside = {it.floating_ip_address for it in leading.values() if it.living and it.port_id == port.id}
            if nic.port_gone and server.host in lost:
                continue  # the guest may have it still: nobody can take it out
            if not port.living or device_of(port) != id:
                yield f"server {id} has a card of port {port.id}, which is gone or another's"
            elif [it.ip for it in nic.addresses] != [it.ip_address for it in port.fixed_ips]:
                yield f"server {id} shows {nic.addresses}, its port {port.id} has {port.fixed_ips}"
            elif {ip for it in nic.addresses for ip in it.floating} != outside:
                yield f"server {id} shows {nic.addresses}, to its port {port.id} lead {outside}"
