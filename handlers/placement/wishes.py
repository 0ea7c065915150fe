"""What flavor and image say of hardware, read: extra specs and properties become `Hardware`.

    extra specs hw:*, pci_passthrough:alias, resources:PCPU  +  properties hw_*  ──▶  Hardware | None | Invalid

Who wins where both speak, and what contradicts itself, are Nova's rules, and so are the words for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NoReturn

from msgspec import Struct

from handlers.placement.hardware import (
    ANY,
    DEDICATED,
    DEVICE_POLICIES,
    ISOLATE,
    LARGE,
    MIXED,
    PREFER,
    REQUIRE,
    SHARE,
    SHARED,
    SMALL,
    Hardware,
    WantedCell,
    WantedDevices,
)
from schema.compute.topology import SMALL_PAGE_KIB, cpu_set
from schema.refusal import Invalid

ALIAS = "pci_passthrough:alias"
HYPERTHREADING = "trait:HW_CPU_HYPERTHREADING"

_CPU_POLICIES = (DEDICATED, MIXED, SHARED)
_THREAD_POLICIES = (PREFER, ISOLATE, REQUIRE)
_BY_TRAIT = {"required": REQUIRE, "forbidden": ISOLATE}
_TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
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
    said = _Said(vcpus, memory_mb, extra_specs, properties)
    policy, threads, emulator = _cpu_policy(said), _thread_policy(said), _emulator_policy(said)
    dedicated = _dedicated(said, policy, threads, emulator)
    pages, nodes, devices = _pages(said), _nodes(said), _devices(said)
    cells = _cells(said, nodes or 1, dedicated) if nodes or pages or dedicated else ()
    if not cells and not devices:
        return None
    return Hardware(
        cells=cells,
        cpu_policy=policy,
        thread_policy=(threads or _BY_TRAIT.get(_hyperthreading(said), "")) if dedicated else "",
        emulator_policy=emulator,
        pages=pages,
        devices=devices,
    )


class _Said(Struct, frozen=True):
    """A flavor's size and what it and the image say."""

    vcpus: int
    memory_mb: int
    extra_specs: Mapping[str, str]
    properties: Mapping[str, str]

    def both(self, name: str) -> tuple[str, str]:
        return self.extra_specs.get(f"hw:{name}", ""), self.properties.get(f"hw_{name}", "")

    def counted(self, name: str) -> int:
        """`resources:NAME`, numbered groups included."""
        pattern = re.compile(rf"resources[0-9]*:{name}")
        return sum(int(n) for key, n in self.extra_specs.items() if pattern.fullmatch(key) and n.isdigit())

    def cpus(self, text: str) -> frozenset[int]:
        """A mask of vCPUs; one that begins by leaving some out begins with all."""
        words = f"0-{self.vcpus - 1},{text}" if text.strip().startswith("^") else text
        try:
            return cpu_set(words)
        except ValueError:
            raise Invalid(f"Invalid range expression {text!r}") from None


def _cpu_policy(said: _Said) -> str:
    flavor, image = said.both("cpu_policy")
    _one_of(_CPU_POLICIES, "CPU policy", flavor, image)
    if (flavor == MIXED and image == DEDICATED) or (flavor == SHARED and image in {MIXED, DEDICATED}):
        raise Invalid(
            "Image property 'hw_cpu_policy' is not permitted to override CPU pinning policy set against the flavor"
        )
    policy = flavor or image
    shared, pinned = said.counted("VCPU"), said.counted("PCPU")
    if policy and (shared or pinned):
        raise Invalid(
            "It is not possible to use the 'resources:VCPU' or 'resources:PCPU' extra specs in combination with the "
            "'hw:cpu_policy' extra spec or 'hw_cpu_policy' image metadata property; use one or the other"
        )
    if shared and pinned:
        raise Invalid(
            "It is not possible to specify both 'resources:VCPU' and 'resources:PCPU' extra specs; use one or the other"
        )
    if pinned:
        _all_pinned(said, pinned)
        return DEDICATED
    return SHARED if shared else policy


def _all_pinned(said: _Said, pinned: int) -> None:
    isolated = _emulator_policy(said) == ISOLATE
    if isolated and pinned != said.vcpus + 1:
        raise Invalid(
            "You have requested 'hw:emulator_threads_policy=isolate' but have not requested sufficient PCPUs to handle "
            "this policy; you must allocate exactly flavor.vcpus + 1 PCPUs."
        )
    if not isolated and pinned != said.vcpus:
        raise Invalid(
            "There is a mismatch between the number of PCPUs requested via 'resourcesNN:PCPU' and the flavor); "
            "you must allocate exactly flavor.vcpus PCPUs"
        )


def _thread_policy(said: _Said) -> str:
    flavor, image = said.both("cpu_thread_policy")
    _one_of(_THREAD_POLICIES, "CPU thread policy", flavor, image)
    if flavor not in {"", PREFER} and image not in {"", flavor}:
        raise Invalid(
            "Image property 'hw_cpu_thread_policy' is not permitted to override CPU thread pinning policy set against "
            "the flavor"
        )
    policy = flavor or image
    if policy and _hyperthreading(said):
        raise Invalid(
            "It is not possible to use the 'trait:HW_CPU_HYPERTHREADING' extra spec in combination with the "
            "'hw:cpu_thread_policy' extra spec or 'hw_cpu_thread_policy' image metadata property; "
            "use one or the other"
        )
    return policy


def _hyperthreading(said: _Said) -> str:
    return said.extra_specs.get(HYPERTHREADING) or said.properties.get(HYPERTHREADING, "")


