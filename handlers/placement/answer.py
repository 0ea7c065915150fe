"""What the scheduler answers, and what it says would have helped."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from schema.compute.topology import Topology, Units
from schema.placement.decision import Change, Decision
from schema.placement.provider import Resources


class Placement(Struct, frozen=True):
    """Where a server is to go, and what to claim there for it."""

    consumer_id: str
    host: str
    provider_id: str
    zone: str
    resources: Resources
    decision: Decision = Decision()
    topology: Topology | None = None
    """What it has there for itself, and the units that are to be claimed for that."""
    units: Units = {}


class NoValidHost(Struct, frozen=True):
    """No host will do. `rejected`: filter → hosts it turned down; `reason`: a sentence for the server's fault."""

    consumer_id: str
    hosts: int
    rejected: dict[str, int]
    reason: str
    decision: Decision = Decision()


def told(changes: Sequence[Change]) -> str:
    """Changes as a sentence."""
    return f"It would have fitted with {' and '.join(it.words for it in changes)}." if changes else ""
