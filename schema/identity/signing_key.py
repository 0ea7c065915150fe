"""The words of a signing key: its public half is in the log, its private half in the vault.

(none) ──made──▶ current ──retired──▶ verifies only ──forgotten──▶ gone
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec.structs import replace

from schema.event import Command, Event, Key, Kind, State


class SigningKeyMade(Event):
    public_key: str
    """PEM, P-256."""
    secret_id: str
    """The private half in the vault (PKCS 8, DER)."""
    rotate_at: datetime


class SigningKeyRetired(Event):
    """It signs no more; what it signed is good until it expires."""

    forget_at: datetime


class SigningKeyForgotten(Event):
    """All it ever signed has expired."""


class SigningKey(State):
    public_key: str = ""
    secret_id: str = ""
    current: bool = False
    rotate_at: datetime | None = None
    forget_at: datetime | None = None


class MakeSigningKey(Command):
    public_key: str
    secret_id: str
    rotate_at: datetime


class RetireSigningKey(Command):
    forget_at: datetime


class ForgetSigningKey(Command):
    pass


def evolve(key: SigningKey, event: Any, at: datetime) -> SigningKey:
    match event:
        case SigningKeyMade():
            return replace(
                key,
                public_key=event.public_key,
                secret_id=event.secret_id,
                rotate_at=event.rotate_at,
                current=True,
            )
        case SigningKeyRetired():
            return replace(key, current=False, forget_at=event.forget_at)
        case SigningKeyForgotten():
            return replace(key, current=False, deleted_at=at)
    return key


def _unique(key: SigningKey) -> tuple[Key, ...]:
    """One key signs at a time, so processes that start together agree on it."""
    return (("signing key", "current"),) if key.current else ()


def _deadline(key: SigningKey) -> datetime | None:
    if key.deleted_at is not None:
        return None
    return key.rotate_at if key.current else key.forget_at


SIGNING_KEY = Kind(
    "signing_key",
    SigningKey,
    SigningKeyMade | SigningKeyRetired | SigningKeyForgotten,
    evolve,
    unique=_unique,
    secrets=lambda key: [key.secret_id],
    deadline=_deadline,
)
