"""A cloud with simulated hosts and the follow-through of servers, for tests: no API."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

from agents.hypervisor.agent import Agent
from agents.hypervisor.simulated import SimulatedDriver
from agents.link import BrokerLink
from agents.network.agent import NetworkAgent
from agents.network.link import BrokerNetworkLink
from agents.network.simulated import SimulatedNetwork
from bus import clock
from bus.cloud import Cloud, open_cloud
from bus.config import Settings
from bus.consumer import ProjectionWorker, Reactions, Reactor, Sweep
from bus.execute import Wish
from handlers.compute.build import ServerReactor
from handlers.compute.following import NicReactor
from handlers.compute.quota import QUOTAS, counting
from handlers.compute.reports import Reports
from handlers.compute.server import SERVERS
from handlers.compute.server_group import SERVER_GROUPS
from handlers.network.reports import NetworkReports, is_network_link
from handlers.network.telling import Telling as NetworkTelling
from projections import projections
from projections.network.host import NETWORK_HOSTS
from schema.compute.host import HOST
from schema.compute.quota import DEFAULTS, QUOTA, SetQuotaLimits
from schema.compute.server import SERVER
from schema.compute.server_command import Action, CreateServer
from schema.compute.server_group import CreateServerGroup, GroupPolicy, JoinServerGroup
from schema.compute.server_parts import Order, ServerFlavor
from schema.compute.server_state import Server
from schema.network.host import NETWORK_HOST
from schema.network.wiring import link_name
from schema.placement.consumer import CONSUMER
from schema.placement.provider import PROVIDER

WAIT_SECONDS = 20.0
PROJECT = "project-1"


class Steered:
    """A cloud whose servers are followed through. Make it before the cloud starts; `async with` is when it works.

    `networked`: every host has a network agent, too, and cards follow their ports. Somebody must work the projection
    of hosts' networks and tell `nudge` of it.
    """

    def __init__(self, cloud: Cloud, *, networked: bool = False) -> None:
        self.cloud = cloud
        self.reactor = ServerReactor(cloud)
        self.reports = Reports(cloud, self.reactor.telling)
        self.reports.hosts.on_metrics = self.reactor.scheduler.measured
        self.network_telling = NetworkTelling(cloud) if networked else None
        self.network_reports = NetworkReports(cloud, self.network_telling) if networked else None
        self.drivers: dict[str, SimulatedDriver] = {}
        self.networks: dict[str, SimulatedNetwork] = {}
        self._agents: dict[str, list[asyncio.Task[None]]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        cloud = self.cloud
        await cloud.broker.listen(self._hear)
        reactors: list[Reactor] = [self.reactor, *([NicReactor(cloud)] if self.network_reports else [])]
        reactions = Reactions(cloud.log, cloud.executor, cloud.broker, cloud.checkpoints, reactors)
        sweep = Sweep(cloud.log, reactions)
        self._tasks = [asyncio.create_task(it) for it in (reactions.run(), sweep.run(), self.reports.hosts.listen())]
        if self.network_reports:
            self._tasks.append(asyncio.create_task(self.network_reports.hosts.listen()))
        return self

    async def _hear(self, link: str, message: bytes) -> None:
        reports = self.network_reports if self.network_reports and is_network_link(link) else self.reports
        await reports.on_report(link, message)

    async def nudge(self, deltas: Any) -> None:
        """What the projection of hosts' networks made of a batch."""
        assert self.network_telling
        await self.network_telling.nudge(deltas)

    async def __aexit__(self, *_: object) -> None:
        for name in list(self._agents):
            await self.kill(name)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def host(self, name: str, *, wires: bool = True, fence: bool = False, **fields: Any) -> SimulatedDriver:
        """Start a host; its driver, to make things go wrong with. `wires`: with a network agent, if hosts have any."""
        driver = self.drivers.setdefault(name, SimulatedDriver(name, **fields))
        link = BrokerLink(await self.cloud.broker.link(name))
        agent = Agent(name, driver, link, lease_seconds=self.cloud.settings.lease_seconds, fence=fence)
        self._agents[name] = [asyncio.create_task(agent.run(), name=f"host {name}")]
        wires = wires and self.network_telling is not None
        if wires:
            self._agents[name].append(await self._network(name))
        await self.until(lambda: self._usable(name, wires=wires))
        return driver

    async def _network(self, name: str) -> asyncio.Task[None]:
        driver = self.networks.setdefault(name, SimulatedNetwork(name))
        agent = NetworkAgent(name, driver, BrokerNetworkLink(await self.cloud.broker.link(link_name(name))))
        return asyncio.create_task(agent.run(), name=f"network of host {name}")

    async def kill(self, name: str) -> None:
        """The host's agents are gone from one moment to the next; its guests are not."""
        tasks = self._agents.pop(name)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def create(self, *also: Wish, id: str = "", **fields: Any) -> str:
        """Order a server, and what is wished along with it; its id."""
        id = id or clock.uuid4()
        flavor = fields.pop("flavor", ServerFlavor(id="1", name="small", vcpus=1, ram_mb=512, disk_gb=1))
        group_id = fields.pop("group_id", None)
        order = fields.pop("order", Order(user_id="ada", group_id=group_id))
        await self.cloud.executor.execute(
            Wish(SERVERS, id, CreateServer(name="web", project_id=PROJECT, order=order, flavor=flavor, **fields)),
            counting(id, PROJECT, DEFAULTS),
            *([Wish(SERVER_GROUPS, group_id, JoinServerGroup(server_id=id))] if group_id else []),
            *also,
        )
        return id

    async def group(self, id: str, policy: GroupPolicy) -> None:
        """Make a server group."""
        command = CreateServerGroup(name="group", project_id=PROJECT, user_id="ada", policy=policy)
        await self.cloud.executor.execute(Wish(SERVER_GROUPS, id, command))

    async def act(self, id: str, command: Action, *also: Wish) -> None:
        await self.cloud.executor.execute(Wish(SERVERS, id, command), *also)

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
            and not any(any(document.state.usage.values()) for document in quotas)
            and not any(document.state.claims for document in providers)
            and not any(driver.domains for driver in self.drivers.values())
        )

    def _usable(self, name: str, *, wires: bool) -> bool:
        document = self.cloud.mirror(HOST).get(name)
        network = self.cloud.mirror(NETWORK_HOST).get(name)
        wired = network is not None and network.state.alive
        return document is not None and document.state.usable and wired is wires


@asynccontextmanager
async def steered(
    settings: Settings, dsn: str, drivers: dict[str, SimulatedDriver] | None = None, *, networked: bool = False
) -> AsyncIterator[Steered]:
    """The same, with a cloud of its own, and a project without limits. `drivers`: hosts that were there before."""
    if networked:
        projections()
    cloud = await open_cloud(settings, dsn)
    steering = Steered(cloud, networked=networked)
    steering.drivers = {} if drivers is None else drivers
    await cloud.start()
    unlimited = SetQuotaLimits(limits={"instances": -1, "cores": -1, "ram": -1})
    await cloud.executor.execute(Wish(QUOTAS, PROJECT, unlimited))
    projecting = asyncio.create_task(_project(steering)) if networked else None
    try:
        async with steering:
            yield steering
    finally:
        if projecting:
            projecting.cancel()
            await asyncio.gather(projecting, return_exceptions=True)
        await cloud.close()


async def _project(steering: Steered) -> None:
    cloud = steering.cloud
    await ProjectionWorker(cloud.pool, cloud.log, cloud.broker, cloud.checkpoints, NETWORK_HOSTS, steering.nudge).run()
