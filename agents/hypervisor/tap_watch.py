"""Guests whose tap somebody deleted: the network agent makes it anew, but the card still holds the one that is gone.

deleted ─▶ lost ─made anew▶ the server is looked at ─▶ severed ─▶ its card is unplugged, and plugged in again
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import msgspec

from agents.hypervisor.driver import OnChange
from agents.network import links, netlink, tap
from agents.network.links import BRIDGE_FAMILY, DELETE_LINK, NEW_LINK
from agents.network.namespace import Namespace
from schema.compute.domain import Observed


class TapWatch:
    """`inside`: where the taps of a host's guests are."""

    def __init__(self, inside: Namespace) -> None:
        self._inside = inside
        self._kernel: netlink.Socket | None = None
        self._on_change: OnChange = lambda id: None
        self._servers: dict[str, str] = {}
        """Tap → the server that holds it, as last seen."""
        self._lost: set[str] = set()
        """Taps of guests that were deleted and are not back yet."""

    async def start(self, on_change: OnChange) -> None:
        self._on_change = on_change
        self._kernel = await self._inside.run(netlink.Socket, netlink.LINKS)
        asyncio.get_running_loop().add_reader(self._kernel.fileno(), self._hear)

    def close(self) -> None:
        if self._kernel:
            asyncio.get_running_loop().remove_reader(self._kernel.fileno())
            self._kernel.close()
            self._kernel = None

    async def judge(self, seen: dict[str, Observed]) -> dict[str, Observed]:
        """The same, with what running guests have lost."""
        running = {id: it.taps for id, it in seen.items() if it.power == "running" and it.taps}
        if not running:
            return seen
        self._servers |= {name: id for id, names in running.items() for name in names}
        severed = await self._inside.run(_severed, running)
        self._lost.difference_update(*severed.values())
        return seen | {id: msgspec.structs.replace(seen[id], severed=names) for id, names in severed.items()}

    def _hear(self) -> None:
        assert self._kernel is not None, "heard after it was closed"
        try:
            for kind, body in self._kernel.changes():
                if kind in {NEW_LINK, DELETE_LINK} and links.family_of(body) != BRIDGE_FAMILY:
                    self._on_link(links.name_of(body), there=kind == NEW_LINK)
        except OSError:  # more happened than could be heard
            for id in set(self._servers.values()):
                self._on_change(id)

    def _on_link(self, name: str, *, there: bool) -> None:
        if not there and name in self._servers:
            self._lost.add(name)
        elif there and name in self._lost:
            self._on_change(self._servers[name])


def _severed(running: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """In the namespace of this thread. What is not there yet is no reason to do anything: it is about to be made."""
    found = {id: tuple(name for name in names if tap.held(name) is False) for id, names in running.items()}
    return {id: names for id, names in found.items() if names}
