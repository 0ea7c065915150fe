"""The world of one seed: processes of a control plane, hosts, users, and what befalls them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import msgspec
import structlog

from agents.hypervisor.driver import StepFailed
from agents.hypervisor.plan import Step
from agents.hypervisor.watchdog import GRACE_SECONDS, LOOK_SECONDS
from bus import clock
from bus.checkpoint import EVERY_PARTITION, MemoryCheckpoints
from bus.cloud import Cloud
from bus.config import Networking, Scheduler, Settings
from bus.execute import Wish
from bus.log import PARTITIONS
from bus.memory_log import MemoryLog
from handlers.compute.quota import QUOTAS, counting
from handlers.compute.server import SERVERS
from handlers.compute.snapshot_image import brought, making
from handlers.image.image import IMAGES
from handlers.network.addressing import Picks, with_addresses
from handlers.network.quota import NETWORK_QUOTAS
from schema.compute.move import MoveFailed, MoveFinished, MovePlaced, MoveRequested
from schema.compute.quota import DEFAULTS, SetQuotaLimits
from schema.compute.server_command import (
    Action,
    CreateServer,
    DeleteServer,
    HardRebootServer,
    PauseServer,
    ProgressSnapshot,
    RebootServer,
    RebuildServer,
    RescueServer,
    ResumeServer,
    ShelveServer,
    StartServer,
    StopServer,
    SuspendServer,
    UnpauseServer,
    UnrescueServer,
    UnshelveServer,
)
from schema.compute.server_event import BuildFailed, ServerPlaced
from schema.compute.server_parts import Order, Rebuild, ServerImage
from schema.compute.task import VmState
from schema.event import State
from schema.image.image import IMAGE as IMAGE_KIND
from schema.image.image import SAVING, AbandonImageUpload, CreateImage, FinishImageUpload, StartImageUpload
from schema.network.quota import UNLIMITED, SetNetworkQuotaLimits
from schema.network.wiring import link_name
from schema.refusal import Refused
from tests.simulation.bus import Network
from tests.simulation.loop import Owner, VirtualLoop
from tests.simulation.machine import LEASE_SECONDS, PINNED, SMALL, Machine
from tests.simulation.networks import NETWORK_LEASE_SECONDS, Book
from tests.simulation.operators import Operators
from tests.simulation.process import IMAGE, Process
from tests.simulation.tenants import Tenants

PROJECT = "project-1"
FENCE_SECONDS = 10.0
WATCHDOG_AWAY_SECONDS = FENCE_SECONDS - GRACE_SECONDS - LOOK_SECONDS
"""Whoever starts watchdogs again is quicker than that. Agents may stay away for as long as they like."""
_ANEW = RebuildServer(rebuild=Rebuild(image=ServerImage(id=IMAGE)))
ACTIONS: list[tuple[Action, VmState, float]] = [
    (StopServer(), VmState.STOPPED, 2),
    (StartServer(), VmState.ACTIVE, 2),
    (RebootServer(), VmState.ACTIVE, 2),
    (HardRebootServer(), VmState.ACTIVE, 1),
    (PauseServer(), VmState.PAUSED, 1),
    (UnpauseServer(), VmState.ACTIVE, 1),
    (SuspendServer(), VmState.SUSPENDED, 1),
    (ResumeServer(), VmState.ACTIVE, 1),
    (_ANEW, VmState.ACTIVE, 1.5),
    (RescueServer(image=ServerImage(id=IMAGE)), VmState.RESCUED, 1.5),
    (UnrescueServer(), VmState.ACTIVE, 2),
    (ShelveServer(image_id=""), VmState.SHELVED_OFFLOADED, 1.5),
    (UnshelveServer(), VmState.ACTIVE, 2),
    (DeleteServer(), VmState.DELETED, 4),
]
"""What a user may wish, where that leads, and how often it is wished."""


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

    # How likely, and how often; who breaks something on purpose may lean the world towards what that shows in.
    fences = 0.6
    deals_out = 0.7
    pins = 0.2
    misfortunes: ClassVar[dict[str, float]] = {
        "trouble": 4,
        "kill process": 5,
        "kill agent": 5,
        "kill watchdog": 2,
        "power": 1.5,
        "cut process": 3,
        "cut host": 4,
        "postgres": 2,
        "guest": 2,
        "gone": 0.4,
    }

    def __init__(self, seed: int, loop: VirtualLoop) -> None:
        self.loop = loop
        self.random = random = Random(seed)
        self.log = MemoryLog()
        self.checkpoints = MemoryCheckpoints()
        self.network = Network(random)
        self.heard = Heard()
        self.networks_heard = Heard()
        self.book = Book(self.log)
        self.fence = random.random() < self.fences
        self.dealt_out = random.random() < self.deals_out
        """Whether processes share the partitions; else both believe they have all of them, and fight."""
        self.settings = Settings(
            home=Path("/nowhere"),
            lease_seconds=LEASE_SECONDS,
            host_name="control",
            network=Networking(lease_seconds=NETWORK_LEASE_SECONDS),
            scheduler=Scheduler(cpu_ratio=4.0, reserved_memory_mb=0),
            recovery=random.choice(["none", "evacuate", "evacuate"]),
            recovery_seconds=random.choice([0.0, FENCE_SECONDS, 2 * FENCE_SECONDS]),
            fence_seconds=FENCE_SECONDS,
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
        self.operators = Operators(self)
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

    def machine(self, name: str) -> Machine:
        return next(machine for machine in self.machines if machine.name == name)

    def states(self, kind: type[State]) -> dict[str, Any]:
        """Of everything of a kind, as the log has it; of what is gone, too."""
        return {it.id: it.state for it in self.log.documents.values() if isinstance(it.state, kind)}

    def done(self, host: str, step: Step) -> None:
        """A host did that. Whatever it was, no guest may run on two of them.

        One that could not be built in time somewhere is nobody's server; it goes as soon as its host hears of it.
        """
        id = step.server_id
        running = [machine.name for machine in self.machines if machine.runs(id)]
        if len(running) > 1 and len(twice := sorted(set(running) - self._given_up(id))) > 1:
            self.problems.append(f"{id} runs on {twice} since {type(step).__name__} on {host}")

    def _given_up(self, server_id: str) -> set[str]:
        hosts: set[str] = set()
        live = False
        going = ""  # to where it comes while it runs; what is there before it has come is not it
        for it in self.log.streams[f"server/{server_id}"]:
            match it.event:
                case BuildFailed() | MoveFailed():
                    hosts.add(it.event.host)
                case MoveRequested():
                    live = it.event.move.live
                case MovePlaced() if live:
                    going = it.event.host
                case ServerPlaced() | MovePlaced():
                    hosts.discard(it.event.host)
                case MoveFinished():
                    hosts.discard(going)
        return hosts

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
        await self._insist(_upload)

    async def chaos(self, seconds: float) -> None:
        """Users at work, and misfortune upon misfortune."""
        users = asyncio.create_task(self._use(seconds))
        end = self.loop.time() + seconds
        while self.loop.time() < end:
            await asyncio.sleep(self.random.expovariate(0.35))
            self._befall()
            if self.random.random() < 0.4:
                self._users.append(asyncio.create_task(self._operate()))
        await users
        await asyncio.gather(*self._users)
        await self._insist(self.operators.relent)

    def calm(self) -> None:
        """From now on all is well: everybody is there (but for machines lost for good) and hears everybody."""
        self.network.trouble = 0.0
        self.network.away.clear()
        for it in (*self.processes, *self.machines):
            it.start()

    def _befall(self) -> None:
        random, network = self.random, self.network
        machine, process = random.choice(self.machines), random.choice(self.processes)
        match random.choices(list(self.misfortunes), list(self.misfortunes.values()))[0]:
            case "trouble":
                network.trouble = random.choice([0.0, 0.2, 0.5, 0.9])
            case "kill process":
                process.kill()
                self._later(random.expovariate(0.5), process.start)
            case "kill agent":
                machine.kill()
                self._later(random.expovariate(random.choice([0.2, 0.2, 0.04])), machine.start)
            case "kill watchdog":
                machine.kill_watchdog()
                self._later(min(random.expovariate(0.3), WATCHDOG_AWAY_SECONDS), machine.start_watchdog)
            case "power":
                self.disturbed |= machine.domains.keys()
                machine.lose_power()
                self._later(random.expovariate(random.choice([0.2, 0.04])), machine.start)
            case "cut process":
                self._cut(process.name, random.expovariate(0.3))
            case "cut host":
                self._cut(machine.name, random.expovariate(random.choice([0.15, 0.15, 0.04])))
            case "postgres":
                self._cut("postgres", random.expovariate(0.5))
            case "guest":
                self._disturb(machine)
            case "gone" if len(self.machines) > 1:
                machine.kill()
                machine.kill_watchdog()
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

    async def _operate(self) -> None:
        await self._try(self.operators.act)

    async def _network(self) -> None:
        await self._try(self.tenants.act)

    async def _order(self, id: str, cloud: Cloud) -> None:
        secret_id = f"boot-{id}" if self.random.random() < 0.5 else ""
        sealed = [await cloud.vault.seal(secret_id, PROJECT, b"{}")] if secret_id else []
        order = Order(user_id="ada", secret_id=secret_id, build_seconds=self.random.choice([3, 20, 60]))
        flavor = PINNED if self.random.random() < self.pins else SMALL

        async def attempt(picks: Picks) -> None:
            its = await self.tenants.cards.of_a_new_server(cloud, picks, id)
            command = CreateServer(name="web", project_id=PROJECT, order=order, flavor=flavor, nics=its.nics)
            await cloud.executor.execute(
                Wish(SERVERS, id, command, sealed), counting(id, PROJECT, DEFAULTS), *its.wishes
            )

        await with_addresses(cloud, attempt)

    async def _act(self, id: str) -> None:
        actions, leads, often = zip(*ACTIONS, strict=True)
        [nth] = self.random.choices(range(len(actions)), often)
        action, leads_to = actions[nth], leads[nth]
        before = self.log.documents.get(f"server/{id}")
        version = before.version if before else 0

        if isinstance(action, RebuildServer) and before:
            action = msgspec.structs.replace(action, secret_id=before.state.order.secret_id)

        also: tuple[Wish, ...] = ()
        if isinstance(action, ShelveServer) and before:
            action = msgspec.structs.replace(action, image_id=clock.uuid4())
            image = {"image_id": action.image_id, "name": "web-shelved", "project_id": PROJECT, "user_id": "ada"}
            also = making(before.state, None, **image)

        async def act(cloud: Cloud) -> None:
            await cloud.executor.execute(Wish(SERVERS, id, action), *also)

        if await self._try(act):
            if isinstance(action, RebuildServer) and before and before.state.vm_state is VmState.STOPPED:
                leads_to = VmState.STOPPED
            if self.wishes[id] is not VmState.DELETED:
                self.wishes[id] = leads_to
        elif (after := self.log.documents.get(f"server/{id}")) and after.version != version:
            self.disturbed.add(id)  # whether it was granted, nobody knows

    async def _try(self, do: Callable[[Cloud], Coroutine[Any, Any, Any]]) -> bool:
        """Ask some process; True when it says that it is done."""
        serving = self._serving()
        if not serving:
            return False
        try:
            async with asyncio.timeout(20):
                await self.random.choice(serving).serve(do)
        except (Refused, OSError):
            return False
        return True

    async def _insist(self, do: Callable[[Cloud], Coroutine[Any, Any, Any]]) -> None:
        while not await self._try(do):  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    def _serving(self) -> list[Process]:
        return [process for process in self.processes if process.cloud and not process.owner.dead]

    async def bring(self, image_id: str) -> None:
        """What a host does by a PUT: an image's data, to whoever listens. Raises StepFailed."""
        serving = self._serving()
        if not serving:
            raise StepFailed("nobody listens")
        try:
            async with asyncio.timeout(20):
                await self.random.choice(serving).serve(partial(_take, image_id=image_id))
        except (Refused, OSError, TimeoutError) as error:
            raise StepFailed(f"image {image_id} could not be sent: {error!r}") from None


