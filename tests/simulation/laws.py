"""The laws that must hold whatever happens: some at every moment, the others once there has been time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from bus import clock
from handlers.compute.fate import hardware_of
from handlers.compute.move import second_host
from handlers.compute.moving import flavor_wanted
from handlers.placement.demand import demanded
from schema.compute.migration import OVER, Migration
from schema.compute.move import MoveRequested, Phase
from schema.compute.quota import Quota
from schema.compute.server import deadline
from schema.compute.server_state import Server
from schema.compute.task import Task, VmState
from schema.compute.topology import units_taken
from schema.event import kind_of
from schema.placement.consumer import Consumer
from schema.placement.provider import Provider
from tests.simulation.networks import as_the_log_says, as_their_ports_are, never_broken, where_they_belong
from tests.simulation.world import PROJECT, World

GRACE = timedelta(seconds=30)
"""A task may be this long past its deadline before somebody must have noticed; counted in good times only."""


def at_every_moment(world: World) -> Iterator[str]:
    """What an append can never leave broken."""
    servers = world.states(Server)
    consumers = world.states(Consumer)
    providers = world.states(Provider)
    held = {id: it.allocations for id, it in consumers.items() if it.living}
    wanted = dict(_claims_of(servers.values()))
    for id in held.keys() | wanted.keys():
        if held.get(id, {}) != wanted.get(id, {}):
            yield f"{id} holds {held.get(id) or 'nothing'} and should hold {wanted.get(id) or 'nothing'}"
    for id, provider in providers.items():
        sums: Counter[str] = Counter()
        for resources in provider.claims.values():
            sums.update(resources)
        if {name: n for name, n in provider.used.items() if n} != {name: n for name, n in sums.items() if n}:
            yield f"provider {id} counts {provider.used}, its claims add up to {dict(sums)}"
        for name, amount in provider.used.items():
            capacity = provider.inventories[name].capacity
            if amount > capacity:
                yield f"provider {id} gave away {amount} {name} of {capacity}"
        claims = {consumer: it[id] for consumer, it in held.items() if id in it}
        if claims != dict(provider.claims):
            yield f"provider {id} and its consumers disagree: {provider.claims} and {claims}"
    yield from _nothing_is_given_twice(servers.values(), providers)
    quota = world.states(Quota).get(PROJECT, Quota())
    living = [server for server in servers.values() if server.living and _counts(server)]
    largest = [_largest(server) for server in living]
    sums = [len(living), sum(cores for cores, _ in largest), sum(ram_mb for _, ram_mb in largest)]
    if list(quota.usage.values()) != sums:
        yield f"quota usage is {quota.usage}, {len(living)} servers live"
    limit = quota.limits.get("instances", -1)
    if limit != -1 and len(living) > limit:
        yield f"{len(living)} servers live, the quota allows {limit}"
    yield from _never_rebuilt_too_early(world, servers)
    yield from never_broken(world)


def _counts(server: Server) -> bool:
    """What was deleted softly counts for no quota, until it is to be restored."""
    return server.soft_deleted_at is None or server.task is Task.RESTORING


def _largest(server: Server) -> tuple[int, int]:
    """Cores and MB: while it may be of this size or that, the larger counts."""
    sizes = [server.flavor]
    if server.move is not None and server.move.old_flavor and server.move.new_flavor:
        sizes += [server.move.old_flavor, server.move.new_flavor]
    return max(it.vcpus for it in sizes), max(it.ram_mb for it in sizes)


def _never_rebuilt_too_early(world: World, servers: Mapping[str, Server]) -> Iterator[str]:
    """Whoever is told that a server has a new disk finds it there."""
    machines = {machine.name: machine for machine in world.machines}
    for id, server in servers.items():
        machine = machines.get(server.host or "") if server.task is None and id not in world.disturbed else None
        domain = machine.domains.get(id) if machine else None
        if domain is not None and domain.seen.remade < server.rebuilt:
            yield f"server {id} was rebuilt {server.rebuilt} times, its disk on {server.host} {domain.seen.remade}"


def _claims_of(servers: Iterable[Server]) -> Iterator[tuple[str, dict[str, dict[str, int]]]]:
    """Who holds what: a server what it takes on its host; while it moves, its migration what it had before."""
    for server in servers:
        if not server.living:
            continue
        move = server.move
        if move is not None and move.held:
            yield move.migration_id, {move.source_provider: dict(move.held)}
        if move is not None and move.phase is Phase.SEEKING:
            continue
        flavor = flavor_wanted(server)
        resources = demanded(flavor.vcpus, flavor.ram_mb, flavor.disk_gb, flavor.extra_specs)
        hardware = hardware_of(flavor, server.image)
        if hardware is not None:
            resources = hardware.demand(resources)
        provider = (move.target_provider if move else "") or server.provider_id
        if provider:
            yield server.id, {provider: dict(resources)}


def _nothing_is_given_twice(servers: Iterable[Server], providers: Mapping[str, Provider]) -> Iterator[str]:
    """A CPU is one guest's, from its claim to its release, and the guest knows which."""
    for id, provider in providers.items():
        for unit, amount in sum(map(Counter, provider.held.values()), Counter[str]()).items():
            if amount > provider.units.get(unit, 0):
                yield f"provider {id} gave away {amount} of {unit}, it has {provider.units.get(unit, 0)}"
    held = {(consumer, id): its for id, it in providers.items() for consumer, its in it.held.items()}
    known = dict(_units_of(servers))
    for which in held.keys() | known.keys():
        if held.get(which, {}) != known.get(which, {}):
            yield f"{which} has {held.get(which) or 'no units'} and knows of {known.get(which) or 'none'}"


