"""A keypair: a public key of a user, under a name of theirs. The private half is never kept.

    (absent) ──KeypairImported──▶ there ──KeypairDeleted──▶ gone

The stream's id is a uuid; a user's names are unique by reservation.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from msgspec.structs import replace

from schema.event import Command, Event, Key, Kind, Said, State


class KeyType(StrEnum):
    SSH = "ssh"
    X509 = "x509"


class Keypair(State):
    name: str = ""
    parent_id: str = ""
    """The user it belongs to."""
    key_type: KeyType = KeyType.SSH
    public_key: str = ""
    fingerprint: str = ""

    @property
    def user_id(self) -> str:
        return self.parent_id


class _NewKeypair(Said):
    name: str
    user_id: str
    key_type: KeyType
    public_key: str
    fingerprint: str
    generated: bool = False


class KeypairImported(Event, _NewKeypair):
    """The key's owner brought it, or it was made for them and handed over (`generated`)."""


class KeypairDeleted(Event):
    pass


KeypairEvent = KeypairImported | KeypairDeleted


class ImportKeypair(Command, _NewKeypair):
    """Make it."""


class DeleteKeypair(Command):
    pass


def evolve(keypair: Keypair, event: KeypairEvent, at: datetime) -> Keypair:
    match event:
        case KeypairImported():
            return replace(
                keypair,
                name=event.name,
                parent_id=event.user_id,
                key_type=event.key_type,
                public_key=event.public_key,
                fingerprint=event.fingerprint,
            )
        case KeypairDeleted():
            return replace(keypair, deleted_at=at)


def scope_of(user_id: str) -> str:
    """The reservation scope that keeps a user's keypair names apart."""
    return f"keypair of {user_id}"


def _unique(keypair: Keypair) -> tuple[Key, ...]:
    return ((scope_of(keypair.parent_id), keypair.name),)


KEYPAIR = Kind("keypair", Keypair, KeypairEvent, evolve, unique=_unique)
