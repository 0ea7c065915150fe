"""Hears when somebody changes a router's namespace: interfaces, addresses, routes, or rules."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agents.network import netlink
from agents.network.conntrack import NETFILTER
from agents.network.namespace import FOLDER, enter

_LINKS, _ADDRESSES, _ROUTES = 1 << 0, 1 << 4 | 1 << 8, 1 << 6 | 1 << 10
_RULES = 1 << 6


class Watch:
    """Open until `close`. What happens while it is `deaf` is not told: those are the agent's own changes."""

    def __init__(self, sockets: list[netlink.Socket], on_change: Callable[[], None]) -> None:
        self.deaf = False
        self.quiet = True
        """Nothing was heard since it began to listen."""
        self._sockets = sockets
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        for it in sockets:
            self._loop.add_reader(it.fileno(), self._heard, it)

    @classmethod
    async def open(cls, namespace: str, on_change: Callable[[], None]) -> Watch:
        """`on_change` is called in the event loop's own thread. Raises OSError."""
        return cls(await asyncio.to_thread(_open, namespace), on_change)

    def turn_away(self) -> None:
        """Be deaf until `listen`."""
        for it in self._sockets:
            _drain(it)
        self.deaf, self.quiet = True, True

    def listen(self) -> bool:
        """From now on. Whether nothing was to be heard since it turned away."""
        heard = [_drain(it) for it in self._sockets]
        nothing = self.quiet and not any(heard)
        self.deaf, self.quiet = False, True
        return nothing

    def close(self) -> None:
        for it in self._sockets:
            self._loop.remove_reader(it.fileno())
            it.close()

    def _heard(self, it: netlink.Socket) -> None:
        if _drain(it):
            self.quiet = False
            if not self.deaf:
                self._on_change()


def _drain(it: netlink.Socket) -> bool:
    """Whether there was anything."""
    try:
        return sum(1 for _ in it.changes()) > 0
    except OSError:  # more than the buffer holds
        return True


def _open(namespace: str) -> list[netlink.Socket]:
    if not (FOLDER / namespace).exists():
        raise FileNotFoundError(f"there is no namespace {namespace}")
    with enter(namespace):
        return [netlink.Socket(_LINKS | _ADDRESSES | _ROUTES), netlink.Socket(_RULES, NETFILTER)]
