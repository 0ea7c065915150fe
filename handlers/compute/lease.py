"""Leases of hosts: heartbeats come in, leases go out, and silence is noticed. Only what they change becomes an event.

    heartbeat ─▶ unknown host: register it with its resource provider      facts changed: host and provider, together
              ─▶ lost host: it has returned                                 in any case: a Lease, unless forced down
    silence for a whole lease ─▶ HostLost

When a host was heard last is kept in memory. Where several processes hear heartbeats, each hears some of them, so they
also share what they hear through an unlogged table; it may vanish, and costs one statement a second.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

import asyncpg
import structlog

from bus import clock
from bus.away import AWAY, pause
from bus.cloud import Cloud
from bus.config import MEMORY, Settings
from bus.execute import Wish
from handlers.compute.host import HOSTS
from handlers.placement.provider import offering
from schema.compute.domain import Heartbeat, HostFacts, Lease, encode
from schema.compute.host import HOST, ChangeHostFacts, Host, LoseHost, RegisterHost, ReturnHost
from schema.placement.provider import PROVIDER, Inventory, Provider
from schema.refusal import Refused

log = structlog.get_logger()

LOOKS_IN_A_LEASE = 5
"""How often in a lease's time the monitor looks for silence."""
_NAMESPACE = uuid.UUID("6f1c7a52-3c8e-4f0e-9d7b-6a4f2e1b0c35")

OnManifestWanted = Callable[[str], Awaitable[None]]
"""Tells a host (by name) everything it should hold."""


class Heard(Protocol):
    """What other processes have heard."""

    async def share(self, hosts: Collection[str]) -> None:
        """These were heard since the last time. Raises what an unreachable database raises."""

    async def silent(self, hosts: Collection[str], seconds: float) -> set[str]:
        """Those of these hosts that nobody has heard for so long."""


class Hosts:
    """One process's ears. Make it before the mirrors start; `listen` runs for ever."""

    def __init__(self, cloud: Cloud, on_manifest_wanted: OnManifestWanted | None = None) -> None:
        self._cloud = cloud
        self._mirror = cloud.mirror(HOST)
        self._on_manifest_wanted = on_manifest_wanted
        self._heard: dict[str, float] = {}
        self._unshared: set[str] = set()
        self._listening_since = clock.monotonic()
        self._others: Heard = _Nobody() if cloud.settings.bus == MEMORY else SharedHeard(cloud.pool)

    async def on_heartbeat(self, host: str, beat: Heartbeat) -> None:
        """A host lives: write down what that changes, and renew its lease."""
        self._heard[host] = clock.monotonic()
        self._unshared.add(host)
        state = await self._up_to_date(host, beat.facts)
        if state is None or state.forced_down:
            return
        await self._cloud.broker.tell(host, encode(Lease(epoch=state.epoch, beat=beat.beat)))
        if beat.manifest_wanted and self._on_manifest_wanted is not None:
            await self._on_manifest_wanted(host)

    async def listen(self) -> None:
        """Look for silence, for ever."""
        self._listening_since = clock.monotonic()
        pause_seconds = self._lease_seconds / LOOKS_IN_A_LEASE
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
                log.warning("hosts are not watched, trying again", error=repr(error))

    async def look(self) -> list[str]:
        """Lose the hosts that were silent for a whole lease; their names."""
        now = clock.monotonic()
        fresh, self._unshared = self._unshared, set()
        await self._others.share(fresh)
        if not self._cloud.broker.hears:
            self._listening_since = now  # it is we who are deaf: nobody is lost for that
        if now - self._listening_since < self._lease_seconds:
            return []
        overdue = {
            host: lease for host, lease in self._leases().items() if self._silence(host, now) > self._lease_seconds
        }
        if overdue and not await self._cloud.broker.echo(self._lease_seconds / LOOKS_IN_A_LEASE):
            self._listening_since = clock.monotonic()  # the bus stands still: hosts may say what they like
            return []
        lost = await self._others.silent(overdue, self._lease_seconds) if overdue else set()
        outcomes = await asyncio.gather(*(self._lose(host, overdue[host], now) for host in sorted(lost)))
        return [host for host in outcomes if host]

    def last_heard_seconds_ago(self, host: str) -> float | None:
        """How long ago this process heard of a host; None: not yet."""
        at = self._heard.get(host)
        return None if at is None else clock.monotonic() - at

    @property
    def _lease_seconds(self) -> float:
        return self._cloud.settings.lease_seconds

    def _leases(self) -> dict[str, int]:
        """Hosts that are up, with the epoch of their lease."""
        return {document.id: document.state.epoch for document in self._mirror.values() if document.state.up}

    def _silence(self, host: str, now: float) -> float:
        return now - max(self._heard.get(host, 0.0), self._listening_since)

    async def _lose(self, host: str, epoch: int, now: float) -> str:
        silent_seconds = round(self._silence(host, now), 1)
        await self._cloud.executor.execute(Wish(HOSTS, host, LoseHost(epoch=epoch, silent_seconds=silent_seconds)))
        log.warning("host lost", host=host, silent_seconds=silent_seconds)
        return host

    async def _up_to_date(self, host: str, facts: HostFacts) -> Host | None:
        """The host's state after what this heartbeat changes; None if it could not be written down."""
        document = self._mirror.get(host)
        state: Host | None = document.state if document else None
        if state is not None and state.up and state.facts == facts:
            return state
        try:
            if state is None:
                return await self._register(host, facts)
            return await self._refresh(state, facts)
        except Refused as refused:
            log.warning("heartbeat refused", host=host, reason=refused.message)
            return None

    async def _register(self, host: str, facts: HostFacts) -> Host:
        stream = HOST.stream(host)
        before = (await self._cloud.executor.load([stream])).get(stream)
        state: Host | None = before.state if before else None
        if state is not None and state.living:
            return await self._refresh(state, facts)
        birth = (state.epoch if state else 0) + 1
        # Ids are made from the name, so that two processes that hear of a new host at once mean the same.
        provider_id, service_id = (
            str(uuid.uuid5(_NAMESPACE, f"{what}/{host}/{birth}")) for what in ("provider", "service")
        )
        [document, *_] = await self._cloud.executor.execute(
            Wish(HOSTS, host, RegisterHost(provider_id=provider_id, service_id=service_id, facts=facts)),
            *offering(provider_id, host, inventories(facts, self._cloud.settings), facts.traits),
        )
        log.info("host registered", host=host, vcpus=facts.vcpus, memory_mb=facts.memory_mb, disk_gb=facts.disk_gb)
        registered: Host = document.state
        return registered

    async def _refresh(self, state: Host, facts: HostFacts) -> Host:
        """What a host that is known says anew: it is back, it has changed."""
        if not state.up:
            [document] = await self._cloud.executor.execute(Wish(HOSTS, state.id, ReturnHost()))
            log.info("host returned", host=state.id, epoch=document.state.epoch)
            state = document.state
        if state.facts != facts:
            stream = PROVIDER.stream(state.provider_id)
            found = (await self._cloud.executor.load([stream])).get(stream)
            offered = inventories(facts, self._cloud.settings, found.state if found else None)
            [document, *_] = await self._cloud.executor.execute(
                Wish(HOSTS, state.id, ChangeHostFacts(facts=facts)),
                *offering(state.provider_id, state.id, offered, facts.traits),
            )
            state = document.state
        return state


