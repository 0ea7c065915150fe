"""Places: who holds which piece of the network; and those that were touched.

A holder is a host, or what hosts have in common: the peers and endpoints of a network, the members of a group. Every
host that holds `network/…` or `members/…` follows the common of that name, so that a port is one piece there, however
many hosts there are.
"""

from __future__ import annotations

Place = tuple[str, str]
"""(holder, key) of a piece."""
COMMON = "*"
"""How the name of a holder begins that is no host; the key follows that is the same of all hosts that follow it."""
FOLLOWED = frozenset({"network", "members"})
"""What keys begin with that have something in common behind them."""


class Touched:
    """Places whose piece may be another than it was."""

    def __init__(self) -> None:
        self._places: dict[Place, None] = {}

    def __call__(self, holder: str, key: str) -> None:
        """Nobody holds anything where there is no holder."""
        if holder:
            self._places[holder, key] = None

    def take(self) -> list[Place]:
        """All since the last time."""
        places, self._places = self._places, {}
        return list(places)
