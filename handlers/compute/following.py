"""Cards follow their ports: what a server shows and its guest is told is what is so of each port.

    a port, its network, a floating IP, a security group changed ─▶ the servers whose cards that is about
        ─▶ other facts: ChangeNic     the port is gone, or another's: LoseNic ─▶ a second look, until nothing differs

Two processes may follow two streams for one server at the same time: whoever wrote what was overtaken by then sees it
on the second look. A sweep looks at all of them now and then, should anything have gone wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from bus import clock
from bus.cloud import Cloud
from bus.documents import Where
from bus.execute import Wish
from bus.log import Document
from handlers.compute.ports import Known, Ports, device_of, port_wishes
from handlers.compute.server import SERVERS, decide
from handlers.network.leading import leading_to
from schema.compute.nic import NicAddress, ServerNic, Standing
from schema.compute.server import CARD_SCOPE, SERVER, showing
from schema.compute.server_command import ChangeNic, LoseNic
from schema.compute.server_state import Server
from schema.compute.task import Task
from schema.event import Kind
from schema.network.floating_ip import FLOATING_IP
from schema.network.network import NETWORK
from schema.network.port import PORT, macs_of
from schema.network.port_state import Port
from schema.network.security_group import SECURITY_GROUP, members_of
from schema.refusal import Refused

log = structlog.get_logger()

LOOKS = 8
"""How often what was just written is compared with what is so, at most."""
SHOWN = 1_000_000
"""Ports and cards that one thing may concern, at most."""
SWEPT_AT_ONCE = 200
SWEEP_SECONDS = 300.0
"""Between two looks at everything."""


class Facts(msgspec.Struct, frozen=True):
    """What cards show besides their port."""

    labels: Mapping[str, str] = {}
    """Network → its name."""
    mtus: Mapping[str, int] = {}
    groups: Mapping[str, str] = {}
    """Security group → its name."""
    floating: Mapping[tuple[str, str], tuple[str, ...]] = {}
    """(port, its address) → the outside addresses that lead there."""


async def facts_about(cloud: Cloud, ports: Sequence[Port], new: Sequence[Port] = ()) -> Facts:
    """Of these ports. Three queries, whatever their number. `new`: such as are to be made, to which nothing can lead.

    Of new ones alone what is remembered will do: when they are there, somebody looks again.
    """
    if not ports and not new:
        return Facts()
    streams = {NETWORK.stream(port.network_id) for port in (*ports, *new)}
    streams |= {SECURITY_GROUP.stream(id) for port in (*ports, *new) for id in port.security_group_ids}
    found = await (cloud.log if ports else cloud.executor).load(sorted(streams))
    floating = await leading_to(cloud, [port.id for port in ports])
    networks = {it.id: it.state for it in found.values() if it.stream.startswith(NETWORK.stream(""))}
    groups = {it.id: it.state.name for it in found.values() if it.stream.startswith(SECURITY_GROUP.stream(""))}
    outside: dict[tuple[str, str], tuple[str, ...]] = {}
    for it in floating:
        inside = (it.port_id or "", it.fixed_ip_address or "")
        outside[inside] = (*outside.get(inside, ()), it.floating_ip_address)
    return Facts(
        labels={id: network.name for id, network in networks.items()},
        mtus={id: network.mtu for id, network in networks.items()},
        groups=groups,
        floating=outside,
    )


def card_of(
    port: Port, facts: Facts, *, tag: str = "", made: bool = False, standing: Standing = "plugged"
) -> ServerNic:
    """A port as a server's card."""
    return ServerNic(
        port_id=port.id,
        network_id=port.network_id,
        label=facts.labels.get(port.network_id, ""),
        mac_address=port.mac_address,
        mtu=facts.mtus.get(port.network_id, 1500),
        addresses=tuple(
            NicAddress(
                ip=it.ip_address,
                subnet_id=it.subnet_id,
                floating=facts.floating.get((port.id, it.ip_address), ()),
            )
            for it in port.fixed_ips
        ),
        security_groups=tuple(facts.groups[id] for id in port.security_group_ids if id in facts.groups),
        tag=tag,
        made=made,
        standing=standing,
    )


def lagging(server: Server, ports: Mapping[str, Port], facts: Facts) -> list[ChangeNic | LoseNic]:
    """What must be done to a server so that its cards are as their ports are. `ports`: the living ones, by id."""
    commands: list[ChangeNic | LoseNic] = []
    for nic in server.nics:
        port = ports.get(nic.port_id)
        if port is None or device_of(port) != server.id:
            commands.append(LoseNic(port_id=nic.port_id))
            continue
        now = card_of(port, facts)
        commands.append(
            ChangeNic(
                port_id=nic.port_id,
                label=now.label,
                mac_address=now.mac_address,
                mtu=now.mtu,
                addresses=now.addresses,
                security_groups=now.security_groups,
            )
        )
    return [command for command in commands if decide(server, command)]


