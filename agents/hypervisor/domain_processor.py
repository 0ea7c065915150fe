"""A guest's processors and memory, in libvirt's words: model, topology, NUMA nodes, pins, shares of CPU time, pages."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree as ET

from agents.hypervisor.domain_pins import pin
from agents.hypervisor.domain_system import hidden
from agents.hypervisor.driver import Unsupported
from agents.hypervisor.element import leaf
from agents.hypervisor.host_abilities import Abilities
from agents.hypervisor.wishes import Wishes
from schema.compute.domain import Domain
from schema.compute.topology import SMALL_PAGE_KIB, GuestCell, cpu_set, ranges

_CPU_TIME = {"cpu_shares": "shares", "cpu_period": "period", "cpu_quota": "quota"}
_MANY = 65536


def cpus(root: ET.Element, domain: Domain, host: Abilities) -> None:
    """How many it has. They keep off the host's CPUs that are for one guest at a time, but for those it is given."""
    vcpu = leaf(root, "vcpu", str(domain.vcpus))
    if host.shared_cpus:
        vcpu.set("placement", "static")
        vcpu.set("cpuset", ranges(host.shared_cpus))


def processor(root: ET.Element, domain: Domain, wishes: Wishes, host: Abilities) -> None:
    if host.kvm:
        cpu = ET.SubElement(root, "cpu", mode="host-model", check="partial")
    else:
        # x86-64-v2, which current distributions ask for and QEMU emulates in full.
        cpu = ET.SubElement(root, "cpu", mode="custom", match="exact", check="none")
        leaf(cpu, "model", "Nehalem", fallback="allow")
    sockets, cores, threads = topology(domain, wishes)
    ET.SubElement(cpu, "topology", sockets=str(sockets), dies="1", cores=str(cores), threads=str(threads))
    if hidden(wishes) and not host.kvm:
        ET.SubElement(cpu, "feature", policy="disable", name="hypervisor")
    if bits := wishes.number("hw:maxphysaddr_bits", "hw_maxphysaddr_bits"):
        ET.SubElement(cpu, "maxphysaddr", mode=wishes.flavor_first("maxphysaddr_mode") or "emulate", bits=str(bits))
    if seen := _seen_cells(domain):
        numa = ET.SubElement(cpu, "numa")
        for cell in seen:
            its = {"id": str(cell.id), "cpus": ranges(cell.cpus), "memory": str(cell.memory_mb), "unit": "MiB"}
            ET.SubElement(numa, "cell", its)


def topology(domain: Domain, wishes: Wishes) -> tuple[int, int, int]:
    """Sockets, cores, threads: of all that give the vCPUs, the nearest to what is wished; else a socket each."""
    parts = ("sockets", "cores", "threads")
    flavor = [wishes.number(f"hw:cpu_{it}") for it in parts]
    wished = flavor if any(flavor) else [wishes.number(f"hw_cpu_{it}") for it in parts]
    if not wished[2]:
        wished = [*wished[:2], _threads(domain)]
    most = [_least(wishes, part) for part in parts]
    possible = [it for it in _factors(domain.vcpus) if all(n <= limit for n, limit in zip(it, most, strict=True))]
    if not possible:
        raise Unsupported(f"no topology of {domain.vcpus} CPUs has at most {most[0]}:{most[1]}:{most[2]} of its parts")

    def worth(it: tuple[int, int, int]) -> tuple[int, int, int]:
        met = sum(n == wish for n, wish in zip(it, wished, strict=True) if wish)
        return (met, it[0], it[1])

    return max(possible, key=worth)


def _threads(domain: Domain) -> int:
    """Of each core, where its vCPUs are threads of the host's cores, as many on each; else 0."""
    sizes = {len(core) for cell in (domain.topology.cells if domain.topology else ()) for core in cell.siblings}
    return sizes.pop() if len(sizes) == 1 else 0


def _least(wishes: Wishes, part: str) -> int:
    """The lower of the limits that flavor and image set."""
    limits = [wishes.number(f"hw:cpu_max_{part}", f"hw:max_cpu_{part}"), wishes.number(f"hw_cpu_max_{part}")]
    return min((it for it in limits if it), default=_MANY)


def _factors(vcpus: int) -> Iterator[tuple[int, int, int]]:
    for sockets in range(1, vcpus + 1):
        if vcpus % sockets == 0:
            rest = vcpus // sockets
            yield from ((sockets, cores, rest // cores) for cores in range(1, rest + 1) if rest % cores == 0)


def _seen_cells(domain: Domain) -> tuple[GuestCell, ...]:
    return domain.topology.cells if domain.topology and domain.topology.numa else ()


def cpu_tuning(root: ET.Element, domain: Domain, wishes: Wishes, host: Abilities) -> None:
    """Which of the host's CPUs it runs on, and how much of their time it has."""
    tuning = ET.Element("cputune")
    shares = {tag: said for name, tag in _CPU_TIME.items() if (said := wishes.said(f"quota:{name}"))}
    if shares and not host.cpu_time:
        names = ", ".join(f"quota:cpu_{tag}" for tag in shares)
        raise Unsupported(f"{names}: this host has no cgroups to divide CPU time with")
    for tag, amount in shares.items():
        leaf(tuning, tag, amount)
    pin(tuning, domain.topology, host.cells)
    if wishes.on("cpu_realtime"):
        real = sorted(_realtime(domain, wishes))
        ET.SubElement(tuning, "vcpusched", vcpus=ranges(real), scheduler="fifo", priority="1")
    if len(tuning):
        root.append(tuning)


def _realtime(domain: Domain, wishes: Wishes) -> frozenset[int]:
    """The vCPUs that go before everything else: those of the mask, or all but those it leaves out."""
    mask = wishes.image_first("cpu_realtime_mask")
    every = f"0-{domain.vcpus - 1}"
    return cpu_set(f"{every},{mask}" if mask.startswith("^") else mask or every)


def memory_backing(root: ET.Element, domain: Domain, wishes: Wishes) -> None:
    """What its memory is made of."""
    backing = ET.Element("memoryBacking")
    cells = domain.topology.cells if domain.topology else ()
    sizes = sorted({cell.page_kib for cell in cells if cell.page_kib > SMALL_PAGE_KIB})
    if sizes:
        pages = ET.SubElement(backing, "hugepages")
        for size in sizes:
            page = ET.SubElement(pages, "page", size=str(size), unit="KiB")
            if _seen_cells(domain):
                page.set("nodeset", ranges({cell.id for cell in cells if cell.page_kib == size}))
    if wishes.on("locked_memory") or wishes.on("cpu_realtime"):
        ET.SubElement(backing, "nosharepages")
        ET.SubElement(backing, "locked")
    if len(backing):
        root.append(backing)
