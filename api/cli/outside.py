"""`outside`: a command as somebody outside of the cloud would run it, where floating IPs are reached."""

from __future__ import annotations

import os
import shutil

import click

from agents.network import namespace
from api.cli import choices, hypervisor, steering
from api.cli.screen import Failure
from bus.config import Settings


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
def outside(command: tuple[str, ...]) -> None:
    """Run a command in the world outside of this machine's cloud: `outside ssh cumulog@172.24.4.12`.

    The hosts of a cloud on one machine are network namespaces, and so is what lies around them.
    """
    line = [*prefix(choices.settings()), *command]
    if not shutil.which(command[0]):
        raise Failure(f"there is no program {command[0]}", "")
    os.execvp(line[0], line)


def prefix(settings: Settings) -> list[str]:
    """What to put before a command line so that it runs out there. Raises Failure."""
    import msgspec

    joined = steering.fabric(msgspec.structs.replace(settings, hypervisor=hypervisor.last(settings) or "none"))
    if joined is None or not namespace.exists(joined.outside):
        raise Failure(
            "this cloud has no outside on this machine",
            "It has one with real guests: `./cumulog up` as root on Debian.",
        )
    return ["nsenter", f"--net={namespace.FOLDER / joined.outside}", "--"]
