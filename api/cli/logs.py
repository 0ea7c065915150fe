"""`logs`: what all processes of the cloud have written, in the order of time."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import click

from api.cli import choices
from api.cli.screen import Failure, say

_TIMESTAMP = re.compile(r'^\{"timestamp":"([^"]+)"')
_PLAIN_TIMESTAMP = re.compile(r"^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d\.\d+)")


@click.command()
@click.argument("names", nargs=-1, metavar="[PROCESS]…")
@click.option("-f", "--follow", is_flag=True, help="Go on as they write, until interrupted.")
@click.option("-n", "--lines", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many lines.")
@click.option("-r", "--request", metavar="REQ-ID", help="Only lines of that request.")
def logs(names: tuple[str, ...], follow: bool, lines: int, request: str | None) -> None:
    """Show the logs of all processes, or of some; -f follows them."""
    folder = choices.settings().log_folder
    there = {path.stem: path for path in sorted(folder.glob("*.log"))} if folder.is_dir() else {}
    if not there:
        raise Failure(f"there are no logs in {folder}", "`./cumulog up` starts the cloud.")
    unknown = [name for name in names if name not in there]
    if unknown:
        raise Failure(f"there is no log of {unknown[0]}", f"There are {', '.join(there)}.")
    chosen = {name: there[name] for name in names or there}
    ends = {name: path.stat().st_size for name, path in chosen.items()}
    found = [(stamp, name, line) for name, path in chosen.items() for stamp, line in _last(path, ends[name], lines)]
    for _, name, line in sorted(found, key=lambda entry: entry[0])[-lines:]:
        _show(name, line, request)
    while follow:
        for name, path in chosen.items():
            for line in _new(path, ends, name):
                _show(name, line, request)
        time.sleep(0.2)


def _show(name: str, line: str, request: str | None) -> None:
    if request is None or request in line:
        say(f"{name:<11} {line}")


def _last(path: Path, end: int, lines: int) -> Iterator[tuple[str, str]]:
    """The newest lines with their times; a line without one belongs to the line before."""
    with path.open("rb") as file:
        file.seek(max(0, end - lines * 400))
        text = file.read(end).decode(errors="replace")
    stamp = ""
    for line in text.splitlines()[-lines:]:
        match = _TIMESTAMP.match(line)
        plain = _PLAIN_TIMESTAMP.match(line)
        stamp = match[1] if match else f"{plain[1]}T{plain[2]}Z" if plain else stamp
        yield stamp, line


def _new(path: Path, ends: dict[str, int], name: str) -> Iterator[str]:
    size = path.stat().st_size
    if size < ends[name]:
        ends[name] = 0
    if size == ends[name]:
        return
    with path.open("rb") as file:
        file.seek(ends[name])
        text = file.read(size - ends[name])
    whole = text.rfind(b"\n") + 1
    ends[name] += whole
    yield from text[:whole].decode(errors="replace").splitlines()
