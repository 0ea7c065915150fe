"""What a host does about the end of its lease: it says that it fences, writes the end down, and pauses its guests then.

    begin ─▶ over: pause every guest, before anything is said       renewed ─▶ write the new end down
           └▶ some of a lease is left: go on until its end           lapsed ─▶ pause every guest; no beat before

The promise is the host's, not the agent's: one that is not to fence any more keeps what the one before it promised
until the control plane has heard otherwise. While no agent lives its watchdog keeps it (`watchdog.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog
from msgspec.structs import replace

from agents.hypervisor.deadline import Deadline, boot_id, is_over, seconds_left
from agents.hypervisor.driver import Driver, StepFailed
from agents.hypervisor.plan import Pause
from bus import clock

log = structlog.get_logger()

RETRY_SECONDS = 1.0
PAUSE_SECONDS = 5.0
"""A guest that is not paused by then is looked at anew: its watchdog may have been quicker."""


class Fencing:
    """Of one host. `leased`: whether it has a lease now. `watched`: whether a watchdog stands beside the agent."""

    def __init__(
        self, host: str, driver: Driver, *, fence: bool, leased: Callable[[], bool], watched: Callable[[], bool]
    ) -> None:
        self._host = host
        self._driver = driver
        self._fence = fence
        self._leased = leased
        self._watched = watched
        self._deadline = Deadline()
        self._promised = True
        self._tasks: set[asyncio.Task[None]] = set()
        self._still = asyncio.Event()
        self._still.set()
        self._pausing: dict[str, asyncio.Task[None]] = {}

    @property
    def promises(self) -> bool:
        """What the control plane is told. Nothing is promised that an agent's death would break."""
        promises = self._fence and self._watched()
        if self._fence and not promises and self._promised:
            log.warning("no watchdog stands here, so that this host does not promise to fence", host=self._host)
        self._promised = promises
        return promises

    async def begin(self) -> float:
        """What is left of the lease before, in seconds. When it returns, nothing runs that must not."""
        before = self._driver.deadlines.load()
        self._deadline = replace(before, fences=before.fences or self._fence)
        if is_over(self._deadline, boot_id(), clock.boot_seconds()):
            await self._pause_all(())
        if self._deadline.fences:
            self._driver.deadlines.save(self._deadline)
        return seconds_left(self._deadline, boot_id(), clock.boot_seconds())

    def renewed(self, until: float) -> None:
        """The control plane has heard what this agent promises, and grants a lease to that end."""
        if self._fence or self._deadline.fences:
            self._keep(Deadline(boot=boot_id(), until=until, fences=self._fence))

    def lapsed(self, ending: Iterable[asyncio.Task[None]]) -> None:
        """`ending`: what was under way, and could start something yet."""
        if self._deadline.fences:
            self._keep(replace(self._deadline, until=0.0))
            self._still.clear()
            task = asyncio.create_task(self._pause_all(tuple(ending)), name=f"{self._host} fences itself")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def done(self) -> None:
        """Once what ran when the lease lapsed is paused, or there is a lease again."""
        await self._still.wait()

    async def close(self) -> None:
        tasks = [*self._pausing.values(), *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _keep(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._driver.deadlines.save(deadline)

    async def _pause_all(self, ending: tuple[asyncio.Task[None], ...]) -> None:
        """At once, and again when no step that was under way can start anything more, however long that takes."""
        await self._pause_running()
        self._still.set()
        if ending:
            await asyncio.gather(*ending, return_exceptions=True)
            await self._pause_running()

    async def _pause_running(self) -> None:
        while not self._leased():
            try:
                seen = await self._driver.observe()
                running = [id for id, it in seen.items() if it.power == "running"]
                if not running or self._leased():
                    return
                await self._pause(running)
            except StepFailed as failure:
                log.error("could not pause a guest of a lapsed lease", host=self._host, fault=str(failure))  # noqa: TRY400
                await asyncio.sleep(RETRY_SECONDS)

    async def _pause(self, ids: list[str]) -> None:
        """All at a time: one that does not listen holds up no other. Raises StepFailed."""
        for id in ids:
            if id not in self._pausing:
                task = self._pausing[id] = asyncio.create_task(self._driver.act(Pause(id, fence=True)))
                task.add_done_callback(lambda task, id=id: self._pausing.pop(id, None))  # type: ignore[misc]
        tasks = [self._pausing[id] for id in ids]
        await asyncio.wait(tasks, timeout=PAUSE_SECONDS)
        for task in tasks:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error
