"""A domain as libvirt wants it: pure, from what is wanted to XML. Format: https://libvirt.org/formatdomain.html

What Cumulog remembers of a domain stands in the XML's metadata, so that a host needs no database:

    <cumulog:server xmlns:cumulog="…" generation="7" soft="1" hard="0" position="4711" fenced="no" boot="…"/>
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree as ET

import msgspec

from schema.compute.domain import Domain, Nic, Reboots

NAMESPACE = "https://cumulog.org/xmlns/libvirt/server/1"
PREFIX = "cumulog"
TB_CACHE_MIB = 64
"""What QEMU may use for translated code without KVM; its own default is a quarter of the guest's memory more."""

_VIDEO = {"vga", "cirrus", "virtio", "none", "qxl", "bochs"}
_NIC_MODELS = {"virtio", "e1000", "e1000e", "rtl8139", "vmxnet3", "ne2k_pci", "pcnet"}
_BUSES = {"virtio": "vd", "scsi": "sd", "sata": "sd", "ide": "hd", "usb": "sd"}
_YES = frozenset({"yes", "true", "1", "on", "t", "y"})
_MACHINES = re.compile(r"[a-z0-9.-]{1,64}")


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """What the metadata of a domain holds."""

    generation: int = 0
    soft: int = 0
    hard: int = 0
    position: int = 0
    fenced: bool = False
    boot: str = ""
    """The host's boot during which it was last started."""
    remade: int = 0
    rescued: bool = False
    snapshot: str = ""
    """The image it was copied into last."""
    resized: int = 0
    kept: bool = False

    @property
    def reboots(self) -> Reboots:
        return Reboots(soft=self.soft, hard=self.hard)

    def xml(self) -> str:
        """The element as libvirt takes it: it adds the namespace itself."""
        return ET.tostring(ET.Element("server", self._attributes()), encoding="unicode")

    def element(self) -> ET.Element:
        return ET.Element(f"{{{NAMESPACE}}}server", self._attributes())

    def _attributes(self) -> dict[str, str]:
        return {
            "generation": str(self.generation),
            "soft": str(self.soft),
            "hard": str(self.hard),
            "position": str(self.position),
            "fenced": "yes" if self.fenced else "no",
            "boot": self.boot,
            "remade": str(self.remade),
            "rescued": "yes" if self.rescued else "no",
            "snapshot": self.snapshot,
            "resized": str(self.resized),
            "kept": "yes" if self.kept else "no",
        }


def remembered(element: str) -> Remembered:
    """Read the element again."""
    it = ET.fromstring(element).attrib  # noqa: S314  libvirt's own words, on its own socket
    return Remembered(
        generation=int(it.get("generation", 0)),
        soft=int(it.get("soft", 0)),
        hard=int(it.get("hard", 0)),
        position=int(it.get("position", 0)),
        fenced=it.get("fenced") == "yes",
        boot=it.get("boot", ""),
        remade=int(it.get("remade", 0)),
        rescued=it.get("rescued") == "yes",
        snapshot=it.get("snapshot", ""),
        resized=int(it.get("resized", 0)),
        kept=it.get("kept") == "yes",
    )


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    path: Path
    format: str = "qcow2"
    readonly: bool = False
    serial: str = ""


def domain_xml(
    domain: Domain, *, kvm: bool, disks: Sequence[Disk], console_log: Path, memory: Remembered | None = None
) -> str:
    """The definition. `disks` in the guest's order: the root disk first."""
    properties = _merged(domain.properties)
    root = ET.Element("domain", type="kvm" if kvm else "qemu")
    _leaf(root, "name", domain.server_id)
    _leaf(root, "uuid", domain.server_id)
    _leaf(root, "title", re.sub(r"[\x00-\x1f]", " ", domain.name) or domain.server_id)
    ET.SubElement(root, "metadata").append((memory or Remembered()).element())
    _leaf(root, "memory", str(domain.ram_mb), unit="MiB")
    _leaf(root, "vcpu", str(domain.vcpus))
    _system(root, domain, properties)
    _processor(root, domain, properties, kvm=kvm)
    clock = ET.SubElement(root, "clock", offset="localtime" if properties.get("os_type") == "windows" else "utc")
    if kvm:
        ET.SubElement(clock, "timer", name="pit", tickpolicy="delay")
        ET.SubElement(clock, "timer", name="rtc", tickpolicy="catchup")
    ET.SubElement(clock, "timer", name="hpet", present="no")
    _leaf(root, "on_poweroff", "destroy")
    _leaf(root, "on_reboot", "restart")
    _leaf(root, "on_crash", "destroy")
    devices = ET.SubElement(root, "devices")
    _disks(devices, disks, properties)
    for nic in domain.networks:
        _nic(devices, nic, properties)
    _consoles(devices, console_log)
    _rest(devices, properties)
    ET.register_namespace(PREFIX, NAMESPACE)
    return ET.tostring(root, encoding="unicode")


