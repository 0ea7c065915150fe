"""What a libvirt host can do, in placement's names: its CPU's features, and what our domains may be made of.

Whoever teaches domain_*.py a new model or device says so here: the scheduler sends guests that want one to hosts that
have its trait.
"""

from __future__ import annotations

from collections.abc import Collection

from agents.hypervisor.host_abilities import Abilities

_FEATURES = {
    "avx": "AVX",
    "avx2": "AVX2",
    "aes": "AESNI",
    "sse4.2": "SSE42",
    "vmx": "VMX",
    "svm": "SVM",
}
_ARCHES = {
    "HW_ARCH": {"aarch64", "i686", "mips64el", "mipsel", "ppc64", "ppc64le", "s390x", "x86_64"},
    "COMPUTE_ARCH": {"aarch64", "mipsel", "ppc64le", "riscv64", "s390x", "x86_64"},
}
"""Those that have a name: of hosts, and of what they can run."""
HYPERTHREADING = "HW_CPU_HYPERTHREADING"
DOMAINS = (
    "COMPUTE_DEVICE_TAGGING",
    "COMPUTE_NET_ATTACH_INTERFACE",
    "COMPUTE_NODE",
    *(f"COMPUTE_GRAPHICS_MODEL_{it}" for it in ("BOCHS", "CIRRUS", "NONE", "QXL", "VGA", "VIRTIO")),
    *(f"COMPUTE_IMAGE_TYPE_{it}" for it in ("QCOW2", "RAW")),
    *(f"COMPUTE_NET_VIF_MODEL_{it}" for it in ("E1000", "E1000E", "NE2K_PCI", "PCNET", "RTL8139", "VIRTIO", "VMXNET3")),
    "COMPUTE_NET_VIRTIO_PACKED",
    *(f"COMPUTE_SOUND_MODEL_{it}" for it in ("AC97", "ES1370", "ICH6", "ICH9", "PCSPK", "SB16", "USB")),
    *(f"COMPUTE_USB_MODEL_{it}" for it in ("QEMU_XHCI", "NEC_XHCI")),
    *(f"COMPUTE_STORAGE_BUS_{it}" for it in ("IDE", "SATA", "SCSI", "USB", "VIRTIO")),
    "OWNER_NOVA",
)


def traits(features: Collection[str], host: Abilities, *, threads: int = 1, arch: str = "") -> tuple[str, ...]:
    """`threads`: of each core. `arch`: the host's, which is that of its guests."""
    found = {f"HW_CPU_X86_{trait}" for feature, trait in _FEATURES.items() if feature in features}
    found |= {f"{stem}_{arch.upper()}" for stem, named in _ARCHES.items() if arch in named}
    if host.secure_boot:
        found.add("COMPUTE_SECURITY_UEFI_SECURE_BOOT")
    if host.tpm:
        found |= {f"COMPUTE_SECURITY_TPM_{it}" for it in ("1_2", "2_0", "CRB", "TIS")}
        found.add("COMPUTE_SECURITY_TPM_SECRET_SECURITY_HOST")
    return tuple(sorted({*found, *DOMAINS, *([HYPERTHREADING] if threads > 1 else [])}))
