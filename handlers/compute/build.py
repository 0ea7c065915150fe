"""The follow-through of servers: doing for many at once what each of them still needs (handlers/compute/step.py).

    scheduling ─▶ Place: hosts are picked for the whole batch; claim, bound ports and ServerPlaced are one append
    spawning, powering-off, … ─▶ Tell: its host hears what it should hold
    deleting ─▶ Tell, until nothing of it is left, or its host is lost ─▶ EndServer with claim and quota, one append
    a port that its host cannot wire, overdue ─▶ the next host, the state it was in, or ERROR with a fault to read

The same code runs after every event of a server, in the sweep, and for all servers on their way on a host that is lost.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog

from bus import clock
from bus.cloud import Cloud
from bus.documents import Where
from bus.execute import Wish
from bus.log import Document
from handlers.compute.fate import Wished, addressless, cut_off, ending, execute_all, failing, placing, request
from handlers.compute.image_count import ImageFollower
from handlers.compute.move import second_host
from handlers.compute.moving import arriving, cancelling, confirming, failed_at, failing_move, moving, returning
from handlers.compute.port_wants import NOTHING, wants_of
from handlers.compute.ports import device_of, ports_of
from handlers.compute.server import SERVERS
from handlers.compute.server_group import BreaksPolicy
from handlers.compute.shelving import offloaded
from handlers.compute.step import Arrive, Place, Step, Tell, TurnAway, advance
from handlers.compute.telling import Telling
from handlers.network.addressing import NothingLeft
from handlers.network.router import Outdated
from handlers.network.subnet import AddressTaken
from handlers.placement.provider import NoRoom
from handlers.placement.schedule import Scheduler
from schema.compute.host import HOST, Host
from schema.compute.migration import MIGRATION, OVER, MigrationType
from schema.compute.move import Phase
from schema.compute.server import SERVER
from schema.compute.server_command import (
    CancelMove,
    ConfirmResize,
    DeleteServer,
    EndServer,
    FailBuild,
    FailMove,
    FinishOffload,
    GiveUpTask,
    ObserveServer,
    OffloadServer,
    RefusePlacement,
    ReturnMove,
    SettleNics,
)
from schema.compute.server_group import SERVER_GROUP, ServerGroup
from schema.compute.server_parts import Fault
from schema.compute.server_state import Server
from schema.compute.task import WAYS, PowerState, Task, VmState
from schema.event import Kind
from schema.network.host import NETWORK_HOST
from schema.network.port import PORT
from schema.network.port_state import Port
from schema.placement.provider import PROVIDER
from schema.refusal import Refused

log = structlog.get_logger()

PLACING_ROUNDS = 5
"""How often other hosts are picked for those whose claim another process was quicker to make."""


class ServerReactor:
    """`bus.consumer.Reactor` for servers, their ports, and the hosts that have them. Make it before the mirrors start.

    A port counts while its server is being built.
    """

    kinds: Sequence[Kind[Any]] = (SERVER, HOST, PORT)

    def __init__(self, cloud: Cloud, telling: Telling | None = None) -> None:
        self.telling = telling or Telling(cloud)
        self.scheduler = Scheduler.following(cloud.mirrors, cloud.settings.scheduler)
        self._images = ImageFollower(cloud, self.scheduler)
        self._hosts = cloud.mirror(HOST)
        self._network_hosts = cloud.mirror(NETWORK_HOST)
        self._cloud = cloud

    async def react(self, documents: Sequence[Document]) -> None:
        """Do what these servers still need: all that want a host together, one message to each host."""
        servers = [document.state for document in documents if isinstance(document.state, Server)]
        lost = {it.id for it in documents if isinstance(it.state, Host) and not (it.state.living and it.state.alive)}
        for host in lost:
            servers += await self._on_their_way_at(host)
        servers += await self._waiting_for([it.state for it in documents if isinstance(it.state, Port)], servers)
        building = [server for server in servers if _being_built(server)]
        ports = await ports_of(self._cloud, building, fresh=True)
        todo = _Todo(self._cloud.settings.resize_confirm_window)
        now = clock.now()
        for server in servers:
            alive = server.host is None or (server.host not in lost and self.telling.alive(server.host))
            other = second_host(server)
            steps = advance(
                server,
                now,
                host_alive=alive,
                host_fenced=not alive and self._fenced(server, now),
                target_alive=not other or (other not in lost and self.telling.alive(other)),
                back=self._back(server),
                ports=ports,
            )
            for step in steps:
                todo.add(server, step)
            self.scheduler.work_on(server.id, server.host if server.task and WAYS[server.task].heavy else None)
            if server.vm_state is VmState.ACTIVE and server.host:
                self.scheduler.succeeded(server.host)
        await asyncio.gather(
            self._place(todo.placing),
            self._tell(todo.telling),
            self._turn_away(todo.turned_away),
            self._execute(todo.wishes),
        )

    def _fenced(self, server: Server, now: datetime) -> bool:
        """Whether its host, which is down, surely runs nothing of it: the lease it had is over, and it has fenced."""
        host, settings = self.telling.host(server.host), self._cloud.settings
        if host is None or host.updated_at is None or server.task_since is None:
            return host is None
        patient = now - server.task_since > timedelta(seconds=2 * settings.lease_seconds)
        over = now - host.updated_at > timedelta(seconds=settings.lease_seconds + settings.fence_seconds)
        return host.facts.fences and patient and over

    def _back(self, server: Server) -> bool:
        """The host it is to leave, as that was down, is not any more."""
        source = self.telling.host(server.move.source_host) if server.move else None
        if source is None or server.move is None or server.move.type is not MigrationType.EVACUATION:
            return False
        return source.alive and source.epoch >= server.move.source_epoch

    async def _on_their_way_at(self, host: str) -> list[Server]:
        """Servers on a lost host that wait for it."""
        where = [Where("parent_id", "=", host), Where("task", "is", True)]
        documents = await self._cloud.documents.find(SERVER, where=where, sort=(), limit=None)
        coming = [Where("dest_host", "=", host), Where("status", "not in", sorted(OVER))]
        moves = await self._cloud.documents.find(MIGRATION, where=coming, sort=(), limit=None)
        known = {document.id for document in documents}
        streams = [SERVER.stream(it.state.server_id) for it in moves if it.state.server_id not in known]
        awaited = await self._cloud.executor.load(streams) if streams else {}
        return [document.state for document in (*documents, *awaited.values())]

    async def _waiting_for(self, ports: Sequence[Port], known: Sequence[Server]) -> list[Server]:
        """The servers that are being built and have one of these ports, of which its host has just said something.

        One whose guest is not there yet is told of nothing: it will be looked at when it is.
        """
        said = [port for port in ports if port.wired or port.fault is not None]
        streams = {SERVER.stream(id) for port in said if (id := device_of(port))}
        streams -= {SERVER.stream(server.id) for server in known}
        documents = await self._cloud.executor.load(sorted(streams)) if streams else {}
        faulty = {port.device_id for port in said if port.fault is not None}
        return [
            it.state
            for it in documents.values()
            if (it.state.task is Task.SPAWNING and (it.id in faulty or it.state.power_state is not PowerState.NOSTATE))
            or (it.state.move is not None and it.state.move.phase is Phase.ARRIVING)
        ]

    async def _place(self, servers: Sequence[Server]) -> None:
        for _ in range(PLACING_ROUNDS):
            if not servers:
                return
            await self._images.ready()
            groups = await self._groups(servers)
            away = cut_off(self._hosts, self._network_hosts)
            wants = await wants_of(self._cloud, servers)
            full = {server.id: it for server in servers if (it := wants.get(server.id, NOTHING).full)}
            await self._execute([(it, addressless(it, full[it.id])) for it in servers if it.id in full])
            servers = [it for it in servers if it.id not in full]
            answers = self.scheduler.place(
                [
                    request(server, groups.get(server.order.group_id), away, wants.get(server.id, NOTHING))
                    for server in servers
                ]
            )
            outcomes = await self._execute(
                [(server, placing(server, answer)) for server, answer in zip(servers, answers, strict=True)]
            )
            again = []
            for server, outcome in zip(servers, outcomes, strict=True):
                if outcome is not None:
                    self.scheduler.forget(server.id)
                if isinstance(outcome, _LOST):
                    again.append(server)
            await self._learn(outcomes)
            servers = again
        if servers:
            log.warning("claims keep being lost to others; the sweep goes on", servers=len(servers))

    async def _learn(self, outcomes: Sequence[Refused | None]) -> None:
        """Tell the scheduler what it was beaten by: it may hear of that only later, and would pick the same again."""
        streams = {PROVIDER.stream(it.provider_id) for it in outcomes if isinstance(it, NoRoom)}
        documents = await self._cloud.executor.load(sorted(streams)) if streams else {}
        for document in documents.values():
            self.scheduler.learn(document)

    async def _groups(self, servers: Sequence[Server]) -> dict[str | None, ServerGroup]:
        ids = {server.order.group_id for server in servers if server.order.group_id}
        documents = await self._cloud.executor.load([SERVER_GROUP.stream(id) for id in ids]) if ids else {}
        return {document.id: document.state for document in documents.values() if document.state.living}

    async def _tell(self, servers: Sequence[Server]) -> None:
        if servers:
            unbuildable = await self.telling.tell(servers)
            await self._execute([(it.server, _not_built(it.server, it.reason)) for it in unbuildable])

    async def _turn_away(self, servers: Mapping[str, Sequence[Server]]) -> None:
        for host, its in servers.items():
            await self.telling.tell_absent(host, its)

    async def _execute(self, wishes: Sequence[Wished]) -> list[Refused | None]:
        """Wish all of it; what was refused has been overtaken by other events, which bring their own reaction."""
        for server, (first, *_) in wishes:
            if isinstance(first.command, FailBuild | FailMove) and first.command.host:
                self.scheduler.failed(first.command.host)
                log.info("server build failed", server=server.id, host=server.host, why=first.command.fault.message)
        return await execute_all(self._cloud, wishes)


_LOST = (NoRoom, BreaksPolicy, AddressTaken, NothingLeft, Outdated)
"""Why another host, or another address, is to be looked for at once: somebody was quicker."""


def _being_built(server: Server) -> bool:
    return server.task is Task.SPAWNING or (server.move is not None and server.move.phase is Phase.ARRIVING)


def _not_built(server: Server, why: str) -> tuple[Wish, ...]:
    """It cannot be told to be built."""
    if moving(server):
        return failing_move(server, failed_at(server, why))
    if server.task in {Task.REBUILD_DISK, Task.RESCUING}:
        return (Wish(SERVERS, server.id, GiveUpTask(task=server.task, fault=Fault(message=why))),)
    return failing(server, Fault(message=why))


class _Todo:
    """The steps of many servers, sorted by what is done for many at once."""

    def __init__(self, confirm_seconds: float) -> None:
        self._confirm_seconds = confirm_seconds
        self.placing: list[Server] = []
        self.telling: list[Server] = []
        self.turned_away: dict[str, list[Server]] = defaultdict(list)
        self.wishes: list[Wished] = []

    def add(self, server: Server, step: Step) -> None:
        match step:
            case Place():
                self.placing.append(server)
            case Tell():
                self.telling.append(server)
            case TurnAway():
                self.turned_away[step.host].append(server)
            case FinishOffload():
                self.wishes.append((server, offloaded(server)))
            case EndServer():
                self.wishes.append((server, ending(server)))
            case Arrive():
                self.wishes.append((server, arriving(server, self._confirm_seconds)))
            case ConfirmResize():
                self.wishes.append((server, confirming(server, step)))
            case ReturnMove():
                self.wishes.append((server, returning(server)))
            case CancelMove():
                self.wishes.append((server, cancelling(server, step)))
            case FailMove():
                self.wishes.append((server, failing_move(server, step)))
            case FailBuild():
                self.wishes.append((server, failing(server, step.fault)))
            case ObserveServer() | SettleNics() | OffloadServer() | DeleteServer():
                self.wishes.append((server, (Wish(SERVERS, server.id, step),)))
            case RefusePlacement() | GiveUpTask():
                self.wishes.append((server, (Wish(SERVERS, server.id, step),)))