async def _take(cloud: Cloud, image_id: str) -> None:
    """What the image service does then: data that has come already is not taken again, what broke off is over."""
    stream = IMAGE_KIND.stream(image_id)
    image = (await cloud.log.load([stream]))[stream].state
    if image.data_id and image.living:
        return
    upload_id, execute = clock.uuid4(), cloud.executor.execute
    if image.status == SAVING:
        await execute(Wish(IMAGES, image_id, AbandonImageUpload(upload_id=image.upload_id)))
    server_id = image.properties["instance_uuid"]
    await execute(
        Wish(IMAGES, image_id, StartImageUpload(upload_id=upload_id, deadline=clock.now() + timedelta(hours=1))),
        Wish(SERVERS, server_id, ProgressSnapshot(image_id=image_id, uploading=True)),
    )
    done = FinishImageUpload(upload_id=upload_id, size=9, checksum="c", hash_algorithm="", hash_value="")
    await execute(Wish(IMAGES, image_id, done), *await brought(cloud, image))


async def _upload(cloud: Cloud) -> None:
    """The image there is."""
    await cloud.executor.execute(
        Wish(IMAGES, IMAGE, CreateImage(visibility="public", disk_format="raw", container_format="bare")),
        Wish(IMAGES, IMAGE, StartImageUpload(upload_id="u", deadline=clock.now() + timedelta(hours=1))),
        Wish(IMAGES, IMAGE, FinishImageUpload(upload_id="u", size=9, checksum="c", hash_algorithm="", hash_value="")),
    )


class _Errors:
    """What is logged as an error is one."""

    def __init__(self) -> None:
        self.world: World | None = None

    def __call__(self, logger: Any, method: str, event: dict[str, Any]) -> Any:
        expected = "fault" in event  # what a host was made to fail at
        if event.get("event") == "report not taken" and not str(event["error"]).startswith("ConnectionError"):
            method = "error"
        if method in {"error", "exception", "critical"} and self.world is not None and not expected:
            self.world.problems.append(f"logged as an error: {event}")
        raise structlog.DropEvent


ERRORS = _Errors()
