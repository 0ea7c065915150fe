"""Filters: whether a host would do for a request at all, capacity aside. Pure; each says why not in its own words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from handlers.placement.demand import Request, matches, traits
from schema.compute.host import Host
from schema.placement.provider import Inventory

DISABLED_TRAIT = "COMPUTE_STATUS_DISABLED"
TENANTS = "filter_tenant_id"
"""Metadata of a host aggregate: only for these projects (any key that begins with it, commas between ids)."""
ANY_HYPERVISOR = "simulated"
"""The hypervisor that plays any."""


class Candidate(Struct, frozen=True):
    """A host as the filters see it. What changes with every claim is not here."""

    host: Host
    inventories: Mapping[str, Inventory]
    traits: frozenset[str]
    aggregates: Sequence[Mapping[str, str]] = ()
    """Metadata of the host aggregates it is in."""


class Filter(Struct, frozen=True):
    """`lacks` finishes the sentence "of 7 hosts, 3 …"; `{}` in it is filled from the request by `detail`."""

    name: str
    passes: Callable[[Candidate, Request], bool]
    lacks: str
    detail: Callable[[Request], str] = lambda request: ""

    def reason(self, request: Request) -> str:
        return self.lacks.format(self.detail(request))


def _alive(candidate: Candidate, request: Request) -> bool:
    if request.forced:
        return candidate.host.alive
    return candidate.host.usable and DISABLED_TRAIT not in candidate.traits


def _named(candidate: Candidate, request: Request) -> bool:
    return not request.host or candidate.host.id == request.host


def _in_zone(candidate: Candidate, request: Request) -> bool:
    return not request.zone or request.forced or candidate.host.zone == request.zone


def _runs_image(candidate: Candidate, request: Request) -> bool:
    properties, facts = request.image_properties, candidate.host.facts
    architecture = properties.get("hw_architecture") or properties.get("architecture")
    if architecture and facts.arch and architecture != facts.arch:
        return False
    hypervisor = properties.get("img_hv_type") or properties.get("hypervisor_type")
    have = _hypervisor(facts.hypervisor_type)
    return not hypervisor or have in {"", ANY_HYPERVISOR} or _hypervisor(hypervisor) == have


def _hypervisor(name: str) -> str:
    """KVM is QEMU with the kernel's help."""
    return "qemu" if name.lower() == "kvm" else name.lower()


def _capable(candidate: Candidate, request: Request) -> bool:
    for key, wanted in request.extra_specs.items():
        scope, colon, name = key.partition(":")
        if colon and scope == "capabilities":
            have = _capability(candidate.host, name)
            if have is None or not any(matches(word, wanted) for word in have):
                return False
    return True


def _capability(host: Host, name: str) -> tuple[str, ...] | None:
    """What a host has by that name; several words where any may match; None for an unknown capability."""
    facts = host.facts
    if name == "hypervisor_hostname":
        return (host.id,)
    if name in _CAPABILITIES:
        return (str(getattr(facts, name)),)
    scope, _, rest = name.partition(":")
    have: Any = facts.cpu_info if scope == "cpu_info" else None
    for part in rest.split(":"):
        have = have.get(part) if isinstance(have, dict) else None
    if isinstance(have, list | tuple):
        return (" ".join(map(str, have)), *map(str, have))
    return None if have is None else (str(have),)


_CAPABILITIES = frozenset({"hypervisor_type", "hypervisor_version", "vcpus", "memory_mb"})


def _has_traits(candidate: Candidate, request: Request) -> bool:
    required, forbidden = traits(request.extra_specs, request.image_properties)
    return required <= candidate.traits and not forbidden & candidate.traits


def _aggregate_fits(candidate: Candidate, request: Request) -> bool:
    for key, wanted in request.extra_specs.items():
        scope, colon, name = key.partition(":")
        if colon and scope == "aggregate_instance_extra_specs":
            have = [metadata[name] for metadata in candidate.aggregates if name in metadata]
            words = [word.strip() for value in have for word in value.split(",")]
            if not any(matches(word, wanted) for word in words):
                return False
    return True


def _for_project(candidate: Candidate, request: Request) -> bool:
    tenants = {
        tenant.strip()
        for metadata in candidate.aggregates
        for key, value in metadata.items()
        if key.startswith(TENANTS)
        for tenant in value.split(",")
    }
    return not tenants or request.project_id in tenants


def _gives_such_pieces(candidate: Candidate, request: Request) -> bool:
    return all(
        (inventory := candidate.inventories.get(name)) is not None and inventory.fits(amount)
        for name, amount in request.resources.items()
    )


FILTERS: tuple[Filter, ...] = (
    Filter("RequestedHost", _named, "are not {}", lambda request: request.host),
    Filter("Compute", _alive, "are down or disabled"),
    Filter("AvailabilityZone", _in_zone, "are not in the availability zone {}", lambda request: request.zone),
    Filter("ImageProperties", _runs_image, "cannot run the image (its architecture or hypervisor type)"),
    Filter("ComputeCapabilities", _capable, "lack capabilities the flavor wants"),
    Filter("Traits", _has_traits, "lack traits that are required, or have forbidden ones"),
    Filter("AggregateInstanceExtraSpecs", _aggregate_fits, "are in no aggregate the flavor wants"),
    Filter("AggregateMultiTenancyIsolation", _for_project, "are kept for other projects"),
    Filter("Units", _gives_such_pieces, "offer no such resources, or not in pieces of this size"),
)
