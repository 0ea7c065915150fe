"""Hears when somebody else changes a host's nftables rules.

The kernel tells of every transaction, ours too. What it names of our table is looked into once whatever of ours is
under way is done: if the ruleset is then at the generation where we left it, it was us.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from agents.network import netlink, nft
from agents.network.conntrack import NETFILTER
from agents.network.namespace import Namespace

_RULES = 1 << 6
_NFTABLES = 10
_HEAD_BYTES = 4
_TABLE = 1
"""The attribute that names the table, in a word on a chain, a rule, a set, its elements, or the table itself."""


class RulesWatch:
    """Open until `close`."""

    def __init__(
        self,
        inside: Namespace,
        kernel: netlink.Socket,
        table: str,
        known: Callable[[], int],
        on_change: Callable[[], None],
    ) -> None:
        self._namespace = inside
        self._kernel = kernel
        self._table = table
        self._known = known
        self._on_change = on_change
        self._looking: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(kernel.fileno(), self._heard)

    @classmethod
    async def open(
        cls, inside: Namespace, table: str, known: Callable[[], int], on_change: Callable[[], None]
    ) -> RulesWatch:
        """`known`: the generation that was left there, asked in the namespace's thread. Raises OSError."""
        return cls(inside, await inside.run(netlink.Socket, _RULES, NETFILTER), table, known, on_change)

    async def close(self) -> None:
        self._loop.remove_reader(self._kernel.fileno())
        self._kernel.close()
        if self._looking:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking

    def _heard(self) -> None:
        if self._is_ours() and (self._looking is None or self._looking.done()):
            self._looking = self._loop.create_task(self._look())

    def _is_ours(self) -> bool:
        """Whether any of it is of our table."""
        ours = False
        try:
            for kind, body in self._kernel.changes():
                if kind >> 8 == _NFTABLES and not ours:
                    name = netlink.attributes(body, _HEAD_BYTES).get(_TABLE, b"")
                    ours = netlink.as_text(name) == self._table
        except OSError:  # more than the buffer holds
            return True
        return ours

    async def _look(self) -> None:
        if await self._namespace.run(self._is_elsewhere):
            self._on_change()

    def _is_elsewhere(self) -> bool:
        return nft.generation() != self._known()
