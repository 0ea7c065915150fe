"""What a server's fate means for its ports: wishes that go into the very append that decides it.

placed ─▶ bound to the host      build failed, another host to come ─▶ unbound
refused a host, failed for good, ended, card unplugged ─▶ those made for it are deleted (their addresses and quota come
back, floating IPs are free), the others let go of

Every one of them changes nothing when it has been done already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from bus.cloud import Cloud
from bus.execute import Wish
from bus.log import Document
from handlers.compute.card_limits import card_limits
from handlers.compute.server import SERVERS, decide
from handlers.network.addressing import readdressing, unmaking
from handlers.network.binding import FAILED, Vif, binding, vifs
from handlers.network.deferring import DEFERRED
from handlers.network.leading import freeing_each
from handlers.network.port import PORTS
from schema.compute.move import Move, MoveFailed
from schema.compute.nic import NicAddress, NicDetached, ServerNic
from schema.compute.server_command import (
    ChangeNic,
    DepartMove,
    DetachNic,
    EndServer,
    FailBuild,
    FailMove,
    FinishMove,
    FinishOffload,
    LoseNic,
    PlaceMove,
    PlaceServer,
    RefusePlacement,
    ReturnMove,
    SettleNics,
)
from schema.compute.server_event import ServerFaulted
from schema.compute.server_parts import ServerFlavor
from schema.compute.server_state import Server
from schema.event import Command, Event
from schema.network.port import PORT
from schema.network.port_command import (
    ActivatePortBinding,
    AddPortBinding,
    DetachPort,
    RemovePortBinding,
    UnbindPort,
    UpdatePort,
)
from schema.network.port_state import FixedIp, Port
from schema.refusal import Refused

Ports = Mapping[str, Document]
"""By id."""
Freed = Mapping[str, Sequence[Wish]]
"""By the id of a port that ends: what makes free that leads to it."""
Addresses = Mapping[str, tuple[FixedIp, ...]]
"""By port."""
OWNER_PREFIX = "compute:"
"""How the `device_owner` of a server's port begins; the availability zone follows."""
DEFAULT_ZONE = "nova"


async def ports_of(cloud: Cloud, servers: Iterable[Server], *, fresh: bool = False) -> Ports:
    """The ports of all these servers' cards. One query at most; none where there are no cards.

    `fresh`: as they are by now, whatever is remembered.
    """
    streams = [PORT.stream(nic.port_id) for server in servers for nic in server.nics]
    documents = await (cloud.log if fresh else cloud.executor).load(streams) if streams else {}
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


class Known(msgspec.Struct, frozen=True):
    """What commands about servers have to know of their ports, read at once for all of them."""

    ports: Ports = {}
    freed: Freed = {}
    vifs: Mapping[str, Vif] = {}
    """By host that somebody is placed on."""
    addresses: Addresses = {}
    """Of ports that get theirs with their host."""


async def known_of(cloud: Cloud, wanted: Sequence[tuple[Server, Command]]) -> Known:
    """For these commands; not the addresses. Four queries at most, and none where there are no cards.

    What is remembered of a port may be from before it was the server's: one that seems another's is looked at again.
    """
    servers = [server for server, _ in wanted]
    ports = await ports_of(cloud, servers)
    doubtful = [it for it in servers if any(not _is_of(it, ports.get(nic.port_id)) for nic in it.nics)]
    if doubtful:
        ports = {**ports, **await ports_of(cloud, doubtful, fresh=True)}
    ending = {id for server, command in wanted for id in doomed(server, command, ports)}
    ending |= {id for server, it in wanted if isinstance(it, FailBuild) for id in _deferred(server, ports)}
    hosts = {host for server, it in wanted if (host := _host_after(server, it)) and server.nics}
    return Known(ports=ports, freed=await freeing_each(cloud, ending), vifs=await vifs(cloud, hosts))


def port_wishes(server: Server, command: Command, known: Known) -> tuple[Wish, ...]:
    """What goes with a command about a server."""
    match command:
        case PlaceServer():
            return _placed(server, command.host, command.zone, known, server.flavor)
        case PlaceMove() | DepartMove() | FailMove() | FinishMove() | ReturnMove() if server.move is not None:
            return _moved(server, server.move, command, known)
        case FinishOffload():
            staying = [nic for nic in server.nics if nic.standing != "unplugging"]
            return tuple(Wish(PORTS, nic.port_id, UnbindPort(host=command.host)) for nic in staying)
        case FailBuild() if not _leaving(server, command):
            return _unplaced(server, command.host, known)
    return _released(server, _leaving(server, command), known)


def doomed(server: Server, command: Command, ports: Ports) -> list[str]:
    """The ports that end with a command about a server: those that were made for it, and are its own still."""
    return [nic.port_id for nic in _leaving(server, command) if _ends(server, nic, ports)]


def owner(zone: str) -> str:
    """What the ports of a server in that zone say of whose they are."""
    return f"{OWNER_PREFIX}{zone or DEFAULT_ZONE}"


def _leaving(server: Server, command: Command) -> Sequence[ServerNic]:
    """The cards that it loses by that."""
    match command:
        case FailBuild() if any(isinstance(event, ServerFaulted) for event in _events(server, command)):
            return server.nics
        case RefusePlacement() if server.shelf is not None:
            return ()
        case RefusePlacement() | EndServer():
            return server.nics
        case SettleNics() | LoseNic() | DetachNic():
            gone = {event.port_id for event in _events(server, command) if isinstance(event, NicDetached)}
            return [nic for nic in server.nics if nic.port_id in gone]
    return ()


