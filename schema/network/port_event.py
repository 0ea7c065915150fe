"""What happens to ports."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType, field

from schema.event import Event
from schema.network.port_state import Binding, FixedIp, NewPort, PortChanges


class PortCreated(Event, NewPort):
    """It is there; its addresses are allocated on their subnets' streams in the same append."""


class PortUpdated(Event, PortChanges):
    """The fields that changed."""


class PortAddressAdded(Event):
    """It came by an address of a subnet made or changed after it; allocated there in the same append."""

    fixed_ip: FixedIp


class PortAddressRemoved(Event):
    """An address of it went with its subnet, or because nothing is served there any more."""

    fixed_ip: FixedIp


class PortAttached(Event):
    """A device took it that had not made it."""

    device_id: str
    device_owner: str


class PortDetached(Event):
    """Its device let it go; it is on no host any more."""


class PortBound(Event):
    """It belongs on that host now; whether it is in place there, the host reports."""

    host: str
    vif_type: str
    vif_details: dict[str, Any] = field(default_factory=dict)


class PortUnbound(Event):
    pass


class PortBindingChanged(Event):
    """The fields of its binding to that host that changed; of the active one, also while it is on no host."""

    host: str = ""
    vnic_type: str | UnsetType = UNSET
    profile: dict[str, Any] | UnsetType = UNSET


class PortBindingAdded(Event):
    """That host prepares for it."""

    binding: Binding


class PortBindingActivated(Event):
    """It is on that host from now on; its former binding is an inactive one."""

    host: str


class PortBindingRemoved(Event):
    """An inactive one is no more."""

    host: str


class PortWired(Event):
    """What its host says of it: in place, or why not."""

    up: bool
    fault: str | None = None


class PortBindingWired(Event):
    """What a host says to which it may come: in place, or not (any more)."""

    host: str
    up: bool


class PortTrunked(Event):
    """It is the parent of a trunk from now on."""

    trunk_id: str


class PortJoinedTrunk(Event):
    """It reaches its guest tagged, by the card of the trunk's parent, and is where that is."""

    trunk_id: str
    subport_of: str
    segmentation_id: int


class PortLeftTrunk(Event):
    """It is no trunk's parent or subport any more."""


class PortDeleted(Event):
    pass


PortEvent = (
    PortCreated
    | PortUpdated
    | PortAddressAdded
    | PortAddressRemoved
    | PortAttached
    | PortDetached
    | PortBound
    | PortUnbound
    | PortBindingChanged
    | PortBindingAdded
    | PortBindingActivated
    | PortBindingRemoved
    | PortWired
    | PortBindingWired
    | PortTrunked
    | PortJoinedTrunk
    | PortLeftTrunk
    | PortDeleted
)
