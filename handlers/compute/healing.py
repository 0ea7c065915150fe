"""Looking for drift, and healing what can be healed without asking anybody.

    orphan-claim ─▶ it is released          unknown, leftover ─▶ its host is told to let it go
    port-elsewhere ─▶ bound to its server's host          outdated, missing ─▶ its host is told again
    leftover-file ─▶ its host is told to remove it, if it was a server's of the log
    wrong-power ─▶ its host is to do once more what it did already, so that its guest is again as the log has it

What is left (a host that is silent or gone, a server that holds nothing) is for a person to decide.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping

import msgspec
import structlog

from bus import clock
from bus.cloud import Cloud
from bus.execute import Wish
from bus.log import Document
from handlers.compute.drift import Drift, Kind, drifts, held_otherwise, left_behind
from handlers.compute.server import SERVERS
from handlers.compute.telling import Telling
from handlers.network.binding import FAILED, Vif, binding, vifs
from handlers.placement.claims import released
from schema.compute.host import HOST, Host
from schema.compute.question import Answer, Ask, ClearLeftovers, GuestList, ListGuests, decode_answer, encode
from schema.compute.server import SERVER
from schema.compute.server_command import RenewWish
from schema.compute.server_state import Server
from schema.network.port import PORT
from schema.placement.provider import PROVIDER
from schema.refusal import Refused

log = structlog.get_logger()

ASKING_SECONDS = 10.0
_NOT_ITS_OWN = frozenset({Kind.UNKNOWN, Kind.LEFTOVER})
_TOLD_AGAIN = frozenset({Kind.OUTDATED, Kind.MISSING})


class Seen(msgspec.Struct, frozen=True):
    """What differs, and the servers and hosts it was seen among, by id."""

    found: list[Drift]
    servers: Mapping[str, Server]
    hosts: Mapping[str, Host]


async def settled_drift(cloud: Cloud) -> Seen:
    """Only what was so twice: things are read one kind after the other, and change meanwhile."""
    first = await _look(cloud)
    if not first.found:
        return first
    again = await _look(cloud)
    return msgspec.structs.replace(again, found=[it for it in again.found if it in first.found])


async def _look(cloud: Cloud) -> Seen:
    documents = cloud.documents
    servers = {it.id: it.state for it in await documents.find(SERVER, limit=None)}
    hosts = {it.id: it.state for it in await documents.find(HOST, limit=None)}
    named = [it.provider_id for it in hosts.values()]
    providers = {it.id: it.state for it in (await documents.get_many(PROVIDER, named)).values()}
    alive = [host for host in hosts.values() if host.living and host.alive]
    held = await asyncio.gather(*(_held(cloud, host, _sharing(cloud, hosts, host)) for host in alive))
    others = {id for it in providers.values() for id in it.claims}
    others |= {it.server_id for has in held if has for it in has.guests}
    others |= {it.server_id for has in held if has for it in has.leftovers}
    others -= {*servers, ""}
    servers |= {it.id: it.state for it in (await documents.get_many(SERVER, sorted(others))).values()}
    wired = [nic.port_id for it in servers.values() if it.living for nic in it.nics]
    ports = {it.id: it.state for it in (await documents.get_many(PORT, wired)).values()}
    found = drifts(servers, hosts.values(), providers, ports)
    for host, has in zip(alive, held, strict=True):
        found += held_otherwise(host, servers, {it.server_id: it for it in has.guests} if has else None)
        found += left_behind(host, servers, has.leftovers if has else ())
    return Seen(list(dict.fromkeys(found)), servers, hosts)


def _sharing(cloud: Cloud, hosts: Mapping[str, Host], host: Host) -> tuple[str, ...]:
    """All hosts, for the one that is to look at the storage they share: the first that is there."""
    living = sorted(it.id for it in hosts.values() if it.living)
    looks = min((id for id in living if hosts[id].alive), default="")
    return tuple(living) if cloud.settings.shared_storage is not None and host.id == looks else ()


async def _held(cloud: Cloud, host: Host, sharing: tuple[str, ...]) -> GuestList | None:
    """What the host holds now; None if it does not say."""
    answer = await _asked(cloud, host.id, ListGuests(hosts=sharing))
    return answer if isinstance(answer, GuestList) else None


async def _asked(cloud: Cloud, host: str, ask: Ask) -> Answer | None:
    try:
        return decode_answer(await cloud.broker.ask(host, encode(ask), ASKING_SECONDS))
    except (TimeoutError, msgspec.DecodeError):
        return None


class Healing:
    """By setting: heals drift every so often. `sweep()` every second or so, in one process."""

    def __init__(self, cloud: Cloud, telling: Telling) -> None:
        self._cloud = cloud
        self._telling = telling
        self._looked = clock.monotonic()

    async def sweep(self) -> None:
        settings = self._cloud.settings
        if settings.drift != "heal" or clock.monotonic() - self._looked < settings.drift_seconds:
            return
        await self.heal(await settled_drift(self._cloud))
        self._looked = clock.monotonic()

    async def heal(self, seen: Seen) -> None:
        """Put right what can be; a host that is told does the rest by itself."""
        again: dict[str, Server] = {}
        strangers: dict[str, list[Server]] = defaultdict(list)
        files: dict[str, list[str]] = defaultdict(list)
        for drift in seen.found:
            log.info("drift", kind=drift.kind, host=drift.host, server=drift.server_id, text=drift.text)
            server, host = seen.servers.get(drift.server_id), seen.hosts.get(drift.host)
            if server is None or host is None:
                continue
            if drift.kind is Kind.ORPHAN_CLAIM:
                await self._wish(*released(server.id, (host.provider_id,)))
            elif drift.kind is Kind.PORT_ELSEWHERE:
                await self._wish(*await self._bound(server))
            elif drift.kind in _NOT_ITS_OWN:
                strangers[host.id].append(server)
            elif drift.kind is Kind.LEFTOVER_FILE:
                files[host.id].append(drift.file)
            elif drift.kind is Kind.WRONG_POWER and host.alive:
                again |= await self._renewed(server)
            elif drift.kind in _TOLD_AGAIN:
                again[server.id] = server
        if again:
            await self._telling.tell(list(again.values()))
        for host_id, servers in strangers.items():
            await self._telling.tell_absent(host_id, servers)
        for host_id, names in files.items():
            await _asked(
                self._cloud,
                host_id,
                ClearLeftovers(names=tuple(names), hosts=_sharing(self._cloud, seen.hosts, seen.hosts[host_id])),
            )

    async def _renewed(self, server: Server) -> dict[str, Server]:
        """The server with its wish made anew, as a host takes the wish it has carried out for done; by id."""
        documents = await self._wish(Wish(SERVERS, server.id, RenewWish(generation=server.generation)))
        return {document.id: document.state for document in documents}

    async def _bound(self, server: Server) -> list[Wish]:
        host = server.host or ""
        known = (await vifs(self._cloud, {host})).get(host, Vif(FAILED))
        ports = await self._cloud.documents.get_many(PORT, [nic.port_id for nic in server.nics])
        return [binding(it.id, host, known) for it in ports.values() if it.state.living and it.state.host != host]

    async def _wish(self, *wishes: Wish) -> list[Document]:
        try:
            return await self._cloud.executor.execute(*wishes) if wishes else []
        except Refused as refused:
            log.info("drift is not healed", why=refused.message)
            return []