def _events(server: Server, command: Command) -> Sequence[Event]:
    """What the command will come to; nothing where it will be refused, and the whole append with it."""
    try:
        return decide(server, command)
    except Refused:
        return ()


def _host_after(server: Server, command: Command) -> str:
    """The host that a command puts it on, or gives it back to."""
    match command:
        case PlaceServer() | PlaceMove():
            return command.host
        case DepartMove() if server.move is not None:
            return server.move.target_host
        case ReturnMove() if server.move is not None:
            return server.move.source_host
        case FailMove() if server.move is not None:
            failed = [event for event in _events(server, command) if isinstance(event, MoveFailed)]
            return server.move.source_host if failed and not failed[0].again else ""
    return ""


def _placed(server: Server, host: str, zone: str, known: Known, flavor: ServerFlavor | None) -> tuple[Wish, ...]:
    """`flavor`: of what is to be there; None: its own."""
    about = UpdatePort(device_owner=owner(zone), card_limits=card_limits(flavor or server.flavor))
    wishes: list[Wish] = []
    for id in _its_own(server, known):
        if id in known.addresses:
            wishes += _readdressed(server, known.ports[id].state, known.addresses[id])
        wishes.append(binding(id, host, known.vifs.get(host, Vif(FAILED))))
        if id in known.ports:
            wishes.append(Wish(PORTS, id, about))
    return tuple(wishes)


def _unplaced(server: Server, host: str, known: Known) -> tuple[Wish, ...]:
    """Another host is to come. What a port has got with this one it gives back, unless somebody relies on it."""
    wishes = [Wish(PORTS, id, UnbindPort(host=host)) for id in _its_own(server, known)]
    for id in _deferred(server, known.ports):
        if id not in known.freed:
            wishes += _readdressed(server, known.ports[id].state, ())
    return tuple(wishes)


def _deferred(server: Server, ports: Ports) -> list[str]:
    """The ports that were made for it and got their addresses with their host."""
    return [
        nic.port_id
        for nic in server.nics
        if nic.made
        and (document := ports.get(nic.port_id)) is not None
        and _is_of(server, document)
        and document.state.ip_allocation == DEFERRED
        and document.state.fixed_ips
    ]


def _readdressed(server: Server, port: Port, fixed_ips: tuple[FixedIp, ...]) -> list[Wish]:
    """Other addresses for a port, and for the card that it is."""
    nic = server.nic(port.id)
    if nic is None:
        return []
    change = ChangeNic(
        port_id=port.id,
        label=nic.label,
        mac_address=nic.mac_address,
        mtu=nic.mtu,
        addresses=tuple(NicAddress(ip=it.ip_address, subnet_id=it.subnet_id) for it in fixed_ips),
        security_groups=nic.security_groups,
    )
    return [*readdressing(port, fixed_ips), Wish(SERVERS, server.id, change)]


def _moved(server: Server, move: Move, command: Command, known: Known) -> tuple[Wish, ...]:
    """A live one has a second, inactive binding where it goes to; any other is bound to where it is."""
    ids = _its_own(server, known)
    match command:
        case PlaceMove() if move.live:
            vif = known.vifs.get(command.host, Vif(FAILED))
            add = AddPortBinding(host=command.host, vif_type=vif.type, vif_details=dict(vif.details))
            return tuple(Wish(PORTS, id, add) for id in ids)
        case FailMove() if move.live:
            remove = RemovePortBinding(host=move.target_host)
            return tuple(Wish(PORTS, id, remove) for id in ids if move.target_host)
        case FinishMove() if move.live:
            return tuple(
                wish
                for id in ids
                for wish in (
                    Wish(PORTS, id, ActivatePortBinding(host=move.target_host)),
                    Wish(PORTS, id, RemovePortBinding(host=move.source_host)),
                )
            )
        case PlaceMove() if move.cold:
            return ()
        case PlaceMove():
            return _placed(server, command.host, command.zone, known, server.flavor)
        case DepartMove():
            return _placed(server, move.target_host, move.target_zone, known, move.new_flavor)
        case ReturnMove():
            return _placed(server, move.source_host, move.source_zone, known, move.old_flavor)
        case FailMove() if back := _host_after(server, command):
            return _placed(server, back, move.source_zone, known, move.old_flavor)
        case FailMove() if not move.cold or move.departed:
            return tuple(Wish(PORTS, id, UnbindPort(host=command.host)) for id in ids)
    return ()


def _its_own(server: Server, known: Known) -> list[str]:
    """The ports of its cards, but for those that are gone or another's by now: such a card is only yet to come out."""
    return [nic.port_id for nic in server.nics if _is_of(server, known.ports.get(nic.port_id))]


def _is_of(server: Server, port: Document | None) -> bool:
    return port is None or (port.state.living and device_of(port.state) == server.id)


def _released(server: Server, nics: Sequence[ServerNic], known: Known) -> tuple[Wish, ...]:
    wishes: list[Wish] = []
    for nic in nics:
        document = known.ports.get(nic.port_id)
        if document is None or not document.state.living:
            continue
        if _ends(server, nic, known.ports):
            wishes += [*unmaking(document.state), *known.freed.get(nic.port_id, ())]
        else:
            wishes.append(Wish(PORTS, nic.port_id, DetachPort(device_id=server.id)))
    return tuple(wishes)


def _ends(server: Server, nic: ServerNic, ports: Ports) -> bool:
    """One that is part of a trunk by now is somebody's who would miss it."""
    document = ports.get(nic.port_id)
    if not nic.made or document is None or not document.state.living:
        return False
    return document.state.device_id == server.id and not document.state.trunk_id
