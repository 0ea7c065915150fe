"""PostgreSQL goes away and comes back: 503 in the service's words, soon, and then as before."""

import asyncio
import tempfile
import time
from pathlib import Path

import pytest

from api.identity.service import SERVICE
from bus.config import Settings
from bus.postgres import EmbeddedPostgres
from handlers.identity.bootstrap import bootstrap
from handlers.identity.login import Named, Scope, login
from handlers.identity.tokens import tokens
from tests.serving import serving

PASSWORD = "while the database is away"


@pytest.mark.live
async def test_without_postgres_the_answer_is_503_and_nobody_waits(settings: Settings, short_folder: Path):
    server = EmbeddedPostgres(Path(tempfile.mkdtemp(dir=short_folder)), durable=False)
    await asyncio.to_thread(server.start)
    try:
        async with serving(settings, server.dsn(), [SERVICE]) as api:
            await bootstrap(api.cloud, PASSWORD)
            admin = await login(api.cloud).with_password(Named(name="admin", domain_id="default"), PASSWORD, Scope())
            token = await tokens(api.cloud).sign(admin)
            await asyncio.to_thread(server.stop)
            for method, path, body in (
                ("GET", "/identity/v3/users", None),
                ("POST", "/identity/v3/users", {"user": {"name": "late"}}),
            ):
                started = time.monotonic()
                answer = await api.call(method, path, body, token=token)
                assert answer.status == 503, answer.body
                assert answer.headers["Retry-After"]
                assert answer.json["error"]["title"] == "Service Unavailable"
                assert time.monotonic() - started < 10
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(20):
                while (await api.call("GET", "/identity/v3/users", token=token)).status != 200:
                    pass
            answer = await api.call("POST", "/identity/v3/users", {"user": {"name": "late"}}, token=token)
            assert answer.status == 201
    finally:
        await asyncio.to_thread(server.stop)
