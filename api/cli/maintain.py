"""`verify` and `rebuild`: the log checked against itself, and everything derived from it derived again."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import click

from api.cli import choices, database, supervisor
from api.cli.screen import Failure, done, note, say
from bus.rebuild import Progress, Unfoldable
from bus.rebuild import rebuild as refold
from bus.verify import verify as check
from projections import projections as known_projections

SHOWN = 20


@click.command()
def verify() -> None:
    """Check the log: dense positions, versions, hash chain, documents, reservations, archives.

    The cloud may run meanwhile. Exit code 1 when something is wrong; nothing is changed.
    """
    report = _over_the_log(lambda dsn: check(dsn, progress=_progress("checked")))
    for finding in report.wrong[:SHOWN]:
        click.secho(f"✗ {finding}", fg="red")
    if report.wrong:
        raise Failure(
            f"{len(report.wrong)} things are wrong with this log",
            "A document that differs is mended by `./cumulog rebuild`; the log itself only by a backup.",
        )
    what = f"{report.events} events, {report.documents} documents, {report.reservations} reservations"
    done(f"{what}: all as they should be", report.seconds)
    say(f"  head  position {report.head}, hash {report.hash}")


@click.command()
@click.option("--compare", is_flag=True, help="Only say what would change.")
@click.option("--projections/--no-projections", default=True, help="Begin projections anew too.")
def rebuild(compare: bool, projections: bool) -> None:
    """Fold all documents anew from the log; must change nothing.

    It wants the cloud to be down, unless --compare: what runs remembers states between commands.
    """
    settings = choices.settings()
    known_projections()
    if not compare and (running := [p.name for p in supervisor.parts(settings) if p.pid and p.name != "postgres"]):
        raise Failure(
            f"{', '.join(running)} still run, and remember what is about to be replaced",
            "`./cumulog down` first; or only look: `./cumulog rebuild --compare`.",
        )
    try:
        report = _over_the_log(
            lambda dsn: refold(dsn, compare=compare, projections=projections, progress=_progress("folded"))
        )
    except Unfoldable as reason:
        raise Failure(f"nothing was changed: {reason}", "`./cumulog verify` looks at the whole log.") from None
    done(f"{report.events} events folded into {report.documents} documents", report.seconds)
    if report.differences:
        note(f"{report.differences} differed{'' if compare else ', and are right now'}: {', '.join(report.changed)}")
    if report.projections:
        say(f"  beginning anew: {', '.join(report.projections)}")
    sys.exit(1 if report.differences else 0)


def _over_the_log(work: Callable[[str], Awaitable[Any]]) -> Any:
    return asyncio.run(database.with_dsn(choices.settings(), work))


def _progress(verb: str) -> Progress | None:
    """One line that is overwritten; nothing where there is no terminal to overwrite it on."""
    if not sys.stdout.isatty():
        return None

    def show(events: int, total: int) -> None:
        click.echo(f"\r\033[K… {events} of {total} events {verb}", nl=events >= total)

    return show