def _emulator_policy(said: _Said) -> str:
    policy = said.extra_specs.get("hw:emulator_threads_policy", "")
    if policy not in {"", ISOLATE, SHARE}:
        raise Invalid(
            f"CPU emulator threads option requested is invalid, given: '{policy}', available: '{ISOLATE}, {SHARE}'."
        )
    return policy


def _dedicated(said: _Said, policy: str, threads: str, emulator: str) -> frozenset[int]:
    """The vCPUs that want a CPU of their own."""
    everything = frozenset(range(said.vcpus))
    realtime = _realtime(said, emulator)
    mask = said.extra_specs.get("hw:cpu_dedicated_mask", "")
    masked = _masked(said, mask) if mask else frozenset[int]()
    if policy not in {DEDICATED, MIXED}:
        if threads:
            raise Invalid("Cannot set cpu thread pinning policy in a non dedicated cpu pinning policy")
        if emulator == ISOLATE:
            raise Invalid("An isolated CPU emulator threads option requires a dedicated CPU policy option.")
    if masked and policy != MIXED:
        raise Invalid(
            "Dedicated CPU set can be specified from flavor extra spec 'hw:cpu_dedicated_mask' only "
            "with the 'mixed' CPU policy."
        )
    if policy not in {DEDICATED, MIXED}:
        if realtime:
            raise Invalid("Cannot set realtime policy in a non dedicated cpu pinning policy")
        return frozenset()
    if policy == DEDICATED:
        return everything
    if bool(masked) == bool(realtime):
        raise Invalid(
            "Dedicated CPU set can be specified from either 'hw:cpu_dedicated_mask' or 'hw:cpu_realtime_mask' when "
            "using 'mixed' CPU policy. 'hw:cpu_dedicated_mask' and 'hw:cpu_realtime_mask' can not be specified at the "
            "same time, or be specified with none of them."
        )
    return masked or realtime


def _masked(said: _Said, mask: str) -> frozenset[int]:
    everything = frozenset(range(said.vcpus))
    masked = said.cpus(mask)
    if not masked or not everything - masked:
        raise Invalid(
            "Mixed instance must have at least 1 pinned vCPU and 1 unpinned vCPU. See 'hw:cpu_dedicated_mask'."
        )
    if not masked <= everything:
        raise Invalid(
            'Mixed instance dedicated vCPU(s) mask is not a subset of vCPUs in the flavor. See "hw:cpu_dedicated_mask"'
        )
    return masked


def _realtime(said: _Said, emulator: str) -> frozenset[int]:
    if said.extra_specs.get("hw:cpu_realtime", "").strip().lower() not in _TRUE:
        return frozenset()
    flavor, image = said.both("cpu_realtime_mask")
    everything = frozenset(range(said.vcpus))
    realtime = said.cpus(image or flavor) if image or flavor else everything
    if not realtime or (realtime == everything and not emulator):
        raise Invalid(
            "Realtime policy needs vCPU(s) mask configured with at least 1 RT vCPU and 1 ordinary vCPU. "
            "See hw:cpu_realtime_mask or hw_cpu_realtime_mask"
        )
    if not realtime <= everything:
        raise Invalid(
            "Realtime policy vCPU(s) mask is configured with RT vCPUs that are not a subset of the vCPUs in the "
            "flavor. See hw:cpu_realtime_mask or hw_cpu_realtime_mask"
        )
    return realtime


def _pages(said: _Said) -> str:
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


def _nodes(said: _Said) -> int:
    flavor, image = said.both("numa_nodes")
    if flavor and image:
        _overriding("hw_numa_nodes")
    nodes = flavor or image
    if nodes and not (nodes.isdigit() and int(nodes) > 0):
        raise Invalid(f"The property 'numa_nodes' cannot be '{nodes}'. It must be a number greater than 0")
    return int(nodes or 0)


def _cells(said: _Said, nodes: int, dedicated: frozenset[int]) -> tuple[WantedCell, ...]:
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


def _check_cells(said: _Said, cpus: list[frozenset[int]], memory: list[int]) -> None:
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


def _each(said: _Said, name: str) -> list[str]:
    """`hw:NAME.0`, `.1` …, of the flavor or (if it says nothing) of the image."""
    flavor = [
        said.extra_specs[key] for n in range(_count(said.extra_specs, f"hw:{name}.")) if (key := f"hw:{name}.{n}")
    ]
    image = [said.properties[key] for n in range(_count(said.properties, f"hw_{name}.")) if (key := f"hw_{name}.{n}")]
    if flavor and image:
        _overriding(f"hw_{name}")
    return flavor or image


def _count(specs: Mapping[str, str], prefix: str) -> int:
    there = {key for key in specs if key.startswith(prefix)}
    for number in range(len(there)):
        if f"{prefix}{number}" not in there:
            raise Invalid("CPU and memory allocation must be provided for all NUMA nodes")
    return len(there)


def _devices(said: _Said) -> tuple[WantedDevices, ...]:
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


def _one_of(known: tuple[str, ...], what: str, flavor: str, image: str) -> None:
    for source, word in (("flavor extra specs", flavor), ("image properties", image)):
        if word and word not in known:
            raise Invalid(
                f"{what} requested from '{source}' is invalid, given: '{word}', available: '{', '.join(known)}'."
            )


def _overriding(name: str) -> NoReturn:
    raise Invalid(f"Image property '{name}' is not permitted to override NUMA configuration set against the flavor")