def _units_of(servers: Iterable[Server]) -> Iterator[tuple[tuple[str, str], dict[str, int]]]:
    """(Consumer, provider) → the units it should have there."""
    for server in servers:
        move = server.move
        if not server.living:
            continue
        if move is not None and move.held and move.source_topology:
            yield (move.migration_id, move.source_provider), units_taken(move.source_topology, ())
        if move is not None and move.phase is Phase.SEEKING:
            continue
        elsewhere = move is not None and bool(move.target_provider)
        topology = move.target_topology if move and elsewhere else server.topology
        if topology is not None:
            provider = move.target_provider if move and elsewhere else server.provider_id
            yield (server.id, provider), units_taken(topology, ())


def of_the_log(world: World) -> Iterator[str]:
    """Positions and versions are dense; the documents are what the events add up to."""
    states: dict[str, Any] = {}
    versions: Counter[str] = Counter()
    for nth, event in enumerate(world.log.events, start=1):
        if event.position != nth:
            yield f"position {event.position} where {nth} should be"
        versions[event.stream] += 1
        if event.version != versions[event.stream]:
            yield f"{event.stream} has version {event.version} where {versions[event.stream]} should be"
        kind = kind_of(event.stream)
        state = states.get(event.stream) or kind.unborn(event.stream.partition("/")[2])
        states[event.stream] = kind.fold(state, event.event, event.at)
    for stream, document in world.log.documents.items():
        if (document.version, document.state) != (versions[stream], states.get(stream)):
            yield f"the document of {stream} is not what its events add up to"
    if len(world.log.documents) != len(states):
        yield "there are documents without events, or events without a document"


def in_time(world: World, calm_since: float) -> Iterator[str]:
    """Nothing stays on its way past its deadline."""
    now = clock.now()
    good_times = timedelta(seconds=world.loop.time() - calm_since)
    for server in world.states(Server).values():
        due = deadline(server)
        if due is not None and now - due > GRACE and good_times > GRACE:
            yield f"server {server.id} is {server.task} since {server.task_since}, due {due}, and it is {now}"


