"""`serve ROLE`: one process of the cloud, from its settings to its last word."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import click
import structlog

from api.cli import choices, processes, supervisor, words
from bus.config import EMBEDDED, Settings

ROLES = ("all", "api", "handlers", "projections", "relay", "agent", "watchdog", "supervisor")
SUPERVISOR_POLL_SECONDS = 1.0
COLLECTED_AFTER = (50_000, 20, 50)
"""New objects before the garbage collector looks at the youngest, and how many looks before it looks at older ones.
What a process holds is read models: large, long-lived, and hardly a cycle among them."""

log = structlog.get_logger()


@click.command()
@click.argument("role", type=click.Choice(ROLES))
def serve(role: str) -> None:
    """Run one role in the foreground, until SIGTERM or SIGINT.

    all: everything but the supervisor, in one process. api: HTTP. handlers: follow-through, sweeps, reports of agents.
    projections: read models. relay: from the log to RabbitMQ. agent: this machine's hypervisor. watchdog: pauses the
    guests of a host whose lease is over, should its agent not. supervisor: keeps the others of this machine running.
    """
    settings = choices.settings()
    words.configure(settings, role)
    if role == "supervisor":
        supervisor.run(settings)
        return
    processes.record(settings.run_folder, role, os.getpid())
    if role == "watchdog":
        _watch_hosts(settings)
        return
    gc.set_threshold(*COLLECTED_AFTER)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_live(settings, role))


def _watch_hosts(settings: Settings) -> None:
    """Until a signal. Its own loop waits for nobody, least of all for a supervisor's start."""
    from agents.hypervisor import watchdog

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if _supervised():
        threading.Thread(target=lambda: asyncio.run(_watch_supervisor(settings)), daemon=True).start()
    watchdog.run(settings.home, stop)


async def _live(settings: Settings, role: str) -> None:
    """Run the role until a signal, or until something it cannot do without has failed."""
    from api.cli import roles

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, _show_tasks)
    if settings.postgres == EMBEDDED and not _supervised():
        from bus.postgres import EmbeddedPostgres

        await asyncio.to_thread(EmbeddedPostgres(settings.home).start)
    watching = asyncio.create_task(_watch_supervisor(settings)) if _supervised() else None
    log.info("starting", pid=os.getpid(), home=str(settings.home))
    try:
        await roles.run(settings, role, stop)
    finally:
        if watching:
            watching.cancel()
    log.info("stopped")


async def _watch_supervisor(settings: Settings) -> None:
    """Who watches the watchman: a supervisor that was killed is started again by whoever notices first."""
    while True:
        await asyncio.sleep(SUPERVISOR_POLL_SECONDS)
        if processes.find(settings.run_folder, supervisor.NAME) is None:
            log.warning("the supervisor is gone, starting it again")
            await asyncio.to_thread(supervisor.spawn, settings)


def _show_tasks() -> None:
    """On SIGUSR1: where every task stands, into the log."""
    for task in asyncio.all_tasks():
        log.warning(
            "task", name=task.get_name(), stands=[f"{f.f_code.co_qualname}:{f.f_lineno}" for f in _frames(task)]
        )


def _frames(task: asyncio.Task[Any]) -> list[Any]:
    """The whole chain of awaits, outermost first; `Task.get_stack` shows only the first."""
    frames: list[Any] = []
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None)
        if frame is not None:
            frames.append(frame)
        waiting = getattr(waiting, "cr_await", None)
    return frames


def _supervised() -> bool:
    return os.environ.get("CUMULOG_SUPERVISED") == "1"


def _loop_factory() -> Callable[[], Any] | None:
    """uvloop's, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], Any] = uvloop.new_event_loop
    return factory
