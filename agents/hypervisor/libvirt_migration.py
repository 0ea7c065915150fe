"""Live migration by libvirt: what is said to it. Blocking: for threads."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from agents.hypervisor.domain_pins import placed_anew
from agents.hypervisor.driver import NotRunning, StepFailed
from schema.compute.domain import Domain
from schema.compute.question import MoveMeasured

_FLAGS = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    | libvirt.VIR_MIGRATE_AUTO_CONVERGE
    | libvirt.VIR_MIGRATE_UNSAFE  # its writable disks are copied, and what is not copied is only read
)


def send(domain: Any, ends: Mapping[str, str], here: str, wanted: Domain, *, shared: bool = False) -> None:
    """Until it is there. `ends`: sockets, by channel. `here`: where its files are; `shared`: there, too.

    Raises StepFailed.
    """
    parameters: dict[str, Any] = {
        libvirt.VIR_MIGRATE_PARAM_URI: f"unix://{ends['memory']}",
        libvirt.VIR_MIGRATE_PARAM_DEST_XML: _there(
            domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE), here, wanted
        ),
        libvirt.VIR_MIGRATE_PARAM_PERSIST_XML: _there(
            domain.XMLDesc(
                libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_INACTIVE
            ),
            here,
            wanted,
        ),
    }
    if not shared:
        parameters[libvirt.VIR_MIGRATE_PARAM_DISKS_URI] = f"unix://{ends['disks']}"
        parameters[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = _copied(domain.XMLDesc())
    flags = _FLAGS if shared else _FLAGS | libvirt.VIR_MIGRATE_NON_SHARED_DISK
    try:
        domain.migrateToURI3(f"qemu+unix:///system?socket={ends['control']}", parameters, flags)
    except libvirt.libvirtError as error:
        raise StepFailed(f"it could not be sent: {error.get_error_message()}") from None


def abort(domain: Any) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        domain.abortJob()


def force(domain: Any) -> None:
    """Let it stand still, so that what is left of it is not written faster than it goes."""
    if domain.jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE:
        raise NotRunning("nothing of it is being sent")
    domain.suspend()


def measure(domain: Any) -> MoveMeasured:
    said = domain.jobStats()
    if said.get("type", libvirt.VIR_DOMAIN_JOB_NONE) == libvirt.VIR_DOMAIN_JOB_NONE:
        raise NotRunning("nothing of it is being sent")
    return MoveMeasured(
        **{
            f"{part}_{what}": int(said.get(f"{part}_{what}", 0))
            for part in ("memory", "disk")
            for what in ("total", "processed", "remaining")
        }
    )


def _copied(xml: str) -> list[str]:
    """Targets of the disks that are written."""
    disks = ET.fromstring(xml).findall("devices/disk")  # noqa: S314  libvirt's own words, on its own socket
    targets = [it.find("target") for it in disks if it.find("readonly") is None]
    return [target.get("dev", "") for target in targets if target is not None]


def _there(xml: str, here: str, wanted: Domain) -> str:
    """The definition with the other host's paths and CPUs; its disks there are laid over nothing."""
    there = wanted.send_to.folder if wanted.send_to else here
    root = ET.fromstring(xml)  # noqa: S314  libvirt's own words, on its own socket
    for element in root.iter():
        for name, value in element.attrib.items():
            if value.startswith(f"{here}/"):
                element.set(name, there + value.removeprefix(here))
        if element.text and element.text.startswith(f"{here}/"):
            element.text = there + element.text.removeprefix(here)
    for disk in root.findall("devices/disk") if here != there else ():
        for backing in disk.findall("backingStore"):
            disk.remove(backing)
    placed_anew(root, wanted.topology)
    return ET.tostring(root, encoding="unicode")
