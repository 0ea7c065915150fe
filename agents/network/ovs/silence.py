"""Keeps a host itself out of its guests' reach: what comes by devices that the switch reads is not for the kernel.

The switch takes a copy of each frame, and the frame itself goes on to the kernel, which would answer ARP for the host's
addresses and take what is sent to them. It is dropped there.
"""

from __future__ import annotations

from collections.abc import Iterable

from agents.network import nft
from agents.network.ruleset import Hook, Place, Ruleset, both, chain, named_set, plan, read

TABLE = "cumulog-switch"
_FIRST = -400
_HOOKS = {"inet": Hook("prerouting", _FIRST), "arp": Hook("input", _FIRST)}


class Silence:
    """Everything here runs in a thread that is in the host's namespace."""

    def __init__(self) -> None:
        self._seen = Ruleset()
        self._generation = -1

    def ensure(self, devices: Iterable[str]) -> None:
        """Nothing that comes by these is for the host itself. Raises NftRefused."""
        generation = nft.generation()
        if generation != self._generation:
            one, other = (read(family, nft.listed(family, TABLE)) for family in _HOOKS)
            self._seen, self._generation = both(one, other), generation
        wanted = ruleset(devices)
        if commands := plan(wanted, self._seen, TABLE):
            nft.apply(commands)
            self._generation += 1
        self._seen = wanted


def ruleset(devices: Iterable[str]) -> Ruleset:
    names = sorted(devices)
    return Ruleset(
        {Place(family, "silence"): chain(["iifname @taken drop"], hook) for family, hook in _HOOKS.items()},
        {Place(family, "taken"): named_set("ifname", names) for family in _HOOKS},
    )
