"""What people see: steps with their time, tables, and failures that say what to do next."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from bus import clock

if TYPE_CHECKING:
    from rich.console import Console


class Failure(click.ClickException):
    """Something did not work. `todo`: what the reader can do about it."""

    def __init__(self, message: str, todo: str = "") -> None:
        super().__init__(message)
        self.todo = todo


def say(text: str = "") -> None:
    click.echo(text)


def note(text: str) -> None:
    """Something the reader should know though it stops nothing."""
    click.secho(f"  {text}", fg="yellow")


def done(text: str, seconds: float | None = None) -> None:
    took = "" if seconds is None else click.style(f"  {seconds:.1f} s", dim=True)
    click.echo(f"{click.style('✓', fg='green')} {text}{took}")


@contextlib.contextmanager
def step(text: str) -> Iterator[Callable[[str], None]]:
    """Name something that takes a while, and how long it took; the name stays when it fails.

    What is yielded says how far it is.
    """
    started = clock.monotonic()
    if sys.stdout.isatty():
        click.echo(f"… {text}", nl=False)
    else:
        click.echo(f"… {text}")

    def so_far(words: str) -> None:
        if sys.stdout.isatty():
            click.echo(f"\r\033[K… {text}: {words}", nl=False)
        else:
            click.echo(f"  {words}")

    try:
        yield so_far
    except BaseException:
        if sys.stdout.isatty():
            click.echo(f"\r\033[K{click.style('✗', fg='red')} {text}")
        raise
    if sys.stdout.isatty():
        click.echo("\r\033[K", nl=False)
    done(text, clock.monotonic() - started)


def console() -> Console:
    """Rich's, for tables."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def explain(error: Exception) -> int:
    """Print what went wrong and what to do; the exit code."""
    if isinstance(error, click.UsageError):
        error.show()
        return 2
    if isinstance(error, Failure):
        click.echo(f"{click.style('cumulog:', fg='red')} {error.message}", err=True)
        if error.todo:
            click.echo(f"  {error.todo}", err=True)
        return 1
    if isinstance(error, click.ClickException):
        error.show()
        return 1
    if type(error).__name__ in {"ConfigurationError", "PostgresError", "RabbitError"}:
        click.echo(f"{click.style('cumulog:', fg='red')} {error}", err=True)
        return 1
    if isinstance(error, PermissionError):
        click.echo(f"{click.style('cumulog:', fg='red')} {error}", err=True)
        click.echo("  Run it as the user who owns that file, or choose another home: CUMULOG_HOME=…", err=True)
        return 1
    if os.environ.get("CUMULOG_LOG_LEVEL", "").lower() == "debug":
        raise error
    click.echo(f"{click.style('cumulog:', fg='red')} {type(error).__name__}: {error}", err=True)
    click.echo(
        "  That is a defect of Cumulog's. CUMULOG_LOG_LEVEL=debug shows where; `logs` and `doctor` may say more.",
        err=True,
    )
    return 70
