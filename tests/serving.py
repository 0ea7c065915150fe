"""A cloud that answers HTTP, for tests: services of your choice on a free port, and tokens for anybody."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from api.wire import Service
from api.wire.app import Application, make_app
from bus import clock
from bus.cloud import Cloud, open_cloud
from bus.config import Settings
from bus.consumer import PROJECTIONS, Committed, ProjectionWorker
from handlers.identity.token import Token
from handlers.identity.tokens import tokens

ROLES = {
    "admin": ("admin", "manager", "member", "reader"),
    "manager": ("manager", "member", "reader"),
    "member": ("member", "reader"),
    "reader": ("reader",),
    "service": ("service",),
}


class Answer(msgspec.Struct):
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Served:
    """A running API. `call` sends a request, as anybody."""

    def __init__(self, cloud: Cloud, application: Application, url: str, session: aiohttp.ClientSession) -> None:
        self.cloud = cloud
        self.application = application
        self.url = url
        self.session = session

    async def token(self, role: str = "member", *, project: str = "p" * 32, user: str = "u" * 32, **fields: Any) -> str:
        """A good token, without any user, project or role behind it."""
        now = clock.now()
        scope = {} if "domain_id" in fields or fields.get("system") else {"project_id": project}
        return await tokens(self.cloud).sign(
            Token(
                user_id=user,
                user_name="somebody",
                user_domain_id="default",
                project_domain_id="default" if scope else None,
                granted=tuple((name, name) for name in ROLES[role]),
                methods=("password",),
                audit_ids=(clock.hex_id()[:22],),
                issued_at=now,
                expires_at=now + timedelta(hours=1),
                **scope,
                **fields,
            )
        )

    async def call(
        self,
        method: str,
        path: str,
        json: Any = None,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
        data: bytes | None = None,
    ) -> Answer:
        sent = dict(headers or {})
        if token is not None:
            sent["X-Auth-Token"] = token
        if json is not None:
            data = msgspec.json.encode(json)
            sent.setdefault("Content-Type", "application/json")
        async with self.session.request(
            method, self.url + path, data=data, headers=sent, allow_redirects=False
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.read())


@asynccontextmanager
async def serving(
    settings: Settings,
    dsn: str,
    services: Sequence[Service],
    prepare: Callable[[Cloud], Any] = lambda cloud: None,
    told: Mapping[str, Committed] | None = None,
) -> AsyncIterator[Served]:
    """Serve these services from this database until the block ends. `prepare` is called before the cloud starts.

    `told`: by the name of a projection, who hears what it made of a batch; may be filled by `prepare`.
    """
    cloud = await open_cloud(settings, dsn)
    try:
        application = make_app(cloud, services)
        prepare(cloud)
        await cloud.start()
        projecting = asyncio.create_task(_project(cloud, told or {}))
        runner = application.runner()
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        cloud.settings = msgspec.structs.replace(settings, listen=f"127.0.0.1:{port}")
        async with aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as session:
            yield Served(cloud, application, f"http://127.0.0.1:{port}", session)
        await runner.cleanup()
        projecting.cancel()
        with suppress(asyncio.CancelledError):
            await projecting
    finally:
        await cloud.close()


async def _project(cloud: Cloud, told: Mapping[str, Committed]) -> None:
    """Work the read models that these services read."""
    async with asyncio.TaskGroup() as group:
        for projection in PROJECTIONS.values():
            committed = told.get(projection.name)
            worker = ProjectionWorker(cloud.pool, cloud.log, cloud.broker, cloud.checkpoints, projection, committed)
            group.create_task(worker.run())
