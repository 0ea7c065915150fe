"""Looks at a running guest of libvirt's, and errands in it: consoles, counters, passwords. Blocking: for threads."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from agents.hypervisor.driver import NoAgent, NotRunning, StepFailed, Stream, Unsupported
from schema.compute.question import ConsoleKind, Diagnosis, DiskUse, NicUse

_NO_AGENT = {libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_AGENT_UNSYNCED}
_CANNOT = {
    libvirt.VIR_ERR_NO_SUPPORT,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
}
AGENT_CHANNEL = "org.qemu.guest_agent.0"
AGENT_SECONDS = 8


def has_console(domain: Any, kind: ConsoleKind) -> None:
    """Raises NotRunning, Unsupported."""
    if kind == "serial":
        _terminal(domain)
    else:
        _screen(domain, kind)


def open_screen(domain: Any, kind: ConsoleKind) -> socket.socket:
    """A connection to its screen, handed over by libvirt: nobody needs to find a socket, or to be let in there."""
    number = _screen(domain, kind)
    return socket.socket(fileno=domain.openGraphicsFD(number, libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH))


def open_line(domain: Any) -> int:
    """Its serial line, as a terminal's descriptor."""
    return os.open(_terminal(domain), os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)


async def screen_stream(opened: socket.socket) -> Stream:
    return await asyncio.open_connection(sock=opened)


def diagnose(domain: Any) -> Diagnosis:
    """What libvirt counts of it."""
    live = _live(domain)
    memory = {key: int(value) for key, value in domain.memoryStats().items()}
    maximum, used = domain.info()[1:3]
    return Diagnosis(
        hypervisor=live.get("type", ""),
        cpu_nanoseconds=_processors(domain),
        memory_maximum_kb=maximum,
        memory_used_kb=used,
        memory=memory,
        disks=tuple(_disk(domain, target.get("dev", "")) for target in live.iterfind("devices/disk/target")),
        nics=tuple(_nics(domain, live)),
    )


def set_password(domain: Any, user: str, password: str) -> None:
    live = _live(domain)
    if live.find(f"devices/channel/target[@name='{AGENT_CHANNEL}']") is None:
        raise NoAgent("QEMU guest agent is not enabled")
    try:
        domain.agentSetResponseTimeout(AGENT_SECONDS)
        domain.setUserPassword(user, password, 0)
    except libvirt.libvirtError as error:
        # Not `from error`: the text of what was asked must not get into anybody's log.
        raise _refusal(error) from None


def crash(domain: Any) -> None:
    _live(domain)
    try:
        domain.injectNMI(0)
    except libvirt.libvirtError as error:
        raise _refusal(error) from error


def _refusal(error: libvirt.libvirtError) -> StepFailed:
    code, words = error.get_error_code(), error.get_error_message()
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return NotRunning("the guest is not there")
    if code in _NO_AGENT:
        return NoAgent(words)
    return Unsupported(words) if code in _CANNOT else StepFailed(words)


def _live(domain: Any) -> ET.Element:
    """What it runs as. Raises NotRunning."""
    if not domain.isActive():
        raise NotRunning("the guest is off")
    return ET.fromstring(domain.XMLDesc())  # noqa: S314  libvirt's own words


def _screen(domain: Any, kind: ConsoleKind) -> int:
    for number, graphics in enumerate(_live(domain).iterfind("devices/graphics")):
        if graphics.get("type") == kind:
            return number
    raise Unsupported(f"the guest has no {kind.upper()} console")


def _terminal(domain: Any) -> str:
    source = _live(domain).find("devices/serial[@type='pty']/source")
    path = source.get("path", "") if source is not None else ""
    if not re.fullmatch(r"/dev/pts/\d+", path):
        raise Unsupported("the guest has no serial console")
    return path


def _processors(domain: Any) -> tuple[int, ...]:
    try:
        return tuple(cpu[2] for cpu in domain.vcpus()[0])
    except libvirt.libvirtError:
        return (domain.info()[4],)


def _disk(domain: Any, device: str) -> DiskUse:
    reads, read_bytes, writes, written_bytes, errors = domain.blockStats(device)
    return DiskUse(
        device=device,
        read_bytes=read_bytes,
        read_requests=reads,
        write_bytes=written_bytes,
        write_requests=writes,
        errors_count=errors,
    )


def _nics(domain: Any, live: ET.Element) -> list[NicUse]:
    used = []
    for card in live.iterfind("devices/interface"):
        target, mac = card.find("target"), card.find("mac")
        if target is None or mac is None:
            continue
        tap = target.get("dev", "")
        try:
            # As seen from the host: what the guest receives, libvirt has already turned round.
            counts = domain.interfaceStats(tap)
        except libvirt.libvirtError:
            counts = (0,) * 8
        names = ("rx_octets", "rx_packets", "rx_errors", "rx_drop", "tx_octets", "tx_packets", "tx_errors", "tx_drop")
        used.append(NicUse(tap=tap, mac_address=mac.get("address", ""), **dict(zip(names, counts, strict=True))))
    return used
