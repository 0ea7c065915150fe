"""What a libvirt host is. Blocking: for threads."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from agents.hypervisor import disk, hardware, host_abilities
from agents.hypervisor.boot_time import booted_at
from agents.hypervisor.host_abilities import Abilities
from agents.hypervisor.traits import traits
from agents.network.namespace import identity
from bus.config import Hardware
from schema.compute.domain import HostFacts
from schema.compute.topology import HostDevice, cpu_set


def look_at_host(connection: Any, folder: Path, own: Hardware, *, kvm: bool, share: int, turn: int) -> HostFacts:
    model, _, cpus, _, nodes, sockets, cores, threads = connection.getInfo()
    capabilities = ET.fromstring(connection.getCapabilities())  # noqa: S314  libvirt's own words
    cpu = capabilities.find("host/cpu")
    cells = hardware.cells(capabilities, share)
    features = [] if cpu is None else [it.get("name", "") for it in cpu.findall("feature")]
    return HostFacts(
        hostname=platform.node(),
        hypervisor_type="KVM" if kvm else "QEMU",
        hypervisor_version=connection.getVersion(),
        arch=model,
        vcpus=cpus,
        # Not what libvirt says: it counts the memory of NUMA nodes, which grows and shrinks inside of some clouds.
        memory_mb=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024**2 // share,
        disk_gb=shutil.disk_usage(folder).total // disk.GIB // share,
        cpu_info={
            "arch": model,
            "model": (cpu.findtext("model") if cpu is not None else None) or model,
            "vendor": (cpu.findtext("vendor") if cpu is not None else None) or "unknown",
            "topology": {"sockets": sockets * nodes, "cores": cores, "threads": threads},
            "features": features,
        },
        traits=traits(features, host_abilities.look(kvm=kvm), threads=threads, arch=model),
        booted_at=booted_at(),
        cells=cells,
        dedicated_cpus=hardware.dedicated(own.dedicated_cpus, cells, turn, share),
        devices=_look_at_devices(connection, own, share=share, turn=turn),
    )


def _look_at_devices(connection: Any, own: Hardware, *, share: int, turn: int) -> tuple[HostDevice, ...]:
    """The PCI devices that guests may have; hosts that are one machine part them as they do its CPUs."""
    if not own.devices:
        return ()
    found = connection.listAllDevices(libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_PCI_DEV)
    return hardware.devices(own.devices, [it.XMLDesc() for it in found])[turn::share]


def abilities(connection: Any, *, kvm: bool, dedicated_cpus: str) -> Abilities:
    capabilities = ET.fromstring(connection.getCapabilities())  # noqa: S314  libvirt's own words
    own = cpu_set(dedicated_cpus)
    shared = {cell.id: tuple(it for it in cell.cpus if it not in own) for cell in hardware.cells(capabilities)}
    every = tuple(sorted(it for cpus in shared.values() for it in cpus)) if own else ()
    return host_abilities.look(kvm=kvm, cells=shared, shared_cpus=every)


def boot_of(host: str | None) -> str:
    """Changes when the host starts anew: the machine, or the namespace of it that is the host."""
    machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{machine}/{identity(host)}" if host else machine
