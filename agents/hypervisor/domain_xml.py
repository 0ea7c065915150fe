"""A domain as libvirt wants it: pure, from what is wanted to XML. Format: https://libvirt.org/formatdomain.html

what flavor and image say (wishes)  +  what the host has (host_abilities)  ──▶  XML | Unsupported, with the reason
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from agents.hypervisor import domain_devices, domain_processor, domain_system
from agents.hypervisor.domain_cards import card
from agents.hypervisor.domain_disks import Disk, disks
from agents.hypervisor.domain_pins import place_memory
from agents.hypervisor.driver import Unsupported
from agents.hypervisor.element import leaf
from agents.hypervisor.host_abilities import Abilities
from agents.hypervisor.remembered import NAMESPACE, PREFIX, Remembered
from agents.hypervisor.wishes import Wishes
from schema.compute.domain import Domain

NVRAM = "nvram.fd"
"""The memory of a guest's firmware, a file in its folder."""

_NOT_HERE = {
    "hw:pmem": "hosts with libvirt here have no persistent memory",
    "hw_pmem": "hosts with libvirt here have no persistent memory",
    "hw:viommu_model": "guests of libvirt have no IOMMU here",
    "hw_viommu_model": "guests of libvirt have no IOMMU here",
    "quota:vif_limit": "it is for hosts with VMware; there is quota:vif_inbound_average",
    "quota:vif_reservation": "it is for hosts with VMware; there is quota:vif_inbound_average",
    "quota:vif_shares_": "it is for hosts with VMware; there is quota:vif_inbound_average",
    "quota:memory_": "it is for hosts with VMware",
    "quota:disk_io_": "it is for hosts with VMware; there is quota:disk_total_iops_sec",
    "quota:cpu_limit": "it is for hosts with VMware; there is quota:cpu_quota",
    "quota:cpu_reservation": "it is for hosts with VMware; there is quota:cpu_shares",
    "quota:cpu_shares_": "it is for hosts with VMware; there is quota:cpu_shares",
}


def domain_xml(
    domain: Domain,
    *,
    host: Abilities,
    disks: Sequence[Disk],
    folder: Path,
    memory: Remembered | None = None,
) -> str:
    """The definition. `disks` in the guest's order: the root disk first; `folder`: where its other files are.

    Raises Unsupported for what the host cannot give it.
    """
    wishes = Wishes(domain.properties)
    _refuse(domain, wishes)
    root = ET.Element("domain", type="kvm" if host.kvm else "qemu")
    leaf(root, "name", domain.server_id)
    leaf(root, "uuid", domain.server_id)
    leaf(root, "title", re.sub(r"[\x00-\x1f]", " ", domain.name) or domain.server_id)
    ET.SubElement(root, "metadata").append((memory or Remembered()).element())
    leaf(root, "memory", str(domain.ram_mb), unit="MiB")
    domain_processor.cpus(root, domain, host)
    domain_processor.memory_backing(root, domain, wishes)
    place_memory(root, domain.topology)
    domain_processor.cpu_tuning(root, domain, wishes, host)
    domain_system.identity(root, domain.server_id)
    domain_system.system(root, wishes, host, folder / NVRAM, by_order=any(disk.first for disk in disks))
    domain_system.features(root, wishes, host)
    domain_processor.processor(root, domain, wishes, host)
    domain_system.clock(root, wishes, host)
    leaf(root, "on_poweroff", "destroy")
    leaf(root, "on_reboot", "restart")
    leaf(root, "on_crash", "destroy")
    root.append(_devices(domain, wishes, host, disks, folder / "console.log"))
    ET.register_namespace(PREFIX, NAMESPACE)
    return ET.tostring(root, encoding="unicode")


def _devices(domain: Domain, wishes: Wishes, host: Abilities, them: Sequence[Disk], console_log: Path) -> ET.Element:
    devices = ET.Element("devices")
    if domain_system.is_q35(wishes, host):
        domain_devices.sockets_for_cards(devices)
    disks(devices, them, wishes)
    for nic in domain.networks:
        card(devices, nic, wishes)
    domain_devices.consoles(devices, wishes, console_log)
    domain_devices.inputs(devices, wishes)
    domain_devices.video(devices, wishes)
    domain_devices.randomness(devices, wishes)
    ET.SubElement(ET.SubElement(devices, "memballoon", model="virtio"), "stats", period="10")
    domain_devices.agent(devices, wishes)
    domain_devices.watchdog(devices, wishes)
    domain_devices.tpm(devices, wishes, host)
    domain_devices.host_devices(devices, domain)
    return devices


def _refuse(domain: Domain, wishes: Wishes) -> None:
    """What no host of this kind can give: it is said, never passed over."""
    for name, why in _NOT_HERE.items():
        wishes.refuse(name, why)
    if wishes.on("mem_encryption"):
        raise Unsupported("hw:mem_encryption: hosts with libvirt here do not encrypt guests' memory")
    for way in ("inbound", "outbound"):
        average = wishes.number(f"quota:vif_{way}_average")
        for what in ("peak", "burst"):
            if wishes.number(f"quota:vif_{way}_{what}") and not average:
                raise Unsupported(f"quota:vif_{way}_{what}: it needs quota:vif_{way}_average")
    if domain.vcpus > 1 and wishes.on("vif_multiqueue_enabled", image_first=True):
        raise Unsupported("hw_vif_multiqueue_enabled: the taps of this cloud have one queue")
