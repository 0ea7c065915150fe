"""Filters of what a host says it can do: by the flavor's extra specs, or by a question of the user's own."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Sequence
from typing import Any

from handlers.placement.candidate import Candidate
from handlers.placement.demand import Request, matches
from handlers.placement.filter import Filter, without
from schema.compute.host import Host

SCOPE = "capabilities"
DEPTH = 20
"""Questions within questions, at most."""
_FACTS = frozenset({"hypervisor_type", "hypervisor_version", "vcpus", "memory_mb"})


def _incapable(candidate: Candidate, request: Request) -> list[str]:
    """The flavor's keys that this host does not satisfy."""
    found = []
    for key, wanted in request.extra_specs.items():
        scope, colon, name = key.partition(":")
        if colon and scope == SCOPE:
            have = _capability(candidate.host, name)
            if have is None or not any(matches(word, wanted) for word in have):
                found.append(key)
    return found


def _capability(host: Host, name: str) -> tuple[str, ...] | None:
    """What a host has by that name; several words where any may match; None for an unknown capability."""
    facts = host.facts
    if name == "hypervisor_hostname":
        return (host.id,)
    if name in _FACTS:
        return (str(getattr(facts, name)),)
    scope, _, rest = name.partition(":")
    have: Any = facts.cpu_info if scope == "cpu_info" else None
    for part in rest.split(":"):
        have = have.get(part) if isinstance(have, dict) else None
    if isinstance(have, list | tuple):
        return (" ".join(map(str, have)), *map(str, have))
    return None if have is None else (str(have),)


def _why_incapable(candidate: Candidate, request: Request) -> str:
    words = []
    for key in _incapable(candidate, request):
        have = _capability(candidate.host, key.partition(":")[2])
        words.append(f"has {key.partition(':')[2]} {have[0]}" if have else f"knows no {key.partition(':')[2]}")
    return " and ".join(words)


COMPUTE_CAPABILITIES = Filter(
    "ComputeCapabilities",
    lambda candidate, request: not _incapable(candidate, request),
    "lack capabilities the flavor wants",
    asked=lambda request: any(key.startswith(f"{SCOPE}:") for key in request.extra_specs),
    why=_why_incapable,
    remedy=lambda candidate, request: tuple(
        change
        for key in _incapable(candidate, request)
        for change in without("extra_specs", key, f"a flavor without {key}={request.extra_specs[key]}")
    ),
    live=False,
)


def _answers(candidate: Candidate, request: Request) -> bool:
    """What the hint `query` asks, such as `["and", [">=", "$free_ram_mb", 1024], ["<", "$num_instances", 5]]`."""
    try:
        question = json.loads(request.query)
    except (ValueError, RecursionError):
        return False
    answer = _value(question, candidate, 0)
    return any(answer) if isinstance(answer, list) else bool(answer)


def _value(question: Any, candidate: Candidate, depth: int) -> Any:
    """A list is an operation on what follows its first word, a text with a dollar a fact, anything else itself."""
    if isinstance(question, str) and question.startswith("$"):
        return _fact(question[1:], candidate)
    if not isinstance(question, list):
        return question
    if not question or depth > DEPTH or question[0] not in _OPERATIONS:
        return False
    return _OPERATIONS[question[0]]([_value(part, candidate, depth + 1) for part in question[1:]])


def _compared(comparison: Callable[[Any, Any], bool]) -> Callable[[Sequence[Any]], bool]:
    """True if the first stands so to all the others, of which there must be one; None stands to nothing."""

    def compare(values: Sequence[Any]) -> bool:
        try:
            return len(values) > 1 and all(comparison(values[0], other) for other in values[1:])
        except TypeError:
            return False

    return compare


_OPERATIONS: dict[Any, Callable[[Sequence[Any]], Any]] = {
    "=": _compared(operator.eq),
    "<": _compared(operator.lt),
    ">": _compared(operator.gt),
    "<=": _compared(operator.le),
    ">=": _compared(operator.ge),
    "in": lambda values: len(values) > 1 and values[0] in values[1:],
    "not": lambda values: [not value for value in values],
    "or": any,
    "and": all,
}


def _fact(name: str, candidate: Candidate) -> Any:
    host, path = candidate.host, name.split(".")
    found = _STATE[path[0]](candidate) if path[0] in _STATE else None
    if path[0] in {"cpu_info", "capabilities"}:
        found = host.facts.cpu_info
    for part in path[1:]:
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _total(candidate: Candidate, name: str) -> int:
    return inventory.total if (inventory := candidate.inventories.get(name)) else 0


def _used(candidate: Candidate, name: str) -> int:
    return inventory.capacity - candidate.free(name) if (inventory := candidate.inventories.get(name)) else 0


_STATE: dict[str, Callable[[Candidate], Any]] = {
    "host": lambda it: it.host.id,
    "nodename": lambda it: it.host.id,
    "hypervisor_hostname": lambda it: it.host.id,
    "hypervisor_type": lambda it: it.host.facts.hypervisor_type,
    "hypervisor_version": lambda it: it.host.facts.hypervisor_version,
    "host_ip": lambda it: it.host.facts.host_ip,
    "free_ram_mb": lambda it: it.free("MEMORY_MB"),
    "free_disk_mb": lambda it: it.free("DISK_GB") * 1024,
    "free_disk_gb": lambda it: it.free("DISK_GB"),
    "total_usable_ram_mb": lambda it: _total(it, "MEMORY_MB"),
    "total_usable_disk_gb": lambda it: _total(it, "DISK_GB"),
    "vcpus_total": lambda it: _total(it, "VCPU"),
    "vcpus_used": lambda it: _used(it, "VCPU"),
    "num_instances": lambda it: it.servers,
    "num_io_ops": lambda it: it.busy,
}
"""The names Nova's host state has for facts."""

JSON = Filter(
    "Json",
    _answers,
    "do not answer the query of the hints",
    asked=lambda request: bool(request.query),
    remedy=lambda candidate, request: without("query", "", "asked for without the hint query"),
)
