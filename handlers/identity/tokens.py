"""Tokens of this process: issued, verified in memory, revoked at once."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from bus import clock
from bus.cloud import Cloud
from bus.execute import Executor
from bus.log import Batch, Document
from handlers.identity.signing import signing
from handlers.identity.token import Token, Unauthorized, claims, from_claims
from schema.identity.revocation import REVOCATION, Revoked

AUDIENCE = "token"
REMEMBERED = 5_000
"""Verified tokens kept in memory (some 3 KB each), at most."""
LONGEST_TOKEN = 8192
"""Characters; anything longer was not signed here."""


class Tokens:
    """Verifies, and remembers what it verified: a token seen before costs a dictionary lookup.

    A revocation anywhere reaches the mirror with the log; every remembered token is then looked at again when it is
    next used.
    """

    def __init__(self, cloud: Cloud) -> None:
        self._signing = signing(cloud)
        self._revocations = cloud.mirror(REVOCATION)
        self._round = 0
        """Moves with every revocation."""
        self._verified: dict[str, tuple[Token, float, int]] = {}
        self._own: dict[str, int] = {}
        """Revocations of this very process that its mirror has yet to reach: subject → version."""
        self._revocations.on_change(self._revoked)
        self._hear(cloud.executor)

    def known(self, text: str) -> Token | None:
        """The token, if it was verified before and is still good; None when `verify` must say."""
        found = self._verified.get(text)
        if found is None:
            return None
        token, expires, round = found
        if clock.now().timestamp() >= expires:
            del self._verified[text]
            return None
        if round != self._round:
            if self._is_revoked(token):
                del self._verified[text]
                return None
            self._verified[text] = (token, expires, self._round)
        return token

    async def verify(self, text: str) -> Token:
        """The token this text is. Raises Unauthorized: not signed here, expired, revoked."""
        token = self.known(text)
        if token is not None:
            return token
        if not text or len(text) > LONGEST_TOKEN or not text.isascii():
            raise Unauthorized
        try:
            token = from_claims(await self._signing.verify_signed(text, AUDIENCE))
        except (msgspec.ValidationError, KeyError, OverflowError):
            raise Unauthorized from None
        if self._is_revoked(token):
            raise Unauthorized
        self._remember(text, token)
        return token

    async def sign(self, token: Token) -> str:
        """A token as the text that clients carry."""
        text = await self._signing.sign_claims(
            {
                **claims(token),
                "aud": AUDIENCE,
                "iat": token.issued_at.timestamp(),
                "exp": token.expires_at.timestamp(),
            }
        )
        if not self._is_revoked(token):
            self._remember(text, token)
        return text

    def _is_revoked(self, token: Token) -> bool:
        get, own = self._revocations.get, self._own
        for subject, version in token.subjects:
            revocation = get(subject)
            if revocation is not None and revocation.version > version:
                return True
            if own and own.get(subject, 0) > version:
                return True
        return False

    def _remember(self, text: str, token: Token) -> None:
        if len(self._verified) >= REMEMBERED:
            for old in list(self._verified)[: REMEMBERED // 10]:
                del self._verified[old]
        self._verified[text] = (token, token.expires_at.timestamp(), self._round)

    def _revoked(self, before: Document | None, after: Document | None) -> None:
        self._round += 1
        if after is not None and self._own.get(after.id, 0) <= after.version:
            self._own.pop(after.id, None)

    def _hear(self, executor: Executor) -> None:
        """Learn of this process's own revocations as they commit, however far behind others' events the mirror is."""
        pass_on = executor.committed

        def committed(batch: Batch) -> None:
            for recorded in batch.events:
                if isinstance(recorded.event, Revoked):
                    self._own[recorded.stream.partition("/")[2]] = recorded.version
                    self._round += 1
            pass_on(batch)

        executor.committed = committed


_of: WeakKeyDictionary[Any, Tokens] = WeakKeyDictionary()


def tokens(cloud: Cloud) -> Tokens:
    """The process's tokens. Ask once before the mirrors start."""
    found = _of.get(cloud.mirrors)
    if found is None:
        found = _of[cloud.mirrors] = Tokens(cloud)
    return found
