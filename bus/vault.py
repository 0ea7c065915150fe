"""The vault: secrets under envelope encryption, outside the log.

Each subject (a user, a server, a project) has a data key; the data key is stored sealed under the master key, which
lives in a file or the environment and never in the database. Erasing a subject is dropping its key: what was sealed
under it, in backups too, can never be read again, and the log's chain still verifies because events only hold ids.
What a thing keeps here its kind names (`Kind.secrets`): the append that names a secret no more forgets it, too.
What is left over all the same goes in a sweep (`vault_sweep.py`).
AES-256-GCM; the secret's id is authenticated with it, so a row moved to another id does not open.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import asyncpg
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bus import clock
from bus.log import Secret
from schema.refusal import NotFound

_NONCE_BYTES = 12
_KEY_BYTES = 32


class Erased(NotFound):
    """The secret's subject was erased, or the secret never was."""


class Keys(Protocol):
    """Where sealed data keys and sealed secrets are kept."""

    async def key(self, subject: str) -> bytes | None: ...
    async def keep_key(self, subject: str, sealed: bytes) -> bytes: ...
    async def drop_key(self, subject: str) -> None: ...
    async def secrets(self, ids: Sequence[str]) -> dict[str, tuple[str, bytes]]: ...
    async def keep(self, secrets: Sequence[Secret]) -> None: ...


class Vault:
    """Seals what must not be in an event, and opens it again."""

    def __init__(self, keys: Keys, master_key: bytes) -> None:
        if len(master_key) != _KEY_BYTES:
            raise ValueError(f"the vault's master key must be {_KEY_BYTES} bytes, not {len(master_key)}")
        self._keys = keys
        self._master = AESGCM(master_key)
        self._data_keys: dict[str, AESGCM] = {}

    async def seal(self, id: str, subject: str, plain: bytes) -> Secret:
        """A sealed secret, to travel with the wish that records its id. `subject`: whose data it is (`user/…`)."""
        cipher = await self._data_key(subject, make=True)
        nonce = clock.random_bytes(_NONCE_BYTES)
        return Secret(id, subject, nonce + cipher.encrypt(nonce, plain, id.encode()))

    async def open(self, id: str) -> bytes:
        """One secret in plain text. Raises Erased."""
        opened = await self.open_many([id])
        if id not in opened:
            raise Erased(f"secret {id} is not in the vault, or its subject was erased")
        return opened[id]

    async def open_many(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Secrets by id; those erased are left out."""
        opened = {}
        for id, (subject, sealed) in (await self._keys.secrets(ids)).items():
            try:
                cipher = await self._data_key(subject, make=False)
                opened[id] = cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], id.encode())
            except (Erased, InvalidTag):
                continue
        return opened

    async def keep(self, *secrets: Secret) -> None:
        """Store secrets that come with no event."""
        await self._keys.keep(secrets)

    async def erase(self, subject: str) -> None:
        """Crypto-shredding: nothing sealed for this subject can be opened again."""
        self._data_keys.pop(subject, None)
        await self._keys.drop_key(subject)

    async def _data_key(self, subject: str, *, make: bool) -> AESGCM:
        cipher = self._data_keys.get(subject)
        if cipher is not None:
            return cipher
        sealed = await self._keys.key(subject)
        if sealed is None:
            if not make:
                raise Erased(f"the key of {subject} was erased")
            nonce = clock.random_bytes(_NONCE_BYTES)
            fresh = clock.random_bytes(_KEY_BYTES)
            sealed = await self._keys.keep_key(subject, nonce + self._master.encrypt(nonce, fresh, subject.encode()))
        plain = self._master.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], subject.encode())
        if len(self._data_keys) > 10_000:
            self._data_keys.clear()
        cipher = self._data_keys[subject] = AESGCM(plain)
        return cipher


class PostgresKeys:
    """Keys and secrets in the vault tables."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.pool = pool

    async def key(self, subject: str) -> bytes | None:
        return await self.pool.fetchval("SELECT sealed FROM vault_keys WHERE id = $1", subject)  # type: ignore[no-any-return]

    async def keep_key(self, subject: str, sealed: bytes) -> bytes:
        """Store a key unless there is one already; the one that counts."""
        await self.pool.execute(
            "INSERT INTO vault_keys (id, sealed) VALUES ($1, $2) ON CONFLICT DO NOTHING", subject, sealed
        )
        return await self.key(subject) or sealed

    async def drop_key(self, subject: str) -> None:
        await self.pool.execute("DELETE FROM vault_keys WHERE id = $1", subject)

    async def secrets(self, ids: Sequence[str]) -> dict[str, tuple[str, bytes]]:
        rows = await self.pool.fetch("SELECT id, subject, sealed FROM vault WHERE id = ANY($1)", list(ids))
        return {row[0]: (row[1], row[2]) for row in rows}

    async def keep(self, secrets: Sequence[Secret]) -> None:
        await self.pool.executemany(
            "INSERT INTO vault (id, subject, sealed) VALUES ($1, $2, $3)"
            " ON CONFLICT (id) DO UPDATE SET sealed = EXCLUDED.sealed, at = now()",
            [(secret.id, secret.subject, secret.sealed) for secret in secrets],
        )


class MemoryKeys:
    """The same in memory, over the dictionary a `MemoryLog` keeps its secrets in."""

    def __init__(self, secrets: dict[str, Secret]) -> None:
        self._secrets = secrets
        self._sealed: dict[str, bytes] = {}

    async def key(self, subject: str) -> bytes | None:
        return self._sealed.get(subject)

    async def keep_key(self, subject: str, sealed: bytes) -> bytes:
        return self._sealed.setdefault(subject, sealed)

    async def drop_key(self, subject: str) -> None:
        self._sealed.pop(subject, None)

    async def secrets(self, ids: Sequence[str]) -> dict[str, tuple[str, bytes]]:
        return {id: (s.subject, s.sealed) for id in ids if (s := self._secrets.get(id))}

    async def keep(self, secrets: Sequence[Secret]) -> None:
        self._secrets.update({secret.id: secret for secret in secrets})


def master_key(home: Path) -> bytes:
    """The master key: `CUMULOG_VAULT_KEY` (64 hex digits), else `<home>/vault.key`, made on first use (mode 0600)."""
    given = os.environ.get("CUMULOG_VAULT_KEY")
    if given:
        return bytes.fromhex(given)
    path = home / "vault.key"
    try:
        return bytes.fromhex(path.read_text().strip())
    except FileNotFoundError:
        fresh = clock.random_bytes(_KEY_BYTES)
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(fresh.hex() + "\n")
        except FileExistsError:
            return master_key(home)
        return fresh
