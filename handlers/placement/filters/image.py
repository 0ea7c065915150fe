"""Filters of the image: whether a host can run it, and whether one of them is kept for the other."""

from __future__ import annotations

from bus.config import Scheduler as Settings
from handlers.placement.candidate import Candidate
from handlers.placement.demand import Request
from handlers.placement.filter import Filter, without
from handlers.placement.filters.compute import ANY_HYPERVISOR
from schema.placement.decision import Change

_VERSIONS = {"<": int.__lt__, "<=": int.__le__, "==": int.__eq__, "!=": int.__ne__, ">=": int.__ge__, ">": int.__gt__}


def _unrunnable(candidate: Candidate, request: Request) -> dict[str, str]:
    """The properties of the image that this host cannot satisfy → why."""
    properties, facts, found = request.image_properties, candidate.host.facts, {}
    for name in ("hw_architecture", "architecture"):
        if (wanted := properties.get(name)) and facts.arch and wanted != facts.arch:
            found[name] = f"is of the architecture {facts.arch}"
    have = _hypervisor(facts.hypervisor_type)
    if have in {"", ANY_HYPERVISOR}:
        return found
    for name in ("img_hv_type", "hypervisor_type"):
        if (wanted := properties.get(name)) and _hypervisor(wanted) != have:
            found[name] = f"runs {facts.hypervisor_type}"
    for name in ("img_hv_requested_version", "hypervisor_version_requires"):
        if (wanted := properties.get(name)) and not _version_fits(facts.hypervisor_version, wanted):
            found[name] = f"runs version {_dotted(facts.hypervisor_version)} of {facts.hypervisor_type}"
    for name in ("hw_vm_mode", "vm_mode"):
        if (wanted := properties.get(name)) and wanted.lower() not in _modes(have):
            found[name] = f"runs no guests in the mode {wanted}"
    return found


def _hypervisor(name: str) -> str:
    """KVM is QEMU with the kernel's help."""
    return "qemu" if name.lower() == "kvm" else name.lower()


def _modes(hypervisor: str) -> frozenset[str]:
    """How a hypervisor runs guests. `hvm`: as if on real hardware; `xen`: by Xen's own interface; `exe`: containers."""
    return frozenset({"qemu": {"hvm"}, "xen": {"hvm", "xen"}, "lxc": {"exe"}}.get(hypervisor, {"hvm"}))


def _version_fits(have: int, wanted: str) -> bool:
    """`>=4.2,<6` of the hypervisor's version; what cannot be read rules out nothing."""
    for part in wanted.split(","):
        operator = part.strip().rstrip("0123456789. ")
        digits = part.strip()[len(operator) :].strip().split(".")
        if operator in _VERSIONS and all(digit.isdigit() for digit in digits):
            major, minor, release = [*map(int, digits), 0, 0][:3]
            if not _VERSIONS[operator](have, major * 1_000_000 + minor * 1000 + release):
                return False
    return True


def _dotted(version: int) -> str:
    return f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"


IMAGE_PROPERTIES = Filter(
    "ImageProperties",
    lambda candidate, request: not _unrunnable(candidate, request),
    "cannot run the image (its architecture or hypervisor type)",
    asked=lambda request: bool(request.image_properties),
    why=lambda candidate, request: " and ".join(_unrunnable(candidate, request).values()),
    remedy=lambda candidate, request: tuple(
        change
        for name in _unrunnable(candidate, request)
        for change in without(
            "image_properties", name, f"an image without the property {name}={request.image_properties[name]}"
        )
    ),
    live=False,
)


def isolated_hosts(settings: Settings) -> Filter:
    """Some images run on some hosts only, and (`restrict_isolated_hosts`) those hosts run nothing else."""
    images, hosts = frozenset(settings.isolated_images), frozenset(settings.isolated_hosts)

    def passes(candidate: Candidate, request: Request) -> bool:
        isolated, kept = request.image_id in images, candidate.host.id in hosts
        return isolated == kept or (kept and not settings.restrict_isolated_hosts)

    def remedy(candidate: Candidate, request: Request) -> tuple[Change, ...]:
        if request.image_id in images:
            return without("image_id", request.image_id, "another image than one that isolated_images keeps apart")
        return ()

    return Filter(
        "IsolatedHosts",
        passes,
        "are kept for other images, or not for this one",
        asked=lambda request: bool(images or hosts),
        remedy=remedy,
        live=False,
    )
