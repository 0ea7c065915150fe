"""A cloud with simulated hosts and the follow-through of servers, for tests: no API."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

from agents.hypervisor.agent import Agent
from agents.hypervisor.simulated import SimulatedDriver
from agents.link import BrokerLink
from bus import clock
from bus.cloud import Cloud, open_cloud
from bus.config import Settings
from bus.consumer import Reactions, Sweep
from bus.execute import Wish
from handlers.compute.build import ServerReactor
from handlers.compute.quota import QUOTAS
from handlers.compute.reports import Reports
from handlers.compute.server import SERVERS
from handlers.compute.server_group import SERVER_GROUPS
from schema.compute.host import HOST
from schema.compute.quota import QUOTA, ReserveQuota, SetQuotaLimits
from schema.compute.server import SERVER, Action, CreateServer, Order, Server, ServerFlavor
from schema.compute.server_group import CreateServerGroup, GroupPolicy, JoinServerGroup
from schema.placement.consumer import CONSUMER
from schema.placement.provider import PROVIDER

WAIT_SECONDS = 20.0
PROJECT = "project-1"


class Steered:
    """A cloud whose servers are followed through. Make it before the cloud starts; `async with` is when it works."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.reactor = ServerReactor(cloud)
        self.reports = Reports(cloud, self.reactor.telling)
        self.drivers: dict[str, SimulatedDriver] = {}
        self._agents: dict[str, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        cloud = self.cloud
        await cloud.broker.listen(self.reports.on_report)
        reactions = Reactions(cloud.log, cloud.executor, cloud.broker, cloud.checkpoints, [self.reactor])
        sweep = Sweep(cloud.log, reactions)
        self._tasks = [asyncio.create_task(it) for it in (reactions.run(), sweep.run(), self.reports.hosts.listen())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for name in list(self._agents):
            await self.kill(name)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def host(self, name: str, **fields: Any) -> SimulatedDriver:
        """Start a host; its driver, to make things go wrong with."""
        driver = self.drivers.setdefault(name, SimulatedDriver(name, **fields))
        link = BrokerLink(await self.cloud.broker.link(name))
        agent = Agent(name, driver, link, lease_seconds=self.cloud.settings.lease_seconds)
        self._agents[name] = asyncio.create_task(agent.run(), name=f"host {name}")
        await self.until(lambda: self._usable(name))
        return driver

    async def kill(self, name: str) -> None:
        """The host's agent is gone from one moment to the next; its guests are not."""
        task = self._agents.pop(name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def create(self, **fields: Any) -> str:
        """Order a server; its id."""
        id = clock.uuid4()
        flavor = fields.pop("flavor", ServerFlavor(id="1", name="small", vcpus=1, ram_mb=512, disk_gb=1))
        group_id = fields.pop("group_id", None)
        order = fields.pop("order", Order(user_id="ada", group_id=group_id))
        await self.cloud.executor.execute(
            Wish(SERVERS, id, CreateServer(name="web", project_id=PROJECT, order=order, flavor=flavor, **fields)),
            Wish(QUOTAS, PROJECT, ReserveQuota(server_id=id, cores=flavor.vcpus, ram_mb=flavor.ram_mb)),
            *([Wish(SERVER_GROUPS, group_id, JoinServerGroup(server_id=id))] if group_id else []),
        )
        return id

    async def group(self, id: str, policy: GroupPolicy) -> None:
        """Make a server group."""
        command = CreateServerGroup(name="group", project_id=PROJECT, user_id="ada", policy=policy)
        await self.cloud.executor.execute(Wish(SERVER_GROUPS, id, command))

    async def act(self, id: str, command: Action) -> None:
        await self.cloud.executor.execute(Wish(SERVERS, id, command))

    async def state(self, id: str) -> Server:
        document = await self.cloud.documents.get(SERVER, id, gone=True)
        return document.state

    async def reaches(self, id: str, vm_state: str) -> Server:
        """Wait until the server is there and on its way nowhere."""
        return await self.sees(id, lambda state: state.vm_state == vm_state and state.task is None)

    async def sees(self, id: str, so: Callable[[Server], bool]) -> Server:
        """Wait until this is so of the server."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not so(state := await self.state(id)):  # noqa: ASYNC110  its state lies in the database
                await asyncio.sleep(0.01)
        return state

    async def until(self, so: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while not so():  # noqa: ASYNC110  what is so has no event of its own
                await asyncio.sleep(0.01)

    async def clean(self) -> bool:
        """No claim, no quota held, no guest: nothing outlived its server."""
        consumers = await self.cloud.documents.find(CONSUMER)
        quotas = await self.cloud.documents.find(QUOTA)
        providers = await self.cloud.documents.find(PROVIDER)
        return (
            not consumers
            and not any(document.state.held for document in quotas)
            and not any(document.state.claims for document in providers)
            and not any(driver.domains for driver in self.drivers.values())
        )

    def _usable(self, name: str) -> bool:
        document = self.cloud.mirror(HOST).get(name)
        return document is not None and document.state.usable


@asynccontextmanager
async def steered(
    settings: Settings, dsn: str, drivers: dict[str, SimulatedDriver] | None = None
) -> AsyncIterator[Steered]:
    """The same, with a cloud of its own, and a project without limits. `drivers`: hosts that were there before."""
    cloud = await open_cloud(settings, dsn)
    steering = Steered(cloud)
    steering.drivers = {} if drivers is None else drivers
    await cloud.start()
    unlimited = SetQuotaLimits(limits={"instances": -1, "cores": -1, "ram": -1})
    await cloud.executor.execute(Wish(QUOTAS, PROJECT, unlimited))
    try:
        async with steering:
            yield steering
    finally:
        await cloud.close()
