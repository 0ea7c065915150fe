"""What can be done with one domain of libvirt, each safe to be done again. Blocking: for threads."""

from __future__ import annotations

import contextlib
from typing import Any

import libvirt
import msgspec

from agents.hypervisor.domain_cards import cards, nic_xml
from agents.hypervisor.driver import StepFailed
from agents.hypervisor.plan import Adopt, Plug
from agents.hypervisor.remembered import NAMESPACE, PREFIX, Remembered
from agents.hypervisor.remembered import remembered as read_remembered
from schema.compute.domain import PowerSeen

_PAUSED_BY_LIBVIRT = {
    libvirt.VIR_DOMAIN_PAUSED_MIGRATION,
    libvirt.VIR_DOMAIN_PAUSED_SAVE,
    libvirt.VIR_DOMAIN_PAUSED_SNAPSHOT,
    libvirt.VIR_DOMAIN_PAUSED_STARTING_UP,
}
_ENDED_BADLY = {libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, libvirt.VIR_DOMAIN_SHUTOFF_FAILED}
_STILL_LETTING_GO = {
    libvirt.VIR_ERR_OPERATION_TIMEOUT,
    libvirt.VIR_ERR_OPERATION_FAILED,
    libvirt.VIR_ERR_DEVICE_MISSING,
    libvirt.VIR_ERR_INTERNAL_ERROR,  # QEMU: "already in the process of unplug"
}
"""What unplugging says while the guest has not let go yet, or has a moment ago: looking again tells."""


def lookup(connection: Any, id: str) -> Any:
    """The domain; None if there is none."""
    try:
        return connection.lookupByUUIDString(id)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return None


def power(domain: Any) -> PowerSeen:
    state, reason = domain.state()
    match state:
        case libvirt.VIR_DOMAIN_PAUSED:
            return "running" if reason in _PAUSED_BY_LIBVIRT else "paused"
        case libvirt.VIR_DOMAIN_CRASHED:
            return "crashed"
        case libvirt.VIR_DOMAIN_SHUTOFF:
            if domain.hasManagedSaveImage():
                return "suspended"
            return "crashed" if reason in _ENDED_BADLY else "stopped"
    return "running"


def power_off(domain: Any) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        domain.destroy()
    if domain.isActive():
        raise StepFailed("its power could not be cut")
    if domain.hasManagedSaveImage():
        domain.managedSaveRemove()


def listens(domain: Any) -> bool:
    """Whether there is a guest that could hear a power button."""
    return bool(
        domain.state()[0] in {libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED, libvirt.VIR_DOMAIN_SHUTDOWN}
    )


def press_power_button(domain: Any) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)


def pause(domain: Any, *, fence: bool) -> None:
    if fence != remembered(domain).fenced:
        remember(domain, fenced=fence)
    if domain.state()[0] != libvirt.VIR_DOMAIN_PAUSED:
        domain.suspend()


def unpause(domain: Any) -> None:
    if domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
        domain.resume()
    if remembered(domain).fenced:
        remember(domain, fenced=False)


def suspend(domain: Any) -> None:
    if domain.isActive():
        domain.managedSave(libvirt.VIR_DOMAIN_SAVE_RUNNING)


def adopt(domain: Any, step: Adopt, boot: str) -> None:
    """`boot`: of the host; one that came while it ran was started on another."""
    here = {"boot": boot} if domain.isActive() else {}
    remember(domain, generation=step.generation, soft=step.reboots.soft, hard=step.reboots.hard, **here)


def taps(domain: Any) -> tuple[str, ...]:
    """Of the cards it has now, or, when it does not run, will have."""
    return tuple(cards(domain.XMLDesc()))


def plug(domain: Any, step: Plug) -> None:
    """Into the definition first: what a crash leaves half done is then still known to be wanted."""
    xml = nic_xml(step.nic, step.properties)
    if step.nic.tap not in cards(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)):
        domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    if domain.isActive() and step.nic.tap not in cards(domain.XMLDesc()):
        domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def unplug(domain: Any, tap: str) -> None:
    """Out of the definition; a running guest is asked to let go of it, and may take its time."""
    defined = cards(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)).get(tap)
    if defined:
        domain.detachDeviceFlags(defined, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    live = cards(domain.XMLDesc()).get(tap) if domain.isActive() else None
    if live:
        try:
            domain.detachDeviceFlags(live, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        except libvirt.libvirtError as error:
            if error.get_error_code() not in _STILL_LETTING_GO:
                raise


def remembered(domain: Any) -> Remembered:
    element = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    return read_remembered(element)


def remember(domain: Any, **changes: Any) -> None:
    memory = msgspec.structs.replace(remembered(domain), **changes)
    where = libvirt.VIR_DOMAIN_AFFECT_CONFIG | (libvirt.VIR_DOMAIN_AFFECT_LIVE if domain.isActive() else 0)
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, memory.xml(), PREFIX, NAMESPACE, where)
