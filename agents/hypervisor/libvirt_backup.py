"""QEMU's own backup of a running guest's root disk: a copy of the moment it begins at. Blocking: for threads.

Where its image says so the guest's agent makes its file systems quiet for that moment. A note beside the disk tells of
it until they are awake again, whoever died in between: a guest left so would stand still for ever.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import libvirt
import structlog

from agents.hypervisor.driver import StepFailed
from agents.hypervisor.wishes import Quiesce

log = structlog.get_logger()

QUIET = "quiet"
QUIET_SECONDS = 30
"""How long a guest's agent may take to answer; its programs cannot write meanwhile."""


def begin(domain: Any, root: Path, copy: Path, quiesce: Quiesce) -> None:
    """Have `root` copied to `copy`, which is not there yet."""
    xml, note = backup_xml(domain.XMLDesc(), root, copy), root.with_name(QUIET)
    try:
        if quiesce != "no":
            note.touch()
            _freeze(domain, must=quiesce == "must")
        domain.backupBegin(xml, None, 0)
    finally:
        wake(domain, note)


def wake(domain: Any, note: Path) -> None:
    """End the quiet of its file systems if it was noted. The note stays where the guest's agent does not answer."""
    if not note.exists():
        return
    if domain.isActive():
        try:
            domain.agentSetResponseTimeout(QUIET_SECONDS)
            domain.fsThaw()
        except libvirt.libvirtError as error:
            log.info("a guest's agent does not wake its file systems", server=domain.UUIDString(), why=str(error))
            return
    note.unlink(missing_ok=True)


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


def _freeze(domain: Any, *, must: bool) -> None:
    try:
        domain.agentSetResponseTimeout(QUIET_SECONDS)
        domain.fsFreeze()
    except libvirt.libvirtError as error:
        if must:
            raise StepFailed(
                "its image demands quiet file systems (os_require_quiesce), which the guest's agent does not make: "
                f"{error.get_error_message()}"
            ) from None
