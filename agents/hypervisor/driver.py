"""What the agent asks of a hypervisor, whichever one it is."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from agents.hypervisor.plan import Step
from schema.compute.domain import HostFacts, Observed

OnChange = Callable[[str], None]
"""Hears of a server whose domain changed; called in the event loop's thread."""

OnProgress = Callable[[str, str], None]
"""Hears what a long act is at: (server id, words); called in the event loop's thread."""


class StepFailed(Exception):
    """A step could not be done. The text is for a person: what was tried, what went wrong, what to do."""


class Driver(Protocol):
    """Keeps no memory of its own: what must outlast this process is kept with the domains.

    Every act may be done again, after a success as well as after half of it, and leaves the same.
    """

    async def start(self, on_change: OnChange, on_progress: OnProgress) -> None:
        """Connect, and from now on tell of every domain that changes, whoever changed it."""

    async def close(self) -> None:
        """Let go; domains run on."""

    async def facts(self) -> HostFacts: ...

    async def observe(self, server_ids: Collection[str] | None = None) -> dict[str, Observed]:
        """What is there, by server id: of these servers, or of all. A domain that is not Cumulog's is not there."""

    async def act(self, step: Step) -> None:
        """Do it. Raises StepFailed. May be cancelled where it waits."""

    async def console(self, server_id: str, lines: int | None) -> str:
        """The end of its console. Raises StepFailed if it has none."""
