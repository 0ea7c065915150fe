"""The log: what was recorded, what an append carries, and the protocol that PostgreSQL and the simulation both keep."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol

import msgspec

from schema.event import Event, Key, State, decode

PARTITIONS = 16
"""How many ways the log is dealt out to competing workers. Chosen once: the number is kept in every event."""

READ_LIMIT = 1000
"""Events in one read, at most."""


def partition_of(stream: str) -> int:
    """Which of the PARTITIONS a stream belongs to."""
    return zlib.crc32(stream.encode()) % PARTITIONS


class Actor(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who asked: a user, the project the token was scoped to, and the token's audit id. Empty: Cumulog itself."""

    user: str = ""
    project: str = ""
    token: str = ""


class Recorded(msgspec.Struct, frozen=True):
    """An event in its envelope, as it stands in the log."""

    position: int
    stream: str
    version: int
    type: str
    at: datetime
    partition: int
    actor: Actor
    correlation: str
    causation: str
    event: Event


class Batch(msgspec.Struct, frozen=True):
    """Events that follow each other in the log, and the position they follow.

    `previous` is the position before the first one *as the receiver counts*: for the whole log that is dense, for one
    partition it is the position of that partition's event before. A receiver whose checkpoint differs reads the log.
    """

    previous: int
    events: tuple[Recorded, ...]

    @property
    def last(self) -> int:
        return self.events[-1].position if self.events else self.previous


class Document(msgspec.Struct, frozen=True):
    """One stream's present state and its version (placement's `generation`, neutron's `revision_number`)."""

    stream: str
    version: int
    state: Any

    @property
    def id(self) -> str:
        return self.stream.partition("/")[2]


class Change(msgspec.Struct, frozen=True):
    """What one append does to one stream: from `expected` to `version`, `state` being the outcome."""

    stream: str
    expected: int
    version: int
    state: State
    deadline: datetime | None


class Fact(msgspec.Struct, frozen=True):
    """An event about to be appended, in its envelope but for the position."""

    stream: str
    version: int
    at: datetime
    actor: Actor
    correlation: str
    causation: str
    event: Event


COMMAND_SCOPE = "command"
"""The scope of idempotency keys. They are taken once and for all: by another command on the same stream, too."""


class Reservation(msgspec.Struct, frozen=True):
    scope: str
    key: str
    stream: str
    note: str = ""


class Secret(msgspec.Struct, frozen=True):
    """A sealed secret on its way into the vault: never plain text."""

    id: str
    subject: str
    sealed: bytes


class Append(msgspec.Struct, frozen=True):
    """Everything one transaction writes: many commands' worth, already decided, in order."""

    facts: Sequence[Fact]
    changes: Sequence[Change]
    checks: Mapping[str, int]
    """Streams that were read but not changed, with the version they were read at."""
    take: Sequence[Reservation] = ()
    drop: Sequence[Key] = ()
    vacant: Sequence[str] = ()
    """Scopes in which nobody may hold a reservation once this is written."""
    secrets: Sequence[Secret] = ()
    forgotten: Sequence[str] = ()
    """Secrets that go out of the vault, by id."""


class Stale(Exception):
    """Somebody else appended to these streams since they were loaded. Nothing was written."""

    def __init__(self, streams: Iterable[str]) -> None:
        self.streams = frozenset(streams)
        super().__init__(f"stale: {sorted(self.streams)}")


class Taken(Exception):
    """Somebody holds these reservations already. Nothing was written."""

    def __init__(self, held: Sequence[Reservation]) -> None:
        self.held = held
        super().__init__(f"taken: {held}")


