"""The world of one seed: processes of a control plane, hosts, users, and what befalls them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, cast

import msgspec
import structlog

from agents.hypervisor.agent import Agent
from agents.hypervisor.plan import Step
from agents.hypervisor.simulated import Simulated, SimulatedDriver
from agents.link import BrokerLink
from bus import clock
from bus.away import AWAY
from bus.checkpoint import EVERY_PARTITION, MemoryCheckpoints
from bus.cloud import Cloud
from bus.config import Networking, Scheduler, Settings
from bus.consumer import Reactions, Sweep
from bus.execute import Executor, Wish
from bus.log import PARTITIONS, Batch
from bus.memory_log import MemoryLog
from bus.mirror import Mirrors
from bus.vault import MemoryKeys, Vault
from handlers.compute.build import ServerReactor
from handlers.compute.following import NicReactor
from handlers.compute.quota import QUOTAS
from handlers.compute.reports import Reports
from handlers.compute.server import SERVERS
from handlers.network.addressing import Picks, with_addresses
from handlers.network.quota import NETWORK_QUOTAS
from handlers.network.reports import NetworkReports, is_network_link
from handlers.network.routing import RouterReactor
from handlers.network.telling import Telling as NetworkTelling
from handlers.network.trunking import TrunkReactor
from schema.compute.quota import ReserveQuota, SetQuotaLimits
from schema.compute.server_command import (
    Action,
    CreateServer,
    DeleteServer,
    HardRebootServer,
    PauseServer,
    RebootServer,
    ResumeServer,
    StartServer,
    StopServer,
    SuspendServer,
    UnpauseServer,
)
from schema.compute.server_parts import Order, ServerFlavor
from schema.compute.task import VmState
from schema.event import State
from schema.network.quota import UNLIMITED, SetNetworkQuotaLimits
from schema.network.wiring import link_name
from schema.refusal import Refused
from tests.simulation.bus import DistantLog, FoundDocuments, HostEnd, Network, ProcessBroker
from tests.simulation.loop import Owner, VirtualLoop
from tests.simulation.networks import NETWORK_LEASE_SECONDS, Book, NetworkSide
from tests.simulation.tenants import Tenants

PROJECT = "project-1"
SMALL = ServerFlavor(id="1", name="small", vcpus=1, ram_mb=512, disk_gb=1)
LEASE_SECONDS = 6.0
ACTIONS: dict[type[Action], VmState] = {
    StopServer: VmState.STOPPED,
    StartServer: VmState.ACTIVE,
    RebootServer: VmState.ACTIVE,
    HardRebootServer: VmState.ACTIVE,
    PauseServer: VmState.PAUSED,
    UnpauseServer: VmState.ACTIVE,
    SuspendServer: VmState.SUSPENDED,
    ResumeServer: VmState.ACTIVE,
    DeleteServer: VmState.DELETED,
}
"""What a user may wish, and where that leads."""


class Process:
    """A process of the control plane: executor, mirrors, follow-through, ears. It is killed and comes back."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.owner = Owner(name)
        self.owner.dead = True
        self.cloud: Cloud | None = None

    def start(self) -> None:
        if self.owner.dead:
            self.owner = Owner(self.name)
            self.world.watch(self.world.loop.spawn(self.owner, self._live()), self.name)

    def kill(self) -> None:
        self.world.bury(self.owner)
        self.cloud = None

    async def _live(self) -> None:
        world = self.world
        log: Any = DistantLog(world.log, world.network)
        broker: Any = ProcessBroker(self.owner, world.network)
        mirrors = Mirrors(log, broker)

        def committed(batch: Batch) -> None:
            mirrors.offer(batch)
            broker.hand_on(batch)

        executor = Executor(log, committed)
        mirrors.on_batch(executor.observe)
        cloud = Cloud(
            settings=world.settings,
            pool=cast("Any", None),
            log=log,
            executor=executor,
            documents=cast("Any", FoundDocuments(world.log, world.network)),
            vault=Vault(MemoryKeys(world.log.secrets), bytes(32)),
            broker=broker,
            checkpoints=world.checkpoints,
            mirrors=mirrors,
        )
        reactor = ServerReactor(cloud)
        reports = Reports(cloud, reactor.telling)
        reports.hosts._others = world.heard
        telling = NetworkTelling(cloud, world.book.lacking)
        network_reports = NetworkReports(cloud, telling)
        network_reports.hosts._others = world.networks_heard
        nics, routers = NicReactor(cloud), RouterReactor(cloud)
        reactors: list[Any] = [reactor, nics, routers, TrunkReactor(cloud)]

        async def hear(link: str, message: bytes) -> None:
            await (network_reports if is_network_link(link) else reports).on_report(link, message)

        while True:
            try:
                await cloud.start()
                break
            except ConnectionError:
                await asyncio.sleep(0.2)
        self.cloud = cloud
        await broker.listen(hear)
        reactions = Reactions(log, executor, broker, world.checkpoints, reactors)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._react(reactions))
            tasks.create_task(self._sweep(Sweep(log, reactions, again_seconds=5.0), nics, routers))
            tasks.create_task(reports.hosts.listen())
            tasks.create_task(network_reports.hosts.listen())
            tasks.create_task(self._project(telling))

    async def _project(self, telling: NetworkTelling) -> None:
        """The read model of hosts' networks, in one process at a time; what it says may be lost."""
        while True:
            if self.world.leads(self) and "postgres" not in self.world.network.away:
                await telling.nudge(self.world.book.follow())
            await asyncio.sleep(0.1)

    async def _react(self, reactions: Reactions) -> None:
        """On this process's share of the partitions, as `bus.shares` deals them out."""
        share: frozenset[int] = frozenset()
        task: asyncio.Task[None] | None = None
        while True:
            fresh = self.world.share(self)
            if fresh != share:
                if task:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                share = fresh
                task = asyncio.create_task(reactions.run(share)) if share else None
            if task and task.done():
                task.result()
            await asyncio.sleep(1.0)

    async def _sweep(self, sweep: Sweep, *swept: NicReactor | RouterReactor) -> None:
        while True:
            if self.world.leads(self):
                try:
                    await sweep.once()
                    for reactor in swept:
                        await reactor.sweep()
                except AWAY:
                    self.world.sweeper = None
            await asyncio.sleep(1.0)


