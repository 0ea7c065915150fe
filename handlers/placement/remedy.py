"""What would have helped: the smallest change with which one host would do for a request that none does for.

Every host is asked what all filters and its room say, each on its own. Where only one objects, that one's change is
enough; of these the smallest is named. Where all hosts have several things against them, it is the host with the
fewest, and all of its changes together. The language of changes is schema/placement/decision.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil

from msgspec.structs import replace

from handlers.placement.candidate import Candidate
from handlers.placement.demand import Request
from handlers.placement.filter import Filter
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
    "unit": 6,
    "filter off": 7,
    "host": 9,
}
"""What is small: what an operator does with a word first, what takes hands last."""
_AMOUNTS = {"MEMORY_MB": "MB more RAM", "DISK_GB": "GB more disk", "VCPU": "more CPUs"}
Cost = tuple[int, float, str]


def remedy(candidates: Iterable[Candidate], filters: Sequence[Filter], request: Request) -> tuple[Change, ...]:
    """All of these together would do."""
    best: tuple[Cost, tuple[Change, ...]] | None = None
    fewest = len(filters) + len(request.resources)
    for candidate in candidates:
        found = _against(candidate, filters, request, fewest)
        if found is None:
            continue
        cost = (len(found), sum(_cost(it, candidate) for it in found), candidate.host.id)
        if best is None or cost < best[0]:
            best, fewest = (cost, tuple(found)), min(fewest, len(found))
    if best is not None:
        return best[1]
    wanted = ", ".join(f"{amount} {name}" for name, amount in request.resources.items())
    return (Change(what="host", words=f"a hypervisor host with {wanted}"),)


def _against(candidate: Candidate, filters: Sequence[Filter], request: Request, fewest: int) -> list[Change] | None:
    """What would have to change for this host; None: more than for another."""
    changes: list[Change] = []
    for one in filters:
        if one.asked(request) and not one.passes(candidate, request):
            changes += one.changes(candidate, request)
            if len(changes) > fewest:
                return None
    whole = {change.name for change in changes if change.what == "unit"}
    for name, amount in request.resources.items():
        if name not in whole and candidate.free(name) < amount:
            changes.append(_room(candidate, name, amount))
    return changes if len(changes) <= fewest else None


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


def _cost(change: Change, candidate: Candidate) -> float:
    inventory = candidate.inventories.get(change.name)
    share = int(change.value) / max(1, inventory.total) if change.what == "room" and inventory else 0.0
    return _COSTS[change.what] + min(share, 100.0) / 101


def relaxed(request: Request, change: Change) -> Request:
    """The request as a change of what it asks says. Other changes are to the cloud: the request stays as it is."""
    if change.what == "ask":
        return replace(request, **{change.name: change.value})
    if change.what != "ask without":
        return request
    match getattr(request, change.name):
        case dict() as said:
            left: object = {key: value for key, value in said.items() if key != change.value}
        case frozenset() as said:
            left = said - {change.value}
        case tuple():
            left = ()
        case str():
            left = ""
        case _:
            left = None
    return replace(request, **{change.name: left})
