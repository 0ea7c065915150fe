"""How ports come into trunks and leave them, in one append with the trunk; and that subports are where the parent is.

parent bound ─▶ its subports bound there too ─▶ their host wires them, or says why not ─▶ parent unbound ─▶ they too
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import structlog

from bus.cloud import Cloud
from bus.documents import Where
from bus.execute import Wish
from bus.log import Document
from handlers.network.binding import Vif, binding
from handlers.network.port import PORTS, parent_in_use, refuse_as_parent, refuse_as_subport
from handlers.network.port import not_found as port_not_found
from handlers.network.quota import giving_back, taking
from handlers.network.trunk import TRUNKS, disabled, in_error, subport_not_found
from schema.event import Kind
from schema.network.network import NETWORK
from schema.network.port import PORT
from schema.network.port_command import JoinTrunk, LeaveTrunk, TrunkPort, UnbindPort
from schema.network.port_state import Port
from schema.network.trunk import (
    TRUNK,
    AddSubports,
    CreateTrunk,
    DeleteTrunk,
    RemoveSubports,
    Trunk,
    TrunkSubport,
    status_of,
)
from schema.refusal import Conflict, Refused

log = structlog.get_logger()


async def making(cloud: Cloud, id: str, command: CreateTrunk, ports: Mapping[str, Port]) -> list[Wish]:
    """A trunk over these ports. Raises Conflict, NotFound; OverQuota when it is appended."""
    parent = ports[command.parent_id or ""]
    refuse_as_parent(parent)
    await _refuse_subports(cloud, parent, command.subports, ports)
    return [
        Wish(TRUNKS, id, command),
        Wish(PORTS, parent.id, TrunkPort(trunk_id=id)),
        *_joining(id, parent, command.subports),
        *await taking(cloud, command.project_id, "trunk", [id]),
    ]


async def adding(cloud: Cloud, trunk: Trunk, subports: Sequence[TrunkSubport], ports: Mapping[str, Port]) -> list[Wish]:
    """More subports of a trunk; `ports`: they and its own. Raises Conflict, NotFound."""
    _refuse_disabled(trunk)
    if trunk_status(trunk, ports) == "ERROR":
        raise in_error(trunk.id)
    parent = ports[trunk.port_id]
    await _refuse_subports(cloud, parent, subports, ports)
    return [Wish(TRUNKS, trunk.id, AddSubports(subports=tuple(subports))), *_joining(trunk.id, parent, subports)]


def removing_subports(trunk: Trunk, port_ids: Sequence[str]) -> list[Wish]:
    """Subports of a trunk less: what may mend one that is in error. Raises Conflict, NotFound."""
    _refuse_disabled(trunk)
    there = {it.port_id for it in trunk.subports}
    for id in port_ids:
        if id not in there:
            raise subport_not_found(trunk.id, id)
    return [Wish(TRUNKS, trunk.id, RemoveSubports(port_ids=tuple(port_ids))), *_leaving(trunk.id, port_ids)]


def ending(trunk: Trunk) -> list[Wish]:
    """The end of a trunk; its ports stay. Refused while the parent is on a host."""
    subports = tuple(it.port_id for it in trunk.subports)
    return [
        Wish(TRUNKS, trunk.id, DeleteTrunk(port_ids=subports)),
        *_leaving(trunk.id, [trunk.port_id, *subports]),
        *giving_back(trunk.project_id, "trunk", [trunk.id]),
    ]


async def ports_of(cloud: Cloud, trunks: Iterable[Trunk], more: Iterable[str] = ()) -> dict[str, Port]:
    """The living ports of trunks, and others, as they are now."""
    found = await cloud.executor.load([PORT.stream(id) for id in sorted(port_ids(trunks) | set(more))])
    return {document.id: document.state for document in found.values() if document.state.living}


def port_ids(trunks: Iterable[Trunk]) -> set[str]:
    """Of all that are in these trunks."""
    return {id for trunk in trunks for id in (trunk.port_id, *(it.port_id for it in trunk.subports))}


def trunk_status(trunk: Trunk, ports: Mapping[str, Port]) -> str:
    return status_of(ports.get(trunk.port_id), [ports[it.port_id] for it in trunk.subports if it.port_id in ports])


class TrunkReactor:
    """`bus.consumer.Reactor` for trunks and the ports in them."""

    kinds: Sequence[Kind[Any]] = (TRUNK, PORT)

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def react(self, documents: Sequence[Document]) -> None:
        """Have the subports of these trunks where their parents are."""
        trunks = {it.state.trunk_id for it in documents if isinstance(it.state, Port) and it.state.trunk_id}
        trunks |= {it.id for it in documents if isinstance(it.state, Trunk)}
        if not trunks:
            return
        found = await self._cloud.executor.load([TRUNK.stream(id) for id in sorted(trunks)])
        living = [it.state for it in found.values() if it.state.living]
        ports = await ports_of(self._cloud, living)
        wishes = [wish for trunk in living for wish in following(trunk, ports)]
        outcomes = await asyncio.gather(
            *(self._cloud.executor.submit([wish]) for wish in wishes), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, Refused):
                log.info("a subport went its own way", why=outcome.message)
            elif isinstance(outcome, BaseException):
                raise outcome


def following(trunk: Trunk, ports: Mapping[str, Port]) -> list[Wish]:
    """What brings the subports of a trunk to where its parent is."""
    parent = ports.get(trunk.port_id)
    if parent is None:
        return []
    wishes = []
    for it in trunk.subports:
        port = ports.get(it.port_id)
        if port is None or port.trunk_id != trunk.id or port.host == parent.host:
            continue
        theirs = Vif(parent.binding.vif_type, parent.binding.vif_details)
        wishes.append(binding(port.id, parent.host, theirs) if parent.host else Wish(PORTS, port.id, UnbindPort()))
    return wishes


def _joining(trunk_id: str, parent: Port, subports: Iterable[TrunkSubport]) -> list[Wish]:
    return [
        Wish(
            PORTS,
            it.port_id,
            JoinTrunk(trunk_id=trunk_id, subport_of=parent.id, segmentation_id=it.segmentation_id),
        )
        for it in subports
    ]


def _leaving(trunk_id: str, port_ids: Iterable[str]) -> list[Wish]:
    return [Wish(PORTS, id, LeaveTrunk(trunk_id=trunk_id)) for id in port_ids]


def _refuse_disabled(trunk: Trunk) -> None:
    if not trunk.admin_state_up:
        raise disabled(trunk.id)


async def _refuse_subports(
    cloud: Cloud, parent: Port, subports: Sequence[TrunkSubport], ports: Mapping[str, Port]
) -> None:
    """Raises NotFound, Conflict when one of these cannot be a subport of that parent."""
    for it in subports:
        if it.port_id == parent.id:
            raise parent_in_use(parent)
        if it.port_id not in ports:
            raise port_not_found(it.port_id)
        refuse_as_subport(ports[it.port_id])
    if subports:
        await _refuse_wider(cloud, parent, [ports[it.port_id] for it in subports])


async def _refuse_wider(cloud: Cloud, parent: Port, subports: Sequence[Port]) -> None:
    """Raises Conflict when a subport's network takes larger frames than the parent's carries."""
    ids = {parent.network_id, *(it.network_id for it in subports)}
    networks = await cloud.documents.find(NETWORK, where=[Where("id", "in", sorted(ids))], limit=None)
    mtus = {document.id: document.state.mtu for document in networks}
    carried = mtus.get(parent.network_id, 0)
    for it in subports:
        if carried and mtus.get(it.network_id, 0) > carried:
            raise Conflict(
                f"MTU {mtus[it.network_id]} of subport {it.id} cannot be greater than MTU {carried} of trunk port "
                f"{parent.id}.",
                code="SubPortMtuGreaterThanTrunkPortMtu",
            )
