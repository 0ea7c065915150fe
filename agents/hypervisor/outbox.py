"""What an agent has to say: the last word on each server, sent together, kept until it got through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agents.link import Link
from bus import clock
from schema.compute.domain import Observed, Report

AT_ONCE = 500
"""Servers in one report, at most."""


class Outbox:
    """Words wait while one is under way, so what changes together is told together."""

    def __init__(self, host: str, link: Link, epoch: Callable[[], int]) -> None:
        self._host = host
        self._link = link
        self._epoch = epoch
        self._words: dict[str, Observed | None] = {}
        self._wake = asyncio.Event()
        self._incarnation = clock.hex_id()
        self._serial = 0

    def put(self, server_id: str, word: Observed | None) -> None:
        """The newest word on a server; None: nothing is left of it."""
        self._words[server_id] = word
        self._wake.set()

    def repeat(self, server_id: str, word: Observed) -> None:
        """What was told before, unless there is something newer to say."""
        if server_id not in self._words:
            self.put(server_id, word)

    def __contains__(self, server_id: str) -> bool:
        return server_id in self._words

    async def run(self) -> None:
        """Raises ConnectionError when the control plane is away; call it again then."""
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._words:
                await self._send({id: self._words.pop(id) for id in list(self._words)[:AT_ONCE]})

    async def _send(self, words: dict[str, Observed | None]) -> None:
        self._serial += 1
        report = Report(
            host=self._host,
            epoch=self._epoch(),
            observed=tuple(word for word in words.values() if word),
            removed=tuple(id for id, word in words.items() if word is None),
            incarnation=self._incarnation,
            serial=self._serial,
        )
        try:
            await self._link.report(report)
        except ConnectionError:
            self._words = words | self._words
            raise
