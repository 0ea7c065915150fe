"""The supervisor: keeps PostgreSQL, RabbitMQ and the roles of one machine running, with or without systemd.

    supervisor ─┬─▶ roles (serve all, or api, handlers, projections, relay, agent; watchdog, where hosts fence)
                ├─▶ RabbitMQ, if this machine's own
                └─▶ PostgreSQL, if embedded

What died is started again, at once the first time and ever more slowly when it keeps dying. It finds what runs by pid
files, so it may itself be killed and started again; the roles watch it in turn (`api/cli/serve.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import structlog

from api.cli import choices, processes
from bus.config import EMBEDDED, MEMORY, RABBITMQ, Settings
from bus.postgres import EmbeddedPostgres
from bus.rabbitmq_server import RabbitServer

log = structlog.get_logger()

NAME = "supervisor"
EVERY_ROLE = ("all", "api", "handlers", "projections", "relay", "agent", "watchdog")
STOP_SECONDS = 30.0
"""How long a role may take to finish what it began."""
FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 10.0
SETTLED_SECONDS = 10.0
"""Who lives so long has started well."""
LOG_BYTES = 64 * 1024 * 1024
"""A log file that has grown past it becomes `….log.1`, in place of the one before."""
LOG_CHECK_SECONDS = 30.0


class Part(Protocol):
    """Something that must run."""

    name: str

    @property
    def pid(self) -> int | None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


def parts(settings: Settings) -> list[Part]:
    """What this cloud consists of, in the order of starting and of stopping: roles wait for what they need."""
    found: list[Part] = [Role(settings, role) for role in roles(settings)]
    if settings.bus == RABBITMQ:
        found.append(Rabbit(settings))
    if settings.postgres == EMBEDDED:
        found.append(Postgres(settings))
    return found


def roles(settings: Settings) -> Sequence[str]:
    """One process for all where the bus is in the process, else one for each; and who fences should an agent die."""
    watchdog = ("watchdog",) if settings.needs_watchdog else ()
    if settings.bus == MEMORY:
        return ("all", *watchdog)
    agent = () if settings.hypervisor == "none" else ("agent",)
    return ("api", "handlers", "projections", "relay", *agent, *watchdog)


def trim(logs: Path, limit_bytes: int = LOG_BYTES) -> None:
    """Keep every log file within a limit. Its writer appends, and so goes on at the new end."""
    for path in logs.glob("*.log"):
        if path.stat().st_size > limit_bytes:
            shutil.copyfile(path, path.with_name(path.name + ".1"))
            os.truncate(path, 0)


class Role:
    """One `serve ROLE` process."""

    def __init__(self, settings: Settings, role: str) -> None:
        self.name = role
        self._settings = settings

    @property
    def process(self) -> processes.Process | None:
        return processes.find(self._settings.run_folder, self.name)

    @property
    def pid(self) -> int | None:
        process = self.process
        return process.pid if process else None

    def start(self) -> None:
        command = [sys.executable, "-P", "-m", "api.cli", "serve", self.name]
        environment = choices.environment(self._settings) | {"CUMULOG_SUPERVISED": "1"}
        log_file = self._settings.log_folder / f"{self.name}.log"
        processes.spawn(self._settings.run_folder, self.name, command, environment, log_file)

    def stop(self) -> None:
        process = self.process
        if process:
            processes.stop(process, STOP_SECONDS)


class Postgres:
    """The embedded PostgreSQL."""

    name = "postgres"

    def __init__(self, settings: Settings) -> None:
        self._server = EmbeddedPostgres(settings.home)

    @property
    def pid(self) -> int | None:
        return self._server.pid

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()


class Rabbit:
    """RabbitMQ on this machine."""

    name = "rabbitmq"

    def __init__(self, settings: Settings) -> None:
        self._server = RabbitServer(settings.home)

    @property
    def pid(self) -> int | None:
        return self._server.pid

    def start(self) -> None:
        self._server.begin()

    def stop(self) -> None:
        self._server.stop()


def spawn(settings: Settings) -> processes.Process:
    """The supervisor in the background; the one that runs, if one does."""
    with _lock(settings, "supervisor.spawn", wait=True):
        running = processes.find(settings.run_folder, NAME)
        if running:
            return running
        command = [sys.executable, "-P", "-m", "api.cli", "serve", NAME]
        log_file = settings.log_folder / f"{NAME}.log"
        return processes.spawn(settings.run_folder, NAME, command, choices.environment(settings), log_file)


def stop(settings: Settings) -> None:
    """Stop the supervisor and all parts, whether or not there still is a supervisor."""
    running = processes.find(settings.run_folder, NAME)
    if running and not processes.stop(running, 4 * STOP_SECONDS, kill=False):
        processes.stop(running, 0)
    for role in EVERY_ROLE:  # also those of another shape of this cloud, whose supervisor was killed
        Role(settings, role).stop()
    for part in parts(settings):
        part.stop()


def run(settings: Settings) -> None:
    """Until told to stop; then stop the parts too."""
    with _lock(settings, "supervisor", wait=False) as mine:
        if not mine:
            log.info("another supervisor runs already")
            return
        processes.record(settings.run_folder, NAME, os.getpid())
        _Supervisor(parts(settings), settings.log_folder).run()


class _Watched:
    """A part and how its last starts went."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.failures = 0
        self.started_at = 0.0
        self.due_at = 0.0

    def keep(self, now: float) -> int | None:
        """Start it if it is down and due; its process id."""
        pid = self.part.pid
        if pid is not None or now < self.due_at:
            return pid
        if self.started_at:
            lived = now - self.started_at
            self.failures = 0 if lived > SETTLED_SECONDS else self.failures + 1
            log.warning("died, starting it again", part=self.part.name, lived_seconds=round(lived, 1))
        try:
            self.part.start()
        except Exception as error:  # noqa: BLE001  a part that cannot start now is tried again, and the others go on
            log.error("cannot start", part=self.part.name, error=str(error))  # noqa: TRY400
        self.started_at = now
        self.due_at = now + min(FIRST_DELAY_SECONDS * 2**self.failures, LONGEST_DELAY_SECONDS)
        pid = self.part.pid
        log.info("started", part=self.part.name, pid=pid)
        return pid


