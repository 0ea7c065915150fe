"""Filters of host aggregates: what operators keep hosts for, by aggregates' metadata."""

from __future__ import annotations

from collections.abc import Callable

from handlers.placement.candidate import Candidate
from handlers.placement.capacity import TENANTS
from handlers.placement.demand import REQUIRED, Request, matches, traits
from handlers.placement.filter import Filter, without
from schema.placement.decision import Change

SCOPE = "aggregate_instance_extra_specs"
_IMAGE = ("hw_", "os_", "img_", "architecture", "hypervisor_type", "vm_mode")
"""How the names of image properties begin that say what a guest wants of its host."""


def _unfit(candidate: Candidate, request: Request) -> dict[str, tuple[str, str]]:
    """The flavor's key that no aggregate of the host satisfies → (the aggregates' key, what is wanted)."""
    found = {}
    for key, wanted in request.extra_specs.items():
        scope, colon, name = key.partition(":")
        if colon and scope == SCOPE and not any(matches(word, wanted) for word in candidate.said(name)):
            found[key] = (name, wanted)
    return found


EXTRA_SPECS = Filter(
    "AggregateInstanceExtraSpecs",
    lambda candidate, request: not _unfit(candidate, request),
    "are in no aggregate the flavor wants",
    asked=lambda request: any(key.startswith(f"{SCOPE}:") for key in request.extra_specs),
    why=lambda candidate, request: " and ".join(
        f"is in no aggregate with {name} {wanted}" for name, wanted in _unfit(candidate, request).values()
    ),
    remedy=lambda candidate, request: tuple(
        change
        for key in _unfit(candidate, request)
        for change in without("extra_specs", key, f"a flavor without {key}={request.extra_specs[key]}")
    ),
    live=False,
)


def _tenants(candidate: Candidate) -> set[str]:
    keys = {key for it in candidate.aggregates for key in it if key.startswith(TENANTS)}
    return {tenant for key in keys for tenant in candidate.said(key)}


def _open_to(candidate: Candidate, request: Request) -> bool:
    if not candidate.aggregates:
        return True
    tenants = _tenants(candidate)
    return not tenants or request.project_id in tenants


def _opened(candidate: Candidate, request: Request) -> tuple[Change, ...]:
    keys = sorted({key for it in candidate.aggregates for key in it if key.startswith(TENANTS)})
    return tuple(_unsaid(candidate, key) for key in keys)


def _unsaid(candidate: Candidate, key: str) -> Change:
    id = candidate.host.id
    return Change(what="no metadata", host=id, name=key, words=f"aggregates of {id} without the property {key}")


MULTI_TENANCY = Filter(
    "AggregateMultiTenancyIsolation",
    _open_to,
    "are kept for other projects",
    why=lambda candidate, request: "is kept for other projects",
    remedy=_opened,
    live=False,
)


def _tenant_filter(name: str, passes: Callable[[Candidate, Request], bool]) -> Filter:
    return Filter(
        name,
        passes,
        "are in no aggregate of the project's",
        why=lambda candidate, request: "is in no aggregate of the project's",
        remedy=lambda candidate, request: (
            Change(
                what="metadata",
                host=candidate.host.id,
                name=TENANTS,
                value=request.project_id,
                words=f"{TENANTS}={request.project_id} on an aggregate of host {candidate.host.id}",
            ),
        ),
        live=False,
    )


TENANT_REQUIRED = _tenant_filter(
    "RequireTenantAggregate", lambda candidate, request: request.project_id in _tenants(candidate)
)
"""Nova's pre-filter: every project has aggregates of its own."""
TENANT_LIMITED = _tenant_filter(
    "LimitTenantToAggregate",
    lambda candidate, request: (
        request.project_id not in candidate.columns.tenants or request.project_id in _tenants(candidate)
    ),
)
"""The same for projects that have any; the others go anywhere."""


def _kept_for_traits(candidate: Candidate, request: Request) -> list[str]:
    """Aggregates' keys `trait:…=required` that neither flavor nor image asks for."""
    wanted, _ = traits(request.extra_specs, request.image_properties)
    return sorted(
        {
            key
            for it in candidate.aggregates
            for key, value in it.items()
            if key.startswith("trait:") and value == REQUIRED and key.removeprefix("trait:") not in wanted
        }
    )


ISOLATE = Filter(
    "IsolateAggregates",
    lambda candidate, request: not _kept_for_traits(candidate, request),
    "are kept for what asks for their aggregates' traits",
    why=lambda candidate, request: "is kept for " + " and ".join(_kept_for_traits(candidate, request)),
    remedy=lambda candidate, request: tuple(_unsaid(candidate, key) for key in _kept_for_traits(candidate, request)),
    live=False,
)
"""Nova's pre-filter: only what must be there may be there."""


def _other_images(candidate: Candidate, request: Request) -> list[str]:
    """Aggregates' keys that are properties this image has with another value."""
    keys = {key for it in candidate.aggregates for key in it if key.startswith(_IMAGE)}
    properties = request.image_properties
    return sorted(key for key in keys if key in properties and properties[key] not in candidate.said(key))


IMAGE_PROPERTIES = Filter(
    "AggregateImagePropertiesIsolation",
    lambda candidate, request: not _other_images(candidate, request),
    "are kept for other images",
    asked=lambda request: bool(request.image_properties),
    why=lambda candidate, request: " and ".join(
        f"is kept for images with {key} {', '.join(candidate.said(key))}" for key in _other_images(candidate, request)
    ),
    remedy=lambda candidate, request: tuple(_unsaid(candidate, key) for key in _other_images(candidate, request)),
    live=False,
)


def _for_flavor(candidate: Candidate, request: Request) -> bool:
    flavors = candidate.said("instance_type")
    return not flavors or request.flavor in flavors


TYPE_AFFINITY = Filter(
    "AggregateTypeAffinity",
    _for_flavor,
    "are kept for other flavors",
    why=lambda candidate, request: f"is kept for the flavors {', '.join(candidate.said('instance_type'))}",
    remedy=lambda candidate, request: (_unsaid(candidate, "instance_type"),),
    live=False,
)