class Machine:
    """A host: its domains outlive its agent."""

    def __init__(self, world: World, name: str, servers: int) -> None:
        self.world = world
        self.name = name
        self.servers = servers
        self.domains: dict[str, Simulated] = {}
        self.owner = Owner(name)
        self.owner.dead = True
        self.gone = False
        self.driver: SimulatedDriver | None = None
        self.wiring = NetworkSide(world, name)

    def start(self) -> None:
        if self.gone:
            return
        self.wiring.start()
        if not self.owner.dead:
            return
        self.owner = Owner(self.name)
        self.driver = SimulatedDriver(
            self.name,
            vcpus=self.servers,
            memory_mb=self.servers * SMALL.ram_mb,
            disk_gb=100,
            delay=self._delay,
            failure=self._failure,
        )
        self.driver.domains = self.domains
        link = BrokerLink(HostEnd(self.name, self.world.network))
        agent = self.agent = Agent(
            self.name, self.driver, link, lease_seconds=LEASE_SECONDS, sweep_seconds=15.0, fence=self.world.fence
        )
        self.world.watch(self.world.loop.spawn(self.owner, agent.run()), self.name)

    def kill(self) -> None:
        """The agents only; guests go on."""
        self.world.bury(self.owner)
        if self.world.random.random() < 0.5:
            self.wiring.kill()

    def lose_power(self) -> None:
        """Everything stands still; what ran is found interrupted."""
        self.kill()
        self.wiring.lose_power()
        for domain in self.domains.values():
            if domain.seen.power in {"running", "paused"}:
                domain.seen = msgspec.structs.replace(domain.seen, power="stopped", interrupted=True, fenced=False)

    def _delay(self, step: Step) -> float:
        random, trouble = self.world.random, self.world.network.trouble
        return random.expovariate(0.1) if random.random() < trouble / 10 else random.random() * 0.3

    def _failure(self, step: Step) -> str | None:
        random, trouble = self.world.random, self.world.network.trouble
        return f"{type(step).__name__} did not work" if random.random() < trouble / 8 else None


