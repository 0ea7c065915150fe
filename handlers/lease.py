"""Leases: heartbeats come in, leases go out, and silence is noticed. Only what they change becomes an event.

    heartbeat ─▶ unknown: register it      lost: it has returned      facts changed: so has it      in any case: a Lease
    silence for a whole lease ─▶ lost

When somebody was heard last is kept in memory. Where several processes hear heartbeats, each hears some of them, so
they also share what they hear through an unlogged table; it may vanish, and costs one statement a second.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any, Generic, Protocol, TypeVar

import asyncpg
import structlog

from bus import clock
from bus.away import AWAY, pause
from bus.cloud import Cloud
from bus.config import MEMORY
from bus.execute import Wish
from schema.compute.domain import Lease, encode
from schema.event import Kind
from schema.refusal import Refused

log = structlog.get_logger()

LOOKS_IN_A_LEASE = 5
"""How often in a lease's time the monitor looks for silence."""

S = TypeVar("S")
F = TypeVar("F")


class Heard(Protocol):
    """What other processes have heard."""

    async def share(self, hosts: Collection[str]) -> None:
        """These were heard since the last time. Raises what an unreachable database raises."""

    async def silent(self, hosts: Collection[str], seconds: float) -> set[str]:
        """Those of these hosts that nobody has heard for so long."""


class Leases(ABC, Generic[S, F]):
    """One process's ears for one kind of agent. Make it before the mirrors start; `listen` runs for ever.

    The kind's streams go by host name, and its state (`S`) has `facts` (`F`), `up` and `epoch`.
    """

    what: str
    """What is lost, in words for the log."""
    heard_table: str
    """Where processes share what they hear."""

    def __init__(self, cloud: Cloud, kind: Kind[Any]) -> None:
        self._cloud = cloud
        self._kind = kind
        self._mirror = cloud.mirror(kind)
        self._heard: dict[str, float] = {}
        self._unshared: set[str] = set()
        self._leased: dict[str, tuple[int, float]] = {}
        """Host → the epoch of its lease, and since when this process knows of that."""
        self._listening_since = clock.monotonic()
        alone = cloud.settings.bus == MEMORY
        self._others: Heard = _Nobody() if alone else SharedHeard(cloud.pool, self.heard_table)

    @property
    @abstractmethod
    def lease_seconds(self) -> float:
        """How long one may be silent."""

    @abstractmethod
    async def register(self, host: str, before: S | None, facts: F) -> S:
        """Write down that it is there, for the first time or anew. `before`: what ended. May be refused."""

    @abstractmethod
    async def refresh(self, state: S, facts: F) -> S:
        """Write down what one that is known says anew: it is back, it has changed. May be refused."""

    @abstractmethod
    def losing(self, host: str, epoch: int, silent_seconds: float) -> Wish:
        """What says that it was silent for a whole lease."""

    def barred(self, state: S) -> bool:
        """Whether it gets no lease, whatever it says."""
        return False

    def link(self, host: str) -> str:
        """Whom the bus tells of the lease."""
        return host

    async def renew(self, host: str, facts: F, beat: int) -> S | None:
        """One lives: write down what that changes, and renew its lease. Its state; None if it got no lease."""
        self._heard[host] = clock.monotonic()
        self._unshared.add(host)
        state: Any = await self._up_to_date(host, facts)
        if state is None or self.barred(state):
            return None
        self._leased[host] = self._known_lease(host, state.epoch, self._heard[host])
        await self._cloud.broker.tell(self.link(host), encode(Lease(epoch=state.epoch, beat=beat)))
        renewed: S = state
        return renewed

    async def listen(self) -> None:
        """Look for silence, for ever."""
        self._listening_since = clock.monotonic()
        pause_seconds = self.lease_seconds / LOOKS_IN_A_LEASE
        while True:
            before = clock.monotonic()
            await pause(pause_seconds)
            if clock.monotonic() - before > 2 * pause_seconds:
                # It was we who stood still (stopped, swapped out): what was said meanwhile is yet to be heard.
                self._listening_since = clock.monotonic()
            try:
                await self.look()
            except AWAY as error:
                # Nothing heard can be told or asked: whoever seems silent now has a whole lease to be heard again.
                self._listening_since = clock.monotonic()
                log.warning("leases are not watched, trying again", of=self._kind.name, error=repr(error))

    async def look(self) -> list[str]:
        """Lose those that were silent for a whole lease; their hosts' names."""
        now = clock.monotonic()
        self._leased = {host: self._known_lease(host, epoch, now) for host, epoch in self._leases().items()}
        fresh, self._unshared = self._unshared, set()
        await self._others.share(fresh)
        if not self._cloud.broker.hears:
            self._listening_since = now  # it is we who are deaf: nobody is lost for that
        if now - self._listening_since < self.lease_seconds:
            return []
        overdue = self._overdue(now)
        if overdue and not await self._bus_moves():
            self._listening_since = clock.monotonic()  # the bus stands still, or did: hosts may say what they like
            return []
        overdue = {host: lease for host, lease in self._overdue(now).items() if host in overdue}
        lost = await self._others.silent(overdue, self.lease_seconds) if overdue else set()
        outcomes = await asyncio.gather(*(self._lose(host, overdue[host], now) for host in sorted(lost)))
        return [host for host in outcomes if host]

    def _overdue(self, now: float) -> dict[str, int]:
        """Those that were silent for a whole lease, with the epoch of it."""
        return {host: lease for host, lease in self._leases().items() if self._silence(host, now) > self.lease_seconds}

    async def _bus_moves(self) -> bool:
        """Whether a word comes back, and at once: where it takes long, what hosts said is held up as it was."""
        patience_seconds = self.lease_seconds / LOOKS_IN_A_LEASE
        asked = clock.monotonic()
        return await self._cloud.broker.echo(patience_seconds) and clock.monotonic() - asked < patience_seconds / 4

    def last_heard_seconds_ago(self, host: str) -> float | None:
        """How long ago this process heard of a host; None: not yet."""
        at = self._heard.get(host)
        return None if at is None else clock.monotonic() - at

    def _leases(self) -> dict[str, int]:
        """Hosts that are up, with the epoch of their lease."""
        return {document.id: document.state.epoch for document in self._mirror.values() if document.state.up}

    def _known_lease(self, host: str, epoch: int, now: float) -> tuple[int, float]:
        known = self._leased.get(host)
        return known if known is not None and known[0] == epoch else (epoch, now)

    def _silence(self, host: str, now: float) -> float:
        """Of its lease: whoever gave it heard it then, and it may be that nobody else has been told so yet."""
        _, leased_since = self._leased.get(host, (0, 0.0))
        return now - max(self._heard.get(host, 0.0), leased_since, self._listening_since)

    async def _lose(self, host: str, epoch: int, now: float) -> str:
        silent_seconds = round(self._silence(host, now), 1)
        await self._cloud.executor.execute(self.losing(host, epoch, silent_seconds))
        words = f"{self.what} lost"
        log.warning(words, host=host, silent_seconds=silent_seconds)
        return host

    async def _up_to_date(self, host: str, facts: F) -> S | None:
        """The state after what this heartbeat changes; None if it could not be written down."""
        document = self._mirror.get(host)
        state: Any = document.state if document else None
        if state is not None and state.up and state.facts == facts:
            known: S = state
            return known
        try:
            if state is None:
                return await self._begin(host, facts)
            return await self.refresh(state, facts)
        except Refused as refused:
            log.warning("heartbeat refused", of=self._kind.name, host=host, reason=refused.message)
            return None

    async def _begin(self, host: str, facts: F) -> S:
        stream = self._kind.stream(host)
        before = (await self._cloud.executor.load([stream])).get(stream)
        state: Any = before.state if before else None
        if state is not None and state.living:
            return await self.refresh(state, facts)
        return await self.register(host, state, facts)


