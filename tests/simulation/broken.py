"""Things broken on purpose, to see that the laws notice: a law that nothing can break proves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from bus.execute import Wish
from bus.log import Append
from schema.compute.server_command import RescueServer, UnrescueServer
from tests.simulation.world import ACTIONS, World


def claim_not_released() -> None:
    """A build that failed keeps its claim."""
    from handlers.compute import build, reports
    from handlers.compute.server import SERVERS
    from schema.compute.server_command import FailBuild

    def failing(server: Any, fault: Any) -> tuple[Wish, ...]:
        return (Wish(SERVERS, server.id, FailBuild(host=server.host or "", fault=fault)),)

    build.failing = reports.failing = failing


def quota_not_released() -> None:
    """A deleted server keeps its quota."""
    from handlers.compute import build, reports

    ending = build.ending

    def forgetful(server: Any) -> tuple[Wish, ...]:
        return ending(server)[:-1]

    build.ending = reports.ending = forgetful


def capacity_ignored() -> None:
    """A provider gives away what it does not have, and the scheduler picks by the toss of a coin."""
    from handlers.placement import provider, schedule

    provider._room = lambda *_: None
    place = schedule.Scheduler.place

    def crowd(self: Any, requests: Any) -> Any:
        for free in self.index.free.values():
            free[:] = [1000] * len(free)
        return place(self, requests)

    schedule.Scheduler.place = crowd  # type: ignore[method-assign]


def cpus_given_twice() -> None:
    """A provider does not look whether somebody has a CPU already, and no more does the scheduler."""
    from handlers.placement import provider
    from handlers.placement.capacity import CapacityIndex

    provider._units_free = lambda *_: None
    CapacityIndex.units_free = CapacityIndex.units_there  # type: ignore[method-assign]


def placed_on_other_cpus() -> None:
    """A server that is placed is claimed other CPUs for."""
    from handlers.compute import server as rules

    already_so = rules._already_so

    def careless(server: Any, command: Any) -> bool:
        return (type(command).__name__ == "PlaceServer" and server.host == command.host) or already_so(server, command)

    rules._already_so = careless
    World.deals_out, World.pins = 0.0, 0.9


def reactor_drops_servers() -> None:
    """The follow-through overlooks some servers."""
    from handlers.compute.build import ServerReactor

    react = ServerReactor.react

    async def careless(self: Any, documents: Any) -> None:
        await react(self, [it for it in documents if it.id[0] not in "0123"])

    ServerReactor.react = careless  # type: ignore[method-assign]


def late_failure_believed() -> None:
    """A build that has succeeded can still be failed, claim and all; and now and then a host says so late."""
    from handlers.compute import reports, server
    from schema.compute.server_command import FailBuild
    from schema.compute.server_parts import Fault
    from schema.compute.task import Task, VmState

    already_so, wishes_of = server._already_so, reports.wishes_of

    def trusting(state: Any, command: Any) -> bool:
        if isinstance(command, FailBuild) and state.task is not Task.SPAWNING:
            return True
        return already_so(state, command)

    def late(state: Any, observed: Any, *ports: Any) -> tuple[Wish, ...]:
        wishes = wishes_of(state, observed, *ports)
        if wishes or state.task is not None or state.vm_state is not VmState.ACTIVE:
            return wishes
        return reports.failing(state, Fault(message="it could not be built"))

    server._already_so, reports.wishes_of = trusting, late


def races_not_noticed() -> None:
    """The log takes an append whatever version it expected."""
    from bus.memory_log import MemoryLog

    append = MemoryLog.append

    async def careless(self: Any, it: Append) -> int:
        self._version, version = lambda stream: it.checks.get(stream, _expected(it, stream)), self._version
        try:
            return await append(self, it)
        finally:
            self._version = version

    MemoryLog.append = careless  # type: ignore[method-assign]


def _expected(append: Append, stream: str) -> int:
    return next((change.expected for change in append.changes if change.stream == stream), 0)


def documents_differ_from_events() -> None:
    """A document is written without its event now and then."""
    from bus.memory_log import MemoryLog

    append = MemoryLog.append

    async def careless(self: Any, it: Append) -> int:
        base = await append(self, it)
        if base % 7 == 0 and len(it.facts) == 1:
            self.events.pop()
            self.streams[it.facts[0].stream].pop()
        return base

    MemoryLog.append = careless  # type: ignore[method-assign]


def strays_kept() -> None:
    """Nobody tells a host to let go of what is not its own."""
    from handlers.compute.telling import Telling

    async def silent(self: Any, host: str, servers: Any) -> None:
        """Not a word."""

    Telling.tell_absent = silent  # type: ignore[method-assign]
    say = Telling._say

    async def part(self: Any, name: str, domains: Any, position: int, *, full: bool = False) -> None:
        await say(self, name, domains, position)

    Telling._say = part  # type: ignore[method-assign]


def states_remembered_too_long() -> None:
    """A reaction may be made to a state from before the event it is for."""
    from bus.execute import Executor

    Executor.observe = lambda self, batch: None  # type: ignore[method-assign]


def stale_manifests_believed() -> None:
    """An agent keeps what it was told under the lease before."""
    from agents.hypervisor.agent import Agent

    def forget(self: Any) -> None:
        self._desired.clear()

    Agent._forget_wishes = forget  # type: ignore[method-assign]


def address_not_released() -> None:
    """A port ends, and its addresses stay given out."""
    from handlers.network import addressing

    addressing._releasing = lambda port_id, fixed_ips: []


def network_quota_not_given_back() -> None:
    """What is gone counts for ever."""
    from handlers.network.quota import NETWORK_USAGES
    from schema.network.quota import GiveBackNetworkQuota

    _deaf(NETWORK_USAGES, GiveBackNetworkQuota)


def network_quota_not_limited() -> None:
    """Everybody may have as much as they like."""
    from handlers.network import plugging, quota

    async def counted(cloud: Any, project_id: str, resource: str, ids: Any) -> list[Wish]:
        return quota.counting(project_id, resource, ids)

    plugging.taking = counted


def port_left_bound() -> None:
    """A port stays where its server was before the build went on elsewhere."""
    from handlers.network.port import PORTS
    from schema.network.port_command import UnbindPort

    _deaf(PORTS, UnbindPort)


def port_not_let_go_of() -> None:
    """A server goes, and a port that was lent to it stays its."""
    from handlers.network.port import PORTS
    from schema.network.port_command import DetachPort

    _deaf(PORTS, DetachPort)


def router_not_moved() -> None:
    """A router stays on the host it was on, whatever becomes of that."""
    from handlers.network import routing

    choose = routing.choose
    routing.choose = lambda router, needs, hosts, loads: router.host or choose(router, needs, hosts, loads)


def lost_deltas_not_caught_up() -> None:
    """What a network agent missed it is never told again."""
    from tests.simulation.networks import Book

    async def nothing(self: Any, holding: Any) -> Any:
        return {}

    Book.lacking = nothing  # type: ignore[method-assign]


def subports_stay() -> None:
    """Subports do not follow the parent of their trunk."""
    from handlers.network.trunking import TrunkReactor

    TrunkReactor.react = _idle  # type: ignore[method-assign]


def cards_not_followed() -> None:
    """What a server shows of its ports is what they were once."""
    from handlers.compute.following import NicReactor

    NicReactor.react = _idle  # type: ignore[method-assign]
    NicReactor.sweep = _idle  # type: ignore[method-assign]


def use_not_noticed() -> None:
    """What is to go goes, whoever holds something of it."""
    from bus.memory_log import MemoryLog

    append = MemoryLog.append

    async def careless(self: Any, it: Append) -> int:
        return await append(self, msgspec.structs.replace(it, vacant=()))

    MemoryLog.append = careless  # type: ignore[method-assign]


def source_claim_kept() -> None:
    """A server that has arrived elsewhere holds what it held where it came from."""
    from handlers.compute import build, moving

    arriving = moving.arriving
    build.arriving = moving.arriving = lambda server: (arriving(server)[0], arriving(server)[-1])


def claim_not_given_back() -> None:
    """A move that failed leaves the source's claim to its migration."""
    from handlers.compute import moving

    handed = moving._handed

    def kept(server: Any, move: Any, giver: str, taker: str, kind: str) -> tuple[Wish, ...]:
        return () if taker == server.id else handed(server, move, giver, taker, kind)

    moving._handed = kept


