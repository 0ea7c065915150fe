"""`why`: why a server is on the host it is on, or on none; and where one would go that nobody has ordered."""

from __future__ import annotations

from typing import Any

import click

from api.cli import choices
from api.cli.client import login
from api.cli.screen import Failure, console


@click.command()
@click.argument("server", required=False)
@click.option("--flavor", help="Ask before ordering: a flavor's id or name.")
@click.option("--image", help="… an active image's id or name.")
@click.option("--zone", help="… in this availability zone.")
@click.option("--host", help="… on this host.")
@click.option("--project", "project_id", help="… for the project of this id.")
@click.option("--count", type=click.IntRange(1, 100), default=1, show_default=True, help="… so many of them.")
@click.option("--network", "networks", multiple=True, help="… in the network of this id; may be given again.")
@click.option("--hint", "hints", multiple=True, metavar="KEY=VALUE", help="… with this hint; may be given again.")
def why(
    server: str | None,
    flavor: str | None,
    image: str | None,
    zone: str | None,
    host: str | None,
    project_id: str | None,
    count: int,
    networks: tuple[str, ...],
    hints: tuple[str, ...],
) -> None:
    """Say why a server is on its host, or on none; or, with --flavor, where one would go.

    SERVER is the server's id.
    """
    if (server is None) == (flavor is None):
        raise Failure("nothing to explain", "Name a server, or ask with --flavor where one would go.")
    client = login(choices.settings())
    if server is not None:
        lines = about(client.get("log", f"/why/server/{server.removeprefix('server/')}"))
    else:
        asked = {"flavor": flavor, "image": image, "zone": zone, "host": host, "project_id": project_id}
        body: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
        body |= {"networks": networks} if networks else {}
        lines = before(client.post("log", "/why", {**body, "count": count, "scheduler_hints": _hints(hints)}))
    for line in lines:
        console().print(line, markup=False, highlight=False)


def about(told: dict[str, Any]) -> list[str]:
    """A server's state and its placements."""
    lines = [f"{told['now'][0].upper()}{told['now'][1:]}; {told['because']}"]
    for decision in told["placements"]:
        lines += ["", f"{decision['at'][:19].replace('T', ' ')} UTC", *(f"  {line}" for line in decision["words"])]
    return lines if told["placements"] else [*lines, "The scheduler has decided nothing about it."]


def before(answer: dict[str, Any]) -> list[str]:
    """The answer to a question about servers that are not there."""
    lines = [f"{answer['fit']} of {answer['of']} would fit."]
    counts = {host: answer["hosts"].count(host) for host in answer["hosts"]}
    lines += [f"  {host}: {count}" for host, count in counts.items()]
    lines += [f"  {line}" for line in answer["words"]]
    if answer["refused"]:
        lines += [answer["refused"]["reason"], *(f"  {line}" for line in answer["refused"]["words"])]
    return lines


def _hints(pairs: tuple[str, ...]) -> dict[str, list[str]]:
    hints: dict[str, list[str]] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not value:
            raise Failure(f"{pair!r} is no hint", "A hint is key=value, such as different_host=4f0c….")
        hints.setdefault(key, []).append(value)
    return hints
