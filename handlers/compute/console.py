"""The rules of consoles: opened once, and in time; and what becomes of those nobody opens."""

from __future__ import annotations

from collections.abc import Sequence

from bus import clock
from bus.cloud import Cloud
from bus.execute import Aggregate, Wish
from bus.log import Document
from schema.compute.console import (
    CONSOLE,
    Console,
    ConsoleEvent,
    ConsoleExpired,
    ConsoleGranted,
    ConsoleOpened,
    ExpireConsole,
    GrantConsole,
    OpenConsole,
)
from schema.event import Command
from schema.refusal import Conflict, NotFound

ABSENT, THERE = "absent", "there"

ALLOWED: dict[type[Command], set[str]] = {GrantConsole: {ABSENT}, OpenConsole: {THERE}, ExpireConsole: {THERE}}


def decide(console: Console, command: Command) -> list[ConsoleEvent]:
    if _already_so(console, command):
        return []
    if (THERE if console.living else ABSENT) not in ALLOWED[type(command)] or (
        isinstance(command, GrantConsole) and console.created_at is not None
    ):
        if isinstance(command, GrantConsole):
            raise Conflict(f"The console {console.id} is another one's.")
        raise NotFound("Token not found")
    match command:
        case GrantConsole():
            return [
                ConsoleGranted(
                    server_id=command.server_id,
                    kind=command.kind,
                    console_type=command.console_type,
                    expires_at=command.expires_at,
                )
            ]
        case OpenConsole():
            if console.expires_at is None or console.expires_at <= command.now:
                raise NotFound("Token not found")
            return [ConsoleOpened(request_id=command.request_id)]
        case ExpireConsole():
            overdue = console.expires_at is not None and console.expires_at <= command.now
            return [ConsoleExpired()] if overdue else []
    raise TypeError(f"consoles know no {type(command).__name__}")


def _already_so(console: Console, command: Command) -> bool:
    match command:
        case GrantConsole():
            return console.living and (console.server_id, console.kind, console.console_type, console.expires_at) == (
                command.server_id,
                command.kind,
                command.console_type,
                command.expires_at,
            )
        case OpenConsole():
            return console.opened_by == command.request_id
        case ExpireConsole():
            return console.deleted_at is not None
    return False


def _granted(command: GrantConsole) -> ConsoleGranted:
    return ConsoleGranted(
        server_id=command.server_id,
        kind=command.kind,
        console_type=command.console_type,
        expires_at=command.expires_at,
    )


CONSOLES = Aggregate(CONSOLE, decide, ALLOWED)


class ConsoleReactor:
    """Ends consoles that nobody opened in time: `bus.consumer.Reactor`."""

    kinds = (CONSOLE,)

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def react(self, documents: Sequence[Document]) -> None:
        now = clock.now()
        overdue = [
            it.state for it in documents if it.state.living and it.state.expires_at and it.state.expires_at <= now
        ]
        for console in overdue:
            await self._cloud.executor.execute(Wish(CONSOLES, console.id, ExpireConsole(now=now)))
