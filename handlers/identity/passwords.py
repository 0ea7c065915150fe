"""Passwords: bcrypt at Keystone's cost, in a few threads off the event loop; hashes in the vault, guesses limited."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import bcrypt

from bus import clock
from bus.cloud import Cloud
from bus.log import Secret
from bus.vault import Erased
from schema.refusal import Refused

COST = 12
"""Keystone's default: 2^12 rounds, about a fifth of a second."""
LONGEST_BYTES = 4096
THREADS = 2
WAITING = 100
"""Logins waiting for a thread, at most; more are told to come back."""
GUESSES = 10
"""Wrong passwords for one user in GUESS_SECONDS; past that the user has to wait."""
GUESS_SECONDS = 60.0
REMEMBERED_SECONDS = 300.0
"""How long a password that was right need not be hashed again in this process."""
REMEMBERED = 10_000

T = TypeVar("T")

_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="bcrypt")
_waiting = 0


class TooManyLogins(Refused):
    """Hashing takes time, and too many wait for it, or this user was guessed at too often (429)."""

    status = 429
    headers = {"Retry-After": "10"}  # noqa: RUF012  never changed

    def __init__(self, message: str) -> None:
        super().__init__(message)


class Passwords:
    """Sets and checks the passwords (and application credentials' secrets) of one cloud.

    A right password is remembered for a while as an HMAC under a key that never leaves this process, so that a client
    that logs in with every command does not cost a fifth of a second of CPU each time.
    """

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._key = clock.random_bytes(32)
        self._right: dict[str, tuple[bytes, float]] = {}
        self._wrong: dict[str, list[float]] = {}

    async def seal(self, owner: str, password: str) -> Secret:
        """A new password's hash, sealed for the vault. `owner`: whose it is (`user/<id>`)."""
        hashed = await _in_thread(bcrypt.hashpw, _prepared(password), bcrypt.gensalt(COST))
        return await self._cloud.vault.seal(f"password/{clock.hex_id()}", owner, hashed)

    async def right(self, owner: str, secret_id: str | None, password: str) -> bool:
        """Whether this is the password; as slow where there is none. Raises TooManyLogins."""
        now = clock.monotonic()
        if secret_id is not None and self._remembers(secret_id, password, now):
            return True
        guesses = [at for at in self._wrong.get(owner, ()) if at > now - GUESS_SECONDS]
        if len(guesses) >= GUESSES:
            raise TooManyLogins("Too many wrong passwords for this user; wait a minute and try again.")
        hashed = await self._hash_of(secret_id)
        good = await _in_thread(bcrypt.checkpw, _prepared(password), hashed or _NOBODYS) and hashed is not None
        if good and secret_id is not None:
            self._wrong.pop(owner, None)
            if len(self._right) >= REMEMBERED:
                self._right.clear()
            self._right[secret_id] = (self._digest(secret_id, password), now)
        else:
            if len(self._wrong) >= REMEMBERED:
                self._wrong.clear()
            self._wrong[owner] = [*guesses, now]
        return good

    def _remembers(self, secret_id: str, password: str, now: float) -> bool:
        found = self._right.get(secret_id)
        if found is None:
            return False
        if found[1] < now - REMEMBERED_SECONDS:
            del self._right[secret_id]
            return False
        return hmac.compare_digest(found[0], self._digest(secret_id, password))

    def _digest(self, secret_id: str, password: str) -> bytes:
        return hmac.digest(self._key, secret_id.encode() + b"\0" + password.encode(), "sha256")

    async def _hash_of(self, secret_id: str | None) -> bytes | None:
        if secret_id is None:
            return None
        try:
            return await self._cloud.vault.open(secret_id)
        except Erased:
            return None


async def _in_thread(work: Callable[..., T], *arguments: bytes) -> T:
    global _waiting  # noqa: PLW0603  one pool of threads, one count of those who wait for it
    if _waiting >= WAITING:
        raise TooManyLogins("Too many logins at once; try again in a moment.")
    _waiting += 1
    try:
        return await asyncio.get_running_loop().run_in_executor(_threads, work, *arguments)
    finally:
        _waiting -= 1


def _prepared(password: str) -> bytes:
    """bcrypt reads 72 bytes; a longer password is first hashed, as passlib's bcrypt_sha256 does in principle."""
    plain = password.encode()
    return plain if len(plain) <= 72 and b"\0" not in plain else base64.b64encode(hashlib.sha256(plain).digest())


_NOBODYS = b"$2b$12$C6UzMDM.H6dfI/f/IKxGhunMkkrh7f29Osns/B4h9i2cM1/jSbptG"
"""A hash of nothing in particular: users who are not there take as long to refuse as those who are."""
