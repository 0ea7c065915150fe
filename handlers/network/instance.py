"""Who a guest is, for the metadata service of its host: the same that a config drive carries."""

from __future__ import annotations

from typing import TypeVar

from msgspec.structs import replace

from bus import clock
from bus.cloud import Cloud
from bus.execute import Wish
from handlers.compute.seed import seeds_of
from handlers.compute.server import SERVERS
from schema.compute.server import SERVER
from schema.compute.server_command import PostGuestPassword
from schema.compute.server_state import Server
from schema.event import Kind, State
from schema.network.port import PORT
from schema.network.router import ROUTER
from schema.network.wiring import InstanceData
from schema.refusal import Refused

S = TypeVar("S", bound=State)


async def instance_data(
    cloud: Cloud, host: str, port_id: str, router_id: str = "", *, password: str = ""
) -> InstanceData | None:
    """Of the server behind a port. None: that port is not on that host, which is not to know.

    A router's host may know of every port in the networks inside the router: guests ask it through their gateway. A
    port without a server (any longer) is answered with none. A password that the server posts is kept first, unless
    there is one already: the seed has the one that is kept.
    """
    port = await _living(cloud, PORT, port_id)
    if port is None or (port.host != host and not await _routes(cloud, host, router_id, port.network_id)):
        return None
    # A trunk's subport is on its parent's card.
    card = await _living(cloud, PORT, port.subport_of) if port.subport_of else port
    server = await _living(cloud, SERVER, card.device_id) if card is not None else None
    if server is None:
        return InstanceData(port_id=port_id)
    if password and not server.password_id:
        server = await _keep(cloud, server, password)
    seed = (await seeds_of(cloud, [server]))[server.id]
    if server.password_id:
        opened = await cloud.vault.open_many([server.password_id])
        seed = replace(seed, posted_password=opened.get(server.password_id, b"").decode())
    return InstanceData(port_id=port_id, server_id=server.id, seed=seed)


async def _keep(cloud: Cloud, server: Server, password: str) -> Server:
    """The server, with the password it has posted or with the one that was faster."""
    subject = f"project/{server.project_id}"
    secret = await cloud.vault.seal(f"guest_password/{clock.hex_id()}", subject, password.encode())
    wish = Wish(SERVERS, server.id, PostGuestPassword(secret_id=secret.id), (secret,))
    try:
        [document] = await cloud.executor.submit([wish])
    except Refused:
        return await _living(cloud, SERVER, server.id) or server
    kept: Server = document.state
    return kept


async def _routes(cloud: Cloud, host: str, router_id: str, network_id: str) -> bool:
    """Whether that router lives on that host and has an inner foot in that network."""
    router = await _living(cloud, ROUTER, router_id)
    return router is not None and router.host == host and network_id in {it.network_id for it in router.interfaces}


async def _living(cloud: Cloud, kind: Kind[S], id: str) -> S | None:
    document = (await cloud.executor.load([kind.stream(id)])).get(kind.stream(id)) if id else None
    return document.state if document is not None and document.state.living else None
