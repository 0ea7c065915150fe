"""What the agent asks of a hypervisor, whichever one it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Literal, Protocol

import msgspec

from agents.hypervisor.deadline import Deadlines
from agents.hypervisor.plan import Step
from schema.compute.domain import HostFacts, ImageRef, Observed
from schema.compute.question import ConsoleKind, Diagnosis, Leftover, MoveMeasured

OnChange = Callable[[str], None]
"""Hears of a server whose domain changed; called in the event loop's thread."""

OnProgress = Callable[[str, str], None]
"""Hears what a long act is at: (server id, words); called in the event loop's thread."""

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[], Awaitable[Stream]]
"""Opens a console, each time it is called."""


class StepFailed(Exception):
    """A step could not be done. The text is for a person: what was tried, what went wrong, what to do."""


class Unsupported(StepFailed):
    """Nothing here can do that."""


class NotRunning(StepFailed):
    """There is no such guest here, or it is off."""


class NoAgent(StepFailed):
    """It takes an agent inside of the guest, and there is none that answers."""


class Passing(msgspec.Struct, frozen=True):
    """What another host may have of a server here: what it can be dialled for, by name."""

    folder: str = ""
    """Where its files are."""
    disks: dict[str, int] = {}
    """By name, in bytes."""
    channels: dict[str, Dial] = {}


class Driver(Protocol):
    """Keeps no memory of its own: what must outlast this process is kept with the domains.

    Every act may be done again, after a success as well as after half of it, and leaves the same.
    """

    @property
    def deadlines(self) -> Deadlines:
        """Where it is kept until when its guests may run."""

    async def start(self, on_change: OnChange, on_progress: OnProgress) -> None:
        """Connect, and from now on tell of every domain that changes, whoever changed it."""

    async def close(self) -> None:
        """Let go; domains run on."""

    async def facts(self) -> HostFacts: ...

    def metrics(self) -> dict[str, float]:
        """How busy the host is, by Nova's names (`cpu.percent`); what it does not measure is left out."""

    async def observe(self, server_ids: Collection[str] | None = None) -> dict[str, Observed]:
        """What is there, by server id: of these servers, or of all. A domain that is not Cumulog's is not there."""

    async def leftovers(self, hosts: Collection[str] = ()) -> list[Leftover]:
        """Files that no guest here has a use for, and that nobody is making.

        A guest's folder without a guest is none: `observe` has it as one that is absent. `hosts`: all there are, if
        storage that they share is to be looked at, too.
        """

    async def clear(self, names: Collection[str], hosts: Collection[str] = ()) -> None:
        """Remove the leftovers of these names; what is none by now stays."""

    async def act(self, step: Step) -> None:
        """Do it. Raises StepFailed. May be cancelled where it waits."""

    async def console(self, server_id: str, lines: int | None) -> str:
        """The end of its console. Raises StepFailed if it has none."""

    async def fetch_image(self, image: ImageRef) -> None:
        """Have it at hand for the next server that is made from it. Raises StepFailed."""

    async def find_console(self, server_id: str, kind: ConsoleKind) -> Dial:
        """How a running guest's screen or serial line is opened. Raises NotRunning, Unsupported."""

    async def diagnose(self, server_id: str) -> Diagnosis:
        """What a running guest uses. Raises NotRunning, StepFailed."""

    async def open_passage(self, server_id: str, way: Literal["copy", "live"]) -> Passing:
        """`copy`: its disks, of a guest that is off, are read (of one that runs, only measured). `live`: it comes."""

    async def measure_move(self, server_id: str) -> MoveMeasured:
        """Of one that is being sent. Raises NotRunning, StepFailed."""

    async def force_move(self, server_id: str) -> None:
        """Have one that is being sent stand still until it is there. Raises NotRunning, StepFailed."""

    async def set_password(self, server_id: str, user: str, password: str) -> None:
        """Through the agent inside of the guest. Raises NotRunning, NoAgent, Unsupported, StepFailed."""

    async def crash_guest(self, server_id: str) -> None:
        """Send it a non-maskable interrupt. Raises NotRunning, Unsupported, StepFailed."""
