"""A process of the simulated control plane."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, cast

from bus.away import AWAY
from bus.cloud import Cloud
from bus.consumer import Reactions, Sweep
from bus.execute import Executor
from bus.log import Batch
from bus.mirror import Mirrors
from bus.vault import MemoryKeys, Vault
from handlers.compute.build import ServerReactor
from handlers.compute.following import NicReactor
from handlers.compute.recovery import Recovery
from handlers.compute.reports import Reports
from handlers.network.reports import NetworkReports, is_network_link
from handlers.network.routing import RouterReactor
from handlers.network.telling import Telling as NetworkTelling
from handlers.network.trunking import TrunkReactor
from tests.simulation.bus import DistantLog, FoundDocuments, ProcessBroker
from tests.simulation.loop import Owner

if TYPE_CHECKING:
    from tests.simulation.world import World

IMAGE = "image-1"


class Process:
    """A process of the control plane: executor, mirrors, follow-through, ears. It is killed and comes back."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.owner = Owner(name)
        self.owner.dead = True
        self.cloud: Cloud | None = None
        self._calls: set[asyncio.Future[Any]] = set()

    def start(self) -> None:
        if self.owner.dead:
            self.owner = Owner(self.name)
            self.world.watch(self.world.loop.spawn(self.owner, self._live()), self.name)

    def kill(self) -> None:
        self.world.bury(self.owner)
        self.cloud = None
        for call in self._calls:
            if not call.done():
                call.set_exception(ConnectionError("it went away in the midst of this"))
        self._calls.clear()

    async def serve(self, do: Callable[[Cloud], Coroutine[Any, Any, Any]]) -> None:
        """What somebody asks of it from outside, done in its own name: it dies with it, and who asked sees that.

        Never in the name of who asks: whatever the process starts meanwhile would die with that one instead.
        """
        assert self.cloud
        call: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls.add(call)
        task = self.world.loop.spawn(self.owner, do(self.cloud))

        def over(task: asyncio.Task[Any]) -> None:
            if call.done():
                task.cancelled() or task.exception()
            elif task.cancelled():
                call.cancel()
            elif error := task.exception():
                call.set_exception(error)
            else:
                call.set_result(None)

        task.add_done_callback(over)
        try:
            await call
        finally:
            self._calls.discard(call)
            task.cancel()

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
        reactor.telling._sign = _signed  # type: ignore[method-assign]
        reports = Reports(cloud, reactor.telling)
        reports.hosts._others = world.heard
        telling = NetworkTelling(cloud, world.book.lacking)
        network_reports = NetworkReports(cloud, telling)
        network_reports.hosts._others = world.networks_heard
        nics, routers, recovery = NicReactor(cloud), RouterReactor(cloud), Recovery(cloud)
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
            tasks.create_task(self._sweep(Sweep(log, reactions, again_seconds=5.0), nics, routers, recovery))
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

    async def _sweep(self, sweep: Sweep, *swept: NicReactor | RouterReactor | Recovery) -> None:
        while True:
            if self.world.leads(self):
                try:
                    await sweep.once()
                    for reactor in swept:
                        await reactor.sweep()
                except AWAY:
                    self.world.sweeper = None
            await asyncio.sleep(1.0)


async def _signed(image_id: str, audience: str) -> str:
    """What images are read and brought with is signed by the identity service, which is not here."""
    return "ticket"
