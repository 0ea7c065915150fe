"""os-hosts, as clients older than 2.43 list them: hosts by name, with their zone."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from api.compute.page import listing
from api.wire import Call
from schema.compute.host import HOST

RULE = "os_compute_api:os-hosts"


class Query(Struct, frozen=True):
    zone: str | None = None


async def index(call: Call) -> dict[str, Any]:
    hosts = sorted((document.state for document in call.cloud.mirror(HOST).values()), key=lambda host: host.id)
    return {
        "hosts": [
            {"host_name": host.id, "service": "compute", "zone": host.zone}
            for host in hosts
            if call.params.zone in {None, host.zone}
        ]
    }


routes = [*listing("/os-hosts", index, f"{RULE}:list", Query, until="2.42")]
