"""What a network agent has to say: the last word on each port and router, sent together, kept until it got through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agents.network.link import NetworkLink
from schema.network.wiring import InstanceDataWanted, PasswordPosted, PortSeen, RouterSeen, WiringReport

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
        self._asked: dict[str, tuple[str, str]] = {}
        """Port → the router that asks for it, if one does; and the password its guest has posted."""
        self._wake = asyncio.Event()

    def put(self, key: str, word: Seen) -> None:
        """The newest word on a piece."""
        self._words[key] = word
        self._wake.set()

    def drop(self, key: str) -> None:
        """The piece is gone: nobody waits for a word on it."""
        self._words.pop(key, None)

    def ask(self, port_id: str, router_id: str = "", password: str = "") -> None:
        """Whose guest is behind that port? One that is posting a password is not asked for without it."""
        if password or not self._asked.get(port_id, ("", ""))[1]:
            self._asked[port_id] = router_id, password
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
        for port_id, question in list(self._asked.items()):
            router_id, password = question
            about = {"host": self._host, "port_id": port_id, "router_id": router_id}
            await self._link.report(
                PasswordPosted(**about, password=password) if password else InstanceDataWanted(**about)
            )
            if self._asked.get(port_id) == question:
                del self._asked[port_id]
