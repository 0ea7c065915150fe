"""`execute`: the one command path. Load, decide, append; everybody's waiting commands in one transaction.

One loop per process decides and appends. It takes whatever commands are waiting, loads the streams they touch (one
query, or none when they are remembered from a moment ago), decides them one after the other, each on the outcome of
those before it, and appends all their events together. Two commands of one process on one stream therefore never
conflict; with another process's they may, and then only the commands that touched the stale streams run again.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from bus import clock
from bus.log import (
    COMMAND_SCOPE,
    Actor,
    Append,
    Batch,
    Change,
    Document,
    Fact,
    Log,
    Reservation,
    Secret,
    Stale,
    Taken,
    event_reference,
    recorded,
)
from schema.event import Command, Event, Key, Kind, kind_of
from schema.refusal import Conflict, Invalid, Refused

log = structlog.get_logger()

BATCH = 256
"""Commands decided and appended together, at most."""
EVENTS = 2000
"""Events in one append, at most (a single command may exceed it)."""
ATTEMPTS = 12
"""How often a command that keeps losing races to other processes is decided again."""
REMEMBERED = 8192
"""Streams whose state is kept in memory between commands."""
WAITING = 20_000
"""Commands waiting, at most; past that the process says it is overloaded instead of growing."""


class Overloaded(Refused):
    """Too many commands are waiting; try again in a moment."""

    status = 503


class Aggregate:
    """A kind with its rules. `allowed`: command type → statuses it may act in, for the laws and the reader."""

    def __init__(
        self,
        kind: Kind[Any],
        decide: Callable[[Any, Any], Sequence[Event]],
        allowed: Mapping[type[Command], Any],
    ) -> None:
        self.kind = kind
        self.decide = decide
        self.allowed = allowed
        AGGREGATES[kind.name] = self

    def __repr__(self) -> str:
        return f"Aggregate({self.kind.name!r})"


AGGREGATES: dict[str, Aggregate] = {}


class Wish(msgspec.Struct, frozen=True):
    """One command for one stream. `secrets`: sealed beforehand by the vault, stored only if the wish is granted.

    `vacant`: scopes in which nobody may hold a reservation if this changes anything, as nobody may be in a group that
    goes (StillHeld). Who takes one there must touch the same stream, be it by a wish that changes nothing.
    """

    aggregate: Any
    id: str
    command: Command
    secrets: Sequence[Secret] = ()
    vacant: Sequence[str] = ()

    @property
    def stream(self) -> str:
        return f"{self.aggregate.kind.name}/{self.id}"


class Context(msgspec.Struct, frozen=True):
    """Who asks, in which request, because of what.

    `idempotency`: a key that makes a repeated request the same request; `fingerprint` is a hash of its body, so that a
    key used again for something else is noticed. The same request again gets the documents of the first one's streams,
    as they are by now.
    """

    actor: Actor = Actor()
    request_id: str = ""
    causation: str = ""
    idempotency: str = ""
    fingerprint: str = ""
    at: Mapping[str, int] = {}
    """Stream → the version that who asks saw it at: changed by others since, it is OtherVersion."""


SYSTEM = Context()
_BETWEEN = "\x1f"


class _Pending:
    __slots__ = ("attempts", "by", "result", "wishes")

    def __init__(self, wishes: tuple[Wish, ...], by: Context, result: asyncio.Future[list[Document]]) -> None:
        self.wishes = wishes
        self.by = by
        self.result = result
        self.attempts = 0


class Executor:
    """Decides and appends for one process. `committed` hears of every append, in order, right after its commit."""

    def __init__(self, log: Log, committed: Callable[[Batch], None] = lambda batch: None) -> None:
        self.log = log
        self.committed = committed
        self.append_seconds: Callable[[float], None] = lambda seconds: None
        self._remembered: OrderedDict[str, Document] = OrderedDict()
        self._loading: set[str] = set()
        """What is being loaded, and was not seen to be overtaken meanwhile."""
        self._waiting: list[_Pending] = []
        self._taken: list[_Pending] = []
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._context = contextvars.copy_context()
        """It works for everybody: in the name of who made it, never of who happened to submit first."""

    async def execute(self, *wishes: Wish, by: Context = SYSTEM) -> list[Document]:
        """Do all of it or none of it; the documents afterwards, one per wish, in order.

        Raises Refused (or a child) when a rule says no; ConnectionError and OSError when the log cannot be reached:
        then nothing is known to have happened, and the same call may be made again.
        """
        return await self.submit(wishes, by)

    def submit(self, wishes: Iterable[Wish], by: Context = SYSTEM) -> asyncio.Future[list[Document]]:
        """Queue a command without waiting; await the future for its documents."""
        result: asyncio.Future[list[Document]] = asyncio.get_running_loop().create_future()
        if len(self._waiting) >= WAITING:
            result.set_exception(Overloaded(f"{WAITING} commands are waiting already; try again in a moment"))
            return result
        self._waiting.append(_Pending(tuple(wishes), by, result))
        if self._loop is None or self._loop.done():
            running = asyncio.get_running_loop()
            self._loop = running.create_task(self._run(), name="executor", context=self._context.copy())
        self._wake.set()
        return result

    @property
    def waiting(self) -> int:
        """Commands not yet taken up."""
        return len(self._waiting)

    async def close(self) -> None:
        """Finish what was submitted, then stop."""
        while (self._taken or self._waiting) and self._loop and not self._loop.done():
            unsettled = [it.result for it in (*self._taken, *self._waiting) if not it.result.done()]
            if unsettled:
                await asyncio.wait(unsettled)
            else:
                await asyncio.sleep(0.001)  # callers that went away do not tell when their append is over
        if self._loop:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
            self._loop = None

    def forget(self, streams: Iterable[str]) -> None:
        """Drop remembered states: somebody else was seen to append to these streams."""
        for stream in streams:
            self._remembered.pop(stream, None)
            self._loading.discard(stream)

    def observe(self, batch: Batch) -> None:
        """Events came by on the bus: remembered states they have overtaken are dropped."""
        for event in batch.events:
            self._loading.discard(event.stream)
            known = self._remembered.get(event.stream)
            if known is not None and known.version < event.version:
                del self._remembered[event.stream]

    async def load(self, streams: Sequence[str]) -> dict[str, Document]:
        """Documents of streams, remembered ones without a query: perhaps a moment old, for deciding what to wish."""
        known = {stream: self._remembered[stream] for stream in streams if stream in self._remembered}
        for stream in known:
            self._remembered.move_to_end(stream)  # what is read by all must not go because others are many
        missing = [stream for stream in dict.fromkeys(streams) if stream not in known]
        if missing:
            known |= await self.log.load(missing)
        return known

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                taken, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                self._taken = taken
                try:
                    await self._settle([pending for pending in taken if not pending.result.done()])
                except asyncio.CancelledError:
                    _fail(taken, ConnectionError("Cumulog is stopping; nothing is known to have happened"))
                    raise
                except Exception as error:  # noqa: BLE001  it goes to the callers
                    log.warning("append failed", error=repr(error), commands=len(taken))
                    self._remembered.clear()
                    _fail(taken, error)
                finally:
                    self._taken = []

    async def _settle(self, round: list[_Pending], *, fresh: bool = False) -> None:
        """Decide and append until every command of the round has its verdict."""
        round = await self._answer_repeated(round)
        while round:
            attempt = _Attempt(await self._load_for(round, fresh=fresh), trusted=fresh)
            again = [pending for pending in round if not attempt.decide(pending)]
            try:
                await self._append(attempt)
            except Stale as stale:
                self.forget(stale.streams)
                touched = attempt.touching(stale.streams)
                clean = [pending for pending in attempt.granted if pending not in touched]
                if clean:
                    await self._settle(clean, fresh=True)
                again += _within_attempts(touched or attempt.granted)
            except Taken as taken:
                again += await self._answer_taken(attempt, taken)
            round, fresh = [pending for pending in again if not pending.result.done()], True

    async def _answer_repeated(self, round: list[_Pending]) -> list[_Pending]:
        """Commands whose idempotency key was spent get the answer of then; the rest are to be decided."""
        keyed = {(COMMAND_SCOPE, pending.by.idempotency): pending for pending in round if pending.by.idempotency}
        if keyed:
            for spent in await self.log.held(list(keyed)):
                await self._answer_as_before(keyed[spent.scope, spent.key], spent)
        return [pending for pending in round if not pending.result.done()]

    async def _answer_as_before(self, pending: _Pending, spent: Reservation) -> None:
        fingerprint, *streams = spent.note.split(_BETWEEN)
        if fingerprint != pending.by.fingerprint:
            _refuse(pending, KeyReused("this Idempotency-Key was used before with another request body"))
        else:
            found = await self.log.load(streams)
            _grant(pending, [found[stream] for stream in streams if stream in found])

    async def _load_for(self, round: Sequence[_Pending], *, fresh: bool) -> dict[str, Document]:
        streams = list(dict.fromkeys(wish.stream for pending in round for wish in pending.wishes))
        if fresh:
            self.forget(streams)
        self._loading = {stream for stream in streams if stream not in self._remembered}
        known = await self.load(streams)
        # What many decisions rest on and none changes, a network, a group. When it is overtaken they are told so.
        for stream in self._loading & known.keys():
            self._put(known[stream])
        self._loading = set()
        return known

    async def _append(self, attempt: _Attempt) -> None:
        append = attempt.append()
        if append.facts:
            started = clock.monotonic()
            base = await self.log.append(append)
            self.append_seconds(clock.monotonic() - started)
            self._remember(append.changes)
            self.committed(Batch(base, recorded(append, base)))
        attempt.answer()

    def _remember(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self._put(Document(change.stream, change.version, change.state))

    def _put(self, document: Document) -> None:
        self._remembered[document.stream] = document
        self._remembered.move_to_end(document.stream)
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)

    async def _answer_taken(self, attempt: _Attempt, taken: Taken) -> list[_Pending]:
        """Commands that wanted what others hold get their answer; the rest run again."""
        again = []
        vacant = {scope for pending in attempt.granted for scope in attempt.vacated(pending)}
        held = {(r.scope, r.key): r for r in taken.held if r.scope not in vacant}
        for pending in attempt.granted:
            mine = [held[key] for key in attempt.wanted(pending) if key in held]
            spent = next((reservation for reservation in mine if reservation.scope == COMMAND_SCOPE), None)
            if spent is not None:
                await self._answer_as_before(pending, spent)
            elif mine:
                _refuse(pending, AlreadyTaken(mine[0].scope, mine[0].key))
            elif inside := [it for it in taken.held if it.scope in attempt.vacated(pending)]:
                _refuse(pending, StillHeld(inside[0].scope, inside[0].key))
            else:
                again.append(pending)
        return _within_attempts(again)


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


class _Granted(msgspec.Struct):
    documents: list[Document]
    wanted: list[Key]
    streams: list[str]
    vacant: list[str]


class _Attempt:
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
        self._granted: dict[_Pending, _Granted] = {}

    @property
    def granted(self) -> list[_Pending]:
        return list(self._granted)

    def wanted(self, pending: _Pending) -> list[Key]:
        """The reservations a granted command takes."""
        return self._granted[pending].wanted

    def vacated(self, pending: _Pending) -> list[str]:
        """The scopes that a granted command wants vacant."""
        return self._granted[pending].vacant

    def touching(self, streams: Iterable[str]) -> list[_Pending]:
        """Granted commands that read a stale stream, or one that such a command changed."""
        tainted = set(streams)
        touched = []
        for pending, granted in self._granted.items():
            if not tainted.isdisjoint(granted.streams):
                tainted.update(granted.streams)
                touched.append(pending)
        return touched

    def decide(self, pending: _Pending) -> bool:
        """Decide one command on the states so far. False: run it again in the next pass, on freshly loaded states."""
        if len(self._facts) >= EVENTS:
            return False
        by, now, causation = pending.by, clock.now(), self._causation(pending)
        states: dict[str, tuple[int, Any]] = {}
        facts: list[Fact] = []
        secrets: list[Secret] = []
        forgotten: set[str] = set()
        vacant: list[str] = []
        try:
            for wish in pending.wishes:
                stream, kind = wish.stream, wish.aggregate.kind
                version, state = states.get(stream) or self._state(stream)
                if stream not in states:
                    _refuse_other_version(by, stream, version)
                events = wish.aggregate.decide(state, wish.command)
                before = state
                for event in events:
                    version += 1
                    state = kind.fold(state, event, now)
                    facts.append(Fact(stream, version, now, by.actor, by.request_id, causation, event))
                if events:
                    secrets += wish.secrets
                    forgotten |= _kept(kind, before) - _kept(kind, state)
                    vacant += wish.vacant
                states[stream] = (version, state)
        except Refused as refused:
            return False if self._doubtful(pending) else _refuse(pending, refused)
        except Exception as error:  # a rule that breaks fails its own caller, never its neighbours in the batch
            log.exception("decide failed", stream=pending.wishes[0].stream, error=repr(error))
            return _refuse(pending, error)
        if not facts and self._doubtful(pending):
            return False
        take, drop = self._reservations(pending, states)
        if any(key in self._take for key in take):
            return False
        for key in drop:
            # What this very append would take needs no release; who held it before is none of its business.
            if self._take.pop(key, None) is None:
                self._drop.add(key)
        self._take |= take
        self._forgotten |= forgotten
        self._states |= states
        self._facts += facts
        self._secrets += secrets
        documents = [Document(wish.stream, *states[wish.stream]) for wish in pending.wishes]
        self._granted[pending] = _Granted(documents, list(take), list(states), vacant)
        return True

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
            _grant(pending, granted.documents)

    def _state(self, stream: str) -> tuple[int, Any]:
        found = self._states.get(stream)
        if found is not None:
            return found
        document = self._known.get(stream)
        if document is not None:
            return document.version, document.state
        return 0, kind_of(stream).unborn(stream.partition("/")[2])

    def _causation(self, pending: _Pending) -> str:
        """What led here. What nobody asked for follows from the newest event of what it is first of all about."""
        if pending.by.causation or pending.by.actor.user:
            return pending.by.causation
        stream = pending.wishes[0].stream
        version, _ = self._state(stream)
        return event_reference(stream, version) if version else ""

    def _doubtful(self, pending: _Pending) -> bool:
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
        self, pending: _Pending, states: Mapping[str, tuple[int, Any]]
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
            take[key] = Reservation(*key, streams[0], _BETWEEN.join([pending.by.fingerprint, *streams]))
        return take, drop


def _refuse_other_version(by: Context, stream: str, version: int) -> None:
    if by.at.get(stream, version) != version:
        raise OtherVersion(stream, version)


def _held(kind: Kind[Any], state: Any, version: int) -> set[Key]:
    return set(kind.unique(state)) if version and state.deleted_at is None else set()


def _kept(kind: Kind[Any], state: Any) -> set[str]:
    """What the vault keeps for it."""
    return {id for id in kind.secrets(state) if id} if state.living else set()


def _grant(pending: _Pending, documents: list[Document]) -> None:
    if not pending.result.done():
        pending.result.set_result(documents)


def _refuse(pending: _Pending, error: Exception) -> bool:
    if not pending.result.done():
        pending.result.set_exception(error)
    return True


def _within_attempts(round: Iterable[_Pending]) -> list[_Pending]:
    again = []
    for pending in round:
        pending.attempts += 1
        if pending.attempts < ATTEMPTS:
            again.append(pending)
        else:
            _refuse(pending, Overloaded(f"{pending.wishes[0].stream} is being changed by others; try again"))
    return again


def _fail(round: Iterable[_Pending], error: Exception) -> None:
    for pending in round:
        _refuse(pending, error)
