"""Asking a server's host something, and waiting for what it answers."""

from __future__ import annotations

import msgspec

from api.wire import Call
from schema.compute.question import Answer, Ask, decode_answer, encode
from schema.compute.server_state import Server
from schema.refusal import Conflict

ASKING_SECONDS = 10.0


def not_ready(server: Server) -> Conflict:
    """It has no host, or its guest is not there to be asked."""
    return Conflict(f"Instance {server.id} is not ready", code="InstanceNotReady")


async def ask(call: Call, server: Server, question: Ask, seconds: float = ASKING_SECONDS) -> Answer:
    """What the server's host answers. Raises Conflict: it has none, or its host is silent."""
    if server.host is None:
        raise not_ready(server)
    try:
        return decode_answer(await call.cloud.broker.ask(server.host, encode(question), seconds))
    except (TimeoutError, msgspec.DecodeError):
        raise Conflict(f"The host of server {server.id} does not answer; try again in a moment.") from None
