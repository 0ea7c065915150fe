"""Events as the log's doors show them: the whole envelope to admins, without the machinery to everybody else."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from bus.log import Recorded

MACHINERY = frozenset(
    {
        "host",
        "hosts",
        "failed_hosts",
        "provider_id",
        "details",
        "secret_id",
        "hypervisor",
        "node",
        "generation",
        "decision",
    }
)
"""What a tenant does not see of an event: where things run is the operator's."""

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def view(recorded: Recorded, *, whole: bool) -> dict[str, Any]:
    """An event. `whole`: as an admin sees it."""
    data = msgspec.to_builtins(recorded.event)
    data.pop("type", None)
    actor = {"user": recorded.actor.user, "project": recorded.actor.project}
    if whole:
        actor["token"] = recorded.actor.token
    return {
        "position": recorded.position,
        "stream": recorded.stream,
        "version": recorded.version,
        "type": recorded.type,
        "at": recorded.at,
        "actor": actor if recorded.actor.user else None,
        "request_id": recorded.correlation,
        "causation": recorded.causation,
        "data": data if whole else without_machinery(data),
    }


def without_machinery(value: Any) -> Any:
    """JSON without the keys that are the operator's."""
    if isinstance(value, dict):
        return {k: without_machinery(v) for k, v in value.items() if k not in MACHINERY}
    if isinstance(value, list | tuple):
        return [without_machinery(item) for item in value]
    return value


def words(type: str) -> str:
    """`ServerPlaced` as "server placed"."""
    return _WORD.sub(" ", type).lower()


def trouble(data: dict[str, Any]) -> str:
    """What an event says went wrong, in its own words; empty when nothing did."""
    fault = data.get("fault")
    if isinstance(fault, dict) and fault.get("message"):
        return str(fault["message"])
    for key in ("reason", "error", "message"):
        if isinstance(data.get(key), str) and data[key]:
            return str(data[key])
    return ""