class _Nobody:
    """There are no other processes."""

    async def share(self, hosts: Collection[str]) -> None:
        """Nobody to tell."""

    async def silent(self, hosts: Collection[str], seconds: float) -> set[str]:
        return set(hosts)


class SharedHeard:
    """An unlogged table of when a host was last heard by anybody, by the database's clock."""

    def __init__(self, pool: asyncpg.Pool, table: str) -> None:
        self._pool = pool
        self._table = table
        self._made = False

    async def share(self, hosts: Collection[str]) -> None:
        if not self._made:
            await self._pool.execute(
                f"CREATE UNLOGGED TABLE IF NOT EXISTS {self._table}"
                ' (host text COLLATE "C" PRIMARY KEY, at timestamptz NOT NULL) WITH (fillfactor = 50)'
            )
            self._made = True
        if hosts:
            await self._pool.execute(
                f"INSERT INTO {self._table} SELECT unnest($1::text[]), clock_timestamp()"
                " ON CONFLICT (host) DO UPDATE SET at = EXCLUDED.at",
                sorted(hosts),
            )

    async def silent(self, hosts: Collection[str], seconds: float) -> set[str]:
        heard = await self._pool.fetch(
            f"SELECT host FROM {self._table}"
            " WHERE host = ANY($1) AND at >= clock_timestamp() - make_interval(secs => $2)",
            list(hosts),
            seconds,
        )
        return set(hosts) - {row[0] for row in heard}
