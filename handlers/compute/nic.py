"""The rules of a server's network cards: when they may be plugged in and out, and what comes of what the host says."""

from __future__ import annotations

from schema.compute.nic import (
    NicAttached,
    NicChanged,
    NicDetached,
    NicDetachFailed,
    NicDetachRequested,
    NicEvent,
    NicSettled,
)
from schema.compute.server_command import AttachNic, ChangeNic, DetachNic, LoseNic, SettleNics
from schema.compute.server_state import Server
from schema.refusal import Conflict

NicCommand = AttachNic | DetachNic | SettleNics | ChangeNic | LoseNic


def decide_nics(server: Server, command: NicCommand) -> list[NicEvent]:
    """What comes of it, where it is allowed and not so already."""
    match command:
        case AttachNic():
            return [NicAttached(nic=command.nic, request_id=command.request_id)]
        case DetachNic() | LoseNic():
            return _leaving(server, command)
        case SettleNics():
            if command.generation < server.generation:
                raise Conflict(f"Server {server.id} has changed since: its cards are not settled yet.")
            return _settled(server, command)
        case ChangeNic():
            return [
                NicChanged(
                    port_id=command.port_id,
                    label=command.label,
                    mac_address=command.mac_address,
                    mtu=command.mtu,
                    addresses=command.addresses,
                    security_groups=command.security_groups,
                )
            ]


def nics_already_so(server: Server, command: NicCommand) -> bool:
    match command:
        case AttachNic():
            return server.nic(command.nic.port_id) is not None
        case DetachNic():
            nic = server.nic(command.port_id)
            return nic is None or nic.standing == "unplugging"
        case LoseNic():
            nic = server.nic(command.port_id)
            return nic is None or nic.port_gone
        case SettleNics():
            return command.generation >= server.generation and not _settled(server, command)
        case ChangeNic():
            nic = server.nic(command.port_id)
            return nic is None or all(getattr(nic, name) == getattr(command, name) for name in _FACTS)


_FACTS = ("label", "mac_address", "mtu", "addresses", "security_groups")


def _leaving(server: Server, command: DetachNic | LoseNic) -> list[NicEvent]:
    """Where no host has the server, the card is out at once."""
    if server.host is None:
        return [NicDetached(port_id=command.port_id)]
    if isinstance(command, LoseNic):
        return [NicDetachRequested(port_id=command.port_id, port_gone=True, request_id=server.request_id)]
    return [NicDetachRequested(port_id=command.port_id, request_id=command.request_id)]


def _settled(server: Server, command: SettleNics) -> list[NicEvent]:
    fault = command.fault
    events: list[NicEvent] = []
    for nic in server.nics:
        match nic.standing:
            case "plugging" if fault is None:
                events.append(NicSettled(port_id=nic.port_id))
            case "plugging":
                events.append(NicDetached(port_id=nic.port_id, fault=fault or ""))
            case "unplugging" if fault is None or command.gone:
                events.append(NicDetached(port_id=nic.port_id))
            case "unplugging" if not nic.port_gone:
                events.append(NicDetachFailed(port_id=nic.port_id, fault=fault or ""))
    return events
