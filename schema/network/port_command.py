"""What may be wished of ports."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType, field

from schema.event import Command
from schema.network.port_state import FixedIp, NewPort, PortChanges
from schema.network.wiring import AddressPair


class CreatePort(Command, NewPort):
    """Make it."""


class UpdatePort(Command, PortChanges):
    """Change it."""


class AddPortAddress(Command):
    """One address more, whatever else is changed meanwhile. Outdated when the port went."""

    fixed_ip: FixedIp


class RemovePortAddress(Command):
    """One address less.

    `remains`: whether the port has others; when it is said that it has none, it goes with this one. Outdated when it is
    otherwise. Unset: the port stays, whatever is left of it.
    """

    fixed_ip: FixedIp
    remains: bool | UnsetType = UNSET


class ReaddressPort(Command):
    """Other addresses. Outdated when what it has by now is not `before`: their allocation goes by that."""

    fixed_ips: tuple[FixedIp, ...]
    before: tuple[FixedIp, ...]


class AddAddressPairs(Command):
    """These too, whatever others are there."""

    pairs: tuple[AddressPair, ...]


class RemoveAddressPairs(Command):
    pairs: tuple[AddressPair, ...]


class AttachPort(Command):
    """Refused when another device has it."""

    device_id: str
    device_owner: str


class DetachPort(Command):
    """Nothing happens unless that device has it."""

    device_id: str


class BindPort(Command):
    host: str
    vif_type: str = "bridge"
    vif_details: dict[str, Any] = field(default_factory=dict)


class UnbindPort(Command):
    """From that host; of a port that is on another by now, nothing comes of it. Empty: from whichever."""

    host: str = ""


class ChangePortBinding(Command):
    """Its binding to that host; empty: the active one."""

    host: str = ""
    vnic_type: str | UnsetType = UNSET
    profile: dict[str, Any] | UnsetType = UNSET


class AddPortBinding(Command):
    """Refused when it has one to that host."""

    host: str
    vnic_type: str = "normal"
    profile: dict[str, Any] = field(default_factory=dict)
    vif_type: str = "bridge"
    vif_details: dict[str, Any] = field(default_factory=dict)


class ActivatePortBinding(Command):
    host: str


class RemovePortBinding(Command):
    """An inactive one."""

    host: str


class ReportPortWired(Command):
    """From a host it is bound to, if inactively; of any other, or of an older generation, it says nothing."""

    host: str
    generation: int
    up: bool
    fault: str | None = None


class TrunkPort(Command):
    """Have it be a trunk's parent. Refused where it is in a trunk, on a host, or some thing's own."""

    trunk_id: str


class JoinTrunk(Command):
    """Have it be a subport. Refused where it is in a trunk, or a device has it."""

    trunk_id: str
    subport_of: str
    segmentation_id: int


class LeaveTrunk(Command):
    """Nothing happens unless it is in that trunk. The parent's leave is the trunk's end: refused while on a host."""

    trunk_id: str


class DeletePort(Command):
    """Outdated when it has other addresses than these, which come back in the same append."""

    fixed_ips: tuple[FixedIp, ...] | UnsetType = UNSET
