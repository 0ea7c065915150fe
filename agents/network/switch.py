"""What carries frames on a host: each network's bridge, the tunnels to other hosts, and the ports plugged into both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from agents.network.driver import Component
from agents.network.world import World
from schema.compute.domain import Word
from schema.network.wiring import NetworkHostFacts, WiredNetwork


class Attachment(Word):
    """A foot that a service of this host (DHCP, a router) has in a network: a pair of ends.

    One end is in the service's namespace, which must be there already; the other is on the network's bridge.
    """

    port_id: str
    network_id: str
    mac_address: str
    """Of the end inside."""
    mtu: int
    namespace: str
    """Name of the service's namespace, as in /run/netns."""
    local: bool = False
    """It is the same on every host, so nothing passes between it and the other hosts: DHCP and metadata."""

    @property
    def inside(self) -> str:
        """Interface in the namespace. It is up; its addresses are the service's business."""
        return f"q{self.port_id[:11]}"

    @property
    def outside(self) -> str:
        """Interface on the bridge."""
        return f"h{self.port_id[:11]}"


class CannotWire(Exception):
    """What could not be done and what to do about it, for a person to read."""


class Switch(Component, Protocol):
    """Networks, ports and peers of a host. Nothing that is as it should be is ever touched."""

    async def start(self, on_change: Callable[[], None]) -> None:
        """From now on tell when somebody else took away or changed what is wired; in the event loop's own thread."""

    async def facts(self) -> NetworkHostFacts:
        """What this switch can do, and where it takes tunnels."""

    def bridge_of(self, network: WiredNetwork) -> str:
        """Interface name of the network's bridge on this host; what filters by bridge needs it."""

    async def attach(self, attachment: Attachment, world: World) -> None:
        """Have it in place; nothing happens when it is. The switch keeps it so until `detach`.

        Raises CannotWire: no such network here, no such namespace, or the kernel refused.
        """

    async def detach(self, port_id: str) -> None:
        """Take both ends away; nothing happens when they are not there. Deleting the namespace does it too."""


def bridge_name(network_id: str) -> str:
    """Interface of a network's own bridge."""
    return f"br{network_id[:11]}"


def tunnel_name(segmentation_id: int) -> str:
    """Interface of a network's VXLAN device."""
    return f"vx{segmentation_id}"
