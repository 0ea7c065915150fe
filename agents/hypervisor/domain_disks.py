"""A guest's disks, in libvirt's words: on which bus, and how much of them in a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec

from agents.hypervisor.driver import Unsupported
from agents.hypervisor.element import leaf
from agents.hypervisor.wishes import Wishes

BUSES = {"virtio": "vd", "scsi": "sd", "sata": "sd", "ide": "hd", "usb": "sd", "fdc": "fd"}
"""Bus → how Linux calls a disk on it."""
_RESCUE_BUSES = tuple(bus for bus in BUSES if bus != "fdc")
_SCSI_MODELS = ("virtio-scsi", "lsilogic", "lsisas1068", "lsisas1078", "vmpvscsi", "auto", "buslogic")
_LIMITS = ("bytes_sec", "iops_sec")


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    path: Path
    format: str = "qcow2"
    readonly: bool = False
    serial: str = ""
    bus: str = ""
    """Its own; empty: the one that the image says."""
    cdrom: bool = False
    first: bool = False
    """It is booted from, wherever it stands."""


def disks(devices: ET.Element, them: Sequence[Disk], wishes: Wishes) -> None:
    """In the guest's order: the root disk first. What is only read may have a drive of its own kind."""
    bus = wishes.one_of("hw_disk_bus", BUSES, "virtio")
    drive = wishes.one_of("hw_cdrom_bus", BUSES, "")
    if "scsi" in {bus, drive, *(disk.bus for disk in them)}:
        model = wishes.one_of("hw_scsi_model", _SCSI_MODELS, "virtio-scsi")
        ET.SubElement(devices, "controller", type="scsi", model=model)
    taken: dict[str, int] = {}
    for disk in them:
        removable = disk.cdrom or bool(disk.readonly and drive)
        its = disk.bus or (drive if removable else bus)
        number = taken.get(BUSES[its], 0)
        taken[BUSES[its]] = number + 1
        element = ET.SubElement(devices, "disk", type="file", device="cdrom" if removable else "disk")
        ET.SubElement(element, "driver", name="qemu", type=disk.format, cache="writeback", discard="unmap")
        ET.SubElement(element, "source", file=str(disk.path))
        ET.SubElement(element, "target", dev=BUSES[its] + letters(number), bus=its)
        if not removable:
            _limit(element, wishes)
        if disk.serial:
            leaf(element, "serial", disk.serial)
        if disk.first:
            ET.SubElement(element, "boot", order="1")
        if disk.readonly or disk.cdrom:
            ET.SubElement(element, "readonly")


def rescue_disk(path: Path, wishes: Wishes) -> Disk | None:
    """One that stands last, so that the guest's own disks stay what they are called, and is booted from all the same.

    None: the rescue image does not ask for that. Raises Unsupported.
    """
    device = wishes.one_of("hw_rescue_device", ("disk", "cdrom"), "")
    bus = wishes.one_of("hw_rescue_bus", _RESCUE_BUSES, "")
    if not device and not bus:
        return None
    cdrom = device == "cdrom"
    if cdrom and bus == "virtio":
        raise Unsupported("hw_rescue_bus=virtio: there are no CD drives of virtio")
    if cdrom and not bus:
        bus = wishes.one_of("hw_cdrom_bus", _RESCUE_BUSES, "sata")
    return Disk(path=path, bus=bus, cdrom=cdrom, first=True)


def _limit(element: ET.Element, wishes: Wishes) -> None:
    """The most that is read and written in a second."""
    limits = {
        f"{way}_{what}": amount
        for way in ("total", "read", "write")
        for what in _LIMITS
        if (amount := wishes.number(f"quota:disk_{way}_{what}"))
    }
    if limits:
        tune = ET.SubElement(element, "iotune")
        for tag, amount in limits.items():
            leaf(tune, tag, str(amount))


def letters(number: int) -> str:
    """a … z, aa, ab …: how Linux counts disks."""
    return (letters(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)
