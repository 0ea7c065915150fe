"""Ways from host to host: what one of them is told so that it may reach another, for one server.

Whoever keeps the disks, or waits for the guest, is asked to open its relay for a secret made for the occasion; the
other is told address, certificate and secret along with what it should hold. Nothing of it is written down: told again,
it is another secret.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

import msgspec
import structlog

from bus import clock
from bus.cloud import Cloud
from schema.compute.domain import Passage
from schema.compute.move import Phase
from schema.compute.question import OpenPassage, PassageOpened, Unable, decode_answer, encode
from schema.compute.server_state import Server

log = structlog.get_logger()

ASKING_SECONDS = 3.0


async def passages(cloud: Cloud, servers: Sequence[Server]) -> dict[str, Passage | Unable | None]:
    """By server id, for those that need one now; None where the other host does not answer, which it may yet."""
    needed = [server for server in servers if _needed(server)]
    opened = await asyncio.gather(*(_open(cloud, server) for server in needed))
    return {server.id: passage for server, passage in zip(needed, opened, strict=True)}


def _needed(server: Server) -> tuple[str, Literal["copy", "live"], bool] | None:
    """Which host is to be asked, for what, and whether it is only asked what there is."""
    move = server.move
    if move is None or server.task is None or server.task is not move.task or move.in_place:
        return None
    match move.phase:
        case Phase.ARRIVING if move.cold:
            return move.source_host, "copy", False
        case Phase.PREPARING:
            return move.source_host, "copy", True
        case Phase.LEAVING if move.live and not move.cancelled:
            return move.target_host, "live", False
    return None


async def _open(cloud: Cloud, server: Server) -> Passage | Unable | None:
    needed = _needed(server)
    assert needed
    host, way, measured = needed
    secret = "" if measured else clock.random_bytes(32).hex()
    try:
        ask = OpenPassage(server_id=server.id, way=way, secret=secret)
        answer = decode_answer(await cloud.broker.ask(host, encode(ask), ASKING_SECONDS))
    except (TimeoutError, msgspec.DecodeError):
        log.info("a host does not open a way for a server", host=host, server=server.id)
        return None
    if isinstance(answer, Unable):
        return answer
    if not isinstance(answer, PassageOpened):
        log.info("a host cannot open a way for a server", host=host, server=server.id, answer=repr(answer))
        return None
    return Passage(
        host=host,
        address=answer.address,
        port=answer.port,
        fingerprint=answer.fingerprint,
        secret=secret,
        folder=answer.folder,
        disks=answer.disks,
    )
