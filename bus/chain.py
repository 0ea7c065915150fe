"""The hash chain, computed outside of PostgreSQL exactly as `sql/append.sql` computes it inside.

    hash = sha256(previous hash ‖ position ␟ stream ␟ version ␟ type ␟ microseconds
                                ␟ actor ␟ correlation ␟ causation ␟ data)

Actor and data are PostgreSQL's text of the jsonb; ␟ is the unit separator, U+001F.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

GENESIS = bytes(32)
"""The hash before the first event."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Row(NamedTuple):
    """An event as the events table holds it, in the order of its columns."""

    position: int
    stream: str
    version: int
    type: str
    at: datetime
    partition: int
    actor: str
    correlation: str
    causation: str
    data: str
    hash: bytes


def link(previous: bytes, row: Sequence[Any]) -> bytes:
    """The hash an event must have after that one. `row`: a `Row`, or what the database gives for its columns."""
    position, stream, version, type, at, _, actor, correlation, causation, data, _ = row
    micros = (at - _EPOCH) // _MICROSECOND
    text = "\x1f".join((str(position), stream, str(version), type, str(micros), actor, correlation, causation, data))
    return sha256(previous + text.encode()).digest()
