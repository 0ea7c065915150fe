"""For as long as a guest is being answered, its address is at its own card, whatever anybody says by ARP.

Who claims another's address may complete a TCP handshake with it; what is then sent must still reach the other alone.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from agents.network.interface import set_neighbours

HOLD_SECONDS = 10.0
"""After the last answer was begun. Then the neighbour is asked for again as ever."""

Place = tuple[str, str, str]
"""Namespace, interface, address."""


class Nailing:
    def __init__(self) -> None:
        self._held: dict[Place, tuple[str, asyncio.TimerHandle]] = {}
        self._letting_go: set[asyncio.Task[None]] = set()

    async def hold(self, namespace: str, interface: str, ip: str, mac: str) -> None:
        """From when this returns. Raises OSError."""
        place = namespace, interface, ip
        known, timer = self._held.pop(place, ("", None))
        if timer:
            timer.cancel()
        if known != mac:
            await asyncio.to_thread(set_neighbours, namespace, interface, {ip: mac}, no_others=False)
        loop = asyncio.get_running_loop()
        self._held[place] = mac, loop.call_later(HOLD_SECONDS, self._release, place)

    async def close(self) -> None:
        """Let go of all."""
        for place, (_, timer) in list(self._held.items()):
            timer.cancel()
            self._release(place)
        await asyncio.gather(*self._letting_go)

    def _release(self, place: Place) -> None:
        if self._held.pop(place, None):
            task = asyncio.create_task(_let_go(*place), name=f"letting {place[2]} go")
            self._letting_go.add(task)
            task.add_done_callback(self._letting_go.discard)


async def _let_go(namespace: str, interface: str, ip: str) -> None:
    with suppress(OSError):
        await asyncio.to_thread(set_neighbours, namespace, interface, {}, no_others=True, among={ip})
