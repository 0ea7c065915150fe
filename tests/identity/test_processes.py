"""Two processes over one log: a token of one is good in the other, and a revocation in one ends it in both."""

import asyncio
import tempfile
from pathlib import Path

import msgspec
import pytest

from api.identity.service import SERVICE
from bus.config import Settings
from bus.vault import master_key
from handlers.identity.bootstrap import bootstrap
from tests.identity.conftest import PASSWORD, Identity
from tests.serving import serving


class Process(Identity):
    """One of several."""

    async def refuses(self, token: str) -> None:
        """Soon, if not now."""
        async with asyncio.timeout(5):
            while await self.status("GET", "/auth/projects", token=token) != 401:
                pass


async def test_a_revocation_reaches_every_process(
    settings: Settings, fresh_database: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("handlers.identity.passwords.COST", 4)
    other_home = Path(tempfile.mkdtemp(dir=settings.home))
    monkeypatch.setenv("CUMULOG_VAULT_KEY", master_key(settings.home).hex())
    other_settings = msgspec.structs.replace(settings, home=other_home)
    async with (
        serving(settings, fresh_database, [SERVICE]) as here,
        serving(other_settings, fresh_database, [SERVICE]) as there,
    ):
        await asyncio.gather(bootstrap(here.cloud, PASSWORD), bootstrap(there.cloud, PASSWORD))
        one, other = Process(here), Process(there)
        one.admin = await one.token()
        other.admin = await other.token()
        assert await other.status("GET", "/users", token=one.admin) == 200
        assert await one.status("GET", "/users", token=other.admin) == 200
        doomed = await one.token()
        assert await other.status("GET", "/users", token=doomed) == 200
        assert (await one.call("DELETE", "/auth/tokens", headers={"X-Subject-Token": doomed})).status == 204
        assert await one.status("GET", "/users", token=doomed) == 401
        await other.refuses(doomed)
        assert await other.status("GET", "/users") == 200


async def test_a_password_changed_in_one_process_ends_the_tokens_and_not_the_new_ones(
    settings: Settings, fresh_database: str, monkeypatch: pytest.MonkeyPatch
):
    """A login after the change, in a process that has not heard of it yet, stays good when it does."""
    monkeypatch.setattr("handlers.identity.passwords.COST", 4)
    monkeypatch.setenv("CUMULOG_VAULT_KEY", master_key(settings.home).hex())
    async with (
        serving(settings, fresh_database, [SERVICE]) as here,
        serving(settings, fresh_database, [SERVICE]) as there,
    ):
        await bootstrap(here.cloud, PASSWORD)
        one, other = Process(here), Process(there)
        one.admin = await one.token()
        user = await one.make("user", name="u", password=PASSWORD)
        old = await other.token({"id": user["id"]})
        change = {"user": {"password": "changed"}}
        assert await one.status("PATCH", f"/users/{user['id']}", change) == 200
        new = await other.token({"id": user["id"]}, password="changed")
        await other.refuses(old)
        assert await other.status("GET", "/auth/projects", token=new) == 200
        assert await one.status("GET", "/auth/projects", token=new) == 200
