"""Properties of an image that a guest is made by: which values they take, and where a flavor does not let them.

Images themselves may carry any text; it is asked for here when a server is to be made of one, as Nova asks. Names:
https://docs.openstack.org/glance/latest/admin/useful-image-properties.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from schema.refusal import Invalid

UNLIMITED = 65536
"""Sockets, cores or threads, where nobody set a limit."""


def check(properties: Mapping[str, str]) -> None:
    """Raises Invalid for a value its property cannot take."""
    for name, value in properties.items():
        if name in _WORDS and value not in _WORDS[name]:
            raise Invalid(f"Invalid image metadata. Error: Field value {value} is invalid")
        if name in _NUMBERS and not _WHOLE.fullmatch(value):
            raise Invalid(f"Invalid image metadata. Error: invalid literal for int() with base 10: '{value}'")


def check_against(extra_specs: Mapping[str, str], properties: Mapping[str, str]) -> None:
    """Raises Invalid where flavor and image contradict each other about what the guest is made of."""
    for name in _SAME:
        scope, _, rest = name.partition("_")
        flavor, image = extra_specs.get(f"{scope}:{rest}"), properties.get(name)
        if flavor is not None and image is not None and _plain(flavor) != _plain(image):
            raise Invalid(
                f"Conflicting values for {name} found in the flavor ({flavor}) and the image ({image})."
                if name != "hw_pmu"
                else "Image property 'hw_pmu' is not permitted to override the PMU policy set in the flavor."
            )
    _check_serial_ports(extra_specs, properties)
    _check_cpu_topology(extra_specs, properties)
    _check_locked_memory(extra_specs, properties)


def _check_serial_ports(extra_specs: Mapping[str, str], properties: Mapping[str, str]) -> None:
    flavor, image = extra_specs.get("hw:serial_port_count"), properties.get("hw_serial_port_count")
    if flavor is not None and not _WHOLE.fullmatch(flavor):
        raise Invalid(f"Number of serial ports '{flavor}' specified in 'hw:serial_port_count' isn't valid.")
    if flavor is not None and image is not None and int(image) > int(flavor):
        raise Invalid("Forbidden to exceed flavor value of number of serial ports passed in image meta.")


def _check_cpu_topology(extra_specs: Mapping[str, str], properties: Mapping[str, str]) -> None:
    allowed = [_limit(extra_specs.get(f"hw:cpu_max_{part}")) for part in _PARTS]
    wanted = [_limit(properties.get(f"hw_cpu_max_{part}")) for part in _PARTS]
    if any(wish != UNLIMITED and wish > most for wish, most in zip(wanted, allowed, strict=True)):
        raise Invalid(f"Image vCPU limits ({_named(wanted)}) exceeds the limits of the flavor ({_named(allowed)})")
    if any(f"hw:cpu_{part}" in extra_specs for part in _PARTS):
        return
    most = [min(both) for both in zip(wanted, allowed, strict=True)]
    preferred = [_limit(properties.get(f"hw_cpu_{part}"), -1) for part in _PARTS]
    if any(wish > limit for wish, limit in zip(preferred, most, strict=True)):
        raise Invalid(
            f"Image vCPU topology ({_named(preferred)}) exceeds the limits of the flavor or image ({_named(most)})"
        )


def _check_locked_memory(extra_specs: Mapping[str, str], properties: Mapping[str, str]) -> None:
    locked = extra_specs.get("hw:locked_memory") or properties.get("hw_locked_memory", "")
    paged = extra_specs.get("hw:mem_page_size") or properties.get("hw_mem_page_size")
    if _plain(locked) == "yes" and not paged:
        raise Invalid("locked_memory value in image or flavor is forbidden when mem_page_size is not set.")


def _limit(text: str | None, unset: int = UNLIMITED) -> int:
    return int(text) if text and _WHOLE.fullmatch(text) else unset


def _named(parts: list[int]) -> str:
    return ", ".join(f"{name}={it}" for name, it in zip(_PARTS, parts, strict=True))


def _plain(value: str) -> str:
    """The same for all ways to say yes, and for all to say no."""
    word = value.strip().lower()
    return "yes" if word in _TRUE else "no" if word in _FALSE else word


_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,30}\s*")
_TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
_FALSE = frozenset({"0", "f", "false", "off", "n", "no"})
_PARTS = ("sockets", "cores", "threads")
_BUSES = frozenset({"fdc", "ide", "lxc", "sata", "scsi", "uml", "usb", "virtio", "xen"})

_SAME = (
    "hw_ephemeral_encryption",
    "hw_ephemeral_encryption_format",
    "hw_locked_memory",
    "hw_maxphysaddr_bits",
    "hw_maxphysaddr_mode",
    "hw_mem_encryption",
    "hw_pmu",
    "hw_tpm_model",
    "hw_tpm_version",
    "hw_vif_multiqueue_enabled",
    "hw_viommu_model",
    "hw_virtio_packed_ring",
    "os_secure_boot",
)
"""Where both speak, they have to say the same."""

_WORDS: dict[str, frozenset[str]] = {
    **dict.fromkeys(("hw_cdrom_bus", "hw_disk_bus", "hw_floppy_bus", "hw_rescue_bus"), _BUSES),
    "hw_cpu_policy": frozenset({"dedicated", "mixed", "shared"}),
    "hw_cpu_thread_policy": frozenset({"prefer", "isolate", "require"}),
    "hw_ephemeral_encryption_format": frozenset({"luks", "luksv2", "plain"}),
    "hw_firmware_type": frozenset({"bios", "uefi"}),
    "hw_input_bus": frozenset({"usb", "virtio"}),
    "hw_maxphysaddr_mode": frozenset({"emulate", "passthrough"}),
    "hw_pci_numa_affinity_policy": frozenset({"required", "preferred", "legacy", "socket"}),
    "hw_pointer_model": frozenset({"ps2mouse", "usbtablet"}),
    "hw_rescue_device": frozenset({"cdrom", "disk", "floppy", "lun"}),
    "hw_rng_model": frozenset({"virtio"}),
    "hw_scsi_model": frozenset(
        {"buslogic", "ibmvscsi", "lsilogic", "lsisas1068", "lsisas1078", "virtio-scsi", "vmpvscsi"}
    ),
    "hw_sound_model": frozenset({"ac97", "es1370", "ich6", "ich9", "pcspk", "sb16", "usb", "virtio"}),
    "hw_tpm_model": frozenset({"tpm-crb", "tpm-tis"}),
    "hw_tpm_version": frozenset({"1.2", "2.0"}),
    "hw_usb_model": frozenset({"ehci", "ich9-ehci1", "nec-xhci", "piix3-uhci", "piix4-uhci", "qemu-xhci"}),
    "hw_vif_model": frozenset(
        {"e1000", "e1000e", "igb", "lan9118", "ne2k_pci", "netfront", "pcnet", "rtl8139", "spapr-vlan", "virtio"}
        | {"VirtualE1000", "VirtualE1000e", "VirtualPCNet32", "VirtualSriovEthernetCard", "VirtualVmxnet", "vmxnet3"}
        | {"VirtualVmxnet3"}
    ),
    "hw_video_model": frozenset({"bochs", "cirrus", "gop", "none", "qxl", "vga", "virtio", "vmvga", "xen"}),
    "hw_viommu_model": frozenset({"auto", "intel", "smmuv3", "virtio"}),
    "hw_watchdog_action": frozenset({"disabled", "none", "pause", "poweroff", "reset"}),
    "img_config_drive": frozenset({"mandatory", "optional"}),
    "os_secure_boot": frozenset({"disabled", "optional", "required"}),
    "os_type": frozenset({"linux", "windows"}),
}

_NUMBERS = frozenset(
    {
        *(f"hw_cpu_{part}" for part in _PARTS),
        *(f"hw_cpu_max_{part}" for part in _PARTS),
        "hw_maxphysaddr_bits",
        "hw_numa_nodes",
        "hw_serial_port_count",
        "hw_video_ram",
    }
)