def migration_not_ended() -> None:
    """A move ends, and its migration does not hear of it."""
    from handlers.compute.migration import MIGRATIONS
    from schema.compute.migration import OVER, AdvanceMigration

    decide = MIGRATIONS.decide
    MIGRATIONS.decide = lambda state, it: (
        [] if isinstance(it, AdvanceMigration) and it.status in OVER else decide(state, it)
    )


def hosts_do_not_fence() -> None:
    """A host without a lease leaves its guests running."""
    from agents.hypervisor.fencing import Fencing
    from tests.simulation.machine import Machine

    Fencing._pause_running = _idle  # type: ignore[method-assign]
    Machine._watch = _idle_for_ever  # type: ignore[method-assign]
    World.fences = 1.0
    _befalls({"cut host": 2})


def hosts_without_a_watchdog() -> None:
    """A host promises to fence itself, and only its agent does."""
    from tests.simulation.machine import Machine

    Machine._watch = _idle_for_ever  # type: ignore[method-assign]
    World.fences = 1.0
    _befalls({"kill agent": 2})


def recovery_before_fencing() -> None:
    """Servers are built elsewhere as soon as their host is lost, as if nothing that fences were ever killed."""
    from tests.simulation import world

    world.FENCE_SECONDS = 0.0
    World.fences = 1.0
    _befalls({"kill agent": 2, "kill watchdog": 2})


