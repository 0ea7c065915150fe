"""Filters of where other servers are, and of how near hosts are to an address."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

from handlers.placement.candidate import Candidate
from handlers.placement.demand import Request
from handlers.placement.filter import Filter, without
from schema.placement.decision import Change

DEFAULT_CIDR = "/24"

SAME_HOST = Filter(
    "SameHost",
    lambda candidate, request: candidate.host.id in request.near,
    "are not where the same_host servers are",
    asked=lambda request: bool(request.same_host),
    why=lambda candidate, request: "is not where the same_host servers are",
    remedy=lambda candidate, request: without("same_host", "", "asked for without the hint same_host"),
)
DIFFERENT_HOST = Filter(
    "DifferentHost",
    lambda candidate, request: candidate.host.id not in request.far,
    "are where a different_host server is",
    asked=lambda request: bool(request.different_host),
    why=lambda candidate, request: "is where a different_host server is",
    remedy=lambda candidate, request: without("different_host", "", "asked for without the hint different_host"),
)


def _near_address(candidate: Candidate, request: Request) -> bool:
    """The hints build_near_host_ip and cidr; what is no address is near to nothing."""
    cidr = request.near_cidr or DEFAULT_CIDR
    try:
        network = ip_interface(f"{request.near_ip}{cidr if cidr.startswith('/') else '/' + cidr}").network
        return ip_address(candidate.host.facts.host_ip) in network
    except ValueError:
        return False


SIMPLE_CIDR = Filter(
    "SimpleCIDRAffinity",
    _near_address,
    "are not near {}",
    lambda request: f"{request.near_ip}{request.near_cidr or DEFAULT_CIDR}",
    asked=lambda request: bool(request.near_ip),
    why=lambda candidate, request: f"has the address {candidate.host.facts.host_ip}",
    remedy=lambda candidate, request: without("near_ip", "", "asked for without the hint build_near_host_ip"),
)


def _apart(candidate: Candidate, request: Request) -> bool:
    group = request.group
    return group is None or request.neighbours.get(candidate.host.id, 0) < group.max_per_host


def _ungrouped(candidate: Candidate, request: Request) -> tuple[Change, ...]:
    return without("group", "", "asked for outside the server group")


GROUP_AFFINITY = Filter(
    "ServerGroupAffinity",
    lambda candidate, request: not request.neighbours or candidate.host.id in request.neighbours,
    "are not where the server group is",
    asked=lambda request: request.group is not None and request.group.policy == "affinity",
    why=lambda candidate, request: f"is not {', '.join(sorted(request.neighbours))}, where the server group is",
    remedy=_ungrouped,
)
GROUP_ANTI_AFFINITY = Filter(
    "ServerGroupAntiAffinity",
    _apart,
    "have their share of the anti-affinity group already",
    asked=lambda request: request.group is not None and request.group.policy == "anti-affinity",
    why=lambda candidate, request: f"has {request.neighbours.get(candidate.host.id, 0)} of the anti-affinity group",
    remedy=_ungrouped,
)
