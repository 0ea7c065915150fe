"""What would have helped: the smallest change with which one host would do for a request that none does for.

Every host is asked what all filters and its room say, each on its own. Where only one objects, that one's change is
enough; of these the smallest is named. Where all hosts have several things against them, it is the host with the
fewest, and all of its changes together. The language of changes is schema/placement/decision.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import nsmallest
from math import ceil

from msgspec.structs import replace

from handlers.placement.candidate import Candidate
from handlers.placement.demand import Request
from handlers.placement.filter import Filter
from handlers.placement.hardware import Hardware
from schema.placement.decision import Change

_COSTS = {
    "enable": 1,
    "raise": 2,
    "end forced down": 2,
    "metadata": 3,
    "no metadata": 3,
    "trait": 3,
    "no trait": 3,
    "ask": 4,
    "ask without": 4,
    "room": 5,
    "units": 5,
    "dedicated": 6,
    "unit": 6,
    "metric": 6,
    "physical network": 6,
    "filter off": 7,
    "host": 9,
}
"""What is small: what an operator does with a word first, what takes hands last."""
_AMOUNTS = {"MEMORY_MB": "MB more RAM", "DISK_GB": "GB more disk", "VCPU": "more CPUs"}
LOOKED_AT = 20
"""Hosts whose changes are weighed, at most, of those against which the same speaks."""

_Objections = tuple[tuple[Filter, ...], tuple[str, ...]]
"""Filters, and resource classes there is too little of."""


def remedy(candidates: Iterable[Candidate], filters: Sequence[Filter], request: Request) -> tuple[Change, ...]:
    """All of these together would do."""
    asked = [it for it in filters if it.asked(request)]
    fewest = len(asked) + len(request.resources)
    alike: dict[_Names, list[tuple[float, str, Candidate, _Objections]]] = {}
    for candidate in candidates:
        objections = _against(candidate, asked, request, fewest)
        if objections is None:
            continue
        turned_down, short = objections
        count = len(turned_down) + len(short)
        if count < fewest:
            alike.clear()
            fewest = count
        names = (tuple(it.name for it in turned_down), short)
        missing = sum(_share(candidate, name, request.resources[name]) for name in short)
        alike.setdefault(names, []).append((missing, candidate.host.id, candidate, objections))
    best = min(
        (
            (_cost(changes, missing), id, changes)
            for some in alike.values()
            for missing, id, candidate, objections in nsmallest(LOOKED_AT, some, key=lambda it: it[:2])
            for changes in [_changes(candidate, objections, request)]
        ),
        key=lambda it: it[:2],
        default=None,
    )
    if best is not None:
        return best[2]
    wanted = ", ".join(f"{amount} {name}" for name, amount in request.resources.items())
    return (Change(what="host", words=f"a hypervisor host with {wanted}"),)


_Names = tuple[tuple[str, ...], tuple[str, ...]]


def _against(candidate: Candidate, asked: Sequence[Filter], request: Request, most: int) -> _Objections | None:
    """What speaks against this host; None: more than against another."""
    turned_down: list[Filter] = []
    for one in asked:
        if not one.passes(candidate, request):
            turned_down.append(one)
            if len(turned_down) > most:
                return None
    short = tuple(
        name
        for name, amount in request.resources.items()
        if (it := candidate.inventories.get(name)) and it.fits(amount) and candidate.free(name) < amount
    )
    return (tuple(turned_down), short) if len(turned_down) + len(short) <= most else None


def _changes(candidate: Candidate, objections: _Objections, request: Request) -> tuple[Change, ...]:
    turned_down, short = objections
    changes = list(dict.fromkeys(change for one in turned_down for change in one.changes(candidate, request)))
    said = {change.name for change in changes if change.what == "metadata"}
    return (
        *(change for change in changes if change.what != "no metadata" or change.name not in said),
        *(_room(candidate, name, request.resources[name]) for name in short),
    )


def _cost(changes: Sequence[Change], missing: float) -> tuple[int, float]:
    return len(changes), sum(_COSTS[change.what] for change in changes) + min(missing, 100.0) / 101


def _share(candidate: Candidate, name: str, amount: int) -> float:
    """What is missing of a class, in proportion to what the host has of it."""
    return (amount - candidate.free(name)) / max(1, candidate.inventories[name].total)


def _room(candidate: Candidate, name: str, amount: int) -> Change:
    """How much more of a class the host would have to have, before its allocation ratio."""
    inventory = candidate.inventories[name]
    missing = amount - candidate.columns.free[name][candidate.slot]
    more = ceil(missing / inventory.allocation_ratio)
    while replace(inventory, total=inventory.total + more).capacity < inventory.capacity + missing:
        more += 1
    id = candidate.host.id
    words = f"{_amount(name, more)} on host {id}"
    return Change(what="room", host=id, name=name, value=str(more), words=words)


def _amount(name: str, more: int) -> str:
    if name == "MEMORY_MB" and more >= 1024:
        return f"{-(-more // 1024)} GB more RAM"
    return f"{more} {_AMOUNTS.get(name, f'more {name}')}"


def relaxed(request: Request, change: Change) -> Request:
    """The request as a change of what it asks says. Other changes are to the cloud: the request stays as it is."""
    if change.what == "ask":
        return replace(request, **{change.name: change.value})
    if change.what != "ask without":
        return request
    match getattr(request, change.name):
        case dict() as said:
            left: object = {key: value for key, value in said.items() if key != change.value}
        case Hardware() as said:
            left = said.without(change.value)
        case frozenset() as said:
            left = said - {change.value}
        case tuple():
            left = ()
        case str():
            left = ""
        case _:
            left = None
    return replace(request, **{change.name: left})
