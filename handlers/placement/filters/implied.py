"""Traits nobody asks for by name: what a guest is to have, as flavor and image say, its host must be able to give.

Nova's request filters. Most hold always; those of the image's format and of its devices' models are settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from bus.config import Scheduler as Settings
from handlers.placement.demand import Request

_TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
_ALWAYS: Mapping[str, Callable[[str], str]] = {
    "virtio_packed_ring": lambda word: "COMPUTE_NET_VIRTIO_PACKED" if _on(word) else "",
    "sound_model": lambda word: f"COMPUTE_SOUND_MODEL_{word}",
    "usb_model": lambda word: f"COMPUTE_USB_MODEL_{word}",
    "viommu_model": lambda word: "" if word == "auto" else f"COMPUTE_VIOMMU_MODEL_{word}",
    "tpm_version": lambda word: f"COMPUTE_SECURITY_TPM_{word}",
    "tpm_model": lambda word: f"COMPUTE_SECURITY_{word}",
    "tpm_secret_security": lambda word: f"COMPUTE_SECURITY_TPM_SECRET_SECURITY_{word}",
    "mem_encryption": lambda word: "HW_CPU_X86_AMD_SEV" if _on(word) else "",
    "ephemeral_encryption": lambda word: "COMPUTE_EPHEMERAL_ENCRYPTION" if _on(word) else "",
    "ephemeral_encryption_format": lambda word: f"COMPUTE_EPHEMERAL_ENCRYPTION_{word}",
    "maxphysaddr_mode": lambda word: f"COMPUTE_ADDRESS_SPACE_{'EMULATED' if word == 'emulate' else word}",
    "secure_boot": lambda word: "COMPUTE_SECURITY_UEFI_SECURE_BOOT" if word == "required" else "",
}
"""`hw:` or `os:` and this in a flavor, `hw_` or `os_` and this in an image → the trait."""
_DEVICES: Mapping[str, str] = {
    "hw_disk_bus": "COMPUTE_STORAGE_BUS",
    "hw_cdrom_bus": "COMPUTE_STORAGE_BUS",
    "hw_vif_model": "COMPUTE_NET_VIF_MODEL",
    "hw_video_model": "COMPUTE_GRAPHICS_MODEL",
}


def implied(request: Request, settings: Settings) -> frozenset[str]:
    """The traits a host must have for this request, besides those it names."""
    return frozenset(it.upper().translate(_SIGNS) for it in _all(request, settings) if it)


_SIGNS = str.maketrans("-.", "__")


def _all(request: Request, settings: Settings) -> Iterator[str]:
    for specs, sign in ((request.extra_specs, ":"), (request.image_properties, "_")):
        for key, value in specs.items():
            scope, _, name = key.partition(sign)
            if scope in {"hw", "os"} and name in _ALWAYS and value:
                yield _ALWAYS[name](value.strip().lower())
    if request.extra_specs.get("accel:device_profile"):
        yield "COMPUTE_ACCELERATORS"
    if settings.require_image_type_support and request.image_format:
        yield f"COMPUTE_IMAGE_TYPE_{request.image_format}"
    if settings.image_metadata_prefilter:
        for key, stem in _DEVICES.items():
            if word := request.image_properties.get(key):
                yield f"{stem}_{word}"


def _on(word: str) -> bool:
    return word in _TRUE
