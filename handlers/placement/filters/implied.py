"""Traits nobody asks for by name: what a guest is to have, as flavor and image say, its host must be able to give.

Nova's request filters. Most hold always; those of the image's format and of its devices' models are settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from bus.config import Scheduler as Settings
from handlers.placement.demand import Request
from handlers.placement.filter import without
from schema.placement.decision import Change

_TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
_ALWAYS: Mapping[str, Callable[[str], str]] = {
    "virtio_packed_ring": lambda word: "COMPUTE_NET_VIRTIO_PACKED" if _on(word) else "",
    "sound_model": lambda word: f"COMPUTE_SOUND_MODEL_{word}",
    "usb_model": lambda word: f"COMPUTE_USB_MODEL_{word}" if word.endswith("xhci") else "",
    "viommu_model": lambda word: "" if word == "auto" else f"COMPUTE_VIOMMU_MODEL_{word}",
    "tpm_version": lambda word: f"COMPUTE_SECURITY_TPM_{word}",
    "tpm_model": lambda word: f"COMPUTE_SECURITY_{word}",
    "mem_encryption": lambda word: "HW_CPU_X86_AMD_SEV" if _on(word) else "",
    "ephemeral_encryption": lambda word: "COMPUTE_EPHEMERAL_ENCRYPTION" if _on(word) else "",
    "maxphysaddr_mode": lambda word: f"COMPUTE_ADDRESS_SPACE_{'EMULATED' if word == 'emulate' else word}",
    "secure_boot": lambda word: "COMPUTE_SECURITY_UEFI_SECURE_BOOT" if word == "required" else "",
}
"""`hw:` or `os:` and this in a flavor, `hw_` or `os_` and this in an image → the trait. Older USB controllers have
none, nor has the guess at an IOMMU."""
_DEVICES: Mapping[str, str] = {
    "hw_disk_bus": "COMPUTE_STORAGE_BUS",
    "hw_cdrom_bus": "COMPUTE_STORAGE_BUS",
    "hw_vif_model": "COMPUTE_NET_VIF_MODEL",
    "hw_video_model": "COMPUTE_GRAPHICS_MODEL",
    "hw_architecture": "HW_ARCH",
    "hw_emulation_architecture": "COMPUTE_ARCH",
}
_SIGNS = str.maketrans("-.", "__")


def implied(request: Request, settings: Settings) -> dict[str, tuple[Change, ...]]:
    """The traits a host must have for this request besides those it names → what not to say, for it not to need it."""
    found: dict[str, tuple[Change, ...]] = {}
    for trait, change in _all(request, settings):
        name = trait.upper().translate(_SIGNS)
        found[name] = (*found.get(name, ()), *change)
    return found


def _all(request: Request, settings: Settings) -> Iterator[tuple[str, tuple[Change, ...]]]:
    flavor, image = request.extra_specs, request.image_properties
    for specs, sign, said in ((flavor, ":", _of_flavor), (image, "_", _of_image)):
        for key, value in specs.items():
            scope, _, name = key.partition(sign)
            if scope in {"hw", "os"} and name in _ALWAYS and (trait := _ALWAYS[name](value.strip().lower())):
                yield trait, said(key, value)
    if _on(flavor.get(_ENCRYPTION, "")) or _on(image.get(_IMAGE_ENCRYPTION, "")):
        for word, said, key in (
            (flavor.get(f"{_ENCRYPTION}_format"), _of_flavor, f"{_ENCRYPTION}_format"),
            (image.get(f"{_IMAGE_ENCRYPTION}_format"), _of_image, f"{_IMAGE_ENCRYPTION}_format"),
        ):
            if word:
                yield f"COMPUTE_EPHEMERAL_ENCRYPTION_{word}", said(key, word)
    if word := _tpm_security(request):
        yield f"COMPUTE_SECURITY_TPM_SECRET_SECURITY_{word}", _of_flavor(_TPM_SECURITY, word)
    if word := flavor.get(_PROFILE):
        yield "COMPUTE_ACCELERATORS", _of_flavor(_PROFILE, word)
    if settings.require_image_type_support and (word := request.image_format):
        yield (
            f"COMPUTE_IMAGE_TYPE_{word}",
            without("image_format", word, f"an image of another disk format than {word}"),
        )
    if settings.image_metadata_prefilter:
        for key, stem in _DEVICES.items():
            if word := image.get(key):
                yield f"{stem}_{word}", _of_image(key, word)


_PROFILE, _TPM_SECURITY = "accel:device_profile", "hw:tpm_secret_security"
_ENCRYPTION, _IMAGE_ENCRYPTION = "hw:ephemeral_encryption", "hw_ephemeral_encryption"


def _tpm_security(request: Request) -> str:
    """Who keeps the key of the guest's TPM, where it has one and the flavor says so; else whoever does on that host."""
    flavor, image = request.extra_specs, request.image_properties
    has = any(flavor.get(f"hw:tpm_{it}") or image.get(f"hw_tpm_{it}") for it in ("version", "model"))
    return flavor.get(_TPM_SECURITY, "") if has else ""


def _of_flavor(key: str, value: str) -> tuple[Change, ...]:
    return without("extra_specs", key, f"a flavor without {key}={value}")


def _of_image(key: str, value: str) -> tuple[Change, ...]:
    return without("image_properties", key, f"an image without the property {key}={value}")


def _on(word: str) -> bool:
    return word.strip().lower() in _TRUE
