"""What else a guest has, in libvirt's words: lines, screen, what people point with, randomness, watchdog, TPM."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from agents.hypervisor.driver import Unsupported
from agents.hypervisor.element import leaf
from agents.hypervisor.host_abilities import Abilities
from agents.hypervisor.wishes import Wishes, is_on
from schema.compute.domain import Domain

VIDEO = ("vga", "cirrus", "virtio", "none", "qxl", "bochs")
_WATCHDOG = ("reset", "poweroff", "pause", "none", "disabled")
SOUND = ("sb16", "es1370", "pcspk", "ac97", "ich6", "ich9", "usb")
USB = ("qemu-xhci", "nec-xhci", "piix3-uhci", "piix4-uhci", "ehci", "ich9-ehci1")
_TPM_MODELS = ("tpm-tis", "tpm-crb")
_TPM_VERSIONS = ("1.2", "2.0")
SERIAL_PORTS = 4
"""As many as a PC has."""
RATE_PERIOD_MS = 1000
EXPRESS_PORTS = 16


def consoles(devices: ET.Element, wishes: Wishes, console_log: Path) -> None:
    """Its serial lines, the first of which is kept in a file, and its screen."""
    wishes.number("hw_serial_port_count", "hw:serial_port_count")
    count = int(wishes.image_first("serial_port_count") or 1)
    if count > SERIAL_PORTS:
        raise Unsupported(f"hw_serial_port_count={count}: a guest has at most {SERIAL_PORTS} serial ports")
    for port in range(count):
        serial = ET.SubElement(devices, "serial", type="pty")
        if port == 0:
            ET.SubElement(serial, "log", file=str(console_log), append="on")
        target = ET.SubElement(serial, "target", type="isa-serial", port=str(port))
        ET.SubElement(target, "model", name="isa-serial")
    screen = ET.SubElement(devices, "graphics", type="vnc")
    ET.SubElement(screen, "listen", type="socket")


def video(devices: ET.Element, wishes: Wishes) -> None:
    """Its screen. How much memory that has is the image's wish, up to what the flavor lets it have."""
    model = ET.SubElement(ET.SubElement(devices, "video"), "model", type=wishes.one_of("hw_video_model", VIDEO, "vga"))
    if megabytes := wishes.number("hw_video_ram"):
        most = wishes.number("hw_video:ram_max_mb")
        if megabytes > most:
            raise Unsupported(
                f"The requested amount of video memory {megabytes} is higher than the maximum allowed by flavor {most}."
            )
        model.set("vram", str(megabytes * 1024))


def inputs(devices: ET.Element, wishes: Wishes) -> None:
    """What people point and type with on a screen. A USB controller polls, which is dear: only where it is of use."""
    bus = wishes.one_of("hw_input_bus", ("usb", "virtio"), "")
    tablet = wishes.one_of("hw_pointer_model", ("usbtablet", "ps2mouse"), "") == "usbtablet"
    if tablet or bus:
        ET.SubElement(devices, "input", type="tablet", bus=bus or "usb")
    if bus:
        ET.SubElement(devices, "input", type="keyboard", bus=bus)
    model = wishes.flavor_first("usb_model")
    if model and model not in USB:
        raise Unsupported(f"hw_usb_model={model}: hosts with libvirt have only {', '.join(USB)}")
    sound = wishes.flavor_first("sound_model")
    needed = (tablet and bus in {"", "usb"}) or bus == "usb" or sound == "usb"
    needed = needed or "usb" in {wishes.said("hw_disk_bus"), wishes.said("hw_cdrom_bus")}
    ET.SubElement(devices, "controller", type="usb", model=model or ("qemu-xhci" if needed else "none"))
    if sound:
        if sound not in SOUND:
            raise Unsupported(f"hw_sound_model={sound}: hosts with libvirt have only {', '.join(SOUND)}")
        ET.SubElement(devices, "sound", model=sound)


def randomness(devices: ET.Element, wishes: Wishes) -> None:
    """There is a source unless the flavor forbids it; the flavor says how much of it in which time."""
    wishes.one_of("hw_rng_model", ("virtio",), "")
    allowed = wishes.said("hw_rng:allowed")
    if allowed and not is_on(allowed):
        return
    rng = ET.SubElement(devices, "rng", model="virtio")
    if amount := wishes.number("hw_rng:rate_bytes"):
        period = wishes.number("hw_rng:rate_period") or RATE_PERIOD_MS
        ET.SubElement(rng, "rate", bytes=str(amount), period=str(period))
    leaf(rng, "backend", "/dev/urandom", model="random")


def watchdog(devices: ET.Element, wishes: Wishes) -> None:
    action = wishes.image_first("watchdog_action") or "disabled"
    if action not in _WATCHDOG:
        raise Unsupported(f"hw_watchdog_action={action}: it is one of {', '.join(_WATCHDOG)}")
    if action != "disabled":
        ET.SubElement(devices, "watchdog", model="i6300esb", action=action)


def tpm(devices: ET.Element, wishes: Wishes, host: Abilities) -> None:
    """A TPM in software, with a memory of its own."""
    version, model = wishes.flavor_first("tpm_version"), wishes.flavor_first("tpm_model")
    if not version and not model:
        return
    if version not in _TPM_VERSIONS:
        raise Unsupported(f"hw_tpm_version={version}: it is one of {', '.join(_TPM_VERSIONS)}")
    model = model or "tpm-tis"
    if model not in _TPM_MODELS or (model == "tpm-crb" and version == "1.2"):
        raise Unsupported(f"hw_tpm_model={model}: it is not for TPM {version}")
    if not host.tpm:
        raise Unsupported(f"hw_tpm_version={version}: the Debian packages swtpm and swtpm-tools are not installed")
    ET.SubElement(ET.SubElement(devices, "tpm", model=model), "backend", type="emulator", version=version)


def agent(devices: ET.Element, wishes: Wishes) -> None:
    """The line to QEMU's agent in the guest, where the image says there is one."""
    if is_on(wishes.said("hw_qemu_guest_agent")):
        channel = ET.SubElement(devices, "channel", type="unix")
        ET.SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")


def sockets_for_cards(devices: ET.Element) -> None:
    """PCI Express only takes a card while it runs where a port is free; libvirt alone leaves one."""
    ET.SubElement(devices, "controller", type="pci", index="0", model="pcie-root")
    for _ in range(EXPRESS_PORTS):
        ET.SubElement(devices, "controller", type="pci", model="pcie-root-port")


def host_devices(devices: ET.Element, domain: Domain) -> None:
    """PCI devices of the host that are its own."""
    for device in domain.topology.devices if domain.topology else ():
        numbers = device.address.replace(".", ":").split(":")
        if len(numbers) != 4:
            raise Unsupported(f"the PCI address {device.address!r} is none")
        element = ET.SubElement(devices, "hostdev", mode="subsystem", type="pci", managed="yes")
        names = ("domain", "bus", "slot", "function")
        address = {name: f"0x{number}" for name, number in zip(names, numbers, strict=True)}
        ET.SubElement(ET.SubElement(element, "source"), "address", address)