def in_the_end(world: World) -> Iterator[str]:
    """Every server is where it was wished to be, or says why not; hosts hold what the log says, and no more."""
    servers = world.states(Server)
    machines = {machine.name: machine for machine in world.machines}
    for id, server in servers.items():
        if server.task is not None:
            yield f"server {id} is still {server.task}"
            continue
        yield from _as_wished(world, server)
        machine = machines.get(server.host or "")
        if server.living and machine is not None and not machine.gone:
            yield from _on_its_host(world, server, machine.domains.get(id))
    for id, wish in world.wishes.items():
        if id not in servers:
            yield f"server {id} was granted and is not in the log"
        elif wish is VmState.DELETED and servers[id].living:
            yield f"server {id} was to be deleted and is {servers[id].vm_state}"
    for machine in world.machines:
        for id in () if machine.gone else machine.domains:
            server = servers.get(id)
            if server is None or not server.living or machine.name not in {server.host, second_host(server)}:
                yield f"{machine.name} holds a domain of {id}, which the log does not put there"
    moves = {server.move.migration_id for server in servers.values() if server.living and server.move}
    for id, migration in world.states(Migration).items():
        if migration.status not in OVER and id not in moves:
            yield f"migration {id} is {migration.status}, and its server is not on its way"
    yield from as_the_log_says(world)
    yield from where_they_belong(world)
    yield from as_their_ports_are(world)
    for secret_id in world.log.secrets:
        server = servers.get(secret_id.removeprefix("boot-"))
        if server is not None and not server.living:
            yield f"the secret of {server.id} outlives it"
    for position in {world.log.events[-1].position - it for it in world.checkpoints.positions.values()}:
        if position > 0 and world.dealt_out:
            yield f"reactions are {position} events behind"


_MOVED = {VmState.ACTIVE, VmState.STOPPED, VmState.RESIZED}


_LEFT_ALONE = {VmState.RESCUED, VmState.RESIZED}
"""Whose guest may be whatever it was found to be: nothing is made of that."""


def _as_wished(world: World, server: Server) -> Iterator[str]:
    if server.vm_state is VmState.ERROR and not (server.fault and server.fault.message):
        yield f"server {server.id} is in ERROR and does not say why"
    if server.vm_state is VmState.BUILDING:
        yield f"server {server.id} is BUILDING and nobody builds it"
    wish = world.wishes.get(server.id)
    if wish is None or server.id in world.disturbed or server.fault is not None:
        return
    moved = any(isinstance(it.event, MoveRequested) for it in world.log.streams[f"server/{server.id}"])
    if server.vm_state is not wish and not (moved and server.vm_state in _MOVED):
        yield f"server {server.id} was to be {wish} and is {server.vm_state}, without a fault"


def _on_its_host(world: World, server: Server, domain: Any) -> Iterator[str]:
    power = domain.seen.power if domain else "absent"
    off = {"stopped", "crashed", "absent"}  # absent: somebody removed it behind our back
    wanted = {
        VmState.ACTIVE: {"running"},
        VmState.RESCUED: {"running"},
        VmState.RESIZED: {"running", *off},
        VmState.PAUSED: {"paused"},
        VmState.SUSPENDED: {"suspended"},
        VmState.SHELVED: off,
        VmState.SOFT_DELETED: off,
        VmState.STOPPED: off,
    }.get(server.vm_state)
    calm = server.id not in world.disturbed
    hurt = not calm or server.fault is not None
    if wanted is not None and power not in wanted and not (hurt and server.vm_state in _LEFT_ALONE):
        yield f"server {server.id} is {server.vm_state}, its guest on {server.host} is {power}"
    if domain is None or not calm:
        return
    if domain.seen.rescued is not (server.vm_state is VmState.RESCUED) and server.fault is None:
        yield f"server {server.id} is {server.vm_state}, rescued on {server.host}: {domain.seen.rescued}"
    if domain.seen.remade != server.rebuilt and server.fault is None:
        yield f"server {server.id} was rebuilt {server.rebuilt} times, its disk on {server.host} {domain.seen.remade}"


__all__ = ["at_every_moment", "in_the_end", "in_time", "of_the_log"]