def _merged(properties: Mapping[str, str]) -> dict[str, str]:
    """hw_* of the image, with hw:* of the flavor over it, under the image's names."""
    merged = {key: value for key, value in properties.items() if not key.startswith("hw:")}
    return merged | {
        "hw_" + key.removeprefix("hw:"): value for key, value in properties.items() if key.startswith("hw:")
    }


def _system(root: ET.Element, domain: Domain, properties: Mapping[str, str]) -> None:
    sysinfo = ET.SubElement(ET.SubElement(root, "sysinfo", type="smbios"), "system")
    for name, value in (
        ("manufacturer", "Cumulog"),
        # cloud-init looks for a config drive and a metadata service only on machines of this name.
        ("product", "OpenStack Nova"),
        ("serial", domain.server_id),
        ("uuid", domain.server_id),
        ("family", "Virtual Machine"),
    ):
        _leaf(sysinfo, "entry", value, name=name)
    os = ET.SubElement(root, "os")
    machine = properties.get("hw_machine_type", "pc")
    _leaf(os, "type", "hvm", arch="x86_64", machine=machine if _MACHINES.fullmatch(machine) else "pc")
    ET.SubElement(os, "boot", dev="hd")
    ET.SubElement(os, "smbios", mode="sysinfo")


def _processor(root: ET.Element, domain: Domain, properties: Mapping[str, str], *, kvm: bool) -> None:
    features = ET.SubElement(root, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    if kvm:
        cpu = ET.SubElement(root, "cpu", mode="host-model", check="partial")
    else:
        _leaf(ET.SubElement(features, "tcg"), "tb-cache", str(TB_CACHE_MIB), unit="MiB")
        # x86-64-v2, which current distributions ask for and QEMU emulates in full.
        cpu = ET.SubElement(root, "cpu", mode="custom", match="exact", check="none")
        _leaf(cpu, "model", "Nehalem", fallback="allow")
    sockets, cores, threads = _topology(domain.vcpus, properties)
    ET.SubElement(cpu, "topology", sockets=str(sockets), dies="1", cores=str(cores), threads=str(threads))


def _topology(vcpus: int, properties: Mapping[str, str]) -> tuple[int, int, int]:
    """hw_cpu_sockets, _cores, _threads where they multiply to the vCPUs; else a socket each."""
    wanted = [properties.get(f"hw_cpu_{part}", "") for part in ("sockets", "cores", "threads")]
    known = [int(it) if it.isdigit() and int(it) > 0 else 0 for it in wanted]
    product = 1
    for it in known:
        product *= it or 1
    if not any(known) or vcpus % product:
        return vcpus, 1, 1
    for part in (0, 1, 2):
        if not known[part]:
            known[part], product = vcpus // product, vcpus
    return (known[0], known[1], known[2]) if known[0] * known[1] * known[2] == vcpus else (vcpus, 1, 1)


def _disks(devices: ET.Element, disks: Sequence[Disk], properties: Mapping[str, str]) -> None:
    wanted = properties.get("hw_disk_bus", "virtio")
    bus = wanted if wanted in _BUSES else "virtio"
    if bus == "scsi":
        ET.SubElement(devices, "controller", type="scsi", model=properties.get("hw_scsi_model", "virtio-scsi"))
    for number, disk in enumerate(disks):
        element = ET.SubElement(devices, "disk", type="file", device="disk")
        ET.SubElement(element, "driver", name="qemu", type=disk.format, cache="writeback", discard="unmap")
        ET.SubElement(element, "source", file=str(disk.path))
        ET.SubElement(element, "target", dev=_BUSES[bus] + _letters(number), bus=bus)
        if disk.serial:
            _leaf(element, "serial", disk.serial)
        if disk.readonly:
            ET.SubElement(element, "readonly")


def nic_xml(nic: Nic, properties: Mapping[str, str]) -> str:
    """One card, as it is plugged into a domain that is there."""
    above = ET.Element("devices")
    _nic(above, nic, _merged(properties))
    return ET.tostring(above[0], encoding="unicode")


def cards(xml: str) -> dict[str, str]:
    """The network cards of a definition: tap → the card's own XML."""
    found = ET.fromstring(xml).findall("devices/interface")  # noqa: S314  libvirt's own words, on its own socket
    named = [(interface.find("target"), interface) for interface in found]
    return {
        target.get("dev", ""): ET.tostring(interface, encoding="unicode")
        for target, interface in named
        if target is not None
    }


def _nic(devices: ET.Element, nic: Nic, properties: Mapping[str, str]) -> None:
    interface = ET.SubElement(devices, "interface", type="ethernet")
    ET.SubElement(interface, "mac", address=nic.mac_address)
    ET.SubElement(interface, "target", dev=nic.tap, managed="no")
    model = properties.get("hw_vif_model", nic.model)
    ET.SubElement(interface, "model", type=model if model in _NIC_MODELS else "virtio")
    ET.SubElement(interface, "mtu", size=str(nic.mtu))


def _consoles(devices: ET.Element, console_log: Path) -> None:
    serial = ET.SubElement(devices, "serial", type="pty")
    ET.SubElement(serial, "log", file=str(console_log), append="on")
    ET.SubElement(ET.SubElement(serial, "target", type="isa-serial", port="0"), "model", name="isa-serial")
    screen = ET.SubElement(devices, "graphics", type="vnc")
    ET.SubElement(screen, "listen", type="socket")


def _rest(devices: ET.Element, properties: Mapping[str, str]) -> None:
    # A USB controller polls, which is dear without KVM, and nothing here needs one.
    usb = properties.get("hw_disk_bus") == "usb"
    ET.SubElement(devices, "controller", type="usb", model="qemu-xhci" if usb else "none")
    video = properties.get("hw_video_model", "vga")
    ET.SubElement(ET.SubElement(devices, "video"), "model", type=video if video in _VIDEO else "vga")
    rng = ET.SubElement(devices, "rng", model="virtio")
    _leaf(rng, "backend", "/dev/urandom", model="random")
    ET.SubElement(ET.SubElement(devices, "memballoon", model="virtio"), "stats", period="10")
    if has_agent(properties):
        channel = ET.SubElement(devices, "channel", type="unix")
        ET.SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    action = properties.get("hw_watchdog_action", "disabled")
    if action in {"reset", "poweroff", "pause", "none"}:
        ET.SubElement(devices, "watchdog", model="i6300esb", action=action)


def has_agent(properties: Mapping[str, str]) -> bool:
    """Whether the image says that its guest runs QEMU's agent."""
    return properties.get("hw_qemu_guest_agent", "").lower() in _YES


Quiesce = Literal["no", "try", "must"]
"""Whether a guest's agent is to make its file systems quiet for the moment that a copy is of."""


def quiesce(properties: Mapping[str, str]) -> Quiesce:
    """Whether a copy of its disk wants its agent to make the file systems quiet first, by what the image says."""
    if properties.get("os_require_quiesce", "").lower() in _YES:
        return "must"
    return "try" if has_agent(properties) else "no"


def _letters(number: int) -> str:
    """a … z, aa, ab …: how Linux counts disks."""
    return (_letters(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)


def _leaf(above: ET.Element, tag: str, text: str, /, **attributes: Any) -> None:
    ET.SubElement(above, tag, attributes).text = text
