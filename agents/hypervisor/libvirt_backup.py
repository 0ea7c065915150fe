"""QEMU's own backup of a running guest's root disk: a copy of the moment it begins at. Blocking: for threads."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from agents.hypervisor.driver import StepFailed
from agents.hypervisor.wishes import Quiesce


def begin(domain: Any, root: Path, copy: Path, quiesce: Quiesce) -> None:
    """Have `root` copied to `copy`, which is not there yet."""
    xml = backup_xml(domain.XMLDesc(), root, copy)
    frozen = quiesce != "no" and _freeze(domain, must=quiesce == "must")
    try:
        domain.backupBegin(xml, None, 0)
    finally:
        if frozen:
            with contextlib.suppress(libvirt.libvirtError):
                domain.fsThaw()


def backup_xml(live: str, root: Path, copy: Path) -> str:
    """What libvirt is asked for: that disk of the domain in one file, and no other. Raises StepFailed."""
    backup = ET.Element("domainbackup", mode="push")
    disks = ET.SubElement(backup, "disks")
    found = False
    for device in ET.fromstring(live).iterfind("devices/disk"):  # noqa: S314  libvirt's own words
        source, target = device.find("source"), device.find("target")
        name = target.get("dev", "") if target is not None else ""
        if source is None or source.get("file") != str(root):
            ET.SubElement(disks, "disk", name=name, backup="no")
            continue
        found = True
        disk = ET.SubElement(disks, "disk", name=name, backup="yes", type="file")
        ET.SubElement(disk, "target", file=str(copy))
        ET.SubElement(disk, "driver", type="qcow2")
    if not found:
        raise StepFailed("the guest has another root disk than this host knows of")
    return ET.tostring(backup, encoding="unicode")


def progress(domain: Any) -> tuple[int, int] | None:
    """(bytes copied, bytes in all); None: it is done. Raises StepFailed if it failed."""
    now = domain.jobStats()
    if now.get("type", libvirt.VIR_DOMAIN_JOB_NONE) != libvirt.VIR_DOMAIN_JOB_NONE:
        return int(now.get("disk_processed", 0)), int(now.get("disk_total", 0))
    ended = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    if ended.get("type") != libvirt.VIR_DOMAIN_JOB_COMPLETED or not ended.get("success", True):
        raise StepFailed(f"copying its disk failed: {ended.get('errmsg') or 'the guest was powered off meanwhile'}")
    return None


def abandon(domain: Any) -> None:
    """End a backup that is under way, if one is."""
    if domain.isActive() and domain.jobStats().get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP:
        with contextlib.suppress(libvirt.libvirtError):
            domain.abortJob()


def _freeze(domain: Any, *, must: bool) -> bool:
    try:
        domain.fsFreeze()
    except libvirt.libvirtError as error:
        if must:
            raise StepFailed(
                "its image demands quiet file systems (os_require_quiesce), which the guest's agent does not make: "
                f"{error.get_error_message()}"
            ) from None
        return False
    return True
