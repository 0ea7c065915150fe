"""What servers, claims, ports and hosts say of each other, where it is not the same. An operator's."""

from __future__ import annotations

from typing import Any

from api.log.asking import READ_ALL
from api.wire import Call, Get
from handlers.compute.healing import settled_drift


async def drift(call: Call) -> dict[str, Any]:
    found = (await settled_drift(call.cloud)).found
    return {"drift": [{"kind": it.kind, "host": it.host, "server": it.server_id, "text": it.text} for it in found]}


routes = [Get("/drift", drift, may=READ_ALL)]
