"""/os-volumes_boot: /servers by another name, until 2.102."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from api.compute import server, server_create, server_list
from api.wire import Route
from api.wire.route import parse_version

UNTIL = "2.102"


def _aliased() -> Iterator[Route]:
    for route in (*server_list.routes, *server_create.routes, *server.routes):
        if route.lowest <= parse_version(UNTIL):
            until = route.until if route.highest <= parse_version(UNTIL) else UNTIL
            yield replace(route, path=route.path.replace("/servers", "/os-volumes_boot", 1), until=until)


routes = list(_aliased())
