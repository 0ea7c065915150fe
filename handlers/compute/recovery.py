"""Recovery: servers of a host that is lost are built anew on others, where that is the policy of its group.

    lost ── stays away for `recovery_seconds` ──▶ one evacuation for each of its servers that nothing is under way with

The fence is the lease: a host that fences itself pauses its guests when its lease ends, which is before the control
plane takes it for lost, or (should nobody have been there to do it) within `fence_seconds`; it lets none of them go on
before it has a lease and has heard which are still its own. A host that does not fence itself is left to people: its
guests may run, and nothing here could know.
"""

from __future__ import annotations

import asyncio

import structlog

from bus import clock
from bus.cloud import Cloud
from bus.documents import Where
from handlers.compute.departure import begin, departure
from handlers.compute.server import ALLOWED
from schema.compute.aggregate import AGGREGATE
from schema.compute.host import HOST, Host
from schema.compute.migration import MigrationType
from schema.compute.server import SERVER
from schema.compute.server_command import EvacuateServer
from schema.compute.server_state import Server
from schema.compute.task import VmState
from schema.refusal import Refused

log = structlog.get_logger()

KEY = "cumulog:recovery"
"""Metadata of an aggregate: `evacuate` or `none`, for its hosts. Of several, `none` wins."""
EVACUATE = "evacuate"
RETRY_SECONDS = 300.0
"""Until a server that could not be built elsewhere is tried again."""


class Recovery:
    """Make it before the mirrors start; `sweep()` every second or so, in one process."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._hosts = cloud.mirror(HOST)
        self._aggregates = cloud.mirror(AGGREGATE)
        self._lost: dict[str, tuple[int, float]] = {}
        """Host → the epoch it was lost with, and when this process saw it."""
        self._tried: dict[str, float] = {}
        """Server → when it was last set on its way."""
        self._unfenced: set[tuple[str, int]] = set()

    async def sweep(self) -> None:
        """Set servers on their way whose host has been away for long enough."""
        now = clock.monotonic()
        lost = {it.id: it.state for it in self._hosts.values() if it.state.living and not it.state.up}
        self._lost = {
            id: known if (known := self._lost.get(id)) and known[0] == host.epoch else (host.epoch, now)
            for id, host in lost.items()
        }
        self._tried = {id: at for id, at in self._tried.items() if now - at < RETRY_SECONDS}
        if len(lost) > sum(it.state.living and it.state.up for it in self._hosts.values()):
            return  # so many do not die together: it is their network, or this process, that is cut off
        patience_seconds = max(self._cloud.settings.recovery_seconds, self._cloud.settings.fence_seconds)
        for id, host in lost.items():
            due = now - self._lost[id][1] >= patience_seconds
            if due and self.policy(host) == EVACUATE and self._is_fenced(host):
                await self._recover(host)

    def policy(self, host: Host) -> str:
        """What its groups say, or the setting."""
        groups = [it.state.metadata for it in self._aggregates.values() if host.id in it.state.hosts]
        said = {metadata[KEY] for metadata in groups if KEY in metadata}
        if not said:
            return self._cloud.settings.recovery
        return EVACUATE if said == {EVACUATE} else "none"

    def _is_fenced(self, host: Host) -> bool:
        if not host.facts.fences and (host.id, host.epoch) not in self._unfenced:
            self._unfenced.add((host.id, host.epoch))
            log.warning("a lost host does not fence itself; its servers are left to people", host=host.id)
        return host.facts.fences

    async def _recover(self, host: Host) -> None:
        where = [Where("parent_id", "=", host.id), Where("task", "is", False)]
        servers = [it.state for it in await self._cloud.documents.find(SERVER, where=where, sort=(), limit=None)]
        fit = [it for it in servers if it.built and it.vm_state in ALLOWED[EvacuateServer]]
        able = [it for it in fit if it.id not in self._tried]
        self._tried |= dict.fromkeys((it.id for it in able), clock.monotonic())
        outcomes = await asyncio.gather(*(self._evacuate(host, it) for it in able), return_exceptions=True)
        for server, outcome in zip(able, outcomes, strict=True):
            if isinstance(outcome, Refused):
                log.info("a server of a lost host stays", server=server.id, host=host.id, why=outcome.message)
            elif isinstance(outcome, BaseException):
                raise outcome
        if able:
            log.info("servers of a lost host are built elsewhere", host=host.id, servers=len(able))

    async def _evacuate(self, host: Host, server: Server) -> None:
        running = server.vm_state is not VmState.STOPPED
        move = await departure(self._cloud, server, MigrationType.EVACUATION, source_epoch=host.epoch, running=running)
        await begin(
            self._cloud,
            self._cloud.executor.execute,
            server,
            EvacuateServer(move=move, overrides_lock=True),
            project_id=server.project_id,
            user_id=server.order.user_id,
        )
