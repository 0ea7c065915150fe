"""What network agents say: heartbeats renew leases and are answered with what the host lacks, reports become commands.

A report is looked at with the rules themselves: what they say changes nothing is not wished at all, so that hosts may
say everything they hold as often as they like.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import structlog

from bus.cloud import Cloud
from bus.execute import Wish
from bus.log import Document
from handlers.network.instance import instance_data
from handlers.network.lease import NetworkHosts
from handlers.network.port import PORTS
from handlers.network.router import ROUTERS
from handlers.network.telling import Telling
from handlers.network.vpn import VPN_CONNECTIONS
from schema.event import Command
from schema.network.host import NETWORK_HOST
from schema.network.port import PORT
from schema.network.port_command import ReportPortWired
from schema.network.port_state import Port
from schema.network.router import ROUTER, ReportRouterWired
from schema.network.vpn_connection import ReportVpnConnection
from schema.network.wiring import (
    InstanceDataWanted,
    NetworkHeartbeat,
    PasswordPosted,
    WiringReport,
    decode_from_host,
    encode,
    link_name,
)
from schema.refusal import Refused

log = structlog.get_logger()

_LINK = link_name("")


def is_network_link(name: str) -> bool:
    """Whether that end of the bus is a network agent's."""
    return name.endswith(_LINK)


class NetworkReports:
    """One process's ears for network agents. Make it before the mirrors start."""

    def __init__(self, cloud: Cloud, telling: Telling | None = None, hosts: NetworkHosts | None = None) -> None:
        self._cloud = cloud
        self.telling = telling or Telling(cloud)
        self.hosts = hosts or NetworkHosts(cloud)

    async def on_report(self, link: str, message: bytes) -> None:
        """One message from a network agent. What it is not, is logged and dropped."""
        host = link.removesuffix(_LINK)
        try:
            word = decode_from_host(message)
        except msgspec.DecodeError as error:
            log.warning("a host says what nobody understands", host=host, error=str(error), size_bytes=len(message))
            return
        match word:
            case NetworkHeartbeat():
                if await self.hosts.renew(host, word.facts, word.beat) is not None:
                    await self.telling.catch_up(host, word.position, missed=word.missed)
            case WiringReport():
                await self._hear(host, word)
            case InstanceDataWanted() | PasswordPosted():
                password = word.password if isinstance(word, PasswordPosted) else ""
                answer = await instance_data(self._cloud, host, word.port_id, word.router_id, password=password)
                if answer is None:
                    log.warning("a host asks for what is not its own", host=host, port=word.port_id)
                else:
                    await self._cloud.broker.tell(link, encode(answer))

    async def _hear(self, host: str, report: WiringReport) -> None:
        """What became of a host's pieces, under the lease it has now."""
        if not await self._leased(host, report.epoch):
            log.info("what a host said under a lapsed lease is void", host=host, epoch=report.epoch)
            return
        said = [*_of_ports(host, report), *_of_routers(host, report)]
        documents = await self._documents(said)
        wishes = [wish for it in said if (wish := _wish(host, it, documents)) is not None]
        outcomes = await asyncio.gather(
            *(self._cloud.executor.submit([wish]) for wish in wishes), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, Refused):
                log.info("what a host said was overtaken", host=host, why=outcome.message)
            elif isinstance(outcome, BaseException):
                raise outcome

    async def _leased(self, host: str, epoch: int) -> bool:
        """Whether that is its lease. What this process follows may be behind what another granted."""
        known = self.telling.host(host)
        if known is None or not known.alive or known.epoch < epoch:
            stream = NETWORK_HOST.stream(host)
            self._cloud.executor.forget([stream])
            document = (await self._cloud.executor.load([stream])).get(stream)
            known = document.state if document is not None and document.state.living else None
        return known is not None and known.alive and known.epoch == epoch

    async def _documents(self, said: Sequence[_Said]) -> dict[str, Document]:
        """What it is about. What is remembered of a thing is read anew if the host knows a newer generation."""
        generations: dict[str, int] = {}
        for it in said:
            generations.setdefault(it.place, 0)
            generations[it.stream] = it.generation
        found = await self._cloud.executor.load(list(generations))
        old = [stream for stream, it in generations.items() if stream not in found or _generation(found[stream]) < it]
        if old:
            self._cloud.executor.forget(old)
            found |= await self._cloud.executor.load(old)
        return found


class _Said(msgspec.Struct, frozen=True):
    """A host's word about one thing, as a command for it."""

    rules: Any
    id: str
    command: Command
    place: str
    """The stream of what must be on that host for its word to count."""
    generation: int = 0

    @property
    def stream(self) -> str:
        stream: str = self.rules.kind.stream(self.id)
        return stream


def _of_ports(host: str, report: WiringReport) -> Iterator[_Said]:
    for it in report.ports:
        command = ReportPortWired(host=host, generation=it.generation, up=it.up, fault=it.fault)
        yield _Said(PORTS, it.port_id, command, PORT.stream(it.port_id), it.generation)


def _of_routers(host: str, report: WiringReport) -> Iterator[_Said]:
    for it in report.routers:
        place = ROUTER.stream(it.router_id)
        command = ReportRouterWired(host=host, up=it.up, fault=it.fault)
        yield _Said(ROUTERS, it.router_id, command, place, it.generation)
        for id, status in it.connections.items():
            yield _Said(VPN_CONNECTIONS, id, ReportVpnConnection(router_id=it.router_id, status=status), place)


def _generation(document: Document) -> int:
    """As it is told to hosts."""
    generation: int = document.state.generation if isinstance(document.state, Port) else document.version
    return generation


def _is_at(thing: Any, host: str) -> bool:
    """Whether it is on that host, or may come there."""
    return bool(thing.host == host) or (isinstance(thing, Port) and thing.bound_to(host) is not None)


def _wish(host: str, said: _Said, documents: dict[str, Document]) -> Wish | None:
    """What a host's word comes to; None: nothing that is not so, or not its to say."""
    document, place = documents.get(said.stream), documents.get(said.place)
    if document is None or not document.state.living or place is None or not _is_at(place.state, host):
        return None
    try:
        changes = said.rules.decide(document.state, said.command)
    except Refused:
        return None
    return Wish(said.rules, said.id, said.command) if changes else None
