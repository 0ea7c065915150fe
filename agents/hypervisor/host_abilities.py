"""What a libvirt host has that not every one has, as far as it makes a difference to the definition of a guest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

FIRMWARE = Path("/usr/share/OVMF")
CODE, VARIABLES = "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"
SECURE_CODE, SECURE_VARIABLES = "OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd"
_CGROUPS = Path("/sys/fs/cgroup")


class Abilities(Struct, frozen=True, kw_only=True):
    kvm: bool = False
    uefi: bool = False
    secure_boot: bool = False
    tpm: bool = False
    """There is a TPM in software for each guest that wants one."""
    cpu_time: bool = False
    """libvirt may divide CPU time among guests, by cgroups."""
    cells: Mapping[int, tuple[int, ...]] = {}
    """NUMA node → its CPUs that are not for one guest at a time."""
    shared_cpus: tuple[int, ...] = ()
    """All of these, where some are; else none."""


def look(
    *, kvm: bool, cells: Mapping[int, tuple[int, ...]] | None = None, shared_cpus: tuple[int, ...] = ()
) -> Abilities:
    return Abilities(
        kvm=kvm,
        uefi=_there(CODE, VARIABLES),
        secure_boot=_there(SECURE_CODE, SECURE_VARIABLES),
        tpm=bool(shutil.which("swtpm") and shutil.which("swtpm_setup")),
        cpu_time=cpu_controller(),
        cells=cells or {},
        shared_cpus=shared_cpus,
    )


def cpu_controller() -> bool:
    """Whether CPU time can be divided by cgroups, of either version."""
    unified = _CGROUPS / "cgroup.subtree_control"
    if unified.exists():
        return "cpu" in unified.read_text().split() and os.access(_CGROUPS, os.W_OK)
    return (_CGROUPS / "cpu" / "cpu.cfs_quota_us").exists() and os.access(_CGROUPS / "cpu", os.W_OK)


def _there(*names: str) -> bool:
    return all((FIRMWARE / name).exists() for name in names)
