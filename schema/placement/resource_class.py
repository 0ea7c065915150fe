"""A resource class of an operator's own: a name beginning with CUSTOM_. The standard ones are facts, not streams.

    (absent) ──ResourceClassCreated──▶ there ──ResourceClassDeleted──▶ (absent; the name may be used again)

The stream's id is the name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

from msgspec.structs import replace

from schema.event import Command, Event, Kind, State

STANDARD_CLASSES = (
    "VCPU",
    "MEMORY_MB",
    "DISK_GB",
    "PCI_DEVICE",
    "SRIOV_NET_VF",
    "NUMA_SOCKET",
    "NUMA_CORE",
    "NUMA_THREAD",
    "NUMA_MEMORY_MB",
    "IPV4_ADDRESS",
    "VGPU",
    "VGPU_DISPLAY_HEAD",
    "NET_BW_EGR_KILOBIT_PER_SEC",
    "NET_BW_IGR_KILOBIT_PER_SEC",
    "PCPU",
    "MEM_ENCRYPTION_CONTEXT",
    "FPGA",
    "PGPU",
    "NET_PACKET_RATE_KILOPACKET_PER_SEC",
    "NET_PACKET_RATE_EGR_KILOPACKET_PER_SEC",
    "NET_PACKET_RATE_IGR_KILOPACKET_PER_SEC",
)

CUSTOM_NAME = re.compile(r"CUSTOM_[A-Z0-9_]{1,248}")
"""What a name of one's own looks like, for resource classes and traits: 255 characters at most."""


def in_order(names: Iterable[str]) -> list[str]:
    """As they are told: the standard ones as numbered, one's own by name."""
    return sorted(names, key=lambda name: (STANDARD_CLASSES.index(name) if name in STANDARD_CLASSES else 999, name))


class ResourceClass(State):
    pass


class ResourceClassCreated(Event):
    pass


class ResourceClassDeleted(Event):
    pass


ResourceClassEvent = ResourceClassCreated | ResourceClassDeleted


class CreateResourceClass(Command):
    pass


class DeleteResourceClass(Command):
    pass


def evolve(resource_class: ResourceClass, event: ResourceClassEvent, at: datetime) -> ResourceClass:
    match event:
        case ResourceClassCreated():
            return ResourceClass(id=resource_class.id)
        case ResourceClassDeleted():
            return replace(resource_class, deleted_at=at)


RESOURCE_CLASS = Kind("resource_class", ResourceClass, ResourceClassEvent, evolve, reborn=ResourceClassCreated)
