"""What a network agent has to say: the last word on each port and router, sent together, kept until it got through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agents.network.link import NetworkLink
from schema.network.wiring import InstanceDataWanted, PortSeen, RouterSeen, WiringReport

AT_ONCE = 500
"""Ports and routers in one report, at most."""

Seen = PortSeen | RouterSeen


class Outbox:
    """Words wait while one is under way, or while there is no lease, so what changes together is told together."""

    def __init__(self, host: str, link: NetworkLink, epoch: Callable[[], int], position: Callable[[], int]) -> None:
        self._host = host
        self._link = link
        self._epoch = epoch
        """Of the lease held; 0: none is, and what would be said now would count for nothing."""
        self._position = position
        self._words: dict[str, Seen] = {}
        self._asked: dict[str, str] = {}
        """Port → the router that asks for it, if one does."""
        self._wake = asyncio.Event()

    def put(self, key: str, word: Seen) -> None:
        """The newest word on a piece."""
        self._words[key] = word
        self._wake.set()

    def drop(self, key: str) -> None:
        """The piece is gone: nobody waits for a word on it."""
        self._words.pop(key, None)

    def ask(self, port_id: str, router_id: str = "") -> None:
        """Whose guest is behind that port?"""
        self._asked[port_id] = router_id
        self._wake.set()

    def wake(self) -> None:
        """There is a lease (again)."""
        self._wake.set()

    async def run(self) -> None:
        """Raises ConnectionError when the control plane is away; call it again then."""
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._epoch() and (self._words or self._asked):
                await self._send_words()
                await self._send_questions()

    async def _send_words(self) -> None:
        words = {key: self._words.pop(key) for key in list(self._words)[:AT_ONCE]}
        if not words:
            return
        report = WiringReport(
            host=self._host,
            epoch=self._epoch(),
            position=self._position(),
            ports=tuple(word for word in words.values() if isinstance(word, PortSeen)),
            routers=tuple(word for word in words.values() if isinstance(word, RouterSeen)),
        )
        try:
            await self._link.report(report)
        except ConnectionError:
            self._words = words | self._words
            raise

    async def _send_questions(self) -> None:
        for port_id, router_id in list(self._asked.items()):
            await self._link.report(InstanceDataWanted(host=self._host, port_id=port_id, router_id=router_id))
            self._asked.pop(port_id, None)
