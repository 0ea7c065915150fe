"""`status`: what runs, since when, and how far behind the log it is."""

from __future__ import annotations

import re
import sys
import urllib.request
from datetime import UTC, datetime

import click

from api.cli import choices, client, hypervisor, processes, supervisor
from api.cli.screen import console, note, say
from bus import clock
from bus.config import Settings

_SAMPLE = re.compile(r'^(cumulog_\w+)(?:\{\w+="([^"]*)"\})? ([-+.\deE]+)$')


@click.command()
def status() -> None:
    """Show what runs, where, since when, and how far behind it is. Exit code 3 when the API does not answer."""
    settings = choices.settings()
    _processes(settings)
    well = client.healthy(settings)
    if well:
        _figures(settings)
    elif processes.find(settings.run_folder, supervisor.NAME):
        note(f"{settings.url} does not answer (yet); `./cumulog logs` may say why.")
    else:
        say("The cloud is down; `./cumulog up` starts it.")
    sys.exit(0 if well else 3)


def _processes(settings: Settings) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("process", "id", "since"):
        table.add_column(heading)
    watched = processes.find(settings.run_folder, supervisor.NAME)
    table.add_row("supervisor", _id(watched.pid if watched else None), _since(watched))
    for part in supervisor.parts(settings):
        table.add_row(part.name, _id(part.pid), _since(processes.find(settings.run_folder, part.name)))
    console().print(table)
    say()
    say(f"API         {settings.url}")
    say(f"home        {settings.home}")
    used = hypervisor.last(settings) or settings.hypervisor
    hosts = f", {settings.hosts} hosts" if used == "simulated" or settings.hosts > 1 else ""
    say(f"hypervisor  {used}{hosts}")
    say(f"bus         {settings.bus.partition('@')[2] or settings.bus}")


def samples(settings: Settings) -> dict[tuple[str, str], float]:
    """Cumulog's own figures from /metrics: (name, its one label or "") → value. Empty while the API does not answer."""
    try:
        with urllib.request.urlopen(f"{settings.url}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return {}
    return {(m[1], m[2] or ""): float(m[3]) for line in lines if (m := _SAMPLE.match(line))}


def _figures(settings: Settings) -> None:
    """What /metrics tells, for people."""
    found = samples(settings)
    say(f"log         position {found.get(('cumulog_log_position', ''), 0):.0f}")
    for (name, label), value in sorted(found.items()):
        if name == "cumulog_consumer_lag_events":
            seconds = found.get(("cumulog_consumer_lag_seconds", label), 0.0)
            say(
                f"consumer    {label}: "
                + ("up to date" if not value else f"{value:.0f} events, {seconds:.1f} s behind")
            )
        elif name == "cumulog_parked_streams" and value:
            note(f"{value:.0f} streams of {label} are parked: `./cumulog logs` has the reasons")
    agents = {label: value for (name, label), value in found.items() if name == "cumulog_agents"}
    if agents:
        say(f"agents      {agents.get('up', 0):.0f} up, {agents.get('down', 0):.0f} down")


def _id(pid: int | None) -> str:
    return str(pid) if pid else "[red]down[/red]"


def _since(process: processes.Process | None) -> str:
    if process is None:
        return ""
    seconds = int(clock.now().timestamp() - process.since)
    at = datetime.fromtimestamp(process.since, UTC)
    return f"{at:%Y-%m-%d %H:%M:%S} UTC ({seconds // 3600}h{seconds % 3600 // 60:02}m{seconds % 60:02}s)"
