"""`drift`: where servers, their claims, their ports and what their hosts hold do not agree."""

from __future__ import annotations

import click

from api.cli import choices
from api.cli.client import login
from api.cli.screen import console


@click.command()
def drift() -> None:
    """Show where servers, claims, ports and hosts differ; changes nothing. Ends with 1 if anything does."""
    found = login(choices.settings()).get("log", "/drift")["drift"]
    for it in found:
        console().print(f"{it['kind']:<15} {it['host']}  {it['server']}  {it['text']}", markup=False, highlight=False)
    if found:
        raise click.exceptions.Exit(1)
    console().print("Servers, claims, ports and hosts say the same.", highlight=False)
