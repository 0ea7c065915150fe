"""Extra specs Cumulog's compute service knows: which keys there are in the well-known namespaces, and their values.

A key in a namespace nobody knows, or in none, is the operator's own and passes.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from schema.refusal import Invalid

Check = Callable[[str], bool]

KEY = re.compile(r"[a-zA-Z0-9\-_:. ]{1,255}")
VALUE_LENGTH = 255

_GROUP = r"([a-zA-Z0-9_-]{1,64})?"


def valid_key(key: str) -> bool:
    """Whether this can be the name of an extra spec at all."""
    return KEY.fullmatch(key) is not None


def check(key: str, value: str) -> None:
    """Raise Invalid for a key the known namespaces do not have, and for a value its key cannot take."""
    for pattern, allowed, meaning in _KNOWN:
        if pattern.fullmatch(key):
            if not allowed(value):
                raise Invalid(
                    f"Validation failed; {value!r} is no value for the extra spec {key!r}: it must be {meaning}."
                )
            return
    if re.split(r"[^a-z_]", key, maxsplit=1)[0] in NAMESPACES and ":" in key:
        raise Invalid(f"Validation failed; extra spec {key!r} does not appear to be a valid extra spec.")


def _number(least: int, most: int = 2**63 - 1) -> tuple[Check, str]:
    def fits(value: str) -> bool:
        return re.fullmatch(r"-?[0-9]{1,19}", value) is not None and least <= int(value) <= most

    return fits, f"a whole number of at least {least}" + (f" and at most {most}" if most < 2**63 - 1 else "")


def _one_of(*words: str) -> tuple[Check, str]:
    return (lambda value: value in words), f"one of {', '.join(words)}"


def _matching(pattern: str, meaning: str) -> tuple[Check, str]:
    compiled = re.compile(pattern)
    return (lambda value: compiled.fullmatch(value) is not None), meaning


_ANYTHING: tuple[Check, str] = (lambda value: True, "any text")
_BOOLEAN: tuple[Check, str] = (
    lambda value: value.strip().lower() in {"1", "t", "true", "on", "y", "yes", "0", "f", "false", "off", "n", "no"},
    "true or false",
)
_LEVEL = _one_of("high", "normal", "low", "custom")
_CPU_SET = _matching(r"[0-9^,\-]+", "a set of CPUs such as 0-3,^1")
_PAGE_SIZE = _matching(
    r"large|small|any|[0-9]+([kKMG]i?[bB]?|[kKMGT]i?b(it)?)?", "large, small, any or a size such as 2MB"
)

_TABLE: dict[str, tuple[Check, str]] = {
    rf"resources{_GROUP}:[A-Z0-9_]+": _number(0),
    rf"trait{_GROUP}:[A-Z0-9_]+": _one_of("required", "forbidden"),
    "group_policy": _one_of("isolate", "none"),
    r"capabilities:.+": _ANYTHING,
    r"aggregate_instance_extra_specs:.+": _ANYTHING,
    "accel:device_profile": _ANYTHING,
    "pci_passthrough:alias": _matching(r"[^:]+:[0-9]+(\s*,\s*[^:]+:[0-9]+)*", "alias:count, several parted by commas"),
    "quota:cpu_shares": _number(0),
    "quota:cpu_period": _number(0),
    "quota:cpu_quota": _number(-1),
    r"quota:disk_(read|write|total)_(bytes|iops)_sec": _number(0),
    r"quota:vif_(in|out)bound_(average|peak|burst)": _number(0),
    r"quota:(cpu|memory|disk_io|vif)_(limit|reservation|shares_share)": _number(-1),
    r"quota:(cpu|memory|disk_io|vif)_shares_level": _LEVEL,
    "hw:boot_menu": _BOOLEAN,
    "hw:cpu_policy": _one_of("dedicated", "shared", "mixed"),
    "hw:cpu_thread_policy": _one_of("prefer", "isolate", "require"),
    "hw:emulator_threads_policy": _one_of("isolate", "share"),
    "hw:cpu_dedicated_mask": _CPU_SET,
    "hw:cpu_realtime": _BOOLEAN,
    "hw:cpu_realtime_mask": _CPU_SET,
    r"hw:cpu_(max_)?(sockets|cores|threads)": _number(1),
    "hw:mem_page_size": _PAGE_SIZE,
    "hw:mem_encryption": _BOOLEAN,
    "hw:mem_encryption_model": _one_of("amd-sev", "amd-sev-es"),
    "hw:locked_memory": _BOOLEAN,
    "hw:numa_nodes": _number(1),
    "hw:numa_mempolicy": _one_of("strict", "preferred"),
    r"hw:numa_cpus\.[0-9]+": _CPU_SET,
    r"hw:numa_mem\.[0-9]+": _number(1),
    "hw:pci_numa_affinity_policy": _one_of("required", "preferred", "legacy", "socket"),
    "hw:pmem": _ANYTHING,
    "hw:hide_hypervisor_id": _BOOLEAN,
    "hide_hypervisor_id": _BOOLEAN,
    "hw:serial_port_count": _number(0),
    "hw:watchdog_action": _one_of("none", "pause", "poweroff", "reset", "disabled"),
    "hw:vif_multiqueue_enabled": _BOOLEAN,
    "hw:tpm_version": _one_of("1.2", "2.0"),
    "hw:tpm_model": _one_of("tpm-tis", "tpm-crb"),
    "hw:tpm_secret_security": _one_of("user", "host", "deployment"),
    "hw:viommu_model": _one_of("intel", "smmuv3", "virtio", "auto"),
    "hw:virtio_packed_ring": _BOOLEAN,
    "hw:maxphysaddr_mode": _one_of("passthrough", "emulate"),
    "hw:maxphysaddr_bits": _number(1),
    "hw:ephemeral_encryption": _BOOLEAN,
    "hw:ephemeral_encryption_format": _one_of("luks"),
    "hw:sound_model": _one_of("sb16", "es1370", "pcspk", "ac97", "ich6", "ich9", "usb", "virtio"),
    "hw:usb_model": _one_of("qemu-xhci", "nec-xhci", "piix3-uhci", "piix4-uhci", "ehci", "ich9-ehci1"),
    "hw:redirected_usb_ports": _number(0, 15),
    "hw_rng:allowed": _BOOLEAN,
    r"hw_rng:rate_(bytes|period)": _number(0),
    "hw_video:ram_max_mb": _number(0),
    "os:secure_boot": _one_of("required", "disabled", "optional"),
    "vmware:hw_version": _ANYTHING,
    "vmware:storage_policy": _ANYTHING,
}

NAMESPACES = frozenset(
    {
        "accel",
        "aggregate_instance_extra_specs",
        "capabilities",
        "hw",
        "hw_rng",
        "hw_video",
        "os",
        "pci_passthrough",
        "quota",
        "resources",
        "trait",
        "vmware",
    }
)

_KNOWN = [(re.compile(pattern), *allowed) for pattern, allowed in _TABLE.items()]
