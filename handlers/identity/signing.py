"""Signing and verifying: ES256 JWTs under keys that every process shares through the log and the vault.

Tokens are one use; tickets (an agent's image download) are another: `sign(claims, audience, lifetime_seconds)`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bus import clock
from bus.cloud import Cloud
from bus.execute import Aggregate, Wish
from bus.log import Document
from handlers.identity.token import Unauthorized
from schema.event import Command, Event
from schema.identity.signing_key import (
    SIGNING_KEY,
    ForgetSigningKey,
    MakeSigningKey,
    RetireSigningKey,
    SigningKey,
    SigningKeyForgotten,
    SigningKeyMade,
    SigningKeyRetired,
)
from schema.refusal import Conflict, NotFound

ISSUER = "cumulog"
ALGORITHM = "ES256"
SUBJECT = "signing keys"
ROTATE_AFTER = timedelta(days=30)
LONGEST_LIFETIME_SECONDS = 31_536_000

ALLOWED: dict[type[Command], set[str]] = {
    MakeSigningKey: {"new"},
    RetireSigningKey: {"current"},
    ForgetSigningKey: {"retired"},
}


def decide(key: SigningKey, command: Command) -> Sequence[Event]:
    match command:
        case MakeSigningKey():
            if key.created_at is not None:
                return []
            return [
                SigningKeyMade(public_key=command.public_key, secret_id=command.secret_id, rotate_at=command.rotate_at)
            ]
        case RetireSigningKey():
            return [SigningKeyRetired(forget_at=command.forget_at)] if _born(key).current else []
        case ForgetSigningKey():
            if _born(key).current:
                raise Conflict(f"signing key {key.id} is the one in use; make another first")
            return [] if key.deleted_at else [SigningKeyForgotten()]
    raise TypeError(command)


def _born(key: SigningKey) -> SigningKey:
    if key.created_at is None:
        raise NotFound(f"there is no signing key {key.id}")
    return key


SIGNING_KEYS = Aggregate(SIGNING_KEY, decide, ALLOWED)


class Signing:
    """One process's hold on the signing keys: public halves mirrored, the current private half opened once."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._public: dict[str, ec.EllipticCurvePublicKey] = {}
        self._current: str | None = None
        self._private: tuple[str, ec.EllipticCurvePrivateKey] | None = None
        cloud.mirror(SIGNING_KEY).on_change(self._changed)

    async def sign(self, claims: dict[str, Any], audience: str, lifetime_seconds: float) -> str:
        """Claims as a signed, compact string. `audience` says what it is for: nothing else will take it."""
        issued = clock.now().timestamp()
        return await self.sign_claims({**claims, "aud": audience, "iat": issued, "exp": issued + lifetime_seconds})

    async def sign_claims(self, claims: dict[str, Any]) -> str:
        """The same, times and audience being in the claims already."""
        kid, private = await self._signing_key()
        return jwt.encode({"iss": ISSUER, **claims}, private, algorithm=ALGORITHM, headers={"kid": kid})

    async def verify_signed(self, text: str, audience: str) -> dict[str, Any]:
        """The claims, if it was signed here, for this audience, and has not expired. Raises Unauthorized."""
        try:
            kid = jwt.get_unverified_header(text).get("kid")
            claims: dict[str, Any] = jwt.decode(
                text,
                await self._public_key(kid),
                algorithms=[ALGORITHM],
                audience=audience,
                issuer=ISSUER,
                options={"require": ["exp", "iat", "aud"], "verify_exp": False, "verify_iat": False},
            )
            expired = not clock.now().timestamp() < float(claims["exp"])
        except (jwt.PyJWTError, ValueError, TypeError):
            raise Unauthorized("The signature is not good.") from None
        if expired:
            raise Unauthorized("The signed ticket has expired.")
        return claims

    async def prepare(self) -> None:
        """Have a key before the first one asks for it."""
        await self._signing_key()

    async def rotate(self) -> None:
        """Make a new key and retire the one in use. What that one signed stays good until it expires."""
        current = await self._find_current()
        forget_at = clock.now() + timedelta(seconds=LONGEST_LIFETIME_SECONDS)
        retire = (Wish(SIGNING_KEYS, current.id, RetireSigningKey(forget_at=forget_at)),) if current else ()
        await self._make(*retire)

    async def _signing_key(self) -> tuple[str, ec.EllipticCurvePrivateKey]:
        if self._private is not None and self._private[0] == self._current:
            return self._private
        document = await self._find_current()
        if document is None:
            with contextlib.suppress(Conflict):  # another process makes it in this very moment
                await self._make()
            document = await self._find_current()
            if document is None:
                raise ConnectionError("there is no signing key yet; try again in a moment")
        der = await self._cloud.vault.open(document.state.secret_id)
        private = serialization.load_der_private_key(der, password=None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise TypeError(f"signing key {document.id} is not an elliptic curve key")
        self._changed(None, document)
        self._private = (document.id, private)
        return self._private

    async def _find_current(self) -> Document | None:
        """The key in use: from memory, else from the log (this process may not have heard of it yet)."""
        found = self._cloud.mirror(SIGNING_KEY).get(self._current) if self._current else None
        if found is None:
            stream = await self._cloud.log.holder("signing key", "current")
            found = (await self._cloud.log.load([stream])).get(stream) if stream else None
        return found

    async def _make(self, *with_it: Wish) -> None:
        private = ec.generate_private_key(ec.SECP256R1())
        der = private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        kid = clock.hex_id()
        secret = await self._cloud.vault.seal(f"signing_key/{kid}", SUBJECT, der)
        made = MakeSigningKey(public_key=public.decode(), secret_id=secret.id, rotate_at=clock.now() + ROTATE_AFTER)
        await self._cloud.executor.execute(*with_it, Wish(SIGNING_KEYS, kid, made, (secret,)))

    async def _public_key(self, kid: Any) -> ec.EllipticCurvePublicKey:
        if not isinstance(kid, str) or len(kid) != 32 or not kid.isalnum():
            raise ValueError("no key id")
        if kid not in self._public:
            found = await self._cloud.log.load([SIGNING_KEY.stream(kid)])
            for document in found.values():
                if document.state.deleted_at is None:
                    self._keep_public(document)
        try:
            return self._public[kid]
        except KeyError:
            raise ValueError("no such key") from None

    def _changed(self, before: Document | None, after: Document | None) -> None:
        if after is not None:
            self._keep_public(after)
            if after.state.current:
                self._current = after.id
        elif before is not None:
            self._public.pop(before.id, None)

    def _keep_public(self, document: Document) -> None:
        public = serialization.load_pem_public_key(document.state.public_key.encode())
        if isinstance(public, ec.EllipticCurvePublicKey):
            self._public[document.id] = public


_of: WeakKeyDictionary[Any, Signing] = WeakKeyDictionary()


def signing(cloud: Cloud) -> Signing:
    """The process's signing keys. Ask once before the mirrors start."""
    found = _of.get(cloud.mirrors)
    if found is None:
        found = _of[cloud.mirrors] = Signing(cloud)
    return found
