"""An Identity that answers, with its admin."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.identity.service import SERVICE
from bus.config import Settings
from handlers.identity.bootstrap import bootstrap
from tests.serving import Answer, Served, serving

PASSWORD = "correct horse battery staple"


class Identity:
    """A served Identity and an admin's token."""

    def __init__(self, api: Served) -> None:
        self.api = api
        self.admin = ""

    async def login(self, user: Any = None, scope: Any = None, password: str = PASSWORD) -> Answer:
        """POST /auth/tokens; the admin of the default domain unless told otherwise."""
        user = user or {"name": "admin", "domain": {"id": "default"}}
        auth: dict[str, Any] = {
            "identity": {"methods": ["password"], "password": {"user": {**user, "password": password}}}
        }
        if scope is not None:
            auth["scope"] = scope
        return await self.api.call("POST", "/identity/v3/auth/tokens", {"auth": auth})

    async def token(self, user: Any = None, scope: Any = None, password: str = PASSWORD) -> str:
        answer = await self.login(user, scope, password)
        assert answer.status == 201, answer.body
        return str(answer.headers["X-Subject-Token"])

    async def call(self, method: str, path: str, json: Any = None, *, token: str | None = None, **more: Any) -> Answer:
        """As the admin, unless with another token."""
        return await self.api.call(method, "/identity/v3" + path, json, token=token or self.admin, **more)

    async def make(self, what: str, **fields: Any) -> dict[str, Any]:
        """POST a thing of that name; its body."""
        plural = what[:-1] + "ies" if what.endswith("y") else what + "s"
        answer = await self.call("POST", f"/{plural}", {what: fields})
        assert answer.status == 201, answer.body
        made: dict[str, Any] = answer.json[what]
        return made

    async def status(self, method: str, path: str, json: Any = None, *, token: str | None = None) -> int:
        return (await self.call(method, path, json, token=token)).status


@pytest.fixture
async def identity(settings: Settings, fresh_database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Identity]:
    monkeypatch.setattr("handlers.identity.passwords.COST", 4)  # a story is not about how long hashing takes
    async with serving(settings, fresh_database, [SERVICE]) as api:
        await bootstrap(api.cloud, PASSWORD)
        identity = Identity(api)
        identity.admin = await identity.token()
        yield identity
