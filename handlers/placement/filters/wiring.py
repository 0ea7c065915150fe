"""Filters of a server's ports: whether a host could wire them at all, and reaches the networks they are in."""

from __future__ import annotations

from collections.abc import Mapping

from handlers.placement.candidate import Candidate
from handlers.placement.demand import Request
from handlers.placement.filter import Filter, without
from handlers.placement.filters.compute import ANY_HYPERVISOR
from schema.placement.decision import Change

NETWORK = Filter(
    "Network",
    lambda candidate, request: candidate.host.id not in request.cut_off,
    "have no network agent that is there",
    asked=lambda request: bool(request.cut_off),
    why=lambda candidate, request: "has no network agent that is there",
    remedy=lambda candidate, request: without(
        "cut_off", candidate.host.id, f"a network agent on host {candidate.host.id}"
    ),
)


def _out_of_reach(candidate: Candidate, request: Request) -> list[frozenset[str]]:
    """Of each of these physical networks one would do, and the host is on none of them."""
    return [some for some in request.reach if not some & candidate.physical_networks]


def _joined(candidate: Candidate, request: Request) -> tuple[Change, ...]:
    id, names = candidate.host.id, sorted({min(some) for some in _out_of_reach(candidate, request)})
    return tuple(
        Change(what="physical network", host=id, name=it, words=f"host {id} on the physical network {it}")
        for it in names
    )


ROUTED_NETWORKS = Filter(
    "RoutedNetworks",
    lambda candidate, request: not _out_of_reach(candidate, request),
    "do not reach the physical networks of its ports",
    asked=lambda request: bool(request.reach),
    why=lambda candidate, request: " and ".join(
        f"is not on the physical network {' or '.join(sorted(some))}" for some in _out_of_reach(candidate, request)
    ),
    remedy=_joined,
    live=False,
)

_TRAITS: Mapping[str, str] = {"remote-managed": "COMPUTE_REMOTE_MANAGED_PORTS"}
"""Type of a port → the trait of hosts that plug it. For the others there is none, nor a host that does."""


def _unpluggable(candidate: Candidate, request: Request) -> list[str]:
    """The types of its ports that this host cannot plug; `normal` is never among them."""
    if candidate.host.facts.hypervisor_type == ANY_HYPERVISOR:
        return []
    return sorted(it for it in request.vnic_types if _TRAITS.get(it) not in candidate.traits)


def _why_unpluggable(candidate: Candidate, request: Request) -> str:
    return " and ".join(
        f"plugs no {it} ports (lacks {_TRAITS[it]})" if it in _TRAITS else f"plugs no {it} ports"
        for it in _unpluggable(candidate, request)
    )


VNIC_TYPES = Filter(
    "VnicTypes",
    lambda candidate, request: not _unpluggable(candidate, request),
    "plug no ports of the type {}",
    lambda request: " or ".join(sorted(request.vnic_types)),
    asked=lambda request: bool(request.vnic_types),
    why=_why_unpluggable,
    remedy=lambda candidate, request: tuple(
        change
        for it in _unpluggable(candidate, request)
        for change in without("vnic_types", it, f"ports that are not {it}")
    ),
    live=False,
)
