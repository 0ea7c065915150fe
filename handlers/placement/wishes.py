"""What flavor and image say of hardware, read: extra specs and properties become `Hardware`.

    extra specs hw:*, pci_passthrough:alias, resources:PCPU  +  properties hw_*  ──▶  Hardware | None | Invalid

Who wins where both speak, and what contradicts itself, are Nova's rules, and so are the words for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from handlers.placement.cpu_wishes import cpu_wishes
from handlers.placement.hardware import ANY, DEVICE_POLICIES, LARGE, SMALL, Hardware, WantedCell, WantedDevices
from handlers.placement.said import Said, overriding
from schema.compute.topology import SMALL_PAGE_KIB
from schema.refusal import Invalid

ALIAS = "pci_passthrough:alias"

_SPECS = ("hw:", "pci_passthrough:", "resources")
_PROPERTIES = ("hw_cpu", "hw_numa", "hw_mem_page_size", "hw_pci_numa")
_SIZE = re.compile(r"(\d+)\s*([kKmMgGtT]?)(i?)(b|B|bit)?")
_ALIAS_COUNT = re.compile(r"\s*([^:,]+):(\d+)\s*")


def wanted(
    vcpus: int, memory_mb: int, extra_specs: Mapping[str, str], properties: Mapping[str, str]
) -> Hardware | None:
    """What flavor and image together ask for; None: nothing but its size. Raises Invalid."""
    if not any(key.startswith(_SPECS) for key in extra_specs) and not any(
        key.startswith(_PROPERTIES) for key in properties
    ):
        return None
    said = Said(vcpus, memory_mb, extra_specs, properties)
    cpus = cpu_wishes(said)
    pages, nodes, devices = _pages(said), _nodes(said), _devices(said)
    cells = _cells(said, nodes or 1, cpus.dedicated) if nodes or pages or cpus.dedicated else ()
    if not cells and not devices:
        return None
    return Hardware(
        cells=cells,
        cpu_policy=cpus.policy,
        thread_policy=cpus.thread_policy,
        emulator_policy=cpus.emulator_policy,
        pages=pages,
        devices=devices,
    )


def _pages(said: Said) -> str:
    flavor, image = said.both("mem_page_size")
    if image and not flavor:
        raise Invalid(f"Page size {image} forbidden against '<None>'")
    if not flavor:
        return ""
    size = _page_size(flavor)
    if not image:
        return size
    if size not in {LARGE, ANY}:
        raise Invalid(f"Page size {image} forbidden against '{flavor}'")
    return _page_size(image)


def _page_size(text: str) -> str:
    """`small`, `large`, `any`, or KiB; a number without unit is KiB already."""
    word = text.strip().lower()
    if word in {SMALL, LARGE, ANY}:
        return word
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise Invalid(f"Invalid memory page size '{text}'")
    number, unit, binary, bits = match.groups()
    base = 1000 if bits and not binary and bits != "B" else 1024
    kib = int(number)
    if unit:
        total = int(number) * base ** ("kmgt".index(unit.lower()) + 1)
        kib = total // (8 if bits in {"b", "bit"} else 1) // 1024
    if kib < SMALL_PAGE_KIB:
        raise Invalid(f"Invalid memory page size '{text}'")
    return str(kib)


def _nodes(said: Said) -> int:
    flavor, image = said.both("numa_nodes")
    if flavor and image:
        overriding("hw_numa_nodes")
    nodes = flavor or image
    if nodes and not (nodes.isdigit() and int(nodes) > 0):
        raise Invalid(f"The property 'numa_nodes' cannot be '{nodes}'. It must be a number greater than 0")
    return int(nodes or 0)


def _cells(said: Said, nodes: int, dedicated: frozenset[int]) -> tuple[WantedCell, ...]:
    cpus = [said.cpus(it) for it in _each(said, "numa_cpus")]
    memory = _each(said, "numa_mem")
    if not cpus and not memory:
        if said.vcpus % nodes or said.memory_mb % nodes:
            raise Invalid(
                "Instance CPUs and/or memory cannot be evenly distributed across instance NUMA nodes. "
                "Explicit assignment of CPUs and memory to nodes is required"
            )
        each = said.vcpus // nodes
        cpus = [frozenset(range(node * each, node * each + each)) for node in range(nodes)]
        memory = [str(said.memory_mb // nodes)] * nodes
    if len(cpus) != nodes or len(memory) != nodes:
        raise Invalid("CPU and memory allocation must be provided for all NUMA nodes")
    _check_cells(said, cpus, [int(it) if it.isdigit() else 0 for it in memory])
    return tuple(
        WantedCell(cpus=tuple(sorted(its)), dedicated=tuple(sorted(its & dedicated)), memory_mb=int(mb))
        for its, mb in zip(cpus, memory, strict=True)
    )


def _check_cells(said: Said, cpus: list[frozenset[int]], memory: list[int]) -> None:
    seen = set[int]()
    for its in cpus:
        for cpu in sorted(its):
            if cpu >= said.vcpus:
                raise Invalid(f"CPU number {cpu} is larger than max {said.vcpus - 1}")
            if cpu in seen:
                raise Invalid(f"CPU number {cpu} is assigned to two nodes")
            seen.add(cpu)
    if unassigned := set(range(said.vcpus)) - seen:
        raise Invalid(f"CPU number {unassigned} is not assigned to any node")
    if sum(memory) != said.memory_mb:
        raise Invalid(f"{sum(memory)} MB of memory assigned, but expected {said.memory_mb} MB")


def _each(said: Said, name: str) -> list[str]:
    """`hw:NAME.0`, `.1` …, of the flavor or (if it says nothing) of the image."""
    flavor = [
        said.extra_specs[key] for n in range(_count(said.extra_specs, f"hw:{name}.")) if (key := f"hw:{name}.{n}")
    ]
    image = [said.properties[key] for n in range(_count(said.properties, f"hw_{name}.")) if (key := f"hw_{name}.{n}")]
    if flavor and image:
        overriding(f"hw_{name}")
    return flavor or image


def _count(specs: Mapping[str, str], prefix: str) -> int:
    there = {key for key in specs if key.startswith(prefix)}
    for number in range(len(there)):
        if f"{prefix}{number}" not in there:
            raise Invalid("CPU and memory allocation must be provided for all NUMA nodes")
    return len(there)


def _devices(said: Said) -> tuple[WantedDevices, ...]:
    flavor, image = said.both("pci_numa_affinity_policy")
    if flavor and image and flavor != image:
        raise Invalid(
            "Image property 'hw_pci_numa_affinity_policy' is not permitted to override the "
            "'hw:pci_numa_affinity_policy' flavor extra spec."
        )
    policy = flavor or image
    if policy not in {"", *DEVICE_POLICIES}:
        raise Invalid(f"Invalid PCI NUMA affinity configured: {policy}")
    devices = []
    for part in said.extra_specs.get(ALIAS, "").split(","):
        if not part.strip():
            continue
        match = _ALIAS_COUNT.fullmatch(part)
        if match is None:
            raise Invalid(f"Invalid PCI alias definition: {part.strip()} is not like alias:count")
        if int(match[2]):
            devices.append(WantedDevices(alias=match[1].strip(), count=int(match[2]), policy=policy))
    return tuple(devices)
