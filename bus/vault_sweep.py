"""What the vault keeps for nobody: secrets that no living thing names, and keys of users who are gone.

    documents ─▶ ids that are named ─┐
    vault, old enough ───────────────┴▶ those that are not go       vault_keys, old enough ─▶ those of no user go

An append forgets what it names no more, so little is left over: what older versions left, and the key of a user whose
process died between the append that ended the user and the key's erasure. Young ones stay: the append that names them
may be under way, or in the hands of a newer version, which knows of owners that this one does not.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

import asyncpg
import structlog

from bus import clock
from bus.postgres_log import document
from bus.vault import Vault
from schema.event import kinds
from schema.identity.user import USER

log = structlog.get_logger()

SWEEP_SECONDS = 3600.0
"""From one sweep to the next; the first is that long after the start."""
OLD = timedelta(days=1)
"""What is younger is left alone."""
BATCH = 1000
"""Documents or secrets looked at in one query."""


_LIVING = """
SELECT stream, version, state FROM documents WHERE stream > $1 AND stream < $2 AND NOT gone ORDER BY stream LIMIT $3
"""
_SECRETS = "SELECT id FROM vault WHERE at < $1 AND id > $2 ORDER BY id LIMIT $3"
_KEYS_WITHOUT_USER = """
SELECT id FROM vault_keys key WHERE at < $1 AND id > $2 AND id < 'user0'
AND NOT EXISTS (SELECT FROM documents WHERE stream = key.id AND NOT gone) ORDER BY id LIMIT $3
"""


class Swept(NamedTuple):
    secrets: int
    keys: int


class VaultSweep:
    """`sweep()` every second or so, in one process."""

    def __init__(self, pool: asyncpg.Pool, vault: Vault) -> None:
        self._pool = pool
        self._vault = vault
        self._swept = clock.monotonic()

    async def sweep(self) -> None:
        if clock.monotonic() - self._swept >= SWEEP_SECONDS:
            await self.remove(clock.now() - OLD)
            self._swept = clock.monotonic()

    async def remove(self, before: datetime) -> Swept:
        """What has been nobody's since then goes; how much that was."""
        swept = Swept(await self._remove_secrets(before), await self._erase_keys(before))
        if any(swept):
            log.info("the vault kept something for nobody", secrets=swept.secrets, keys=swept.keys)
        return swept

    async def _remove_secrets(self, before: datetime) -> int:
        if not await self._pool.fetchval("SELECT EXISTS (SELECT FROM vault WHERE at < $1)", before):
            return 0
        named = await self._named()
        last, removed = "", 0
        while ids := await self._ids(_SECRETS, before, last):
            last = ids[-1]
            orphans = [id for id in ids if id not in named]
            if orphans:
                await self._pool.execute("DELETE FROM vault WHERE id = ANY ($1) AND at < $2", orphans, before)
                removed += len(orphans)
        return removed

    async def _named(self) -> set[str]:
        """The secrets of everything that lives."""
        named: set[str] = set()
        for kind in kinds().values():
            last = f"{kind.name}/"
            while kind.has_secrets and (rows := await self._pool.fetch(_LIVING, last, f"{kind.name}0", BATCH)):
                last = rows[-1][0]
                named |= {id for row in rows for id in kind.secrets(document(row).state)}
        return named

    async def _erase_keys(self, before: datetime) -> int:
        last, erased = f"{USER.name}/", 0
        while ids := await self._ids(_KEYS_WITHOUT_USER, before, last):
            last = ids[-1]
            for id in ids:
                await self._vault.erase(id)
            erased += len(ids)
        return erased

    async def _ids(self, query: str, before: datetime, last: str) -> list[str]:
        return [row[0] for row in await self._pool.fetch(query, before, last, BATCH)]
