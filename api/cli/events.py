"""`events` and `story`: reading the log, as it is and as a tale."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import click
import msgspec

from api.cli import choices, database
from api.cli.screen import Failure, console, say
from bus.log import Recorded, event_reference
from bus.postgres_log import PostgresLog

POLL_SECONDS = 0.2
PAGE = 1000
LONGEST = 60
"""Letters of one value, at most."""
_UNTOLD = ("type", "request_id")


@click.command()
@click.argument("stream", required=False)
@click.option("--from", "after", type=int, help="Start after this position; by default at the last few.")
@click.option("-n", "--lines", type=click.IntRange(1, 100_000), default=30, show_default=True, help="How many.")
@click.option("-t", "--type", "types", multiple=True, help="Only events of this type; may be given again.")
@click.option("-f", "--follow", is_flag=True, help="Go on as they come, until interrupted.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, the whole envelope.")
def events(
    stream: str | None, after: int | None, lines: int, types: tuple[str, ...], follow: bool, as_json: bool
) -> None:
    """Read the log: every event, or a stream's, or as they come.

    STREAM is such as server/4f0c…, or a kind alone: server.
    """
    wanted = _filter(stream, types)
    show = _show_json if as_json else _show_line

    async def read(log: PostgresLog) -> None:
        position = max(0, await log.head() - (lines if wanted is None else 50 * lines)) if after is None else after
        shown: list[Recorded] = []
        while page := await log.read(position, PAGE):
            position = page[-1].position
            shown += [recorded for recorded in page if wanted is None or wanted(recorded)]
            shown = shown[-lines:] if after is None else shown[:lines]
            if after is not None and len(shown) == lines and not follow:
                break
        for recorded in shown:
            show(recorded)
        while follow:
            for recorded in await log.read(position, PAGE):
                position = recorded.position
                if wanted is None or wanted(recorded):
                    show(recorded)
            await asyncio.sleep(POLL_SECONDS)

    _with_log(read)


@click.command()
@click.argument("stream")
def story(stream: str) -> None:
    """Tell one thing's life from the log, with times, actors and causes.

    STREAM is such as server/4f0c…; the first letters of the id will do.
    """

    async def tell(log: PostgresLog) -> None:
        name = await _resolve(log, stream)
        found = [recorded async for recorded in _whole(log, name)]
        if not found:
            raise Failure(f"the log knows no {stream}", "`./cumulog events` shows what there is.")
        console().print(f"[bold]{name}[/bold], from {found[0].at:%Y-%m-%d %H:%M:%S} UTC")
        for line in told(found, await names(log, found)):
            console().print(line)

    _with_log(tell)


def told(events: Sequence[Recorded], names: Mapping[str, str]) -> list[str]:
    """A stream's events, each with the time since the first, what changed, and, where it is new, who and why."""
    born = events[0].at
    lines, before = [], ""
    for nth, recorded in enumerate(events):
        after = f"+{(recorded.at - born).total_seconds():.3f} s"
        lines.append(f"{after:>12}  [bold]{_words(recorded.type)}[/bold]{_changes(recorded)}")
        cause = _cause(recorded, events[nth - 1] if nth else None, names)
        if cause and cause != before:
            lines.append(f"{'':>12}    [dim]{cause}[/dim]")
        before = cause
    return lines


async def names(log: PostgresLog, events: Iterable[Recorded]) -> dict[str, str]:
    """The names of the users who acted, by id."""
    ids = {recorded.actor.user for recorded in events if recorded.actor.user}
    rows = await log.pool.fetch("SELECT id, name FROM documents WHERE kind = 'user' AND id = ANY($1)", sorted(ids))
    return {row["id"]: row["name"] for row in rows if row["name"]}


def _words(name: str) -> str:
    """`ServerPlaced` as "server placed"."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()


def _changes(recorded: Recorded) -> str:
    """The fields of an event that a line has room for: plain ones, and the names of the others."""
    shown = []
    for key, value in msgspec.to_builtins(recorded.event).items():
        text = value.get("name", "") if isinstance(value, dict) else value
        if key not in _UNTOLD and text not in ("", None, [], False):
            shown.append(f"{key}={_short(text)}")
    return "  " + " ".join(shown) if shown else ""


def _short(value: Any) -> str:
    from rich.markup import escape

    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return escape(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")


def _cause(recorded: Recorded, last: Recorded | None, names: Mapping[str, str]) -> str:
    """Who and why. `last`: the event before it in its stream, whose words say more than its number."""
    user = recorded.actor.user
    who = user and f"by {names.get(user, user)}"
    why = recorded.causation and f"because of {recorded.causation}"
    if last is not None and recorded.causation == event_reference(last.stream, last.version):
        why = f"because of {_words(last.type)}"
    request = recorded.correlation and f"in {recorded.correlation}"
    return ", ".join(part for part in (who, why, request) if part)


def _filter(stream: str | None, types: tuple[str, ...]) -> Callable[[Recorded], bool] | None:
    if not stream and not types:
        return None
    whole = bool(stream and "/" in stream)

    def wanted(recorded: Recorded) -> bool:
        if types and recorded.type not in types:
            return False
        if not stream:
            return True
        return recorded.stream.startswith(stream) if whole else recorded.stream.partition("/")[0] == stream

    return wanted


def _show_line(recorded: Recorded) -> None:
    at = f"{recorded.at:%H:%M:%S.%f}"[:-3]
    line = f"{recorded.position:>8}  {at}  {recorded.stream}  [bold]{recorded.type}[/bold]{_changes(recorded)}"
    console().print(line, soft_wrap=True)


def _show_json(recorded: Recorded) -> None:
    say(msgspec.json.encode(recorded).decode())


async def _whole(log: PostgresLog, stream: str) -> Any:
    version = 0
    while page := await log.read_stream(stream, version):
        for recorded in page:
            yield recorded
        version = page[-1].version


async def _resolve(log: PostgresLog, stream: str) -> str:
    """The full name of a stream given by the first letters of its id."""
    if "/" not in stream:
        raise Failure(f"{stream!r} is no stream", "A stream is kind/id, such as server/4f0c….")
    rows = await log.pool.fetch(
        "SELECT stream FROM documents WHERE stream = $1 UNION"
        " (SELECT stream FROM documents WHERE starts_with(stream, $1) ORDER BY stream LIMIT 3)",
        stream,
    )
    names = [row[0] for row in rows]
    if stream in names or not names:
        return stream
    if len(names) > 1:
        raise Failure(f"several streams begin with {stream}: {', '.join(names)}", "Give more of the id.")
    return str(names[0])


def _with_log(work: Callable[[PostgresLog], Awaitable[None]]) -> None:
    asyncio.run(database.with_log(choices.settings(), work))