class _Supervisor:
    def __init__(self, parts: Sequence[Part], logs: Path) -> None:
        self._watched = [_Watched(part) for part in parts]
        self._logs = logs
        self._logs_at = 0.0
        self._stopping = False
        self._wake_reader, self._wake_writer = os.pipe()

    def run(self) -> None:
        os.set_blocking(self._wake_writer, False)
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while not self._stopping:
            now = time.monotonic()
            pids = [pid for watched in self._watched if (pid := watched.keep(now)) is not None]
            self._sleep(pids)
            if now >= self._logs_at:
                self._logs_at = now + LOG_CHECK_SECONDS
                trim(self._logs)
        for watched in self._watched:
            log.info("stopping", part=watched.part.name)
            try:
                watched.part.stop()
            except Exception as error:  # noqa: BLE001  the others must stop all the same
                log.error("did not stop", part=watched.part.name, error=str(error))  # noqa: TRY400

    def _sleep(self, pids: Sequence[int]) -> None:
        """Until a part ends, a signal comes, or a while has passed."""
        descriptors = []
        for pid in pids:
            with contextlib.suppress(OSError):
                descriptors.append(os.pidfd_open(pid))
        try:
            waiting = len(pids) < len(self._watched)
            ready = select.select([self._wake_reader, *descriptors], [], [], FIRST_DELAY_SECONDS if waiting else 2.0)[0]
            if self._wake_reader in ready:
                os.read(self._wake_reader, 512)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def _stop(self, *_: object) -> None:
        self._stopping = True


@contextlib.contextmanager
def _lock(settings: Settings, name: str, *, wait: bool) -> Iterator[bool]:
    path: Path = settings.run_folder / f".{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