def inventories(facts: HostFacts, settings: Settings, before: Provider | None = None) -> dict[str, Inventory]:
    """What placement may give away of a host. Ratios and reserves that an operator changed stay as they are."""
    ratios = settings.scheduler
    fresh = {
        "VCPU": (facts.vcpus, 0, ratios.cpu_ratio),
        "MEMORY_MB": (facts.memory_mb, min(ratios.reserved_memory_mb, facts.memory_mb), ratios.ram_ratio),
        "DISK_GB": (facts.disk_gb, 0, ratios.disk_ratio),
    }
    offered = dict(before.inventories) if before else {}
    for name, (total, reserved, ratio) in fresh.items():
        known = offered.pop(name, None)
        if total > 0:
            offered[name] = Inventory(
                total=total,
                max_unit=total,
                reserved=min(known.reserved, total) if known else reserved,
                allocation_ratio=known.allocation_ratio if known else ratio,
            )
    return offered


class _Nobody:
    """There are no other processes."""

    async def share(self, hosts: Collection[str]) -> None:
        """Nobody to tell."""

    async def silent(self, hosts: Collection[str], seconds: float) -> set[str]:
        return set(hosts)


class SharedHeard:
    """An unlogged table of when a host was last heard by anybody, by the database's clock."""

    TABLE = (
        "CREATE UNLOGGED TABLE IF NOT EXISTS heard_hosts"
        ' (host text COLLATE "C" PRIMARY KEY, at timestamptz NOT NULL) WITH (fillfactor = 50)'
    )

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._made = False

    async def share(self, hosts: Collection[str]) -> None:
        if not self._made:
            await self._pool.execute(self.TABLE)
            self._made = True
        if hosts:
            await self._pool.execute(
                "INSERT INTO heard_hosts SELECT unnest($1::text[]), clock_timestamp()"
                " ON CONFLICT (host) DO UPDATE SET at = EXCLUDED.at",
                sorted(hosts),
            )

    async def silent(self, hosts: Collection[str], seconds: float) -> set[str]:
        heard = await self._pool.fetch(
            "SELECT host FROM heard_hosts WHERE host = ANY($1) AND at >= clock_timestamp() - make_interval(secs => $2)",
            list(hosts),
            seconds,
        )
        return set(hosts) - {row[0] for row in heard}
