"""On which CPUs and memory of its host a guest is, in libvirt's words: what changes when it goes to another."""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree as ET

from schema.compute.topology import Topology, ranges

_NOWHERE: Mapping[int, tuple[int, ...]] = {}


def pin(tuning: ET.Element, topology: Topology | None, near: Mapping[int, tuple[int, ...]] = _NOWHERE) -> None:
    """`near`: NUMA node of the host → its CPUs for guests that share them."""
    if topology is None:
        return
    for cell in topology.cells:
        for vcpu in cell.cpus:
            cpus = (cell.pins[vcpu],) if vcpu in cell.pins else cell.floats or near.get(cell.host_cell, ())
            if cpus:
                ET.SubElement(tuning, "vcpupin", vcpu=str(vcpu), cpuset=ranges(cpus))
    if emulator := topology.emulator_cpus or tuple(topology.pins.values()):
        ET.SubElement(tuning, "emulatorpin", cpuset=ranges(emulator))


def place_memory(root: ET.Element, topology: Topology | None) -> None:
    cells = topology.cells if topology else ()
    if not cells:
        return
    tuning = ET.SubElement(root, "numatune")
    ET.SubElement(tuning, "memory", mode="strict", nodeset=ranges({cell.host_cell for cell in cells}))
    for cell in cells if topology and topology.numa else ():
        ET.SubElement(tuning, "memnode", cellid=str(cell.id), mode="strict", nodeset=str(cell.host_cell))


def placed_anew(root: ET.Element, topology: Topology | None) -> None:
    """The same guest on another host."""
    tuning = root.find("cputune")
    if tuning is None:
        tuning = ET.SubElement(root, "cputune")
    for old in [it for it in tuning if it.tag in {"vcpupin", "emulatorpin"}]:
        tuning.remove(old)
    pin(tuning, topology)
    if not len(tuning):
        root.remove(tuning)
    for memory in root.findall("numatune"):
        root.remove(memory)
    place_memory(root, topology)
