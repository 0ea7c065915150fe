"""A host of the simulation: a hypervisor agent, its watchdog, a network agent, and the domains, which outlive them."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING

import msgspec

from agents.hypervisor.agent import Agent
from agents.hypervisor.deadline import MemoryDeadlines, boot_id, is_over
from agents.hypervisor.driver import OnChange, OnProgress, StepFailed
from agents.hypervisor.plan import Pause, Send, Step, TakeSnapshot
from agents.hypervisor.simulated import SimulatedDriver
from agents.hypervisor.simulated_store import Simulated
from agents.hypervisor.watchdog import GRACE_SECONDS, LOOK_SECONDS
from agents.link import BrokerLink
from bus import clock
from bus.config import Hardware
from schema.compute.server_parts import ServerFlavor
from tests.simulation.bus import HostEnd
from tests.simulation.loop import Owner
from tests.simulation.networks import NetworkSide

if TYPE_CHECKING:
    from tests.simulation.world import World

SMALL = ServerFlavor(id="1", name="small", vcpus=1, ram_mb=512, disk_gb=1)
PINNED = msgspec.structs.replace(SMALL, id="2", name="pinned", extra_specs={"hw:cpu_policy": "dedicated"})
OWN_CPUS = 2
"""Of each host, besides those that guests share."""
LEASE_SECONDS = 6.0


class Hypervisor(SimulatedDriver):
    """One that is watched: what it does must not make a guest run that runs elsewhere."""

    world: World

    async def start(self, on_change: OnChange, on_progress: OnProgress) -> None:
        """Whoever brings a change about, it is this agent that hears of it, and what comes of it dies with this one."""
        own = contextvars.copy_context()
        await super().start(lambda id: own.copy().run(on_change, id), on_progress)

    async def act(self, step: Step) -> None:
        if isinstance(step, Send) and step.domain.send_to and self.world.machine(step.domain.send_to.host).gone:
            raise StepFailed(f"host {step.domain.send_to.host} cannot be reached")
        await super().act(step)
        self.world.done(self.host, step)

    async def _send_copy(self, step: TakeSnapshot) -> None:
        wanted = step.domain.snapshot
        assert wanted
        await self.world.bring(wanted.image_id)


class Machine:
    """A host: its domains outlive its agent."""

    def __init__(self, world: World, name: str, servers: int) -> None:
        self.world = world
        self.name = name
        self.servers = servers
        self.domains: dict[str, Simulated] = {}
        self.deadlines = MemoryDeadlines()
        self.owner = Owner(name)
        self.owner.dead = True
        self.watchdog = Owner(f"watchdog of {name}")
        self.watchdog.dead = True
        self.gone = False
        self.driver: SimulatedDriver | None = None
        self.wiring = NetworkSide(world, name)

    def start(self) -> None:
        if self.gone:
            return
        self.wiring.start()
        self.start_watchdog()
        if not self.owner.dead:
            return
        self.owner = Owner(self.name)
        driver = self.driver = Hypervisor(
            self.name,
            vcpus=self.servers + OWN_CPUS,
            memory_mb=(self.servers + OWN_CPUS) * SMALL.ram_mb,
            hardware=Hardware(simulated_cells=1, dedicated_cpus=f"{self.servers}-{self.servers + OWN_CPUS - 1}"),
            disk_gb=100,
            delay=self._delay,
            failure=self._failure,
        )
        driver.world = self.world
        driver.domains = self.domains
        driver.deadlines = self.deadlines
        link = BrokerLink(HostEnd(self.name, self.world.network))
        agent = self.agent = Agent(
            self.name,
            driver,
            link,
            lease_seconds=LEASE_SECONDS,
            sweep_seconds=15.0,
            fence=self.world.fence,
            watched=lambda: not self.watchdog.dead,
        )
        self.world.watch(self.world.loop.spawn(self.owner, agent.run()), self.name)

    def start_watchdog(self) -> None:
        if self.watchdog.dead and not self.gone:
            self.watchdog = Owner(self.watchdog.name)
            self.world.watch(self.world.loop.spawn(self.watchdog, self._watch()), self.watchdog.name)

    async def _watch(self) -> None:
        """As `agents.hypervisor.watchdog` does with processes: it asks nobody, and nothing it does takes time."""
        while True:
            if is_over(self.deadlines.load(), boot_id(), clock.boot_seconds() - GRACE_SECONDS):
                self.freeze()
            await asyncio.sleep(LOOK_SECONDS)

    def freeze(self) -> None:
        for domain in self.domains.values():
            if domain.seen.power == "running":
                domain.seen = msgspec.structs.replace(domain.seen, power="paused", fenced=True)

    def runs(self, server_id: str) -> bool:
        """Whether a guest of that server has its CPUs here."""
        domain = None if self.gone else self.domains.get(server_id)
        return domain is not None and domain.seen.power == "running"

    def kill(self) -> None:
        """The agents only; guests go on."""
        self.world.bury(self.owner)
        if self.world.random.random() < 0.5:
            self.wiring.kill()

    def kill_watchdog(self) -> None:
        self.world.bury(self.watchdog)

    def lose_power(self) -> None:
        """Everything stands still; what ran is found interrupted."""
        self.kill()
        self.kill_watchdog()
        self.wiring.lose_power()
        for domain in self.domains.values():
            if domain.seen.power in {"running", "paused"}:
                domain.seen = msgspec.structs.replace(domain.seen, power="stopped", interrupted=True, fenced=False)

    def _delay(self, step: Step) -> float:
        random, trouble = self.world.random, self.world.network.trouble
        if isinstance(step, Pause) and step.fence:
            return 0.0  # what fences a host is what must work
        return random.expovariate(0.1) if random.random() < trouble / 10 else random.random() * 0.3

    def _failure(self, step: Step) -> str | None:
        random, trouble = self.world.random, self.world.network.trouble
        if isinstance(step, Pause) and step.fence:
            return None
        return f"{type(step).__name__} did not work" if random.random() < trouble / 8 else None
