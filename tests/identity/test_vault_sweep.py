"""What the vault keeps for nobody goes after a day; what anybody has a use for stays, however much there is of it."""

from datetime import timedelta

import pytest

from bus import clock, vault_sweep
from bus.vault import Vault
from bus.vault_sweep import OLD, VaultSweep
from tests.identity.conftest import PASSWORD, Identity


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vault_sweep, "BATCH", 2)


async def subjects(identity: Identity) -> list[str]:
    rows = await identity.api.cloud.pool.fetch("SELECT subject FROM vault ORDER BY subject")
    return [row[0] for row in rows]


async def left_over(identity: Identity, *ids: str) -> None:
    """As a version left them that dropped a secret only after the append."""
    vault = identity.api.cloud.vault
    await vault.keep(*[await vault.seal(id, "project/gone", b"user data") for id in ids])


async def test_secrets_that_nobody_names_go_and_all_others_open(identity: Identity):
    cloud = identity.api.cloud
    names = [f"user {n}" for n in range(5)]
    for name in names:
        await identity.make("user", name=name, password=PASSWORD)
    before = await subjects(identity)
    await left_over(identity, "0-first", "m", "n", "zz-last")

    sweep = VaultSweep(cloud.pool, cloud.vault)
    assert await sweep.remove(clock.now() - OLD) == (0, 0)  # the append that names them may be under way
    assert await sweep.remove(clock.now() + timedelta(seconds=5)) == (4, 0)
    assert await subjects(identity) == before
    for name in names:
        await identity.token({"name": name, "domain": {"id": "default"}})
    assert await sweep.remove(clock.now() + timedelta(seconds=5)) == (0, 0)


async def test_a_process_that_dies_before_it_drops_a_users_key(identity: Identity, monkeypatch: pytest.MonkeyPatch):
    cloud = identity.api.cloud
    user = await identity.make("user", name="ada", password=PASSWORD)
    key = f"user/{user['id']}"
    backup = await cloud.pool.fetchrow("SELECT id, subject, sealed FROM vault WHERE subject = $1", key)

    async def dies(vault: Vault, subject: str) -> None:
        raise RuntimeError("the process is gone")

    with monkeypatch.context() as dying:
        dying.setattr(Vault, "erase", dies)
        assert await identity.status("DELETE", f"/users/{user['id']}") == 500
    assert await identity.status("GET", f"/users/{user['id']}") == 404

    assert await VaultSweep(cloud.pool, cloud.vault).remove(clock.now() + timedelta(seconds=5)) == (0, 1)
    # And what a backup has of hers cannot be read any more.
    await cloud.pool.execute("INSERT INTO vault (id, subject, sealed) VALUES ($1, $2, $3)", *backup)
    assert await cloud.vault.open_many([backup["id"]]) == {}
    await identity.token()


async def test_the_sweep_is_made_every_so_often(identity: Identity, monkeypatch: pytest.MonkeyPatch):
    cloud = identity.api.cloud
    before = await subjects(identity)
    await left_over(identity, "one")
    monkeypatch.setattr(vault_sweep, "OLD", timedelta(seconds=-5))
    sweep = VaultSweep(cloud.pool, cloud.vault)
    await sweep.sweep()
    assert len(await subjects(identity)) == len(before) + 1
    monkeypatch.setattr(vault_sweep, "SWEEP_SECONDS", 0.0)
    await sweep.sweep()
    assert await subjects(identity) == before
