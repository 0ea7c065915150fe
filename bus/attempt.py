"""One pass over waiting calls: each decided on the outcome of those before it, and what that adds up to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import structlog

from bus import clock
from bus.log import COMMAND_SCOPE, Append, Change, Document, Fact, Reservation, Secret, event_reference
from bus.verdict import OtherVersion, Pending
from bus.wish import Became, Context, Following, Wish
from schema.event import Command, Key, Kind, kind_of
from schema.refusal import Refused

log = structlog.get_logger()

EVENTS = 2000
"""Events in one append, at most (a single command may exceed it)."""
BETWEEN = "\x1f"
"""What stands between the fingerprint and the streams in the note of an idempotency key."""


class _Granted(msgspec.Struct):
    documents: list[Document]
    wanted: list[Key]
    streams: list[str]
    vacant: list[str]


class _Draft:
    """What one call comes to, until it is granted."""

    def __init__(self) -> None:
        self.states: dict[str, tuple[int, Any]] = {}
        self.facts: list[Fact] = []
        self.secrets: list[Secret] = []
        self.forgotten: set[str] = set()
        self.vacant: list[str] = []
        self.followed: dict[tuple[str, str], tuple[int, Any]] = {}
        """(Who follows, whom) → as it was when it was followed last: what became of it is followed once."""


class Attempt:
    """One pass over a round: the states as they become while its commands are decided in turn."""

    def __init__(self, known: Mapping[str, Document], *, trusted: bool) -> None:
        self._known = known
        self._trusted = trusted
        self._states: dict[str, tuple[int, Any]] = {}
        self._facts: list[Fact] = []
        self._take: dict[Key, Reservation] = {}
        self._drop: set[Key] = set()
        self._secrets: list[Secret] = []
        self._forgotten: set[str] = set()
        self._granted: dict[Pending, _Granted] = {}

    @property
    def granted(self) -> list[Pending]:
        return list(self._granted)

    def wanted(self, pending: Pending) -> list[Key]:
        """The reservations a granted command takes."""
        return self._granted[pending].wanted

    def vacated(self, pending: Pending) -> list[str]:
        """The scopes that a granted command wants vacant."""
        return self._granted[pending].vacant

    def touching(self, streams: Iterable[str]) -> list[Pending]:
        """Granted commands that read a stale stream, or one that such a command changed."""
        tainted = set(streams)
        touched = []
        for pending, granted in self._granted.items():
            if not tainted.isdisjoint(granted.streams):
                tainted.update(granted.streams)
                touched.append(pending)
        return touched

    def decide(self, pending: Pending) -> bool:
        """Decide one command on the states so far. False: run it again in the next pass, on freshly loaded states."""
        if len(self._facts) >= EVENTS:
            return False
        draft = _Draft()
        try:
            self._draft(pending, draft)
        except Refused as refused:
            return False if self._doubtful(pending) else pending.refuse(refused)
        except Exception as error:  # a rule that breaks fails its own caller, never its neighbours in the batch
            log.exception("decide failed", stream=pending.wishes[0].stream, error=repr(error))
            return pending.refuse(error)
        if not draft.facts and self._doubtful(pending):
            return False
        take, drop = self._reservations(pending, draft.states)
        if any(key in self._take for key in take):
            return False
        for key in drop:
            # What this very append would take needs no release; who held it before is none of its business.
            if self._take.pop(key, None) is None:
                self._drop.add(key)
        self._take |= take
        self._forgotten |= draft.forgotten
        self._states |= draft.states
        self._facts += draft.facts
        self._secrets += draft.secrets
        documents = [Document(wish.stream, *self._state(wish.stream)) for wish in pending.wishes]
        self._granted[pending] = _Granted(documents, list(take), list(draft.states), draft.vacant)
        return True

    def _draft(self, pending: Pending, draft: _Draft) -> None:
        """What a call comes to, wish by wish. Raises what a rule raises."""
        by, now, causation = pending.by, clock.now(), self._causation(pending)
        for wish in pending.wishes:
            command = self._command(wish, draft)
            if command is None:
                continue
            stream, kind = wish.stream, wish.aggregate.kind
            version, before = draft.states.get(stream) or self._state(stream)
            if stream not in draft.states:
                _refuse_other_version(by, stream, version)
            events, state = wish.aggregate.decide(before, command), before
            for event in events:
                version += 1
                state = kind.fold(state, event, now)
                draft.facts.append(Fact(stream, version, now, by.actor, by.request_id, causation, event))
            if events:
                draft.secrets += wish.secrets
                draft.forgotten |= _kept(kind, before) - _kept(kind, state)
                draft.vacant += wish.vacant
            draft.states[stream] = (version, state)

    def _command(self, wish: Wish, draft: _Draft) -> Command | None:
        if not isinstance(wish.command, Following):
            return wish.command
        became = []
        for stream in wish.command.of:
            if stream not in draft.states:
                raise ValueError(f"a wish for {wish.stream} follows {stream}, of which nothing was wished before it")
            before = draft.followed.get((wish.stream, stream)) or self._state(stream)
            after = draft.followed[wish.stream, stream] = draft.states[stream]
            became.append(Became(before[1], after[1]))
        return wish.command.command(became)

    def append(self) -> Append:
        """What the commands granted so far add up to."""
        changes: list[Change] = []
        checks: dict[str, int] = {}
        for stream, (version, state) in self._states.items():
            known = self._known.get(stream)
            expected = known.version if known else 0
            if version == expected:
                checks[stream] = expected
            else:
                changes.append(Change(stream, expected, version, state, kind_of(stream).deadline(state)))
        return Append(
            facts=self._facts,
            changes=changes,
            checks=checks,
            take=list(self._take.values()),
            drop=list(self._drop),
            vacant=list(dict.fromkeys(scope for granted in self._granted.values() for scope in granted.vacant)),
            secrets=self._secrets,
            forgotten=list(self._forgotten),
        )

    def answer(self) -> None:
        """Tell the callers what became of their streams."""
        for pending, granted in self._granted.items():
            pending.grant(granted.documents)

    def _state(self, stream: str) -> tuple[int, Any]:
        found = self._states.get(stream)
        if found is not None:
            return found
        document = self._known.get(stream)
        if document is not None:
            return document.version, document.state
        return 0, kind_of(stream).unborn(stream.partition("/")[2])

    def _causation(self, pending: Pending) -> str:
        """What led here. What nobody asked for follows from the newest event of what it is first of all about."""
        if pending.by.causation or pending.by.actor.user:
            return pending.by.causation
        stream = pending.wishes[0].stream
        version, _ = self._state(stream)
        return event_reference(stream, version) if version else ""

    def _doubtful(self, pending: Pending) -> bool:
        """Whether a verdict without events (a refusal, "already so") rests on what may be overtaken or undone.

        That is a state remembered from before, or one that an earlier command of this very pass has yet to commit.
        """
        return any(
            self._changed(wish.stream) or (not self._trusted and wish.stream in self._known) for wish in pending.wishes
        )

    def _changed(self, stream: str) -> bool:
        """Whether this pass would append to it."""
        known = self._known.get(stream)
        return stream in self._states and self._states[stream][0] != (known.version if known else 0)

    def _reservations(
        self, pending: Pending, states: Mapping[str, tuple[int, Any]]
    ) -> tuple[dict[Key, Reservation], set[Key]]:
        """What these states reserve that they did not before, and what they no longer do."""
        take: dict[Key, Reservation] = {}
        drop: set[Key] = set()
        for stream, (version, state) in states.items():
            before_version, before = self._state(stream)
            if version != before_version:
                kind = kind_of(stream)
                had = _held(kind, before, before_version)
                has = _held(kind, state, version)
                drop |= had - has
                take |= {key: Reservation(*key, stream) for key in has - had}
        if pending.by.idempotency:
            key = (COMMAND_SCOPE, pending.by.idempotency)
            streams = [wish.stream for wish in pending.wishes]
            take[key] = Reservation(*key, streams[0], BETWEEN.join([pending.by.fingerprint, *streams]))
        return take, drop


def _refuse_other_version(by: Context, stream: str, version: int) -> None:
    if by.at.get(stream, version) != version:
        raise OtherVersion(stream, version)


def _held(kind: Kind[Any], state: Any, version: int) -> set[Key]:
    return set(kind.unique(state)) if version and state.deleted_at is None else set()


def _kept(kind: Kind[Any], state: Any) -> set[str]:
    """What the vault keeps for it."""
    return {id for id in kind.secrets(state) if id} if state.living else set()
