"""The hypervisor agent: observe, plan, act, report, for one host.

    nudge, manifest ─▶ desired ─┐
    driver's events ────────────┼─▶ queue ─▶ attend(server): observe ▶ plan ▶ act … observe ─▶ outgoing ─▶ report
    sweep, every so often ──────┘            one at a time per server

It works under a lease. Without one it looks and tells, but touches nothing; what it was told before counts no more, and
it asks for everything anew. It keeps nothing on disk: what must last is kept with the domains, so it may die at any
point.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import structlog

from agents.hypervisor.answering import Answering
from agents.hypervisor.driver import Driver, StepFailed
from agents.hypervisor.fencing import Fencing
from agents.hypervisor.outbox import Outbox
from agents.hypervisor.plan import (
    Define,
    Reboot,
    Remake,
    Remove,
    Rescue,
    Resize,
    Start,
    Step,
    TakeSnapshot,
    impatient,
    plan,
)
from agents.hypervisor.relay import Relay
from agents.hypervisor.watchdog import LOOK_SECONDS
from agents.link import Link
from agents.tenure import Tenure
from bus import clock
from schema.compute.domain import Desired, Domain, Heartbeat, Lease, Observed

log = structlog.get_logger()

ATTENDED = 256
"""Servers attended to at a time, at most; most of that is waiting."""
ROUNDS = 8
"""Plans made for a server before it has to queue again."""
TOMBSTONES = 10_000
"""Wishes remembered, at most; those of servers that are gone are forgotten first."""
PROGRESS_SECONDS = 5.0
"""A step that takes longer tells what it is at, this often."""
RETRY_SECONDS = 1.0

_HEAVY = (Define, Remake, Rescue, TakeSnapshot, Resize, Start, Reboot)


class _Wanted(msgspec.Struct, frozen=True):
    domain: Domain
    position: int


class _Attempt(msgspec.Struct):
    """What is being done for a server, and for which wish."""

    wanted: _Wanted | None = None
    steps: list[str] = msgspec.field(default_factory=list)


class Agent:
    """`await run()` until cancelled. `fence`: pause every guest when the lease lapses, so that it may run elsewhere.

    `watched`: whether a watchdog does that should this agent not live; nothing is promised without.
    """

    def __init__(
        self,
        host: str,
        driver: Driver,
        link: Link,
        *,
        lease_seconds: float = 15.0,
        sweep_seconds: float = 60.0,
        concurrency: int = 4,
        fence: bool = False,
        watched: Callable[[], bool] = lambda: True,
        version: str = "",
        console_address: str = "127.0.0.1",
    ) -> None:
        self.host = host
        self._driver = driver
        self._link = link
        self._lease_seconds = lease_seconds
        self._fencing = Fencing(host, driver, fence=fence, leased=lambda: self.leased, watched=watched)
        self._tenure = Tenure(
            host,
            lease_seconds,
            on_taken=self._taken,
            on_lapsed=self._lapsed,
            on_epoch=self._forget_wishes,
            on_renewed=self._fencing.renewed,
        )
        self._outbox = Outbox(host, link, lambda: self.epoch)
        self._answering = Answering(driver, Relay(console_address))
        self._sweep_seconds = sweep_seconds
        self._version = version
        self._desired: dict[str, _Wanted] = {}
        self._unknown: set[str] = set()
        self._manifest: int | None = None
        self._queue: dict[str, None] = {}
        self._attending: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._faulty: set[str] = set()
        self._owed: set[str] = set()
        self._reported: dict[str, Observed] = {}
        self._progress: dict[str, float] = {}
        self._heavy = asyncio.Semaphore(concurrency)
        self._wake_sweep = asyncio.Event()
        self._wake_beat = asyncio.Event()
        self._observed_count = 0
        self._stopping = False

    @property
    def epoch(self) -> int:
        """Of its lease; 0 before the first."""
        return self._tenure.epoch

    @property
    def leased(self) -> bool:
        return self._tenure.held

    async def run(self) -> None:
        """Serve this host. Ends only by cancellation, or if the driver cannot start."""
        await self._driver.start(self._enqueue, self._progressed)
        started = clock.monotonic()
        try:
            self._tenure.start(await self._fencing.begin())
            await self._link.serve(self._answering.answer)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._for_ever(self._listen), name=f"{self.host} listens")
                tasks.create_task(self._for_ever(lambda: self._beat(started)), name=f"{self.host} lives")
                tasks.create_task(self._for_ever(self._sweep), name=f"{self.host} sweeps")
                tasks.create_task(self._for_ever(self._outbox.run), name=f"{self.host} reports")
        finally:
            await self._stop()

    async def _stop(self) -> None:
        self._stopping = True
        self._tenure.stop()
        tasks = list(self._attending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._fencing.close()
        await self._answering.close()
        await self._driver.close()
        await self._link.close()

    async def _for_ever(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except ConnectionError as error:
                log.info("the control plane is away", host=self.host, error=str(error))
            except Exception:
                log.exception("a loop of the agent failed and begins again", host=self.host)
            await asyncio.sleep(RETRY_SECONDS * (1 + clock.fraction()))

    # What it is told

    async def _listen(self) -> None:
        async for word in self._link.inbox():
            match word:
                case Lease():
                    self._tenure.take(word)
                case Desired():
                    self._take_desired(word)

    def _take_desired(self, desired: Desired) -> None:
        if desired.epoch < self.epoch:
            return
        self._tenure.meet(desired.epoch)
        for domain in desired.domains:
            self._want(domain, desired)
        if desired.full:
            told = {domain.server_id for domain in desired.domains}
            for id in [id for id, it in self._desired.items() if id not in told and it.position < desired.position]:
                del self._desired[id]
            self._manifest = desired.position
            self._wake_sweep.set()
        elif len(self._desired) > TOMBSTONES:
            self._forget_absent()

    def _want(self, domain: Domain, desired: Desired) -> None:
        id = domain.server_id
        known = self._desired.get(id)
        if known is None and not desired.full and 0 < desired.position < (self._manifest or 0):
            return  # the manifest did not name it, and knew better
        if known is None or domain.generation >= known.domain.generation:
            self._unknown.discard(id)
            self._desired[id] = _Wanted(domain, max(desired.position, known.position if known else 0))
            if known and id in self._attending and impatient(known.domain, domain):
                self._attending[id].cancel()
        if not desired.full or domain.power == "absent":
            self._owed.add(id)
            self._enqueue(id)

    def _forget_absent(self) -> None:
        for id in [id for id, it in self._desired.items() if it.domain.power == "absent"][: TOMBSTONES // 2]:
            del self._desired[id]

    # The lease

    def _taken(self) -> None:
        for id in self._desired:
            self._enqueue(id)
        # A watchdog that looked before the lease was there may freeze a guest yet, and nobody would tell.
        asyncio.get_running_loop().call_later(2 * LOOK_SECONDS, self._wake_sweep.set)

    def _lapsed(self) -> None:
        self._forget_wishes()
        self._reported.clear()
        ending = list(self._attending.values())
        for task in ending:
            task.cancel()
        self._fencing.lapsed(ending)

    def _forget_wishes(self) -> None:
        """The manifest with them: what is not in it goes, so it must never be taken for one of a later lease."""
        self._desired.clear()
        self._unknown.clear()
        self._manifest = None
        self._wake_beat.set()

    async def _beat(self, started: float) -> None:
        while True:
            self._wake_beat.clear()
            await self._fencing.done()
            facts = msgspec.structs.replace(await self._driver.facts(), fences=self._fencing.promises)
            number = self._tenure.beat()
            await self._link.heartbeat(
                Heartbeat(
                    host=self.host,
                    epoch=self.epoch,
                    beat=number,
                    facts=facts,
                    observed_count=self._observed_count,
                    metrics=self._driver.metrics(),
                    manifest_wanted=self._manifest is None,
                    uptime_seconds=int(clock.monotonic() - started),
                    version=self._version,
                )
            )
            pause = self._lease_seconds / 3 * (0.9 + 0.2 * clock.fraction())
            await _wait(self._wake_beat, pause)

    # What it does

    async def _sweep(self) -> None:
        """Look at everything: drift is told, unknown domains go, what failed is tried again."""
        while True:
            self._wake_sweep.clear()
            observed = await self._driver.observe()
            self._observed_count = len(observed)
            doubtful = {id: None for id, seen in observed.items() if self._reported.get(id) != seen}
            doubtful |= dict.fromkeys(self._faulty)
            doubtful |= {id: None for id in self._reported if id not in observed}
            if self._manifest is not None and self.leased:
                desired = {id: it.domain for id, it in self._desired.items()}
                steps = plan(desired, observed, position=self._manifest, full=True)
                self._unknown |= {step.server_id for step in steps if step.server_id not in desired}
                if _overtaken(self._manifest, desired, observed):
                    self._manifest = None
                    self._wake_beat.set()
                doubtful |= {step.server_id: None for step in steps}
            # Whatever was told before may have been lost on the way: it is told again.
            self._owed |= doubtful.keys()
            for id in doubtful:
                if id not in self._attending or id in self._unknown:
                    self._enqueue(id)
            for id in observed.keys() - doubtful.keys():
                self._outbox.repeat(id, self._reported[id])
            await _wait(self._wake_sweep, self._sweep_seconds)

    def _enqueue(self, server_id: str) -> None:
        if server_id in self._attending:
            self._again.add(server_id)
        else:
            self._queue[server_id] = None
            self._start_next()

    def _start_next(self) -> None:
        while self._queue and not self._stopping and len(self._attending) < ATTENDED:
            id = next(iter(self._queue))
            del self._queue[id]
            task = self._attending[id] = asyncio.create_task(self._attend(id), name=id)
            task.add_done_callback(lambda task, id=id: self._attended(id, task))  # type: ignore[misc]

    def _attended(self, server_id: str, task: asyncio.Task[None]) -> None:
        del self._attending[server_id]
        self._progress.pop(server_id, None)
        if task.cancelled() or server_id in self._again:
            self._again.discard(server_id)
            self._queue[server_id] = None
        self._start_next()

    async def _attend(self, id: str) -> None:
        """Bring one server to where it should be, and tell."""
        self._progress[id] = clock.monotonic()
        attempt = _Attempt()
        try:
            seen = await self._bring(id, attempt)
        except StepFailed as failure:
            await self._failed(id, attempt, str(failure))
        except Exception as error:
            log.exception("a step failed unexpectedly", host=self.host, server=id)
            words = f"unexpected {type(error).__name__} in the hypervisor agent of {self.host}: {error}"
            await self._failed(id, attempt, words)
        else:
            if attempt.steps:
                log.info("server attended to", host=self.host, server=id, steps=attempt.steps)
            self._note(id, seen, None)

    async def _failed(self, id: str, attempt: _Attempt, fault: str) -> None:
        log.warning("server is not where it should be", host=self.host, server=id, steps=attempt.steps, fault=fault)
        try:
            seen = (await self._driver.observe((id,))).get(id)
        except StepFailed:
            seen = self._reported.get(id)
        if self._overtaken(id, attempt.wanted):
            self._again.add(id)
        else:
            self._note(id, seen, fault)

    def _overtaken(self, id: str, wanted: _Wanted | None) -> bool:
        """Whether there is a newer wish by now. The same one said again is none."""
        now = self._desired.get(id)
        return (now and now.domain.generation) != (wanted and wanted.domain.generation)

    async def _bring(self, id: str, attempt: _Attempt) -> Observed | None:
        for _ in range(ROUNDS):
            attempt.wanted = wanted = self._desired.get(id)
            seen = (await self._driver.observe((id,))).get(id)
            steps = self._steps(id, wanted, seen)
            if not steps:
                if self._overtaken(id, wanted):
                    self._again.add(id)
                return seen
            for step in steps:
                if not self.leased:
                    return seen
                attempt.steps.append(type(step).__name__)
                if isinstance(step, _HEAVY):
                    async with self._heavy:
                        await self._driver.act(step)
                else:
                    await self._driver.act(step)
                if self._overtaken(id, wanted):
                    break
        raise StepFailed(f"it does not settle; these steps did not last: {', '.join(attempt.steps)}")

    def _steps(self, id: str, wanted: _Wanted | None, seen: Observed | None) -> list[Step]:
        if not self.leased:
            return []
        if wanted is None:
            return [Remove(id)] if seen and id in self._unknown else []
        there = seen or (self._vanished(id) if wanted.domain.power != "absent" else None)
        observed = {id: there} if there else {}
        return plan({id: wanted.domain}, observed, position=wanted.position)

    # What it tells

    def _note(self, id: str, seen: Observed | None, fault: str | None) -> None:
        wanted = self._desired.get(id)
        word = seen
        if fault:
            self._faulty.add(id)
            generation = wanted.domain.generation if wanted else 0
            word = msgspec.structs.replace(seen or Observed(server_id=id), generation=generation, fault=fault)
        else:
            self._faulty.discard(id)
            if seen is None and not (wanted.domain.power == "absent" if wanted else id in self._unknown):
                word = self._vanished(id) or (Observed(server_id=id) if wanted else None)
                if word is None:
                    return
        if id in self._owed or id in self._unknown or self._reported.get(id) != word:
            self._owed.discard(id)
            self._outbox.put(id, word)
        if word is None or (seen is None and wanted is None):
            self._unknown.discard(id)
            self._reported.pop(id, None)
        else:
            self._reported[id] = word

    def _vanished(self, id: str) -> Observed | None:
        """What is to be said of a domain that was here and is not: built anew only if a newer wish says so."""
        last = self._reported.get(id)
        if last is None or last.fault:
            return None
        return Observed(server_id=id, generation=last.generation, reboots=last.reboots)

    def _progressed(self, server_id: str, words: str) -> None:
        since = self._progress.get(server_id)
        if since is None or clock.monotonic() - since < PROGRESS_SECONDS or server_id in self._outbox:
            return
        self._progress[server_id] = clock.monotonic()
        known = self._reported.get(server_id) or Observed(server_id=server_id)
        self._outbox.put(server_id, msgspec.structs.replace(known, fault=None, progress=words))


def _overtaken(manifest: int, desired: Mapping[str, Domain], observed: Mapping[str, Observed]) -> bool:
    """Whether a manifest was long on its way: what is here has heard more of the log than that tells of."""
    return any(
        seen.generation > desired[id].generation if id in desired else seen.position >= manifest > 0
        for id, seen in observed.items()
    )


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
