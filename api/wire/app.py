"""The application: all services on one port, ready for aiohttp."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import msgspec
from aiohttp import web

from api.wire.call import Call
from api.wire.dispatch import Dispatch
from api.wire.errors import PLAIN
from api.wire.openapi import document
from api.wire.route import Get, Service
from bus.cloud import Cloud

KEEPALIVE_SECONDS = 75
SHUTDOWN_SECONDS = 10


class Application:
    """Every service behind one server. Make it before `cloud.start()`: it asks for the mirrors its services need.

        application = make_app(cloud, services)
        await cloud.start()
        runner = application.runner(); await runner.setup(); await web.TCPSite(runner, host, port).start()
        … await runner.cleanup()   (requests under way are answered first)

    It is a bare aiohttp server rather than a `web.Application`: the tables of `Dispatch` are its only router.
    """

    def __init__(self, cloud: Cloud, services: Sequence[Service]) -> None:
        self.dispatch = Dispatch(cloud, [*services, _description(cloud, services)])
        self.tallies = self.dispatch.tallies
        """A prometheus collector."""

    def runner(self) -> web.ServerRunner:
        """The server, ready for `setup` and sites."""
        server = web.Server(self.dispatch.handle, access_log=None, keepalive_timeout=KEEPALIVE_SECONDS)
        return web.ServerRunner(server, shutdown_timeout=SHUTDOWN_SECONDS)


def _description(cloud: Cloud, services: Sequence[Service]) -> Service:
    """/openapi.json, written when first asked for."""

    @cache
    def written() -> bytes:
        return msgspec.json.encode(
            document([service for service in services if not service.hidden], cloud.settings.url)
        )

    async def show(call: Call) -> bytes:
        return written()

    path = "/openapi.json"
    return Service(
        name="openapi",
        type="openapi",
        prefix=path,
        routes=(),
        roots=[Get(path, show, public=True)],
        errors=PLAIN,
        hidden=True,
    )


def make_app(cloud: Cloud, services: Sequence[Service]) -> Application:
    """All services as one application."""
    return Application(cloud, services)
