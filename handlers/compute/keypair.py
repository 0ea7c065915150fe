"""The rules of keypairs."""

from __future__ import annotations

from bus.execute import Aggregate
from schema.compute.keypair import (
    KEYPAIR,
    DeleteKeypair,
    ImportKeypair,
    Keypair,
    KeypairDeleted,
    KeypairEvent,
    KeypairImported,
)
from schema.event import Command
from schema.refusal import Conflict, NotFound

ABSENT, THERE = "absent", "there"

ALLOWED: dict[type[Command], set[str]] = {ImportKeypair: {ABSENT}, DeleteKeypair: {THERE}}


def decide(keypair: Keypair, command: Command) -> list[KeypairEvent]:
    if _already_so(keypair, command):
        return []
    if (THERE if keypair.living else ABSENT) not in ALLOWED[type(command)]:
        if keypair.living:
            raise Conflict(f"Keypair {keypair.name!r} already exists.")
        raise NotFound(f"Keypair {keypair.id} could not be found.")
    match command:
        case ImportKeypair():
            if keypair.deleted_at is not None:
                raise Conflict(f"Keypair {keypair.id} was deleted; a new one needs a new id.")
            return [_imported(command)]
        case DeleteKeypair():
            return [KeypairDeleted()]
    raise TypeError(f"keypairs know no {type(command).__name__}")


def _already_so(keypair: Keypair, command: Command) -> bool:
    match command:
        case ImportKeypair():
            return keypair.living and (keypair.parent_id, keypair.name, keypair.key_type, keypair.public_key) == (
                command.user_id,
                command.name,
                command.key_type,
                command.public_key,
            )
        case DeleteKeypair():
            return keypair.deleted_at is not None
    return False


def _imported(command: ImportKeypair) -> KeypairImported:
    return KeypairImported(
        name=command.name,
        user_id=command.user_id,
        key_type=command.key_type,
        public_key=command.public_key,
        fingerprint=command.fingerprint,
        generated=command.generated,
    )


KEYPAIRS = Aggregate(KEYPAIR, decide, ALLOWED)
