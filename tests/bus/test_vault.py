"""Secrets: sealed, opened by their id only, erased with their subject's key, and nowhere in plain text."""

import os
from pathlib import Path

import asyncpg
import pytest

from bus.execute import Executor
from bus.log import Log
from bus.memory_log import MemoryLog
from bus.postgres_log import PostgresLog
from bus.vault import Erased, MemoryKeys, PostgresKeys, Vault, master_key
from schema.event import Command
from tests.bus.words import Add, End, Seal, wish

PLAIN = b"correct horse battery staple"


@pytest.fixture(params=["memory", "postgres"])
def vault(request: pytest.FixtureRequest) -> Vault:
    if request.param == "memory":
        return Vault(MemoryKeys({}), bytes(32))
    return Vault(PostgresKeys(request.getfixturevalue("pool")), bytes(32))


async def test_what_was_sealed_opens(vault: Vault):
    await vault.keep(await vault.seal("s1", "user/a", PLAIN), await vault.seal("s2", "user/a", b""))
    assert await vault.open("s1") == PLAIN
    assert await vault.open_many(["s1", "s2", "s3"]) == {"s1": PLAIN, "s2": b""}


async def test_an_erased_subject_cannot_be_opened_again(vault: Vault):
    await vault.keep(await vault.seal("s1", "user/a", PLAIN), await vault.seal("s2", "user/b", PLAIN))
    await vault.erase("user/a")
    with pytest.raises(Erased):
        await vault.open("s1")
    assert await vault.open("s2") == PLAIN
    await vault.keep(await vault.seal("s3", "user/a", PLAIN))  # a new key does not open what the old one sealed
    assert await vault.open_many(["s1", "s3"]) == {"s3": PLAIN}


@pytest.fixture(params=["memory", "postgres"])
def log_and_vault(request: pytest.FixtureRequest) -> tuple[Log, Vault]:
    if request.param == "memory":
        memory = MemoryLog()
        return memory, Vault(MemoryKeys(memory.secrets), bytes(32))
    pool = request.getfixturevalue("pool")
    return PostgresLog(pool), Vault(PostgresKeys(pool), bytes(32))


async def test_a_secret_goes_with_the_append_that_names_it_no_more(log_and_vault: tuple[Log, Vault]):
    log, vault = log_and_vault
    executor = Executor(log)

    async def does(*commands: Command) -> list[str]:
        """All in one append; what the vault has afterwards."""
        sealed = [[await vault.seal(it.secret_id, "user/a", PLAIN)] if isinstance(it, Seal) else [] for it in commands]
        await executor.execute(*(wish("a", it, secrets=its) for it, its in zip(commands, sealed, strict=True)))
        return sorted(await vault.open_many(["s1", "s2", "s3", "s4"]))

    assert await does(Seal(secret_id="s1")) == ["s1"]
    assert await does(Add()) == ["s1"]
    assert await does(Seal(secret_id="s1")) == ["s1"]
    assert await does(Seal(secret_id="s2")) == ["s2"]
    assert await does(Seal(secret_id="s3"), Seal(secret_id="s4")) == ["s4"]
    assert await does(End()) == []
    await executor.close()


async def test_a_secret_under_another_id_does_not_open(pool: asyncpg.Pool):
    vault = Vault(PostgresKeys(pool), bytes(32))
    await vault.keep(await vault.seal("s1", "user/a", PLAIN))
    await pool.execute("UPDATE vault SET id = 's2'")
    with pytest.raises(Erased):
        await vault.open("s2")


async def test_another_process_with_the_master_key_opens_it_and_without_it_does_not(pool: asyncpg.Pool):
    await (one := Vault(PostgresKeys(pool), bytes(32))).keep(await one.seal("s1", "user/a", PLAIN))
    assert await Vault(PostgresKeys(pool), bytes(32)).open("s1") == PLAIN
    with pytest.raises(Exception):  # noqa: B017  whatever it is, it is not the secret
        await Vault(PostgresKeys(pool), bytes([1] * 32)).open("s1")


async def test_no_secret_is_in_the_database_in_plain_text(pool: asyncpg.Pool):
    vault = Vault(PostgresKeys(pool), os.urandom(32))
    executor = Executor(PostgresLog(pool))
    sealed = await vault.seal("s1", "user/a", PLAIN)
    await executor.execute(wish("a", Add(), secrets=[sealed]))
    await executor.close()
    assert await vault.open("s1") == PLAIN
    for (table,) in await pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
        for row in await pool.fetch(f'SELECT row_to_json(t)::text FROM "{table}" t'):
            assert PLAIN.decode() not in row[0]
            assert PLAIN.hex() not in row[0]


async def test_a_refused_wish_stores_no_secret():
    log = MemoryLog()
    vault = Vault(MemoryKeys(log.secrets), bytes(32))
    executor = Executor(log)
    with pytest.raises(Exception, match="more than"):
        await executor.execute(wish("a", Add(most=0), secrets=[await vault.seal("s1", "user/a", PLAIN)]))
    assert log.secrets == {}
    await executor.close()


def test_the_master_key_is_made_once_and_for_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUMULOG_VAULT_KEY", raising=False)
    key = master_key(tmp_path)
    assert len(key) == 32
    assert master_key(tmp_path) == key
    assert (tmp_path / "vault.key").stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("CUMULOG_VAULT_KEY", "ab" * 32)
    assert master_key(tmp_path) == bytes.fromhex("ab" * 32)


def test_a_master_key_of_another_length_is_refused():
    with pytest.raises(ValueError, match="32 bytes"):
        Vault(MemoryKeys({}), b"short")
