"""What hosts say: heartbeats go to the leases, reports become commands, many at once.

A report is looked at with the rules themselves: what they say changes nothing is not wished at all, so that hosts may
say everything they hold as often as they like.
"""

from __future__ import annotations

import msgspec
import structlog

from bus.cloud import Cloud
from bus.execute import Wish
from bus.log import Document
from handlers.compute.desired import power
from handlers.compute.fate import Wished, ending, execute_all, failing, settling
from handlers.compute.lease import Hosts
from handlers.compute.move import second_host
from handlers.compute.moving import heard, moving, returning
from handlers.compute.ports import Ports, ports_of, unwired
from handlers.compute.server import SERVERS, decide
from handlers.compute.shelving import offloaded
from handlers.compute.telling import Telling
from schema.compute.domain import Heartbeat, Observed, PowerSeen, Report, decode_from_host
from schema.compute.move import Phase
from schema.compute.server import SERVER
from schema.compute.server_command import ObserveServer, ProgressSnapshot
from schema.compute.server_parts import Fault
from schema.compute.server_state import Server
from schema.compute.snapshot import COPYING
from schema.compute.task import PowerState, Task

log = structlog.get_logger()

POWER_STATE: dict[PowerSeen, PowerState] = {
    "running": PowerState.RUNNING,
    "stopped": PowerState.SHUTDOWN,
    "paused": PowerState.PAUSED,
    "suspended": PowerState.SUSPENDED,
    "crashed": PowerState.CRASHED,
    "absent": PowerState.NOSTATE,
}
_NO_PORTS: Ports = {}
_LEAVING = frozenset({Task.DELETING, Task.SHELVING_OFFLOADING})
"""Its host is to have nothing of it any more."""


class Reports:
    """One process's ears: `await cloud.broker.listen(reports.on_report)`. Make it before the mirrors start."""

    def __init__(self, cloud: Cloud, telling: Telling, hosts: Hosts | None = None) -> None:
        self._cloud = cloud
        self._telling = telling
        self._incarnations: dict[str, str] = {}
        self._serials: dict[str, dict[str, int]] = {}
        """Host → server → the newest report about it."""
        self.hosts = hosts or Hosts(cloud, telling.tell_everything)

    async def on_report(self, host: str, message: bytes) -> None:
        """One message from a host. What it is not, is logged and dropped."""
        try:
            word = decode_from_host(message)
        except msgspec.DecodeError as error:
            log.warning("a host says what nobody understands", host=host, error=str(error), size_bytes=len(message))
            return
        if isinstance(word, Heartbeat):
            await self.hosts.on_heartbeat(host, word)
        else:
            await self._hear(host, word)

    async def _hear(self, host: str, report: Report) -> None:
        report = self._newest(host, report)
        documents = await self._servers(host, report)
        ports = await self._ports(report, documents)
        wishes: list[Wished] = []
        strangers: list[Server] = []
        behind: list[Server] = []
        for observed in report.observed:
            document = documents.get(SERVER.stream(observed.server_id))
            if document is None:
                log.warning("a host holds a server that never was", host=host, server=observed.server_id)
            elif document.state.deleted_at is not None or host not in {
                document.state.host,
                second_host(document.state),
            }:
                if observed.power != "absent" or observed.awaiting or observed.sent:
                    strangers.append(document.state)
            elif document.state.task is None and observed.generation < document.state.generation:
                behind.append(document.state)  # nobody waits for it any more, so nobody else would say it again
            elif wished := wishes_of(document.state, host, observed, ports, self._cloud.settings.resize_confirm_window):
                wishes.append((document.state, wished))
        for id in report.removed:
            document = documents.get(SERVER.stream(id))
            if document is not None and document.state.host == host and (wished := _gone(document.state)):
                wishes.append((document.state, wished))
        for refused in await execute_all(self._cloud, wishes):
            if refused is not None:
                log.info("what a host said was overtaken", host=host, why=refused.message)
        if behind:
            await self._telling.tell(behind)
        if strangers:
            await self._telling.tell_absent(host, strangers)

    def _newest(self, host: str, report: Report) -> Report:
        """Without what this host has said something newer of: reports may be late, and said twice."""
        if not report.serial:
            return report
        if self._incarnations.get(host) != report.incarnation:
            self._incarnations[host] = report.incarnation
            self._serials[host] = {}
        serials = self._serials[host]
        fresh = {
            id
            for id in (*(it.server_id for it in report.observed), *report.removed)
            if serials.get(id, 0) < report.serial
        }
        serials |= dict.fromkeys(sorted(fresh), report.serial)
        for id in report.removed:
            serials.pop(id, None)
        return msgspec.structs.replace(
            report,
            observed=tuple(it for it in report.observed if it.server_id in fresh),
            removed=tuple(id for id in report.removed if id in fresh),
        )

    async def _servers(self, host: str, report: Report) -> dict[str, Document]:
        """The servers a report is about. What is remembered of one is read anew if the host seems to know better."""
        streams = [SERVER.stream(observed.server_id) for observed in report.observed]
        streams += map(SERVER.stream, report.removed)
        known = await self._cloud.executor.load(streams)
        doubtful = [
            SERVER.stream(it.server_id)
            for it in report.observed
            if (document := known.get(SERVER.stream(it.server_id))) is None
            or not _its_own(document.state, host)
            or document.state.generation < it.generation
        ]
        doubtful += [
            stream
            for id in report.removed
            if (document := known.get(stream := SERVER.stream(id))) is None or document.state.task not in _LEAVING
        ]
        if doubtful:
            self._cloud.executor.forget(doubtful)
            known |= await self._cloud.executor.load(doubtful)
        return known

    async def _ports(self, report: Report, documents: dict[str, Document]) -> Ports:
        """Those of servers that are being built there, as they are by now."""
        ready = [SERVER.stream(it.server_id) for it in report.observed if it.fault is None]
        building = [
            documents[stream].state for stream in ready if stream in documents and _being_built(documents[stream].state)
        ]
        return await ports_of(self._cloud, building, fresh=True)


