"""The extra specs Nova documents, by namespace: name → what its value may be.

`{…}` in a name stands for one of `PARTS`. Standard resource classes and traits are not listed: they are asked for.
"""

from __future__ import annotations

import re

from msgspec import Struct

VALUE = re.compile(r"\{(\w+)\}")
PARTS = {
    "group": r"([a-zA-Z0-9_-]{1,64})?",
    "custom": r"[A-Z0-9_]+",
    "id": r"\d+",
    "filter": r"(:\w+)*",
    "key": r".+",
}


class Boolean(Struct, frozen=True):
    """1, t, true, on, y, yes, or their opposites."""


class Whole(Struct, frozen=True):
    least: int | None = None
    most: int | None = None


class Text(Struct, frozen=True):
    """Matches the whole `pattern`, or is one of the `words`; neither given: it is any text."""

    pattern: str = ""
    words: tuple[str, ...] = ()


Value = Boolean | Whole | Text


def _one_of(*words: str) -> Text:
    return Text(words=words)


_CPUS = Text(r"\^?\d+(-\d+|,\^?\d+)*")
_PROC_UNITS = Text(r"\d+\.\d+")

_HW: dict[str, Value] = {
    "boot_menu": Boolean(),
    "cpu_policy": _one_of("dedicated", "shared", "mixed"),
    "cpu_thread_policy": _one_of("prefer", "isolate", "require"),
    "emulator_threads_policy": _one_of("isolate", "share"),
    "cpu_dedicated_mask": _CPUS,
    "cpu_realtime": Boolean(),
    "cpu_realtime_mask": _CPUS,
    "cpu_sockets": Whole(1),
    "cpu_cores": Whole(1),
    "cpu_threads": Whole(1),
    "cpu_max_sockets": Whole(1),
    "cpu_max_cores": Whole(1),
    "cpu_max_threads": Whole(1),
    "max_cpu_sockets": Whole(1),
    "max_cpu_cores": Whole(1),
    "max_cpu_threads": Whole(1),
    "hide_hypervisor_id": Boolean(),
    "locked_memory": Boolean(),
    "maxphysaddr_mode": _one_of("passthrough", "emulate"),
    "maxphysaddr_bits": Whole(0),
    "mem_page_size": Text(r"(large|small|any|\d+([kKMGT]i?)?(b|bit|B)?)"),
    "mem_encryption": Boolean(),
    "mem_encryption_model": _one_of("amd-sev", "amd-sev-es"),
    "numa_nodes": Whole(1),
    "numa_cpus.{id}": _CPUS,
    "numa_mem.{id}": Whole(1),
    "pci_numa_affinity_policy": _one_of("required", "preferred", "legacy", "socket"),
    "pmem": Text(r"[a-zA-Z0-9_]+(,[a-zA-Z0-9_]+)*,?"),
    "pmu": Boolean(),
    "serial_port_count": Whole(0),
    "sound_model": _one_of("sb16", "es1370", "pcspk", "ac97", "ich6", "ich9", "usb", "virtio"),
    "tpm_model": _one_of("tpm-tis", "tpm-crb"),
    "tpm_version": _one_of("1.2", "2.0"),
    "tpm_secret_security": _one_of("user", "host", "deployment"),
    "usb_model": _one_of("qemu-xhci", "nec-xhci", "piix3-uhci", "piix4-uhci", "ehci", "ich9-ehci1"),
    "redirected_usb_ports": Whole(0, 15),
    "vif_multiqueue_enabled": Boolean(),
    "viommu_model": _one_of("intel", "smmuv3", "virtio", "auto"),
    "virtio_packed_ring": Boolean(),
    "watchdog_action": _one_of("none", "pause", "poweroff", "reset", "disabled"),
    "ephemeral_encryption": Boolean(),
    "ephemeral_encryption_format": _one_of("luks"),
}

