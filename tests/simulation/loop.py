"""An event loop whose time is virtual: nothing sleeps, and a process can be killed between any two of its steps."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any


class Owner:
    """A process of the simulation. Once dead, not one line of it runs again: no `finally`, no last word."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False


OWNER: contextvars.ContextVar[Owner | None] = contextvars.ContextVar("owner", default=None)


class Deadlock(Exception):
    """Everybody waits and nobody will ever wake up."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Where the real loop would wait for the next timer, this one moves its clock there."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._clock_resolution = 1e-9
        self._selector = self

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        """Instead of a selector: no file is ever ready."""
        if timeout is None:
            raise Deadlock
        self._now += timeout
        return []

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> asyncio.Handle:
        context = contextvars.copy_context() if context is None else context
        owner = context.get(OWNER)
        if owner is None:
            return super().call_soon(callback, *args, context=context)
        return super().call_soon(_if_alive, owner, callback, args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        context = contextvars.copy_context() if context is None else context
        owner = context.get(OWNER)
        if owner is None:
            return super().call_at(when, callback, *args, context=context)
        return super().call_at(when, _if_alive, owner, callback, args, context=context)

    def spawn(self, owner: Owner, coroutine: Any) -> asyncio.Task[Any]:
        """Run something as that process; whatever it starts is that process's too."""
        context = contextvars.copy_context()
        context.run(OWNER.set, owner)
        return self.create_task(coroutine, context=context)

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody is woken from another thread."""


def _if_alive(owner: Owner, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if not owner.dead:
        callback(*args)
