"""A host's network side: where its tunnels end, what its driver can, whether its agent lives. Beside `host/<name>`.

    (absent) ──NetworkHostRegistered──▶ up ──NetworkHostLost──▶ lost ──NetworkHostReturned──▶ up ──NetworkHostRemoved──▶ (absent)

Losing it raises its epoch: routers that lived there move, and what it still says under the old epoch is void.
"""

from __future__ import annotations

from msgspec import field

from schema.event import State
from schema.network.wiring import NetworkHostFacts


class NetworkHost(State):
    agent_id: str = ""
    """What its agents' ids in the API are made from."""
    facts: NetworkHostFacts = field(default_factory=NetworkHostFacts)
    epoch: int = 0
    up: bool = False
    enabled: bool = True
    """`admin_state_up` of its agents: no new router comes to a host that is not."""
    description: str = ""

    @property
    def alive(self) -> bool:
        return self.up
