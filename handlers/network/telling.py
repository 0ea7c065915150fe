"""What network agents are told: what changed for a host, right after it is in the read model; and what one lacks.

Whatever is told may be lost: the next heartbeat says what the host holds, and it is told what it lacks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple

import structlog
from msgspec.structs import replace

from bus import clock
from bus.away import AWAY, pause
from bus.cloud import Cloud
from projections.network.delta import Delta, Deltas
from projections.network.host import behind
from schema.network.host import NETWORK_HOST, NetworkHost
from schema.network.wiring import Piece, PreSharedKey, SiteConnection, WiredRouter, Wiring, encode, link_name

log = structlog.get_logger()


PACE_SECONDS = 0.1
"""Between two words to a host that are of nothing but what it has in common with others, at least."""
PACE_SECONDS_PER_HOST = 0.0025
"""And so much for each host that such a word is for: what is told to all costs as much as there are hosts."""
WHOLE_AT_ONCE = 16
"""Hosts that are told everything at a time: with 20,000 ports that is megabytes for each, and all may ask at once."""
UNDER_WAY_SECONDS = 2.0
"""How long a word may be on its way before a host that has not heard it is asked of the read model."""

Lacking = Callable[[Mapping[str, int]], Awaitable[Deltas]]
"""What hosts lack that hold everything up to these positions."""


class _Told(NamedTuple):
    """One word to a host."""

    at: float
    since: int
    position: int


class Telling:
    """One process's voice to the network agents. Make it before the mirrors start."""

    def __init__(self, cloud: Cloud, lacking: Lacking | None = None) -> None:
        """`lacking`: asked of the read model in the database, unless something else keeps it."""
        self._cloud = cloud
        self._lacking = lacking or (lambda holding: behind(cloud.pool, holding))
        self._hosts = cloud.mirror(NETWORK_HOST)
        self._holding: dict[str, int] = {}
        self._asking: asyncio.Task[None] | None = None
        self._told: dict[str, deque[_Told]] = {}
        """The newest words to each host, oldest first: one at least."""
        self._heard: dict[str, tuple[int, float]] = {}
        """What each host said last that it holds, and when."""
        self._waiting: Deltas = {}
        """Nothing of a host's own: what came after something of its own comes with it."""
        self._pacing: asyncio.Task[None] | None = None

    def host(self, name: str) -> NetworkHost | None:
        """The host of that name, if there is one."""
        document = self._hosts.get(name)
        return document.state if document else None

    async def nudge(self, deltas: Deltas) -> None:
        """Tell each host what has just changed for it. Never raises because the bus or the log is away.

        What hosts only have in common with others waits a little where they were told something a moment ago: when
        many ports come to a network of many hosts, every host is not told of every one of them by a word of its own.
        """
        now = clock.monotonic()
        ready: Deltas = {}
        for host, delta in deltas.items():
            its = _joined(self._waiting.pop(host, None), delta)
            own = its.pieces or its.gone or its.full
            at_once = own or now - self._told_at(host) >= self._pace_seconds(len(deltas))
            (ready if at_once else self._waiting)[host] = its
        await self._tell(ready)
        if self._waiting and (self._pacing is None or self._pacing.done()):
            self._pacing = asyncio.create_task(self._pace(), name="what network hosts have in common")

    async def _pace(self) -> None:
        while self._waiting:
            await pause(self._pace_seconds(len(self._waiting)))
            waiting, self._waiting = self._waiting, {}
            await self._tell(waiting)

    async def _tell(self, deltas: Deltas) -> None:
        """All of them at once, but for those that are told everything."""
        whole = [(host, delta) for host, delta in deltas.items() if delta.full]
        try:
            await asyncio.gather(*(self._say(host, delta) for host, delta in deltas.items() if not delta.full))
            for start in range(0, len(whole), WHOLE_AT_ONCE):
                await asyncio.gather(*(self._say(host, delta) for host, delta in whole[start : start + WHOLE_AT_ONCE]))
                await asyncio.sleep(0)  # hosts of this process hear theirs before the next are put into words
        except AWAY as error:
            log.info("hosts are not told at once what changed", hosts=len(deltas), error=repr(error))

    async def catch_up(self, host: str, position: int, *, missed: bool = False) -> None:
        """Tell a host what it lacks that holds everything up to a position, unless that is on its way to it already.

        `missed`: it knows that something between was lost. Many hosts cost one query.
        """
        if self._under_way(host, position) and not missed:
            return
        self._holding[host] = position
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._catch_up(), name="what network hosts lack")
        await asyncio.shield(self._asking)

    async def _catch_up(self) -> None:
        while self._holding:
            holding, self._holding = self._holding, {}
            try:
                lacking = await self._lacking(holding)
            except AWAY as error:
                log.info("hosts are not told what they lack", hosts=len(holding), error=repr(error))
                return
            await self._tell(lacking)

    def _under_way(self, host: str, position: int) -> bool:
        """Whether all that it lacks was told a moment ago, or waits to be. What it says twice, it has not heard."""
        now = clock.monotonic()
        before, self._heard[host] = self._heard.get(host), (position, now)
        said_at = before[1] if before is not None and before[0] == position else 0.0
        recent = [it for it in self._told.get(host, ()) if it.at > max(said_at, now - UNDER_WAY_SECONDS)]
        waiting = self._waiting.get(host)
        if waiting is not None:
            recent.append(_Told(now, waiting.since, waiting.position))
        return bool(recent) and recent[0].since <= position <= recent[-1].position

    def _told_at(self, host: str) -> float:
        told = self._told.get(host)
        return told[-1].at if told else 0.0

    def _pace_seconds(self, hosts: int) -> float:
        return max(PACE_SECONDS, PACE_SECONDS_PER_HOST * hosts)

    async def _say(self, name: str, delta: Delta) -> None:
        host = self.host(name)
        if host is None or not host.alive:
            return
        now = clock.monotonic()
        self._told[name] = told = _newest(self._told.get(name, ()), now)
        told.append(_Told(now, delta.since, delta.position))
        wiring = Wiring(
            epoch=host.epoch,
            position=delta.position,
            since=delta.since,
            full=delta.full,
            pieces=await self._with_keys(delta.pieces),
            gone=tuple(delta.gone),
            common=tuple(it.encoded for it in delta.common),
        )
        await self._cloud.broker.tell(link_name(name), encode(wiring))

    async def _with_keys(self, pieces: dict[str, Piece]) -> dict[str, Piece]:
        """The keys of VPN connections are put in here and nowhere before."""
        routers = {key: it for key, it in pieces.items() if isinstance(it, WiredRouter) and it.connections}
        ids = [connection.secret_id for router in routers.values() for connection in router.connections]
        if not any(ids):
            return pieces
        opened = await self._cloud.vault.open_many([id for id in ids if id])

        def keyed(connection: SiteConnection) -> SiteConnection:
            key = opened.get(connection.secret_id)
            return replace(connection, psk=PreSharedKey(key=key.decode())) if key is not None else connection

        return pieces | {
            key: replace(router, connections=tuple(keyed(it) for it in router.connections))
            for key, router in routers.items()
        }


def _newest(told: Iterable[_Told], now: float) -> deque[_Told]:
    """Those that may be on their way."""
    return deque(it for it in told if now - it.at < UNDER_WAY_SECONDS)


def _joined(before: Delta | None, delta: Delta) -> Delta:
    """Two that follow each other, the first of which is of nothing but what is common."""
    if before is None or delta.full:
        return delta
    return replace(delta, since=before.since, common=[*before.common, *delta.common])
