"""What a host has that guests can have for themselves: pure, from what libvirt says of it, or from what is pretended.

capabilities  ──▶ NUMA nodes, with their CPUs, memory and pages     https://libvirt.org/formatcaps.html
node devices  ──▶ PCI devices, as far as the operator gives them    https://libvirt.org/formatnode.html
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree as ET

from bus.config import ConfigurationError, Hardware
from schema.compute.topology import SMALL_PAGE_KIB, HostCell, HostDevice, cpu_set


def cells(capabilities: ET.Element, share: int = 1) -> tuple[HostCell, ...]:
    """The NUMA nodes. `share`: of how many hosts that divide the machine's memory among them this is one."""
    return tuple(_cell(it, share) for it in capabilities.findall("host/topology/cells/cell"))


def _cell(it: ET.Element, share: int) -> HostCell:
    cpus = it.findall("cpus/cpu")
    numbers = {int(cpu.get("id", 0)) for cpu in cpus}
    cores = {tuple(sorted(cpu_set(cpu.get("siblings", "")) & numbers)) or (int(cpu.get("id", 0)),) for cpu in cpus}
    pages = {
        int(page.get("size", 0)): int(page.text or 0) // share
        for page in it.findall("pages")
        if int(page.get("size", 0)) > SMALL_PAGE_KIB and int(page.text or 0) >= share
    }
    whole_kib = int(it.findtext("memory") or 0)
    return HostCell(
        id=int(it.get("id", 0)),
        cpus=tuple(sorted(numbers)),
        siblings=tuple(sorted(cores)) if any(len(core) > 1 for core in cores) else (),
        memory_mb=max(0, whole_kib // share - sum(size * count for size, count in pages.items())) // 1024,
        pages=pages,
        socket=min((int(socket) for cpu in cpus if (socket := cpu.get("socket_id"))), default=0),
    )


def dedicated(setting: str, there: Iterable[HostCell], turn: int = 0, share: int = 1) -> tuple[int, ...]:
    """The CPUs that are for one guest at a time; hosts that are one machine part them: each `share`th is this one's."""
    try:
        chosen = cpu_set(setting)
    except ValueError:
        raise ConfigurationError(f"hardware.dedicated_cpus is {setting!r}; it must be like 2-15,^8") from None
    own = sorted(chosen & {cpu for cell in there for cpu in cell.cpus})
    return tuple(own[turn::share])


def devices(setting: Sequence[str], found: Iterable[str]) -> tuple[HostDevice, ...]:
    """Those of these node devices (XML) that the operator gives to guests: by `vendor:product`, or by address."""
    chosen = {it.strip().lower() for it in setting}
    there = [device for text in found if (device := _device(ET.fromstring(text)))]  # noqa: S314  libvirt's own words
    given = [it for it in there if {it.address, f"{it.vendor_id}:{it.product_id}"} & chosen]
    return tuple(sorted(given, key=lambda it: it.address))


def _device(node: ET.Element) -> HostDevice | None:
    it = node.find("capability[@type='pci']")
    if it is None:
        return None
    vendor, product, numa = it.find("vendor"), it.find("product"), it.find("numa")
    physical = it.find("capability[@type='phys_function']/address")
    virtual = it.find("capability[@type='virt_functions']")
    kind = "type-VF" if physical is not None else "type-PF" if virtual is not None else "type-PCI"
    return HostDevice(
        address=_address([int(it.findtext(name) or "0", 0) for name in _PARTS]),
        vendor_id=_hexadecimal(vendor),
        product_id=_hexadecimal(product),
        cell=int(numa.get("node", 0)) if numa is not None else None,
        kind=kind,
        parent=_address([int(physical.get(name, "0"), 0) for name in _PARTS]) if physical is not None else "",
    )


_PARTS = ("domain", "bus", "slot", "function")


def _address(parts: Sequence[int]) -> str:
    return "{:04x}:{:02x}:{:02x}.{:x}".format(*parts)


def _hexadecimal(it: ET.Element | None) -> str:
    return (it.get("id", "") if it is not None else "").removeprefix("0x").lower()


def pretended_cells(said: Hardware, vcpus: int, memory_mb: int) -> tuple[HostCell, ...]:
    """The NUMA nodes of a simulated host: its CPUs and memory in equal parts."""
    count, threads = said.simulated_cells, said.simulated_threads
    if not count:
        return ()
    each = vcpus // count // threads * threads
    pages = {int(size): int(n) for size, n in said.simulated_pages.items()}
    in_pages_mb = sum(size * n for size, n in pages.items()) // 1024
    found = []
    for number in range(count):
        cpus = tuple(range(number * each, number * each + each))
        cores = tuple(cpus[n : n + threads] for n in range(0, each, threads)) if threads > 1 else ()
        mb = max(0, memory_mb // count - in_pages_mb)
        found.append(HostCell(id=number, cpus=cpus, siblings=cores, memory_mb=mb, pages=pages, socket=number))
    return tuple(found)


def pretended_devices(said: Hardware) -> tuple[HostDevice, ...]:
    """The PCI devices of a simulated host, from one NUMA node to the next."""
    found = []
    for number, words in enumerate(said.devices):
        vendor_id, _, product_id = words.lower().partition(":")
        found.append(
            HostDevice(
                address=_address((0, number + 1, 0, 0)),
                vendor_id=vendor_id,
                product_id=product_id,
                cell=number % said.simulated_cells if said.simulated_cells else None,
            )
        )
    return tuple(found)
