"""The composition root: what each role is made of. The one place that knows every layer.

all = api + handlers + projections + agent over the in-process bus
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import pkgutil
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, cast

import asyncpg
import structlog
from aiohttp import web

import api
from agents.image import builtin
from api.cli import metrics
from api.cli.choices import admin_password
from api.cli.hypervisor import image
from api.cli.metrics import Metrics
from api.cli.steering import Links, Run, agents, network_agents, network_driver
from api.wire import Call, Get, Reply, Service
from api.wire.app import make_app
from api.wire.errors import PLAIN
from bus.amqp_broker import AmqpBroker
from bus.amqp_host import AmqpAgents
from bus.checkpoint import EVERY_PARTITION
from bus.cloud import Cloud, open_cloud
from bus.config import EMBEDDED, MEMORY, RABBITMQ, ConfigurationError, Settings
from bus.consumer import ProjectionWorker, Reactions, Reactor, Sweep
from bus.leader import Leader
from bus.memory_broker import MemoryBroker
from bus.postgres import EmbeddedPostgres
from bus.rabbitmq_server import RabbitServer
from bus.relay import Relay
from bus.shares import Shares
from bus.vault_sweep import VaultSweep
from handlers.compute.bootstrap import bootstrap as compute_bootstrap
from handlers.compute.build import ServerReactor
from handlers.compute.console import ConsoleReactor
from handlers.compute.following import NicReactor
from handlers.compute.healing import Healing
from handlers.compute.recovery import Recovery
from handlers.compute.reports import Reports
from handlers.identity.bootstrap import ADMIN, named_id
from handlers.identity.bootstrap import bootstrap as identity_bootstrap
from handlers.identity.upkeep import Upkeep
from handlers.image import bootstrap as image_bootstrap
from handlers.image.cleaning import ImageReactor, remove_orphans
from handlers.image.store import image_store
from handlers.network.reports import NetworkReports, is_network_link
from handlers.network.routing import RouterReactor
from handlers.network.telling import Telling as NetworkTelling
from handlers.network.trunking import TrunkReactor
from projections import projections
from projections.network.host import NETWORK_HOSTS
from schema.refusal import Refused

log = structlog.get_logger()

RETRY_SECONDS = 0.05
LONGEST_RETRY_SECONDS = 1.0

SWEEP_SECONDS = 1.0
AGENT_RETRY_SECONDS = 5.0
CANCEL_ATTEMPTS = 3
CANCEL_SECONDS = 3.0

NOT_YET = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""PostgreSQL or RabbitMQ is still starting, or away."""


async def run(settings: Settings, role: str, stop: asyncio.Event) -> None:
    """Run a role until `stop`, or until a part of it fails, which is raised."""
    async with AsyncExitStack() as stack:
        process = Process(settings, role, stack)
        opening = asyncio.create_task(ROLES[role](process))
        await _first(opening, asyncio.create_task(stop.wait()))
        if not opening.done():
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            return
        opening.result()
        log.info("ready", role=role)
        await process.until(stop)


