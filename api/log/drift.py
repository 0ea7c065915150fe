"""What servers, claims, ports and hosts say of each other, where it is not the same. An operator's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from api.log.asking import READ_ALL
from api.wire import Call, Get
from handlers.compute.drift import Drift, drifts, held_otherwise
from schema.compute.domain import Observed
from schema.compute.host import HOST, Host
from schema.compute.question import GuestList, ListGuests, decode_answer, encode
from schema.compute.server import SERVER
from schema.network.port import PORT
from schema.placement.provider import PROVIDER

ASKING_SECONDS = 10.0


async def drift(call: Call) -> dict[str, Any]:
    """Only what was so twice: things are read one kind after the other, and change meanwhile."""
    first = await _look(call)
    found = [it for it in await _look(call) if it in first] if first else []
    return {"drift": [{"kind": it.kind, "host": it.host, "server": it.server_id, "text": it.text} for it in found]}


async def _look(call: Call) -> list[Drift]:
    documents = call.cloud.documents
    servers = {it.id: it.state for it in await documents.find(SERVER, limit=None)}
    hosts = [it.state for it in await documents.find(HOST, limit=None)]
    providers = {
        it.id: it.state for it in (await documents.get_many(PROVIDER, [it.provider_id for it in hosts])).values()
    }
    others = {id for it in providers.values() for id in it.claims} - servers.keys()
    servers |= {it.id: it.state for it in (await documents.get_many(SERVER, sorted(others))).values()}
    wired = [nic.port_id for it in servers.values() if it.living for nic in it.nics]
    ports = {it.id: it.state for it in (await documents.get_many(PORT, wired)).values()}
    alive = [host for host in hosts if host.living and host.alive]
    held = await asyncio.gather(*(_held(call, host) for host in alive))
    found = drifts(servers, hosts, providers, ports)
    found += [it for host, guests in zip(alive, held, strict=True) for it in held_otherwise(host, servers, guests)]
    return list(dict.fromkeys(found))


async def _held(call: Call, host: Host) -> Mapping[str, Observed] | None:
    """What the host holds now, by server id; None if it does not say."""
    try:
        answer = decode_answer(await call.cloud.broker.ask(host.id, encode(ListGuests()), ASKING_SECONDS))
    except (TimeoutError, msgspec.DecodeError):
        return None
    return {it.server_id: it for it in answer.guests} if isinstance(answer, GuestList) else None


routes = [Get("/drift", drift, may=READ_ALL)]
