"""A cloud with network agents for tests: its projection worked, its agents heard, and events that simply happen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from agents.network.agent import NetworkAgent
from agents.network.link import BrokerNetworkLink
from agents.network.simulated import SimulatedNetwork
from agents.network.store import Held, Shared, Store
from agents.network.told import told
from agents.network.world import World
from bus.broker import Broker
from bus.cloud import Cloud, open_cloud
from bus.config import Networking, Settings
from bus.consumer import ProjectionWorker
from bus.execute import Wish
from bus.log import Document
from handlers.network.reports import NetworkReports
from handlers.network.telling import Lacking, Telling
from projections import projections
from projections.network.delta import Common, Delta
from projections.network.host import NETWORK_HOSTS
from projections.network.model import Model
from projections.network.places import COMMON, FOLLOWED
from schema.event import Event, Kind
from schema.network.network import NETWORK, NetworkCreated, Segment
from schema.network.port import PORT
from schema.network.port_event import PortBound, PortCreated
from schema.network.port_state import FixedIp
from schema.network.subnet import SUBNET, SubnetCreated
from schema.network.wiring import Endpoint, Member, Peer, Piece, Wiring, link_name


class Happened(msgspec.Struct, frozen=True):
    """A command that is granted, whatever the rules say."""

    events: tuple[Event, ...]


class _Anything:
    """Rules under which whatever is said to have happened has happened."""

    def __init__(self, kind: Kind[Any]) -> None:
        self.kind = kind

    def decide(self, state: Any, command: Happened) -> Sequence[Event]:
        return command.events


def happened(kind: Kind[Any], id: str, *events: Event) -> Wish:
    return Wish(_Anything(kind), id, Happened(events))


class Wired:
    """A cloud that wires hosts."""

    def __init__(self, cloud: Cloud, lacking: Lacking | None = None) -> None:
        self.cloud = cloud
        self.telling = Telling(cloud, lacking)
        self.reports = NetworkReports(cloud, self.telling)
        self.tasks: list[asyncio.Task[None]] = []

    async def happens(self, *wishes: Wish) -> list[Document]:
        return await self.cloud.executor.execute(*wishes)

    async def network(self, number: int = 0) -> None:
        """`n<number>` with its subnet `s<number>`."""
        segment = Segment(id="g", network_type="vxlan", segmentation_id=100 + number)
        cidr = f"10.{number >> 8}.{number & 255}.0/24"
        await self.happens(
            happened(NETWORK, f"n{number}", NetworkCreated(name=f"n{number}", project_id="p", segments=(segment,))),
            happened(SUBNET, f"s{number}", SubnetCreated(parent_id=f"n{number}", cidr=cidr)),
        )

    async def port(self, number: int, host: str = "", network: int = 0, **fields: Any) -> None:
        """`p<number>` in `n<network>`, on a host if one is said."""
        ip = f"10.{network >> 8}.{network & 255}.{number % 250 + 2}"
        created = PortCreated(
            project_id="p",
            parent_id=f"n{network}",
            mac_address=f"fa:16:3e:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}",
            fixed_ips=(FixedIp(subnet_id=f"s{network}", ip_address=ip),),
            device_owner="compute:nova",
            **fields,
        )
        events: list[Event] = [created, *([bound(host)] if host else [])]
        await self.happens(happened(PORT, f"p{number}", *events))

    async def state(self, kind: Kind[Any], id: str) -> Any:
        return (await self.cloud.documents.get(kind, id, gone=True)).state

    def start(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        async def run() -> None:
            await work()

        task = asyncio.create_task(run())
        self.tasks.append(task)
        return task

    async def agent(
        self, host: str, driver: SimulatedNetwork | None = None, store: Store | None = None, **options: Any
    ) -> tuple[NetworkAgent, asyncio.Task[None]]:
        """A running agent, with its own end of the bus."""
        link = BrokerNetworkLink(await self.cloud.broker.link(link_name(host)))
        options.setdefault("lease_seconds", self.cloud.settings.network.lease_seconds)
        agent = NetworkAgent(host, driver or SimulatedNetwork(host), link, store=store, **options)
        return agent, self.start(agent.run)

    def project(self) -> asyncio.Task[None]:
        cloud = self.cloud
        worker = ProjectionWorker(
            cloud.pool, cloud.log, cloud.broker, cloud.checkpoints, NETWORK_HOSTS, self.telling.nudge
        )
        return self.start(worker.run)


def take(held: dict[str, Piece], delta: Delta, host: str) -> None:
    """What a host holds, after it was told."""
    common = tuple(it.encoded for it in delta.common)
    word = Wiring(epoch=1, position=1, pieces=delta.pieces, gone=tuple(delta.gone), common=common)
    own: dict[str, Piece] = {}
    shared: Shared = {}
    for key, piece in held.items():
        match piece:
            case Peer() | Endpoint():
                shared.setdefault(f"network/{piece.network_id}", {})[key] = piece
            case Member():
                shared.setdefault(f"members/{piece.id}", {})[key] = piece
            case _:
                own[key] = piece
    after, _ = told(Held(0, own, shared), word)
    held.clear()
    held.update(World(after.pieces, after.common, host=host).pieces)


def holding(model: Model, host: str) -> dict[str, Piece]:
    """All that a host must hold, with what it has in common with others."""
    pieces, held = model.everything(host), dict[str, Piece]()
    commons = [Common(key, model.everything(COMMON + key)) for key in pieces if key.partition("/")[0] in FOLLOWED]
    take(held, Delta(since=0, position=1, full=True, pieces=pieces, common=commons), host)
    return held


def bound(host: str) -> PortBound:
    return PortBound(host=host, vif_type="bridge")


@asynccontextmanager
async def wiring(
    settings: Settings,
    dsn: str,
    *,
    lease_seconds: float = 5.0,
    broker: Broker | None = None,
    lacking: Lacking | None = None,
) -> AsyncIterator[Wired]:
    """A cloud whose hosts are told and heard; everything it started ends with it. `lacking`: as `Telling` has it."""
    projections()
    network = Networking(lease_seconds=lease_seconds)
    cloud = await open_cloud(msgspec.structs.replace(settings, network=network), dsn, broker)
    wired = Wired(cloud, lacking)
    try:
        await cloud.start()
        await cloud.broker.listen(wired.reports.on_report)
        wired.project()
        wired.start(wired.reports.hosts.listen)
        yield wired
    finally:
        await ended(*wired.tasks)
        await cloud.close()


async def ended(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait for it; what it then is. The condition may be a coroutine function."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.002)
