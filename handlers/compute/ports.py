"""What a server's fate means for its ports: wishes that go into the very append that decides it.

placed ─▶ bound to the host      build failed, another host to come ─▶ unbound
refused a host, failed for good, ended, card unplugged ─▶ those made for it are deleted, the others let go of

Every one of them changes nothing when it has been done already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bus.cloud import Cloud
from bus.execute import Wish
from bus.log import Document
from handlers.compute.server import decide
from handlers.network.port import PORTS
from handlers.network.subnet import SUBNETS
from schema.compute.nic import NicDetached, ServerNic
from schema.compute.server import (
    EndServer,
    FailBuild,
    PlaceServer,
    RefusePlacement,
    Server,
    ServerFaulted,
    SettleNics,
)
from schema.event import Command, Event
from schema.network.port import PORT, BindPort, DeletePort, DetachPort, Port, UnbindPort
from schema.network.subnet import ReleaseAddress
from schema.refusal import Refused

Ports = Mapping[str, Document]
"""By id."""
OWNER_PREFIX = "compute:"
"""How the `device_owner` of a server's port begins; the availability zone follows."""


async def ports_of(cloud: Cloud, servers: Iterable[Server]) -> Ports:
    """The ports of all these servers' cards. One query at most; none where there are no cards."""
    streams = [PORT.stream(nic.port_id) for server in servers for nic in server.nics]
    documents = await cloud.executor.load(streams) if streams else {}
    return {document.id: document for document in documents.values()}


def device_of(port: Port) -> str:
    """The server whose card it is; empty: it is none's."""
    return port.device_id if port.device_owner.startswith(OWNER_PREFIX) else ""


def unwired(server: Server, ports: Ports) -> list[str]:
    """Which of its ports are not in place on its host (yet). One that is switched off or gone is not waited for."""
    return [
        nic.port_id
        for nic in server.nics
        if (document := ports.get(nic.port_id)) is not None
        and document.state.living
        and document.state.admin_state_up
        and not (document.state.wired and document.state.host == server.host)
    ]


def port_wishes(server: Server, command: Command, ports: Ports) -> tuple[Wish, ...]:
    """What goes with a command about a server."""
    match command:
        case PlaceServer():
            return tuple(Wish(PORTS, nic.port_id, BindPort(host=command.host)) for nic in server.nics)
        case FailBuild() if any(isinstance(event, ServerFaulted) for event in _events(server, command)):
            return _released(server, server.nics, ports)
        case FailBuild():
            return tuple(Wish(PORTS, nic.port_id, UnbindPort(host=command.host)) for nic in server.nics)
        case RefusePlacement() | EndServer():
            return _released(server, server.nics, ports)
        case SettleNics():
            gone = {event.port_id for event in _events(server, command) if isinstance(event, NicDetached)}
            return _released(server, [nic for nic in server.nics if nic.port_id in gone], ports)
    return ()


def _events(server: Server, command: Command) -> Sequence[Event]:
    """What the command will come to; nothing where it will be refused, and the whole append with it."""
    try:
        return decide(server, command)
    except Refused:
        return ()


def _released(server: Server, nics: Sequence[ServerNic], ports: Ports) -> tuple[Wish, ...]:
    wishes: list[Wish] = []
    for nic in nics:
        document = ports.get(nic.port_id)
        if document is None or not document.state.living:
            continue
        if nic.made and document.state.device_id == server.id:
            wishes += _deleted(document.id, document.state)
        else:
            wishes.append(Wish(PORTS, nic.port_id, DetachPort(device_id=server.id)))
    return tuple(wishes)


def _deleted(id: str, port: Port) -> list[Wish]:
    freed = [Wish(SUBNETS, it.subnet_id, ReleaseAddress(ip=it.ip_address, port_id=id)) for it in port.fixed_ips]
    return [Wish(PORTS, id, DeletePort()), *freed]