def recovery_in_a_hurry() -> None:
    """Servers are built elsewhere though the host they were on does not fence itself."""
    from handlers.compute.recovery import Recovery

    Recovery._is_fenced = lambda self, host: True  # type: ignore[method-assign]
    World.fences = 0.0
    _befalls({"cut host": 10, "gone": 0})


def rescue_disk_stays() -> None:
    """A host goes on booting a server from its rescue disk."""
    from agents.hypervisor import plan

    steps = plan._steps
    plan._steps = lambda domain, seen, position: [
        it for it in steps(domain, seen, position) if not isinstance(it, plan.Unrescue)
    ]
    _wished(RescueServer, UnrescueServer)


def _deaf(aggregate: Any, command: type[Any]) -> None:
    """That command changes nothing any more."""
    decide = aggregate.decide
    aggregate.decide = lambda state, it: [] if isinstance(it, command) else decide(state, it)


def _befalls(times: dict[str, float]) -> None:
    """That so much more often; for what would seldom show."""
    World.misfortunes = {what: often * times.get(what, 1) for what, often in World.misfortunes.items()}


def _wished(*commands: type[Any]) -> None:
    """These ten times as often; for what would seldom show."""
    ACTIONS[:] = [(it, leads_to, often * 10 if isinstance(it, commands) else often) for it, leads_to, often in ACTIONS]


async def _idle(self: Any, *_: Any) -> None:
    """Nothing is done."""


async def _idle_for_ever(self: Any) -> None:
    await asyncio.Event().wait()


WAYS: dict[str, Callable[[], None]] = {
    it.__name__: it
    for it in (
        claim_not_released,
        quota_not_released,
        capacity_ignored,
        cpus_given_twice,
        placed_on_other_cpus,
        reactor_drops_servers,
        late_failure_believed,
        races_not_noticed,
        documents_differ_from_events,
        strays_kept,
        states_remembered_too_long,
        stale_manifests_believed,
        address_not_released,
        network_quota_not_given_back,
        network_quota_not_limited,
        port_left_bound,
        port_not_let_go_of,
        router_not_moved,
        lost_deltas_not_caught_up,
        subports_stay,
        cards_not_followed,
        use_not_noticed,
        source_claim_kept,
        claim_not_given_back,
        migration_not_ended,
        hosts_do_not_fence,
        hosts_without_a_watchdog,
        recovery_before_fencing,
        recovery_in_a_hurry,
        rescue_disk_stays,
    )
}


def apply(name: str) -> None:
    """Break it, for the rest of this process."""
    WAYS[name]()
