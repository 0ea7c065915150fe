"""What becomes of a call: its documents, or why it was refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from bus.log import Document
from bus.wish import Context, Wish
from schema.refusal import Conflict, Invalid, Refused

ATTEMPTS = 12
"""How often a command that keeps losing races to other processes is decided again."""


class Overloaded(Refused):
    """Too many commands are waiting; try again in a moment."""

    status = 503


class AlreadyTaken(Conflict):
    """Another stream holds this reservation. Doors reword it: `scope` and `key` say what it was about."""

    def __init__(self, scope: str, key: str) -> None:
        super().__init__(f"{scope} {key!r} is already in use")
        self.scope = scope
        self.key = key


class StillHeld(Conflict):
    """Others hold reservations where nobody should: what is to go is in use. Doors reword it by its `scope`."""

    def __init__(self, scope: str, key: str) -> None:
        super().__init__(f"{scope}: still used by {key}")
        self.scope = scope
        self.key = key


class OtherVersion(Conflict):
    """A stream is not at the version any more that who asks insists on. Doors reword it."""

    def __init__(self, stream: str, version: int) -> None:
        super().__init__(f"{stream} was changed meanwhile: it is at version {version}")
        self.version = version


class KeyReused(Invalid):
    """An idempotency key came again with another body (422)."""

    status = 422


class Pending:
    """A call that waits for its verdict."""

    __slots__ = ("attempts", "by", "result", "wishes")

    def __init__(self, wishes: tuple[Wish, ...], by: Context, result: asyncio.Future[list[Document]]) -> None:
        self.wishes = wishes
        self.by = by
        self.result = result
        self.attempts = 0

    def grant(self, documents: list[Document]) -> None:
        if not self.result.done():
            self.result.set_result(documents)

    def refuse(self, error: Exception) -> bool:
        if not self.result.done():
            self.result.set_exception(error)
        return True


def within_attempts(round: Iterable[Pending]) -> list[Pending]:
    """Those that may be decided once more; the others lost too many races."""
    again = []
    for pending in round:
        pending.attempts += 1
        if pending.attempts < ATTEMPTS:
            again.append(pending)
        else:
            pending.refuse(Overloaded(f"{pending.wishes[0].stream} is being changed by others; try again"))
    return again


def fail(round: Iterable[Pending], error: Exception) -> None:
    for pending in round:
        pending.refuse(error)
