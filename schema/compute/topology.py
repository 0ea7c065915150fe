"""Hardware that is not only counted: which CPUs, which memory, which devices of a host a guest has for itself.

    host: `HostCell`s and `HostDevice`s  ── the scheduler fits ──▶  guest: `Topology`, and the `units` it takes

A unit is one thing, or an amount, that only one claim can have: `cpu 5`, `memory 0` (MB of cell 0), `pages 0 2048` (of
2048 KiB there), `pci 0000:01:00.0`. What there is of each, and who has it, is in the host's resource provider.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import dataclass_transform

import msgspec
from msgspec import field

Units = dict[str, int]
"""Unit → how much of it."""

SMALL_PAGE_KIB = 4
DEVICE_CLASS = "CUSTOM_PCI_"
"""How the resource classes of PCI devices begin."""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value inside events, states and messages."""


class HostCell(_Part):
    """A NUMA node of a host."""

    id: int
    cpus: tuple[int, ...]
    siblings: tuple[tuple[int, ...], ...] = ()
    """The CPUs that are threads of one core, for each core; empty: every CPU is a core."""
    memory_mb: int = 0
    """What its larger pages are made of is not in it."""
    pages: dict[int, int] = field(default_factory=dict)
    """Size in KiB → how many; only those larger than usual."""
    socket: int = 0
    """The processor it is part of."""


class HostDevice(_Part):
    """A PCI device that guests may be given."""

    address: str
    """`0000:01:00.0`"""
    vendor_id: str
    product_id: str
    cell: int | None = None
    """The NUMA node it is near to."""
    kind: str = "type-PCI"
    """Nova's words: `type-PCI`, `type-PF`, `type-VF`."""
    parent: str = ""
    """Of a virtual function: the address of its physical one."""


class GuestCell(_Part):
    """A NUMA node of a guest, on one of its host."""

    id: int
    host_cell: int
    cpus: tuple[int, ...]
    """vCPUs."""
    memory_mb: int
    page_kib: int = 0
    """Size of the pages its memory is made of; 0: whatever comes."""
    pins: dict[int, int] = field(default_factory=dict)
    """vCPU → the host's CPU that it alone has."""
    floats: tuple[int, ...] = ()
    """The host's CPUs that the other vCPUs run on, with whomever else; none: any that are shared."""
    siblings: tuple[tuple[int, ...], ...] = ()
    """vCPUs that are threads of one core of the host."""


class GuestDevice(_Part):
    address: str
    vendor_id: str = ""
    product_id: str = ""
    alias: str = ""
    cell: int | None = None


class Topology(_Part):
    """What a guest has of its host for itself."""

    cells: tuple[GuestCell, ...] = ()
    devices: tuple[GuestDevice, ...] = ()
    cpu_policy: str = ""
    """`dedicated`, `mixed`, or `shared`."""
    thread_policy: str = ""
    emulator_cpus: tuple[int, ...] = ()
    """CPUs of the host for what the hypervisor itself does for the guest; none: any that are shared."""
    own_cpus: tuple[int, ...] = ()
    """CPUs of the host that it has besides those of its pins: its emulator's own, and those kept idle beside it."""
    numa: bool = True
    """The guest sees the cells. False: they only say where it is."""

    @property
    def pins(self) -> dict[int, int]:
        return {vcpu: cpu for cell in self.cells for vcpu, cpu in cell.pins.items()}


def units_there(cells: Iterable[HostCell], devices: Iterable[HostDevice], dedicated: Iterable[int]) -> Units:
    """What a host has of each unit. `dedicated`: its CPUs that are for one guest at a time."""
    own = frozenset(dedicated)
    there: Units = {}
    for cell in cells:
        there |= {cpu_unit(cpu): 1 for cpu in cell.cpus if cpu in own}
        there |= {page_unit(cell.id, size): count for size, count in cell.pages.items() if count}
        if cell.memory_mb:
            there[memory_unit(cell.id)] = cell.memory_mb
    return there | {device_unit(device.address): 1 for device in devices}


def units_taken(topology: Topology, devices: Iterable[HostDevice]) -> Units:
    """What a guest takes of each. With a physical function go all of its virtual ones."""
    taken = Counter[str]()
    for cell in topology.cells:
        taken.update(cpu_unit(cpu) for cpu in cell.pins.values())
        if cell.page_kib > SMALL_PAGE_KIB:
            taken[page_unit(cell.host_cell, cell.page_kib)] += cell.memory_mb * 1024 // cell.page_kib
        else:
            taken[memory_unit(cell.host_cell)] += cell.memory_mb
    taken.update(cpu_unit(cpu) for cpu in topology.own_cpus)
    given = {device.address for device in topology.devices}
    taken.update(device_unit(it.address) for it in devices if it.address in given or it.parent in given)
    return dict(taken)


def cpu_unit(cpu: int) -> str:
    return f"cpu {cpu}"


def memory_unit(cell: int) -> str:
    return f"memory {cell}"


def page_unit(cell: int, kib: int) -> str:
    return f"pages {cell} {kib}"


def device_unit(address: str) -> str:
    return f"pci {address}"


def device_class(vendor_id: str, product_id: str) -> str:
    """The resource class by which such devices are counted."""
    return f"{DEVICE_CLASS}{vendor_id}_{product_id}".upper()


def cpu_set(text: str) -> frozenset[int]:
    """`0-3,^2,7` → {0, 1, 3, 7}. Raises ValueError."""
    wanted, without = set[int](), set[int]()
    for part in (it.strip() for it in text.split(",")):
        if not part:
            continue
        least, dash, most = part.removeprefix("^").partition("-")
        first, last = int(least), int(most if dash else least)
        if last < first or last > MOST_CPUS:
            raise ValueError(part)
        (without if part.startswith("^") else wanted).update(range(first, last + 1))
    return frozenset(wanted - without)


def ranges(cpus: Iterable[int]) -> str:
    """The other way round: {0, 1, 3} → `0-1,3`."""
    parts: list[list[int]] = []
    for cpu in sorted(cpus):
        if parts and parts[-1][1] == cpu - 1:
            parts[-1][1] = cpu
        else:
            parts.append([cpu, cpu])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in parts)


MOST_CPUS = 8191
"""The highest number of a CPU that makes sense."""