def _its_own(server: Server, host: str) -> bool:
    """Whether that host is to hold something of it."""
    return server.deleted_at is None and host in {server.host, second_host(server)}


def _being_built(server: Server) -> bool:
    return server.task is Task.SPAWNING or (server.move is not None and server.move.phase is Phase.ARRIVING)


def _gone(server: Server) -> tuple[Wish, ...]:
    """Nothing of it is left on its host."""
    if server.task is Task.DELETING:
        return ending(server)
    if server.task is Task.SHELVING_OFFLOADING:
        return offloaded(server)
    if moving(server) and server.move is not None and server.move.phase is Phase.RETURNING:
        return returning(server)
    return ()


def wishes_of(
    server: Server, host: str, observed: Observed, ports: Ports = _NO_PORTS, confirm_seconds: float = 0
) -> tuple[Wish, ...]:
    """What a host's word about a server of its own comes to. `ports`: those of a server that is being built."""
    if observed.progress and server.task in COPYING and server.snapshot is not None:
        return (Wish(SERVERS, server.id, ProgressSnapshot(image_id=server.snapshot.image_id)),)
    if observed.generation < server.generation:
        return ()
    fenced = observed.fenced and observed.power == "paused"
    if power(server) == "running" and (fenced or observed.interrupted):
        return ()  # its host undoes by itself what it did to it by itself
    if server.task is Task.SPAWNING and observed.fault is not None:
        return failing(server, Fault(message=observed.fault))
    if moving(server):
        return heard(server, host, observed, unwired(server, ports), confirm_seconds)
    if host != server.host:
        return ()
    if server.task is Task.DELETING and observed.power == "absent":
        return ending(server)
    if server.task is Task.SHELVING_OFFLOADING:
        return offloaded(server) if observed.power == "absent" else ()
    seen = ObserveServer(
        host=server.host or "",
        generation=observed.generation,
        power_state=POWER_STATE[observed.power],
        fault=observed.fault,
        unwired=tuple(unwired(server, ports)),
        remade=observed.remade,
        snapshot=observed.snapshot,
    )
    if decide(server, seen):
        return (Wish(SERVERS, server.id, seen),)
    if not server.unsettled:
        return ()
    return settling(server, observed.generation, observed.fault, gone=observed.power == "absent")