class Heard:
    """What the processes share of whom they heard."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    async def share(self, hosts: Collection[str]) -> None:
        for host in sorted(hosts):
            self._at[host] = clock.monotonic()

    async def silent(self, hosts: Collection[str], seconds: float) -> set[str]:
        now = clock.monotonic()
        return {host for host in hosts if now - self._at.get(host, -1e9) > seconds}


class World:
    """Everything there is, made from a seed."""

    def __init__(self, seed: int, loop: VirtualLoop) -> None:
        self.loop = loop
        self.random = random = Random(seed)
        self.log = MemoryLog()
        self.checkpoints = MemoryCheckpoints()
        self.network = Network(random)
        self.heard = Heard()
        self.networks_heard = Heard()
        self.book = Book(self.log)
        self.fence = random.random() < 0.3
        self.dealt_out = random.random() < 0.7
        """Whether processes share the partitions; else both believe they have all of them, and fight."""
        self.settings = Settings(
            home=Path("/nowhere"),
            lease_seconds=LEASE_SECONDS,
            host_name="control",
            network=Networking(lease_seconds=NETWORK_LEASE_SECONDS),
            scheduler=Scheduler(cpu_ratio=4.0, reserved_memory_mb=0),
        )
        self.processes = [Process(self, f"process-{n}") for n in range(random.choice([1, 2, 2, 3]))]
        self.machines = [
            Machine(self, f"host-{n}", random.randint(2, 6)) for n in range(random.choice([1, 2, 3, 3, 4]))
        ]
        self.sweeper: Process | None = None
        self.problems: list[str] = []
        self.wishes: dict[str, VmState] = {}
        """What was last granted for each server."""
        self.disturbed: set[str] = set()
        """Servers whose guests were handled behind everybody's back."""
        self.secrets: dict[str, str] = {}
        self.ports_at_most = UNLIMITED
        self.tenants = Tenants(self, PROJECT)
        self._users: list[asyncio.Task[Any]] = []
        self._graveyard: set[asyncio.Task[Any]] = set()

    def watch(self, task: asyncio.Task[Any], name: str) -> None:
        """Nothing may end by itself."""

        def ended(task: asyncio.Task[Any]) -> None:
            if not task.cancelled():
                self.problems.append(f"{name} ended by itself: {task.exception()!r}")

        task.add_done_callback(ended)

    def bury(self, owner: Owner) -> None:
        """Kill a process. What it left half done is kept, so that nothing of it is tidied up."""
        owner.dead = True
        self._graveyard |= asyncio.all_tasks(self.loop)

    def share(self, process: Process) -> frozenset[int]:
        if not self.dealt_out:
            return EVERY_PARTITION
        alive = [it for it in self.processes if not it.owner.dead]
        mine = alive.index(process)
        return frozenset(n for n in range(PARTITIONS) if n % len(alive) == mine)

    def leads(self, process: Process) -> bool:
        if self.sweeper is None or self.sweeper.owner.dead:
            self.sweeper = process
        return self.sweeper is process

    def states(self, kind: type[State]) -> dict[str, Any]:
        """Of everything of a kind, as the log has it; of what is gone, too."""
        return {it.id: it.state for it in self.log.documents.values() if isinstance(it.state, kind)}

    # What happens in it

    async def begin(self) -> None:
        for it in (*self.processes, *self.machines):
            it.start()
        limit = self.random.choice([-1, -1, 5])
        limits = {"instances": limit, "cores": -1, "ram": -1}
        await self._insist(lambda cloud: cloud.executor.execute(Wish(QUOTAS, PROJECT, SetQuotaLimits(limits=limits))))
        self.ports_at_most = self.random.choice([UNLIMITED, UNLIMITED, 10])
        few = SetNetworkQuotaLimits(limits={"port": self.ports_at_most})
        await self._insist(lambda cloud: cloud.executor.execute(Wish(NETWORK_QUOTAS, PROJECT, few)))
        await self._insist(self.tenants.begin)

    async def chaos(self, seconds: float) -> None:
        """Users at work, and misfortune upon misfortune."""
        users = asyncio.create_task(self._use(seconds))
        end = self.loop.time() + seconds
        while self.loop.time() < end:
            await asyncio.sleep(self.random.expovariate(0.35))
            self._befall()
        await users

    def calm(self) -> None:
        """From now on all is well: everybody is there (but for machines lost for good) and hears everybody."""
        self.network.trouble = 0.0
        self.network.away.clear()
        for it in (*self.processes, *self.machines):
            it.start()

    def _befall(self) -> None:
        random, network = self.random, self.network
        machine, process = random.choice(self.machines), random.choice(self.processes)
        match random.choices(
            ["trouble", "kill process", "kill agent", "power", "cut process", "cut host", "postgres", "guest", "gone"],
            [4, 5, 4, 1, 3, 4, 2, 2, 0.2],
        )[0]:
            case "trouble":
                network.trouble = random.choice([0.0, 0.2, 0.5, 0.9])
            case "kill process":
                process.kill()
                self._later(random.expovariate(0.5), process.start)
            case "kill agent":
                machine.kill()
                self._later(random.expovariate(0.2), machine.start)
            case "power":
                self.disturbed |= machine.domains.keys()
                machine.lose_power()
                self._later(random.expovariate(0.2), machine.start)
            case "cut process":
                self._cut(process.name, random.expovariate(0.3))
            case "cut host":
                self._cut(machine.name, random.expovariate(0.15))
            case "postgres":
                self._cut("postgres", random.expovariate(0.5))
            case "guest":
                self._disturb(machine)
            case "gone" if len(self.machines) > 1:
                machine.kill()
                machine.wiring.kill()
                machine.gone = True

    def _cut(self, who: str, seconds: float) -> None:
        """Off the bus, with both its agents if it is a host."""
        ends = {who, link_name(who)}
        self.network.away |= ends
        self._later(seconds, lambda: self.network.away.difference_update(ends))

    def _disturb(self, machine: Machine) -> None:
        if machine.domains and machine.driver is not None and not machine.owner.dead:
            id = self.random.choice(sorted(machine.domains))
            self.disturbed.add(id)
            what = self.random.choice([machine.driver.lose_power, machine.driver.crash, machine.driver.vanish])
            what(id)

    def _later(self, seconds: float, do: Callable[[], Any]) -> None:
        self.loop.call_later(seconds, do)

    # Its users

    async def _use(self, seconds: float) -> None:
        end = self.loop.time() + seconds
        while self.loop.time() < end:
            await asyncio.sleep(self.random.expovariate(0.7))
            ids = sorted(id for id, wish in self.wishes.items() if wish is not VmState.DELETED)
            if self.random.random() < 0.55:
                self._users.append(asyncio.create_task(self._network()))
            elif not ids or self.random.random() < 0.35:
                self._users.append(asyncio.create_task(self._create()))
            else:
                self._users.append(asyncio.create_task(self._act(self.random.choice(ids))))
        await asyncio.gather(*self._users)

    async def _create(self) -> None:
        for _ in range(self.random.choice([1, 1, 1, 3])):
            id = clock.uuid4()
            if await self._try(partial(self._order, id)):
                self.wishes[id] = VmState.ACTIVE

    async def _network(self) -> None:
        await self._try(self.tenants.act)

    async def _order(self, id: str, cloud: Cloud) -> None:
        secret_id = f"boot-{id}" if self.random.random() < 0.5 else ""
        sealed = [await cloud.vault.seal(secret_id, PROJECT, b"{}")] if secret_id else []
        order = Order(user_id="ada", secret_id=secret_id, build_seconds=self.random.choice([3, 20, 60]))
        quota = ReserveQuota(server_id=id, cores=SMALL.vcpus, ram_mb=SMALL.ram_mb)

        async def attempt(picks: Picks) -> None:
            its = await self.tenants.cards.of_a_new_server(cloud, picks, id)
            command = CreateServer(name="web", project_id=PROJECT, order=order, flavor=SMALL, nics=its.nics)
            await cloud.executor.execute(Wish(SERVERS, id, command, sealed), Wish(QUOTAS, PROJECT, quota), *its.wishes)

        await with_addresses(cloud, attempt)

    async def _act(self, id: str) -> None:
        action, leads_to = self.random.choices(list(ACTIONS.items()), [2, 2, 2, 1, 1, 1, 1, 1, 4])[0]
        document = self.log.documents.get(f"server/{id}")
        version = document.version if document else 0

        async def act(cloud: Cloud) -> None:
            await cloud.executor.execute(Wish(SERVERS, id, action()))

        if await self._try(act):
            if self.wishes[id] is not VmState.DELETED:
                self.wishes[id] = leads_to
        elif (after := self.log.documents.get(f"server/{id}")) and after.version != version:
            self.disturbed.add(id)  # whether it was granted, nobody knows

    async def _try(self, do: Callable[[Cloud], Coroutine[Any, Any, Any]]) -> bool:
        """Ask some process; True when it says that it is done."""
        clouds = [process.cloud for process in self.processes if process.cloud and not process.owner.dead]
        if not clouds:
            return False
        cloud = self.random.choice(clouds)
        try:
            async with asyncio.timeout(20):
                await do(cloud)
        except (Refused, OSError):
            return False
        return True

    async def _insist(self, do: Callable[[Cloud], Coroutine[Any, Any, Any]]) -> None:
        while not await self._try(do):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


class _Errors:
    """What is logged as an error is one."""

    def __init__(self) -> None:
        self.world: World | None = None

    def __call__(self, logger: Any, method: str, event: dict[str, Any]) -> Any:
        expected = "fault" in event  # what a host was made to fail at
        if method in {"error", "exception", "critical"} and self.world is not None and not expected:
            self.world.problems.append(f"logged as an error: {event}")
        raise structlog.DropEvent


ERRORS = _Errors()
