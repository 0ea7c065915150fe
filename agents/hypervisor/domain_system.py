"""A guest's board, in libvirt's words: machine type, firmware, boot menu, what SMBIOS says, features, clock."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

from agents.hypervisor.driver import Unsupported
from agents.hypervisor.element import leaf
from agents.hypervisor.host_abilities import CODE, FIRMWARE, SECURE_CODE, SECURE_VARIABLES, VARIABLES, Abilities
from agents.hypervisor.wishes import Wishes, is_on

TB_CACHE_MIB = 64
"""What QEMU may use for translated code without KVM; its own default is a quarter of the guest's memory more."""

_MACHINES = re.compile(r"(pc|q35)(-[a-z0-9.-]{1,60})?")


def identity(root: ET.Element, server_id: str) -> None:
    """What the guest reads of its maker and its number."""
    sysinfo = ET.SubElement(ET.SubElement(root, "sysinfo", type="smbios"), "system")
    for name, value in (
        ("manufacturer", "Cumulog"),
        # cloud-init looks for a config drive and a metadata service only on machines of this name.
        ("product", "OpenStack Nova"),
        ("serial", server_id),
        ("uuid", server_id),
        ("family", "Virtual Machine"),
    ):
        leaf(sysinfo, "entry", value, name=name)


def machine(wishes: Wishes, host: Abilities) -> str:
    """Its type. Secure boot needs a board that keeps the firmware's memory from the system; that is q35."""
    said = wishes.said("hw_machine_type")
    if said and not _MACHINES.fullmatch(said):
        raise Unsupported(f"hw_machine_type={said}: hosts with libvirt here have only pc and q35")
    if secure_boot(wishes, host):
        if said.startswith("pc") and "q35" not in said:
            raise Unsupported(f"hw_machine_type={said}: secure boot needs q35")
        return said or "q35"
    return said or "pc"


def is_q35(wishes: Wishes, host: Abilities) -> bool:
    return "q35" in machine(wishes, host)


def uefi(wishes: Wishes) -> bool:
    return wishes.one_of("hw_firmware_type", ("bios", "uefi"), "bios") == "uefi"


def secure_boot(wishes: Wishes, host: Abilities) -> bool:
    """Whether it boots only what is signed. Optional: where it can be."""
    said = wishes.flavor_first("secure_boot", "os") or "disabled"
    if said == "required" and not uefi(wishes):
        raise Unsupported("os_secure_boot=required: secure boot needs hw_firmware_type=uefi")
    return uefi(wishes) and (said == "required" or (said == "optional" and host.secure_boot))


def variables(wishes: Wishes, host: Abilities) -> Path | None:
    """What the memory of its firmware begins as; None: it has a firmware without one. Raises Unsupported."""
    if not uefi(wishes):
        return None
    secure = secure_boot(wishes, host)
    if not (host.secure_boot if secure else host.uefi):
        raise Unsupported(f"hw_firmware_type=uefi: the Debian package ovmf is not installed in {FIRMWARE}")
    return FIRMWARE / (SECURE_VARIABLES if secure else VARIABLES)


def system(root: ET.Element, wishes: Wishes, host: Abilities, nvram: Path, *, by_order: bool = False) -> None:
    """`by_order`: a device says itself that it is booted from; else the first disk is."""
    os = ET.SubElement(root, "os")
    leaf(os, "type", "hvm", arch="x86_64", machine=machine(wishes, host))
    if variables(wishes, host):
        secure = secure_boot(wishes, host)
        loader = leaf(os, "loader", str(FIRMWARE / (SECURE_CODE if secure else CODE)), readonly="yes", type="pflash")
        if secure:
            loader.set("secure", "yes")
        leaf(os, "nvram", str(nvram))
    if not by_order:
        ET.SubElement(os, "boot", dev="hd")
    if wishes.on("boot_menu", image_first=True):
        ET.SubElement(os, "bootmenu", enable="yes", timeout="5000")
    ET.SubElement(os, "smbios", mode="sysinfo")


def features(root: ET.Element, wishes: Wishes, host: Abilities) -> None:
    features = ET.SubElement(root, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    if secure_boot(wishes, host):
        ET.SubElement(features, "smm", state="on")
    if wishes.flavor_first("pmu"):
        ET.SubElement(features, "pmu", state="on" if wishes.on("pmu") else "off")
    if host.kvm and hidden(wishes):
        ET.SubElement(ET.SubElement(features, "kvm"), "hidden", state="on")
    if host.kvm and wishes.said("os_type") == "windows":
        _hyperv(features)
    if not host.kvm:
        leaf(ET.SubElement(features, "tcg"), "tb-cache", str(TB_CACHE_MIB), unit="MiB")


def hidden(wishes: Wishes) -> bool:
    """Whether the guest is not to see that it is one."""
    return any(is_on(wishes.said(f"{it}hide_hypervisor_id")) for it in ("hw:", "", "img_"))


def _hyperv(features: ET.Element) -> None:
    """What Windows runs faster with."""
    hyperv = ET.SubElement(features, "hyperv")
    for name in ("relaxed", "vapic", "vpindex", "synic", "reset", "frequencies"):
        ET.SubElement(hyperv, name, state="on")
    ET.SubElement(hyperv, "spinlocks", state="on", retries="8191")


def clock(root: ET.Element, wishes: Wishes, host: Abilities) -> None:
    """Windows takes the board's clock for the local time."""
    windows = wishes.said("os_type") == "windows"
    clock = ET.SubElement(root, "clock", offset="localtime" if windows else "utc")
    if host.kvm:
        ET.SubElement(clock, "timer", name="pit", tickpolicy="delay")
        ET.SubElement(clock, "timer", name="rtc", tickpolicy="catchup")
    ET.SubElement(clock, "timer", name="hpet", present="yes" if wishes.on("time_hpet") else "no")
    if host.kvm and windows:
        ET.SubElement(clock, "timer", name="hypervclock", present="yes")
