"""Compute behind HTTP, for the tests of its doors."""

from collections.abc import AsyncIterator

import pytest

from api.compute.service import SERVICE
from bus.config import Settings
from tests.serving import Served, serving


@pytest.fixture
async def served(settings: Settings, fresh_database: str) -> AsyncIterator[Served]:
    """A compute service of one's own."""
    async with serving(settings, fresh_database, [SERVICE]) as it:
        yield it


class Client:
    """Somebody at the compute API: `await client("GET", "/flavors", expect=200)` is the JSON of the answer."""

    def __init__(self, served: Served, token: str, version: str) -> None:
        self.served = served
        self.token = token
        self.version = version

    async def __call__(self, method, path, json=None, *, expect=200, version=None, key=None):
        headers = {"OpenStack-API-Version": f"compute {version or self.version}"}
        if key:
            headers["Idempotency-Key"] = key
        answer = await self.served.call(method, "/compute/v2.1" + path, json, token=self.token, headers=headers)
        assert answer.status == expect, answer.body
        return answer.json if answer.body.startswith(b"{") else answer.body


@pytest.fixture
def client(served):
    """`await client("member", version="2.1", project=…, user=…)`: somebody with that role."""

    async def make(role="admin", version="latest", **fields):
        return Client(served, await served.token(role, **fields), version)

    return make