_POWERVM: dict[str, Value] = {
    "min_mem": Whole(256),
    "max_mem": Whole(256),
    "min_vcpu": Whole(1),
    "max_vcpu": Whole(1),
    "proc_units": _PROC_UNITS,
    "min_proc_units": _PROC_UNITS,
    "max_proc_units": _PROC_UNITS,
    "dedicated_proc": Boolean(),
    "shared_weight": Whole(0, 255),
    "availability_priority": Whole(0, 255),
    "uncapped": Boolean(),
    "dedicated_sharing_mode": _one_of(
        "share_idle_procs", "keep_idle_procs", "share_idle_procs_active", "share_idle_procs_always"
    ),
    "processor_compatibility": _one_of(
        "default", "POWER6", "POWER6+", "POWER6_Enhanced", "POWER6+_Enhanced", "POWER7", "POWER8"
    ),
    "shared_proc_pool_name": Text(),
    "srr_capability": Boolean(),
}

_OTHER_QUOTA: dict[str, Value] = {
    "limit": Whole(),
    "reservation": Whole(),
    "shares_level": Text(),
    "shares_share": Whole(),
}
_QUOTA: dict[str, Value] = {
    **{f"cpu_{it}": Whole(0) for it in ("shares", "period", "quota")},
    **{f"disk_{way}_{what}_sec": Whole(0) for way in ("read", "write", "total") for what in ("bytes", "iops")},
    **{f"vif_{way}_{what}": Whole(0) for way in ("inbound", "outbound") for what in ("average", "peak", "burst")},
    **{f"{of}_{what}": it for of in ("cpu", "memory", "disk_io", "vif") for what, it in _OTHER_QUOTA.items()},
}

_CAPABILITIES = (
    *("id", "uuid", "service_id", "host", "vcpus", "memory_mb", "local_gb", "vcpus_used", "memory_mb_used"),
    *("local_gb_used", "hypervisor_type", "hypervisor_version", "hypervisor_hostname", "free_ram_mb", "free_disk_gb"),
    *("current_workload", "running_vms", "disk_available_least", "host_ip", "mapped", "cpu_allocation_ratio"),
    *("ram_allocation_ratio", "disk_allocation_ratio", "total_usable_ram_mb", "total_usable_disk_gb", "disk_mb_used"),
    *("free_disk_mb", "vcpus_total", "num_instances", "num_io_ops", "failed_builds", "aggregates", "cell_uuid"),
    "updated",
    *(
        f"{it}{{filter}}"
        for it in (
            *("cpu_info", "metrics", "stats", "numa_topology", "supported_hv_specs", "pci_device_pools", "nodename"),
            *("pci_stats", "supported_instances", "limits", "instances"),
        )
    ),
)

SPECS: dict[str, Value] = {
    "group_policy": _one_of("none", "isolate"),
    "hide_hypervisor_id": Boolean(),
    "accel:device_profile": Text(),
    "aggregate_instance_extra_specs:{key}": Text(),
    **{f"capabilities:{name}": Text() for name in _CAPABILITIES},
    **{f"hw:{name}": value for name, value in _HW.items()},
    "hw_rng:allowed": Boolean(),
    "hw_rng:rate_bytes": Whole(0),
    "hw_rng:rate_period": Whole(0),
    "hw_video:ram_max_mb": Whole(0),
    "os:secure_boot": _one_of("disabled", "required"),
    "pci_passthrough:alias": Text(r"[^:]+:\d+(?:\s*,\s*[^:]+:\d+)*"),
    **{f"powervm:{name}": value for name, value in _POWERVM.items()},
    **{f"quota:{name}": value for name, value in _QUOTA.items()},
    "resources{group}:CUSTOM_{custom}": Whole(0),
    "trait{group}:CUSTOM_{custom}": _one_of("required", "forbidden"),
    "vmware:hw_version": Text(),
    "vmware:storage_policy": Text(),
}
