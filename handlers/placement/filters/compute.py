"""Filters of the host itself: which one, whether it may be used, where it is, what it can do."""

from __future__ import annotations

from collections.abc import Mapping

from bus.config import Scheduler as Settings
from handlers.placement.candidate import Candidate
from handlers.placement.demand import FORBIDDEN, Request, traits
from handlers.placement.filter import Filter, without
from handlers.placement.filters.implied import implied
from schema.compute.host import DISABLED_TRAIT
from schema.placement.decision import Change

ANY_HYPERVISOR = "simulated"
"""The hypervisor that plays any."""


def _alive(candidate: Candidate, request: Request) -> bool:
    if request.forced:
        return candidate.host.alive
    return candidate.host.usable and DISABLED_TRAIT not in candidate.traits


def _why_not_alive(candidate: Candidate, request: Request) -> str:
    host = candidate.host
    if host.forced_down:
        return "is held down by an operator"
    if not host.up:
        return "is down"
    if not host.enabled:
        return f"is disabled: {host.disabled_reason}" if host.disabled_reason else "is disabled"
    return f"has the trait {DISABLED_TRAIT}"


def _revived(candidate: Candidate, request: Request) -> tuple[Change, ...]:
    host, changes = candidate.host, []
    if host.forced_down:
        changes.append(Change(what="end forced down", host=host.id, words=f"host {host.id} no longer forced down"))
    if not host.up:
        changes.append(Change(what="raise", host=host.id, words=f"host {host.id} up"))
    if not host.enabled and not request.forced:
        changes.append(Change(what="enable", host=host.id, words=f"host {host.id} enabled"))
    elif DISABLED_TRAIT in candidate.traits and not request.forced:
        changes.append(_trait_less(host.id, DISABLED_TRAIT))
    return tuple(changes)


def _trait_less(host: str, trait: str) -> Change:
    return Change(what="no trait", host=host, name=trait, words=f"host {host} without trait {trait}")


def _named(candidate: Candidate, request: Request) -> bool:
    return not request.host or candidate.host.id == request.host


def _in_zone(candidate: Candidate, request: Request) -> bool:
    return not request.zone or request.forced or candidate.host.zone == request.zone


def _zone_asked(candidate: Candidate, request: Request) -> tuple[Change, ...]:
    zone = candidate.host.zone
    return (Change(what="ask", name="zone", value=zone, words=f"asked for in the availability zone {zone}"),)


def required_traits(settings: Settings) -> Filter:
    """Traits that flavor and image name, and those that follow from what else they say."""

    def told(candidate: Candidate, request: Request) -> tuple[frozenset[str], frozenset[str], _Implied]:
        """What they name, forbid, and otherwise want of this host."""
        required, forbidden = traits(request.extra_specs, request.image_properties)
        plays_any = candidate.host.facts.hypervisor_type == ANY_HYPERVISOR
        return required, forbidden, {} if plays_any else implied(request, settings)

    def passes(candidate: Candidate, request: Request) -> bool:
        required, forbidden, more = told(candidate, request)
        has = candidate.traits
        return required <= has and not forbidden & has and more.keys() <= has

    def why(candidate: Candidate, request: Request) -> str:
        required, forbidden, more = told(candidate, request)
        lacking, unwanted = sorted({*required, *more} - candidate.traits), sorted(forbidden & candidate.traits)
        parts = [f"lacks {', '.join(lacking)}"] * bool(lacking) + [f"has {', '.join(unwanted)}"] * bool(unwanted)
        return " and ".join(parts)

    return Filter(
        "Traits",
        passes,
        "lack traits that are required, or have forbidden ones",
        asked=lambda request: _traits_named(request) or bool(implied(request, settings)),
        why=why,
        remedy=lambda candidate, request: _traits_set(candidate, request, *told(candidate, request)),
        live=False,
    )


_Implied = Mapping[str, tuple[Change, ...]]
"""Trait → what not to say for it not to be wanted."""


