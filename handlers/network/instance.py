"""Who a guest is, for the metadata service of its host: the same that a config drive carries."""

from __future__ import annotations

from typing import TypeVar

from bus.cloud import Cloud
from handlers.compute.desired import seeds_of
from schema.compute.server import SERVER
from schema.event import Kind, State
from schema.network.port import PORT
from schema.network.router import ROUTER
from schema.network.wiring import InstanceData

S = TypeVar("S", bound=State)


async def instance_data(cloud: Cloud, host: str, port_id: str, router_id: str = "") -> InstanceData | None:
    """Of the server behind a port. None: that port is not on that host, which is not to know.

    A router's host may know of every port in the networks inside the router: guests ask it through their gateway. A
    port without a server (any longer) is answered with none.
    """
    port = await _living(cloud, PORT, port_id)
    if port is None or (port.host != host and not await _routes(cloud, host, router_id, port.network_id)):
        return None
    # A trunk's subport is on its parent's card.
    card = await _living(cloud, PORT, port.subport_of) if port.subport_of else port
    server = await _living(cloud, SERVER, card.device_id) if card is not None else None
    if server is None:
        return InstanceData(port_id=port_id)
    return InstanceData(port_id=port_id, server_id=server.id, seed=(await seeds_of(cloud, [server]))[server.id])


async def _routes(cloud: Cloud, host: str, router_id: str, network_id: str) -> bool:
    """Whether that router lives on that host and has an inner foot in that network."""
    router = await _living(cloud, ROUTER, router_id)
    return router is not None and router.host == host and network_id in {it.network_id for it in router.interfaces}


async def _living(cloud: Cloud, kind: Kind[S], id: str) -> S | None:
    document = (await cloud.executor.load([kind.stream(id)])).get(kind.stream(id)) if id else None
    return document.state if document is not None and document.state.living else None
