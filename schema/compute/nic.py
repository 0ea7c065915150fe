"""A server's network cards, as far as the server itself must know: for its view, its domain and its metadata.

                 NicAttached             NicSettled
    (not there) ────────────▶ plugging ─────────────▶ plugged
                                 │ NicDetached (it failed)  │ NicDetachRequested    ▲ NicDetachFailed
                                 ▼                          ▼                       │
                              (gone) ◀──NicDetached── unplugging ───────────────────┘

The truth about a port is the port's own stream; what stands here is kept up to date with it (`NicChanged`).
"""

from __future__ import annotations

from typing import Literal, dataclass_transform

import msgspec
from msgspec import field
from msgspec.structs import replace

from schema.event import Event

Standing = Literal["plugged", "plugging", "unplugging"]


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value inside events and states."""


class NicAddress(_Part):
    ip: str
    subnet_id: str
    floating: tuple[str, ...] = ()
    """Outside addresses that lead to this one."""

    @property
    def version(self) -> Literal[4, 6]:
        return 6 if ":" in self.ip else 4


class ServerNic(_Part):
    port_id: str
    network_id: str
    label: str
    """The network's name."""
    mac_address: str
    mtu: int = 1500
    addresses: tuple[NicAddress, ...] = ()
    security_groups: tuple[str, ...] = ()
    """Their names."""
    tag: str = ""
    made: bool = False
    """The port was made for this server, and goes with it."""
    standing: Standing = "plugged"
    port_gone: bool = False
    """Somebody deleted the port; the card is only still to be taken out."""


class NicAttached(Event):
    nic: ServerNic
    request_id: str = ""


class NicSettled(Event):
    """The host has plugged it in."""

    port_id: str


class NicDetachRequested(Event):
    port_id: str
    port_gone: bool = False
    request_id: str = ""


class NicDetached(Event):
    """Unplugged, or (`fault`) never plugged in. The port is let go of in the same append."""

    port_id: str
    fault: str = ""


class NicDetachFailed(Event):
    """The guest does not let go of it: it stays."""

    port_id: str
    fault: str


class NicChanged(Event):
    """The facts as they are now."""

    port_id: str
    label: str
    mac_address: str
    mtu: int
    addresses: tuple[NicAddress, ...] = ()
    security_groups: tuple[str, ...] = field(default=())


NicEvent = NicAttached | NicSettled | NicDetachRequested | NicDetached | NicDetachFailed | NicChanged


def nics_after(nics: tuple[ServerNic, ...], event: NicEvent) -> tuple[ServerNic, ...]:
    """A server's cards after an event about one of them."""
    if isinstance(event, NicAttached):
        return (*(nic for nic in nics if nic.port_id != event.nic.port_id), event.nic)
    return tuple(after for nic in nics if (after := _after(nic, event)) is not None)


def concerns_host(nic: ServerNic | None, event: NicEvent) -> bool:
    """Whether the server's host must hear of it."""
    match event:
        case NicAttached() | NicDetachRequested() | NicDetachFailed():
            return True
        case NicDetached():
            return nic is not None and nic.standing != "unplugging"
        case NicChanged():
            return nic is not None and nic.mac_address != event.mac_address
    return False


def _after(nic: ServerNic, event: NicEvent) -> ServerNic | None:
    if isinstance(event, NicAttached) or nic.port_id != event.port_id:
        return nic
    match event:
        case NicSettled():
            return replace(nic, standing="plugged")
        case NicDetachRequested():
            return replace(nic, standing="unplugging", port_gone=nic.port_gone or event.port_gone)
        case NicDetachFailed():
            return replace(nic, standing="plugged")
        case NicDetached():
            return None
        case NicChanged():
            return replace(
                nic,
                label=event.label,
                mac_address=event.mac_address,
                mtu=event.mtu,
                addresses=event.addresses,
                security_groups=event.security_groups,
            )