def _traits_set(
    candidate: Candidate, request: Request, required: frozenset[str], forbidden: frozenset[str], more: _Implied
) -> tuple[Change, ...]:
    """A trait that is named can be given to a host; what follows from a guest's devices is what the host can do."""
    contradicted = sorted({*required, *more} & forbidden)
    id = candidate.host.id
    return (
        *(
            Change(what="trait", host=id, name=trait, words=f"host {id} with trait {trait}")
            for trait in sorted(required - candidate.traits)
        ),
        *(change for trait in sorted(more.keys() - required - candidate.traits) for change in more[trait]),
        *(_trait_less(id, trait) for trait in sorted((forbidden - required - more.keys()) & candidate.traits)),
        *(
            change
            for trait in contradicted
            for name in _ASKERS
            if getattr(request, name).get(f"trait:{trait}") == FORBIDDEN
            for change in without(name, f"trait:{trait}", f"{_ASKERS[name]} that does not forbid {trait}")
        ),
    )


_ASKERS = {"extra_specs": "a flavor", "image_properties": "an image"}


def _gives_such_pieces(candidate: Candidate, request: Request) -> bool:
    return all(
        (inventory := candidate.inventories.get(name)) is not None and inventory.fits(amount)
        for name, amount in request.resources.items()
    )


def _pieces(candidate: Candidate, request: Request) -> list[tuple[str, int]]:
    return [
        (name, amount)
        for name, amount in request.resources.items()
        if (inventory := candidate.inventories.get(name)) is None or not inventory.fits(amount)
    ]


def _why_not_pieces(candidate: Candidate, request: Request) -> str:
    return " and ".join(
        f"gives no {amount} {name} at once" if name in candidate.inventories else f"has no {name}"
        for name, amount in _pieces(candidate, request)
    )


def _pieces_given(candidate: Candidate, request: Request) -> tuple[Change, ...]:
    id = candidate.host.id
    return tuple(
        Change(what="unit", host=id, name=name, value=str(n), words=f"an inventory of {name} on {id} that gives {n}")
        for name, n in _pieces(candidate, request)
    )


def _traits_named(request: Request) -> bool:
    return any(key.startswith("trait:") for specs in (request.extra_specs, request.image_properties) for key in specs)


REQUESTED_HOST = Filter(
    "RequestedHost",
    _named,
    "are not {}",
    lambda request: request.host,
    asked=lambda request: bool(request.host),
    why=lambda candidate, request: f"is not {request.host}",
    remedy=lambda candidate, request: (
        Change(
            what="ask",
            name="host",
            value=candidate.host.id,
            words=f"asked for on host {candidate.host.id} instead of {request.host}",
        ),
    ),
    live=False,
)
COMPUTE = Filter("Compute", _alive, "are down or disabled", why=_why_not_alive, remedy=_revived, live=False)
AVAILABILITY_ZONE = Filter(
    "AvailabilityZone",
    _in_zone,
    "are not in the availability zone {}",
    lambda request: request.zone,
    asked=lambda request: bool(request.zone) and not request.forced,
    why=lambda candidate, request: f"is in the availability zone {candidate.host.zone}",
    remedy=_zone_asked,
    live=False,
)
UNITS = Filter(
    "Units",
    _gives_such_pieces,
    "offer no such resources, or not in pieces of this size",
    why=_why_not_pieces,
    remedy=_pieces_given,
    live=False,
)
RETRY = Filter(
    "Retry",
    lambda candidate, request: candidate.host.id not in request.tried,
    "were tried already",
    asked=lambda request: bool(request.tried),
    why=lambda candidate, request: "was tried already",
    remedy=lambda candidate, request: without(
        "tried", candidate.host.id, f"ordered anew, so that host {candidate.host.id} is tried again"
    ),
)
ALL_HOSTS = Filter("AllHosts", lambda candidate, request: True, "", asked=lambda request: False, live=False)
