"""A small cloud in which one action is played, and in which something goes wrong at a step of one's choice.

It is the simulation's world on a good day: one process of the control plane, three hosts, no chance but the seed. What
happens is numbered: what is appended to the log, what hosts do, what they are told and what they say.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Literal

import msgspec

from agents.hypervisor.plan import Pause, Step
from bus.cloud import Cloud
from bus.execute import Executor
from bus.log import Append
from schema.compute.host import Host
from schema.compute.server_state import Server
from schema.network.host import NetworkHost
from schema.refusal import Refused
from tests.simulation.loop import VirtualLoop
from tests.simulation.machine import Machine
from tests.simulation.process import Process
from tests.simulation.world import World

HOSTS = 3
ROOM = 4
AWAY_SECONDS = 0.5
"""Until what was killed is started again."""
LATE_SECONDS = 3.0
"""When what is said twice is said for the second time."""

What = Literal["append", "act", "told", "said"]
Fault = Literal["fail", "fail for good", "lose", "unheard", "twice", "kill handlers", "kill agents", "kill projections"]

FAULTS: dict[What, tuple[Fault, ...]] = {
    "append": ("lose", "unheard", "kill handlers", "kill agents", "kill projections"),
    "act": ("fail", "fail for good", "twice", "kill handlers", "kill agents"),
    "told": ("lose", "twice", "kill handlers", "kill agents"),
    "said": ("lose", "twice", "kill handlers", "kill agents"),
}
"""What may go wrong at each kind of step. `lose` an append: it was never made; `unheard`: it was, and nobody heard."""


class Happening(msgspec.Struct, frozen=True):
    what: What
    where: str
    """The host, or the events."""
    kind: str = ""
    """Of an act."""

    def __str__(self) -> str:
        return f"{self.what} {self.where} {self.kind}".rstrip()


class Ill(msgspec.Struct, frozen=True):
    """What shall go wrong, at the step of that number."""

    at: int
    fault: Fault

    def __str__(self) -> str:
        return f"{self.fault} at {self.at}"


class Stage(World):
    """`ills`: what goes wrong. `doubled`: everything is done twice, whether wished, said, or acted."""

    def __init__(
        self, loop: VirtualLoop, ills: tuple[Ill, ...] = (), *, doubled: bool = False, fence: bool = False
    ) -> None:
        super().__init__(0, loop)
        self.happened: list[Happening] = []
        self.playing = False
        self.moment: tuple[int, Callable[[], object]] = (-1, lambda: None)
        """At the step of that number this is done."""
        self.fence = True
        self.dealt_out = True
        self.settings = msgspec.structs.replace(self.settings, recovery="none")
        self.processes = [Process(self, "process")]
        self.machines = [Machine(self, f"host-{n}", ROOM) for n in range(HOSTS)]
        self._others: list[asyncio.Task[str]] = []
        self._ills = {ill.at: ill.fault for ill in ills}
        self._doubled = doubled
        self._broken: set[tuple[str, str]] = set()
        self._again: set[tuple[str, str]] = set()
        self._append, self.log.append = self.log.append, self._appended  # type: ignore[method-assign]
        self._carry, self.network.carry = self.network.carry, self._carried  # type: ignore[method-assign]
        self._chance = Random(0)
        for machine in self.machines:
            machine._failure = lambda step, name=machine.name: self._failing(name, step)  # type: ignore[method-assign,misc]
            machine._delay = lambda step: 0.01 + self._chance.random() / 100  # type: ignore[method-assign]

    @property
    def cloud(self) -> Cloud | None:
        return self.processes[0].cloud

    # What happens, by number

    def _next(self, what: What, where: str, kind: str = "") -> Fault | None:
        """The next step; what goes wrong at it."""
        if not self.playing:
            return None
        number = len(self.happened)
        self.happened.append(Happening(what, where, kind))
        if number == self.moment[0]:
            self.loop.call_soon(self.moment[1], context=contextvars.Context())
        fault = self._ills.get(number)
        if fault is not None and fault.startswith("kill"):
            self._kill(fault)
        return fault

    async def _appended(self, it: Append) -> int:
        fault = self._next("append", ", ".join(dict.fromkeys(type(fact.event).__name__ for fact in it.facts)))
        if fault == "lose":
            raise ConnectionError("it was not appended")
        base = await self._append(it)
        if fault == "unheard":
            raise ConnectionError("nobody knows that it was appended")
        return base

    def _failing(self, host: str, step: Step) -> str | None:
        kind = type(step).__name__
        if isinstance(step, Pause) and step.fence:
            return None
        if (host, kind) in self._broken:
            return f"{kind} never works on {host}"
        match self._next("act", host, kind):
            case "fail for good":
                self._broken.add((host, kind))
                return f"{kind} never works on {host}"
            case "fail":
                return f"{kind} did not work on {host}"
            case "twice":
                self._again.add((host, step.server_id))
        return None

    def done(self, host: str, step: Step) -> None:
        driver = self.machine(host).driver
        if driver is not None and (self._doubled or (host, step.server_id) in self._again):
            self._again.discard((host, step.server_id))
            driver._do(step)
        super().done(host, step)

    def _carried(self, ends: Any, deliver: Callable[[], None], message: bytes = b"") -> None:
        if not self.playing or not message or b"eartbeat" in message or b'"Lease"' in message:
            self._carry(ends, deliver, message)
            return
        sender, receiver = ends
        to_host = sender in {process.name for process in self.processes}
        fault = self._next("told" if to_host else "said", receiver if to_host else sender)
        if fault == "lose":
            return
        self._carry(ends, deliver, message)
        if fault == "twice" or self._doubled:
            self._carry(ends, deliver, message)
            self.loop.call_later(LATE_SECONDS, self._carry, ends, deliver, message, context=contextvars.Context())

    def _kill(self, fault: Fault) -> None:
        match fault:
            case "kill handlers":
                self.processes[0].kill()
                self._soon(self.processes[0].start)
            case "kill agents":
                for machine in self.machines:
                    if not machine.gone and not machine.owner.dead:
                        self.bury(machine.owner)
                        machine.wiring.kill()
                        self._soon(machine.start)
            case "kill projections":
                self.book.follow()  # it has written down what changed, and told nobody

    def _soon(self, start: Callable[[], None]) -> None:
        """In nobody's name: what the dead meant to do later is not done."""
        self.loop.call_later(AWAY_SECONDS, start, context=contextvars.Context())

    def cannot(self, host: str, act: str) -> None:
        """From now on that never works there."""
        self._broken.add((host, act))

    def mend(self) -> None:
        """Hosts can do again what they could not."""
        self._broken.clear()

    # How it is played

    async def _wishing_twice(self, cloud: Cloud) -> None:
        """Whatever the follow-through wishes, it wishes again when it was granted."""
        submit = Executor.submit
        executor = cloud.executor

        async def twice(*args: Any, **kwargs: Any) -> Any:
            granted = await submit(executor, *args, **kwargs)
            with contextlib.suppress(Refused):
                await submit(executor, *args, **kwargs)
            return granted

        executor.submit = twice  # type: ignore[method-assign]

    async def insist(self, do: Callable[[Cloud], Awaitable[Any]]) -> str:
        """Ask until there is an answer; why it was refused, if it was."""
        while True:
            cloud = self.cloud
            if cloud is not None:
                if self._doubled and "submit" not in vars(cloud.executor):
                    await self._wishing_twice(cloud)
                try:
                    async with asyncio.timeout(10):
                        await do(cloud)
                    return ""
                except Refused as refused:
                    return refused.message
                except (OSError, TimeoutError):
                    pass
            await asyncio.sleep(0.2)

    async def ready(self) -> None:
        """All hosts are there."""
        await self.begin()
        await self.until(lambda: all(len(self.states(kind)) == HOSTS for kind in (Host, NetworkHost)))

    def also(self, do: Callable[[Cloud], Awaitable[Any]]) -> None:
        """Somebody else wishes that meanwhile."""
        self._others.append(self.loop.create_task(self.insist(do)))

    async def alone(self) -> None:
        """Wait for everybody else to have their answers."""
        await asyncio.gather(*self._others)

    def server(self, id: str) -> Server:
        state: Server = self.log.documents[f"server/{id}"].state
        return state

    def resting(self, id: str) -> bool:
        """It is on its way nowhere."""
        document = self.log.documents.get(f"server/{id}")
        return document is not None and document.state.task is None and not document.state.unsettled

    async def rests(self, id: str, seconds: float = 8000) -> Server:
        """Wait until it is on its way nowhere."""
        async with asyncio.timeout(seconds):
            while not self.resting(id):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        return self.server(id)

    async def until(self, so: Callable[[], bool], seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while not so():  # noqa: ASYNC110
                await asyncio.sleep(0.1)
