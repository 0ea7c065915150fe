"""Filters of what a server wants for itself: NUMA nodes, CPUs and pages; and PCI devices."""

from __future__ import annotations

from handlers.placement import lacking
from handlers.placement.candidate import Candidate
from handlers.placement.demand import Request
from handlers.placement.devices import available
from handlers.placement.filter import Filter, without
from handlers.placement.fitting import fit
from handlers.placement.hardware import Hardware
from handlers.placement.misfit import Misfit
from schema.compute.topology import Topology
from schema.placement.decision import Change


def _whole(candidate: Candidate, wanted: Hardware) -> Topology | Misfit:
    return fit(wanted, candidate.host.facts, candidate.units)


def _misfit(candidate: Candidate, request: Request) -> Misfit | None:
    """What the filter of nodes, CPUs and pages has to say: where devices are too few, nothing of them."""
    wanted = request.hardware
    if wanted is not None and wanted.devices and _too_few(candidate, request):
        wanted = wanted.without("devices")
    found = _whole(candidate, wanted) if wanted else None
    return found if isinstance(found, Misfit) else None


def _why_not(candidate: Candidate, request: Request) -> str:
    misfit = _misfit(candidate, request)
    return misfit.why if misfit else "fits"


_WORDS = {
    "threads": "a flavor and an image without a CPU thread policy",
    "nearness": "PCI devices preferred near the guest's NUMA nodes, not required",
    "pages": "a flavor and an image without a memory page size",
    "devices": "a flavor without pci_passthrough:alias",
    "": "a flavor and an image that ask for no NUMA nodes, pages, CPUs or devices of its own",
}


def _helped(candidate: Candidate, request: Request) -> tuple[Change, ...]:
    """What the host would have to have; or else what not to ask for."""
    wanted = request.hardware
    if wanted is None:
        return ()
    lack = lacking.lacking(wanted, candidate.host.facts, candidate.units, candidate.units_there)
    if lack is not None:
        return lacking.changes(lack, candidate.host.id)
    for part in ("threads", "nearness", "pages", "devices"):
        less = wanted.without(part)
        if less is not None and less != wanted and isinstance(_whole(candidate, less), Topology):
            return without("hardware", part, _WORDS[part])
    return without("hardware", "", _WORDS[""])


NUMA_TOPOLOGY = Filter(
    "NUMATopology",
    lambda candidate, request: _misfit(candidate, request) is None,
    "have not the NUMA nodes, CPUs or pages free that are asked for, near its devices",
    asked=lambda request: request.hardware is not None,
    why=_why_not,
    remedy=_helped,
    dear=True,
)


def _has_devices(candidate: Candidate, request: Request) -> bool:
    return not _too_few(candidate, request)


def _too_few(candidate: Candidate, request: Request) -> list[str]:
    """Aliases of which there are too few devices free, with how many there are."""
    wanted = request.hardware
    if wanted is None:
        return []
    facts, free = candidate.host.facts, candidate.units
    counts = [(it, len(available(it, facts, free))) for it in wanted.devices]
    return [f"has {n} PCI devices of the alias {it.alias} free, {it.count} asked" for it, n in counts if n < it.count]


PCI_PASSTHROUGH = Filter(
    "PciPassthrough",
    _has_devices,
    "have too few of the PCI devices free that are asked for",
    asked=lambda request: request.hardware is not None and bool(request.hardware.devices),
    why=lambda candidate, request: " and ".join(_too_few(candidate, request)),
    remedy=_helped,
    dear=True,
)
