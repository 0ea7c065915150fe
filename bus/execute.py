"""`execute`: the one command path. Load, decide, append; everybody's waiting commands in one transaction.

One loop per process decides and appends. It takes whatever commands are waiting, loads the streams they touch (one
query, or none when they are remembered from a moment ago), decides them one after the other, each on the outcome of
those before it, and appends all their events together. Two commands of one process on one stream therefore never
conflict; with another process's they may, and then only the commands that touched the stale streams run again. While
several are at one stream they take turns at it: else all but the quickest would decide for nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext

import structlog

from bus import clock
from bus.attempt import BETWEEN, Attempt
from bus.log import COMMAND_SCOPE, Batch, Change, Document, Log, Reservation, Stale, Taken, recorded
from bus.verdict import AlreadyTaken, KeyReused, OtherVersion, Overloaded, Pending, StillHeld, fail, within_attempts
from bus.wish import AGGREGATES, SYSTEM, Aggregate, Became, Context, Following, Wish

__all__ = [
    "AGGREGATES",
    "SYSTEM",
    "Aggregate",
    "AlreadyTaken",
    "Became",
    "Context",
    "Executor",
    "Following",
    "KeyReused",
    "OtherVersion",
    "Overloaded",
    "StillHeld",
    "Wish",
]

log = structlog.get_logger()

BATCH = 256
"""Commands decided and appended together, at most."""
REMEMBERED = 8192
"""Streams whose state is kept in memory between commands."""
TURNS_SECONDS = 5.0
"""How long processes take turns at a stream after one of them lost a race about it."""
WAITING = 20_000
"""Commands waiting, at most; past that the process says it is overloaded instead of growing."""


class Executor:
    """Decides and appends for one process. `committed` hears of every append, in order, right after its commit."""

    def __init__(self, log: Log, committed: Callable[[Batch], None] = lambda batch: None) -> None:
        self.log = log
        self.committed = committed
        self.append_seconds: Callable[[float], None] = lambda seconds: None
        self._remembered: OrderedDict[str, Document] = OrderedDict()
        self._loading: set[str] = set()
        """What is being loaded, and was not seen to be overtaken meanwhile."""
        self._fought_over: dict[str, float] = {}
        """Stream → until when it is decided on in turn."""
        self._waiting: list[Pending] = []
        self._taken: list[Pending] = []
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
        self._waiting.append(Pending(tuple(wishes), by, result))
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
                    fail(taken, ConnectionError("Cumulog is stopping; nothing is known to have happened"))
                    raise
                except Exception as error:  # noqa: BLE001  it goes to the callers
                    log.warning("append failed", error=repr(error), commands=len(taken))
                    self._remembered.clear()
                    fail(taken, error)
                finally:
                    self._taken = []

    async def _settle(self, round: list[Pending], *, fresh: bool = False) -> None:
        """Decide and append until every command of the round has its verdict."""
        round = await self._answer_repeated(round)
        while round:
            fought_over = self._fought_over_by(round)
            async with self.log.turn(fought_over) if fought_over else nullcontext():
                self.forget(fought_over)
                clean, again = await self._pass(round, fresh=fresh)
            if clean:
                await self._settle(clean, fresh=True)
            round, fresh = [pending for pending in again if not pending.result.done()], True

    async def _pass(self, round: list[Pending], *, fresh: bool) -> tuple[list[Pending], list[Pending]]:
        """Decide and append once. What lost no race but was in the same append, and what is to be decided anew."""
        attempt = Attempt(await self._load_for(round, fresh=fresh), trusted=fresh)
        again = [pending for pending in round if not attempt.decide(pending)]
        clean: list[Pending] = []
        try:
            await self._append(attempt)
        except Stale as stale:
            self.forget(stale.streams)
            self._fight_over(stale.streams)
            touched = attempt.touching(stale.streams)
            clean = [pending for pending in attempt.granted if pending not in touched]
            again += within_attempts(touched or attempt.granted)
        except Taken as taken:
            again += await self._answer_taken(attempt, taken)
        return clean, again

    def _fight_over(self, streams: Iterable[str]) -> None:
        """A race about these was lost. Whoever decides what others are at as well does so in turn, for a while."""
        now = clock.monotonic()
        self._fought_over = {stream: until for stream, until in self._fought_over.items() if until > now}
        self._fought_over |= dict.fromkeys(streams, now + TURNS_SECONDS)

    def _fought_over_by(self, round: list[Pending]) -> list[str]:
        if not self._fought_over:
            return []
        now, wished = clock.monotonic(), {wish.stream for pending in round for wish in pending.wishes}
        return sorted(stream for stream, until in self._fought_over.items() if until > now and stream in wished)

    async def _answer_repeated(self, round: list[Pending]) -> list[Pending]:
        """Commands whose idempotency key was spent get the answer of then; the rest are to be decided."""
        keyed = {(COMMAND_SCOPE, pending.by.idempotency): pending for pending in round if pending.by.idempotency}
        if keyed:
            for spent in await self.log.held(list(keyed)):
                await self._answer_as_before(keyed[spent.scope, spent.key], spent)
        return [pending for pending in round if not pending.result.done()]

    async def _answer_as_before(self, pending: Pending, spent: Reservation) -> None:
        fingerprint, *streams = spent.note.split(BETWEEN)
        if fingerprint != pending.by.fingerprint:
            pending.refuse(KeyReused("this Idempotency-Key was used before with another request body"))
        else:
            found = await self.log.load(streams)
            pending.grant([found[stream] for stream in streams if stream in found])

    async def _load_for(self, round: Sequence[Pending], *, fresh: bool) -> dict[str, Document]:
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

    async def _append(self, attempt: Attempt) -> None:
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

    async def _answer_taken(self, attempt: Attempt, taken: Taken) -> list[Pending]:
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
                pending.refuse(AlreadyTaken(mine[0].scope, mine[0].key))
            elif inside := [it for it in taken.held if it.scope in attempt.vacated(pending)]:
                pending.refuse(StillHeld(inside[0].scope, inside[0].key))
            else:
                again.append(pending)
        return within_attempts(again)