class Process:
    """A running role: its cloud, its tasks, and what must be undone in the end, last first."""

    def __init__(self, settings: Settings, role: str, stack: AsyncExitStack) -> None:
        self.settings = settings
        self.role = role
        self.stack = stack
        self._tasks: list[asyncio.Task[Any]] = []

    async def open(self) -> Cloud:
        """The cloud, as soon as PostgreSQL and the broker answer."""
        projections()  # whose tables are made with the log's
        url = amqp_url(self.settings)
        broker = AmqpBroker(url, self.role) if url else None
        if broker:
            await _patiently(broker.start)
        cloud: Cloud = await _patiently(lambda: open_cloud(self.settings, dsn(self.settings), broker))
        self.stack.push_async_callback(cloud.close)
        return cloud

    def task(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Something that runs as long as the role; if it ends, so does the role."""
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        self.stack.push_async_callback(_cancelled, task)

    async def until(self, stop: asyncio.Event) -> None:
        """Until told to stop. Raises what ended a task."""
        stopping = asyncio.create_task(stop.wait())
        await _first(stopping, *self._tasks)
        if not stop.is_set():
            failed = next(task for task in self._tasks if task.done())
            raise RuntimeError(f"{failed.get_name()} ended") from failed.exception()


async def _all(process: Process) -> None:
    cloud = await process.open()
    measured = Metrics(cloud)
    serving = _served(process, cloud, measured)
    telling = NetworkTelling(cloud)
    following = _Following(cloud, telling)
    await cloud.start()
    await _bootstrap(process.settings, cloud)
    await following.follow(process)
    _project(process, cloud, telling)
    await serving()
    await _steer(process, cast("MemoryBroker", cloud.broker))
    await _register_image(process.settings, cloud)


async def _api(process: Process) -> None:
    cloud = await process.open()
    serving = _served(process, cloud, Metrics(cloud))
    await cloud.start()
    await _bootstrap(process.settings, cloud)
    await serving()
    await _register_image(process.settings, cloud)


async def _handlers(process: Process) -> None:
    cloud = await process.open()
    following = _Following(cloud, NetworkTelling(cloud))
    await cloud.start()
    await following.follow(process)
    await _tell(process, Metrics(cloud))


async def _projections(process: Process) -> None:
    cloud = await process.open()
    telling = NetworkTelling(cloud)
    await cloud.start()
    _project(process, cloud, telling)
    await _tell(process, Metrics(cloud))


async def _relay(process: Process) -> None:
    _must_be_amqp(process.settings)
    cloud = await process.open()
    await cloud.start()
    process.task(Relay(cloud.pool, cast("AmqpBroker", cloud.broker)).run(), "relay")
    await _tell(process, Metrics(cloud))


async def _agent(process: Process) -> None:
    """It has no database: the bus is all it speaks to."""
    hosts = AmqpAgents(_must_be_amqp(process.settings))
    process.stack.push_async_callback(hosts.close)
    await _patiently(hosts.start)
    await _steer(process, hosts)
    await _tell(process, Metrics(None))


ROLES: dict[str, Callable[[Process], Coroutine[Any, Any, None]]] = {
    "all": _all,
    "api": _api,
    "handlers": _handlers,
    "projections": _projections,
    "relay": _relay,
    "agent": _agent,
}


def services() -> list[Service]:
    """Every `SERVICE` of api/<service>/service.py."""
    packages = sorted(module.name for module in pkgutil.iter_modules(api.__path__, "api.") if module.ispkg)
    modules = [f"{package}.service" for package in packages if importlib.util.find_spec(f"{package}.service")]
    return [importlib.import_module(module).SERVICE for module in modules]


def dsn(settings: Settings) -> str:
    """Where PostgreSQL is."""
    return EmbeddedPostgres(settings.home).dsn() if settings.postgres == EMBEDDED else settings.postgres


def amqp_url(settings: Settings) -> str | None:
    """Where RabbitMQ is; None where the bus is in the process."""
    if settings.bus == MEMORY:
        return None
    return RabbitServer(settings.home).url if settings.bus == RABBITMQ else settings.bus


def _served(process: Process, cloud: Cloud, measured: Metrics) -> Callable[[], Awaitable[None]]:
    """The API, made before the cloud starts; what is returned makes it listen, after."""
    application = make_app(cloud, [*services(), _own_service(measured)])
    measured.registry.register(application.tallies)

    async def listen() -> None:
        runner = application.runner()
        await runner.setup()
        process.stack.push_async_callback(runner.cleanup)
        settings = process.settings
        await web.TCPSite(runner, settings.listen_host, settings.listen_port, reuse_address=True).start()
        log.info("serving", url=settings.url)

    return listen


def _own_service(measured: Metrics) -> Service:
    async def health(call: Call) -> Reply:
        good = await measured.healthy()
        text = b"OK\n" if good else b"the log does not answer\n"
        return Reply(text, status=200 if good else 503, content_type="text/plain")

    async def scrape(call: Call) -> Reply:
        return Reply(await measured.render(), content_type=metrics.CONTENT_TYPE)

    roots = [Get("/healthcheck", health, public=True), Get("/metrics", scrape, public=True)]
    return Service(
        name="cumulog-health", type="health", prefix="/healthcheck", routes=(), roots=roots, errors=PLAIN, hidden=True
    )


class _Following:
    """The follow-through of every service. Made before the cloud starts: it says what must be mirrored."""

    def __init__(self, cloud: Cloud, telling: NetworkTelling) -> None:
        self._cloud = cloud
        servers = ServerReactor(cloud)
        nics, routers = NicReactor(cloud), RouterReactor(cloud)
        vault = VaultSweep(cloud.pool, cloud.vault)
        self._swept = (nics, routers, Recovery(cloud), Healing(cloud, servers.telling), vault)
        reactors: list[Reactor] = [
            servers,
            nics,
            routers,
            TrunkReactor(cloud),
            ImageReactor(cloud),
            ConsoleReactor(cloud),
            Upkeep(cloud),
        ]
        self._reports = Reports(cloud, servers.telling)
        self._reports.hosts.on_metrics = servers.scheduler.measured
        self._network_reports = NetworkReports(cloud, telling)
        self._reactions = Reactions(cloud.log, cloud.executor, cloud.broker, cloud.checkpoints, reactors)

    async def follow(self, process: Process) -> None:
        """React to events, hear the hosts, and (in one process at a time) sweep."""
        await self._cloud.broker.listen(self._hear)
        process.task(self._reports.hosts.listen(), "leases")
        process.task(self._network_reports.hosts.listen(), "leases of network agents")
        shares = Shares(self._cloud.pool, "reactions", EVERY_PARTITION)
        process.task(shares.run(self._reactions.run), "reactions")
        sweep = Sweep(self._cloud.log, self._reactions)

        async def lead(connection: asyncpg.Connection) -> None:
            while True:
                await connection.fetchval("SELECT 1")  # the lock lives as long as this connection
                await sweep.once()
                for reactor in self._swept:
                    await reactor.sweep()
                await asyncio.sleep(SWEEP_SECONDS)

        process.task(Leader(self._cloud.pool, "sweep").run(lead), "sweep")

    async def _hear(self, link: str, message: bytes) -> None:
        reports = self._network_reports if is_network_link(link) else self._reports
        await reports.on_report(link, message)


def _project(process: Process, cloud: Cloud, telling: NetworkTelling) -> None:
    """Every read model, each in one process at a time. The one of hosts' networks tells their agents, too."""
    every = projections()
    told = {NETWORK_HOSTS.name: telling.nudge}

    async def work(names: frozenset[str]) -> None:
        async with asyncio.TaskGroup() as group:
            for name in names:
                worker = ProjectionWorker(
                    cloud.pool, cloud.log, cloud.broker, cloud.checkpoints, every[name], told.get(name)
                )
                group.create_task(worker.run(), name=f"projection {name}")

    process.task(Shares(cloud.pool, "projections", every).run(work), "projections")


async def _steer(process: Process, links: Links) -> None:
    """The agents of this machine, over their end of the bus; what ails them does not end the role."""

    async def keep(what: str, made: Callable[[Settings, Links], Awaitable[list[tuple[str, Run]]]]) -> None:
        while True:
            try:
                async with asyncio.TaskGroup() as group:
                    for host, work in await made(process.settings, links):
                        group.create_task(work(), name=f"{what} agent of {host}")
            except Exception as error:
                log.exception("agents ended, starting them again", which=what, error=repr(error))
            await asyncio.sleep(AGENT_RETRY_SECONDS)

    if process.settings.hypervisor != "none":
        process.task(keep("hypervisor", agents), "hypervisor agents")
        if network_driver(process.settings) != "none":
            process.task(keep("network", network_agents), "network agents")


async def _bootstrap(settings: Settings, cloud: Cloud) -> None:
    """What every cloud begins with: the admin, the catalog, the default flavors."""
    await identity_bootstrap(cloud, admin_password(settings.home))
    await compute_bootstrap(cloud)


async def _register_image(settings: Settings, cloud: Cloud) -> None:
    """The image that `up` made, if it made one. Without it a cloud is a cloud all the same."""
    path = image(settings)
    if not path.exists():
        return
    try:
        await image_bootstrap.register(
            cloud,
            path,
            project_id=named_id("project", ADMIN),
            name=builtin.NAME,
            disk_format=path.suffix[1:],
            min_disk_gb=builtin.MINIMUM_DISK_GB,
            min_ram_mb=builtin.MINIMUM_RAM_MB,
        )
        await remove_orphans(cloud, image_store(settings))
    except (Refused, *NOT_YET) as error:
        log.warning("the built-in image is not registered", error=repr(error))


def _must_be_amqp(settings: Settings) -> str:
    url = amqp_url(settings)
    if url is None:
        raise ConfigurationError("bus is 'memory': relay and agent are for RabbitMQ; `serve all` is the whole cloud")
    return url


async def _patiently(attempt: Callable[[], Awaitable[Any]]) -> Any:
    """Try until what it needs is there, ever more slowly; said once."""
    delay, said = RETRY_SECONDS, False
    while True:
        try:
            return await attempt()
        except NOT_YET as error:
            if delay >= LONGEST_RETRY_SECONDS and not said:
                log.warning("waiting for PostgreSQL and the bus", error=repr(error))
                said = True
            await asyncio.sleep(delay)
            delay = min(delay * 1.5, LONGEST_RETRY_SECONDS)


async def _tell(process: Process, measured: Metrics) -> None:
    """Health and metrics of a role without an API."""
    settings = process.settings
    path = settings.run_folder / f"{process.role}.sock"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    sites: list[Callable[[web.BaseRunner], web.BaseSite]] = [lambda runner: web.UnixSite(runner, path)]
    if settings.metrics_listen:
        host, _, port = settings.metrics_listen.rpartition(":")
        sites.append(lambda runner: web.TCPSite(runner, host, int(port)))
    runner = await metrics.listen(measured, sites)
    process.stack.push_async_callback(runner.cleanup)


async def _first(*tasks: asyncio.Task[Any]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


async def _cancelled(task: asyncio.Task[Any]) -> None:
    """End a task; again, should it have taken the first time for something else."""
    for _ in range(CANCEL_ATTEMPTS):
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_SECONDS)
        if task.done():
            return
    log.warning("a task does not end", name=task.get_name())