class Log(Protocol):
    """What appends, loads and reads. Every method may raise ConnectionError when the log cannot be reached."""

    async def append(self, append: Append) -> int:
        """Write it all or nothing; the position before the first event. Raises Stale, Taken."""

    def turn(self, streams: Sequence[str]) -> AbstractAsyncContextManager[None]:
        """While it lasts, nobody else has a turn at these streams. A courtesy: who takes none may append to them."""

    async def load(self, streams: Sequence[str]) -> dict[str, Document]:
        """The documents of those streams that exist."""

    async def read(
        self, after: int, limit: int = READ_LIMIT, partitions: frozenset[int] | None = None
    ) -> list[Recorded]:
        """Events past a position, in order; of some partitions, if asked."""

    async def read_stream(self, stream: str, after_version: int = 0, limit: int = READ_LIMIT) -> list[Recorded]:
        """A stream's own events, in order."""

    async def head(self) -> int:
        """The position of the newest event."""

    async def due(self, now: datetime, limit: int = READ_LIMIT) -> list[Document]:
        """Documents whose deadline has passed, the longest overdue first."""

    async def waiting(self, limit: int = READ_LIMIT) -> list[Document]:
        """Documents with a deadline still to come, those left alone the longest first."""

    async def of_kind(self, kind: str) -> tuple[int, list[Document]]:
        """Every document of a kind that is not gone, and the position they are true at."""

    async def maintain(self) -> None:
        """What must be done now and then: room for the next positions, idempotency keys past their time."""

    async def held(self, keys: Sequence[Key]) -> list[Reservation]:
        """Those of these reservations that somebody holds."""

    async def holder(self, scope: str, key: str) -> str | None:
        """The stream that holds a reservation."""

    async def holding(self, scopes: Sequence[str], limit: int = READ_LIMIT) -> list[Reservation]:
        """The reservations in these scopes."""


def event_reference(stream: str, version: int) -> str:
    """How a causation names an event: `server/4f…@2`. Its position is not known before it is appended."""
    return f"{stream}@{version}"


def referred_event(causation: str) -> tuple[str, int] | None:
    """The stream and version a causation names; None when it is something else, such as a client's own id."""
    stream, at, version = causation.rpartition("@")
    return (stream, int(version)) if at and "/" in stream and version.isdecimal() else None


def recorded(append: Append, base: int) -> tuple[Recorded, ...]:
    """The facts of an append as they stand in the log now, `base` being the position before the first."""
    return tuple(
        Recorded(
            base + nth,
            fact.stream,
            fact.version,
            type(fact.event).__name__,
            fact.at,
            partition_of(fact.stream),
            fact.actor,
            fact.correlation,
            fact.causation,
            fact.event,
        )
        for nth, fact in enumerate(append.facts, start=1)
    )


class _Wire(msgspec.Struct, array_like=True, frozen=True):
    """A recorded event on the bus: an array, the event itself as raw JSON."""

    position: int
    stream: str
    version: int
    type: str
    at: datetime
    partition: int
    actor: Actor
    correlation: str
    causation: str
    data: msgspec.Raw


class _WireBatch(msgspec.Struct, array_like=True, frozen=True):
    previous: int
    events: list[_Wire]


_encode = msgspec.json.Encoder().encode
_decode_batch = msgspec.json.Decoder(_WireBatch).decode


def encode_batch(batch: Batch) -> bytes:
    """A batch as one bus message."""
    return _encode(
        [
            batch.previous,
            [
                [
                    r.position,
                    r.stream,
                    r.version,
                    r.type,
                    r.at,
                    r.partition,
                    r.actor,
                    r.correlation,
                    r.causation,
                    r.event,
                ]
                for r in batch.events
            ],
        ]
    )


def decode_batch(body: bytes) -> Batch:
    """A bus message as a batch again. Raises msgspec.ValidationError on anything else."""
    wire = _decode_batch(body)
    return Batch(
        wire.previous,
        tuple(
            Recorded(
                e.position,
                e.stream,
                e.version,
                e.type,
                e.at,
                e.partition,
                e.actor,
                e.correlation,
                e.causation,
                decode(e.type, bytes(e.data)),
            )
            for e in wire.events
        ),
    )