class NicReactor:
    """`bus.consumer.Reactor` for what the cards of servers show."""

    kinds: Sequence[Kind[Any]] = (PORT, NETWORK, FLOATING_IP, SECURITY_GROUP)

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._swept: str | None = None
        self._sweep_at = 0.0

    async def react(self, documents: Sequence[Document]) -> None:
        """Have the servers that these are about show them as they are."""
        await self.catch_up(await self._servers(documents))

    async def sweep(self) -> None:
        """Look at some of the servers that have cards, whatever happened; in a while at all of them, and again.

        To be called every second or so, in one process.
        """
        if clock.monotonic() < self._sweep_at:
            return
        where = [Where("nics", "is", True)]
        page = await self._cloud.documents.find(SERVER, where=where, limit=SWEPT_AT_ONCE, marker=self._swept)
        await self.catch_up({document.stream for document in page})
        full = len(page) == SWEPT_AT_ONCE
        self._swept = page[-1].id if full else None
        self._sweep_at = 0.0 if full else clock.monotonic() + SWEEP_SECONDS

    async def catch_up(self, streams: set[str]) -> None:
        """Have these servers show their cards as they are."""
        for _ in range(LOOKS):
            if not streams:
                return
            streams = await self._follow(streams)
        log.warning("ports change faster than their servers can follow", servers=len(streams))

    async def _follow(self, streams: Iterable[str]) -> set[str]:
        """One look at these servers; those that were changed are to be looked at again."""
        found = await self._cloud.log.load(sorted(streams))
        servers = [it.state for it in found.values() if it.state.living and it.state.task is not Task.DELETING]
        ids = [nic.port_id for server in servers for nic in server.nics]
        # After the servers: a port that was just given to one must not be taken for nobody's.
        documents = await self._cloud.log.load([PORT.stream(id) for id in ids]) if ids else {}
        there = {it.id: it for it in documents.values() if it.state.living}
        ports = {id: it.state for id, it in there.items()}
        facts = await facts_about(self._cloud, list(ports.values()))
        wanted = [(server, commands) for server in servers if (commands := lagging(server, ports, facts))]
        outcomes = await asyncio.gather(
            *(
                self._cloud.executor.submit([wish for it in commands for wish in _wishes(server, it, there)])
                for server, commands in wanted
            ),
            return_exceptions=True,
        )
        for (server, _), outcome in zip(wanted, outcomes, strict=True):
            if isinstance(outcome, Refused):
                log.info("a server changed before its cards did", server=server.id, why=outcome.message)
            elif isinstance(outcome, BaseException):
                raise outcome
        return {SERVER.stream(server.id) for server, _ in wanted}

    async def _servers(self, documents: Sequence[Document]) -> set[str]:
        """The streams of the servers that have cards these may be about."""
        ports = {it.id for it in documents if isinstance(it.state, Port) and _may_be_a_card(it)}
        changed = {kind: [it for it in documents if _is(it, kind) and it.version > 1] for kind in self.kinds[1:]}
        networks, floating, groups = changed[NETWORK], changed[FLOATING_IP], changed[SECURITY_GROUP]
        ports |= {it.state.port_id for it in floating if it.state.port_id}
        ports |= await self._ports_in(networks, groups)
        held = await self._cloud.log.held([(CARD_SCOPE, id) for id in sorted(ports)]) if ports else []
        return {it.stream for it in held} | await self._showing(floating)

    async def _ports_in(self, networks: Sequence[Document], groups: Sequence[Document]) -> set[str]:
        """The ports in these networks and security groups."""
        scopes = [*(macs_of(it.id) for it in networks), *(members_of(it.id) for it in groups)]
        held = await self._cloud.log.holding(scopes, SHOWN) if scopes else []
        return {it.stream.removeprefix(PORT.stream("")) for it in held}

    async def _showing(self, floating: Sequence[Document]) -> set[str]:
        """The servers that show one of these addresses, whether it leads there still or not."""
        scopes = [showing(it.state.floating_ip_address) for it in floating]
        return {it.stream for it in await self._cloud.log.holding(scopes, SHOWN)} if scopes else set()


def _wishes(server: Server, command: ChangeNic | LoseNic, ports: Ports) -> list[Wish]:
    return [Wish(SERVERS, server.id, command), *port_wishes(server, command, Known(ports=ports))]


def _may_be_a_card(document: Document) -> bool:
    """Some server's now, or perhaps until a moment ago."""
    port: Port = document.state
    if device_of(port):
        return True
    return document.version > 1 and not port.device_owner.startswith("network:")


def _is(document: Document, kind: Kind[Any]) -> bool:
    return document.stream.startswith(kind.stream(""))
